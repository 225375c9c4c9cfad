//! 15: replicas that have applied the same entries hold the same state.

use std::collections::BTreeMap;

use super::Invariant;
use crate::simulation::facts::Fact;

#[derive(Default)]
pub(crate) struct StateHash {
    first: BTreeMap<u64, (usize, u32)>,
}

impl Invariant for StateHash {
    fn name(&self) -> &'static str {
        "15 equal index, equal state hash"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        let Fact::Hash { replica, index, hash } = fact else { return Ok(()) };
        let (first, expected) = *self.first.entry(*index).or_insert((*replica, *hash));
        if expected != *hash {
            let (a, b) = (first + 1, replica + 1);
            return Err(format!("after entry {index} replica {a} has {expected:08x} and replica {b} has {hash:08x}"));
        }
        Ok(())
    }
}
