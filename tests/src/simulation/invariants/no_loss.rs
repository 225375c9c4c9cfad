//! 1: a submission that was acknowledged is there, in every later linearizable read and in every replica at the end, unless
//! its deletion was asked for.

use std::collections::{BTreeMap, BTreeSet};

use engine::state::State;
use protocol::ids::{Uid, WorkloadKey};

use super::Invariant;
use crate::simulation::facts::{Fact, Short};

#[derive(Default)]
pub(crate) struct NoLoss {
    keys: BTreeMap<Uid, WorkloadKey>,
    acknowledged: BTreeMap<Uid, u64>,
    deleted: BTreeSet<Uid>,
}

impl NoLoss {
    fn look(&self, state: &State, since_us: u64, who: &str) -> Result<(), String> {
        for (uid, at) in &self.acknowledged {
            if *at > since_us || self.deleted.contains(uid) {
                continue;
            }
            let there = self.keys.get(uid).and_then(|key| state.workloads.get(key));
            if there.is_none_or(|workload| workload.uid != *uid) {
                let index = state.applied;
                return Err(format!("{} was acknowledged, and {who} at index {index} does not have it", Short(*uid)));
            }
        }
        Ok(())
    }
}

impl Invariant for NoLoss {
    fn name(&self) -> &'static str {
        "1 no acknowledged submission is lost"
    }

    fn observe(&mut self, at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Submitting { uid, key, .. } => {
                self.keys.insert(*uid, (*key).clone());
            }
            Fact::Submitted { uid } => {
                self.acknowledged.entry(*uid).or_insert(at_us);
            }
            Fact::Ending { uid, delete: true } => {
                self.deleted.insert(*uid);
            }
            Fact::Read { since_us, state } => return self.look(state, *since_us, "a linearizable read begun later"),
            Fact::Done { states } => {
                for (place, state) in states.iter().enumerate() {
                    self.look(state, at_us, &format!("replica {}", place + 1))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
