//! 16: election safety (one leader a term), log matching (what is committed at an index is the same everywhere and for ever)
//! and leader completeness (a leader has all that was committed before it).

use std::collections::BTreeMap;

use coordinator::raft::Store;

use super::Invariant;
use crate::simulation::facts::Fact;
use crate::simulation::replicas::entry_digest;

#[derive(Default)]
pub(crate) struct Consensus {
    leaders: BTreeMap<u64, usize>,
    committed: BTreeMap<u64, (u64, u64)>,
}

impl Consensus {
    fn complete(&self, term: u64, store: &Store) -> Result<(), String> {
        let log = store.log(store.first(), u64::MAX);
        let held: BTreeMap<u64, (u64, u64)> =
            log.iter().map(|entry| (entry.index, (entry.term, entry_digest(entry)))).collect();
        for (index, entry) in self.committed.range(store.first()..).filter(|(_, (t, _))| *t < term) {
            if held.get(index) != Some(entry) {
                return Err(format!("the leader of term {term} lacks the committed entry {index} of term {}", entry.0));
            }
        }
        Ok(())
    }
}

impl Invariant for Consensus {
    fn name(&self) -> &'static str {
        "16 election safety, log matching, leader completeness"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Elected { replica, term, store } => {
                let first = *self.leaders.entry(*term).or_insert(*replica);
                if first != *replica {
                    return Err(format!("replicas {} and {} both lead in term {term}", first + 1, replica + 1));
                }
                self.complete(*term, store)
            }
            Fact::Committed { replica, index, term, digest } => {
                let first = *self.committed.entry(*index).or_insert((*term, *digest));
                if first != (*term, *digest) {
                    return Err(format!(
                        "replica {} committed an entry of term {term} at index {index}, where one of term {} was committed",
                        replica + 1,
                        first.0
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
