//! 5: attempt numbers grow, in what runs and in what every replica holds.

use std::collections::BTreeMap;

use protocol::ids::{AttemptNumber, Uid};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact, Short};

#[derive(Default)]
pub(crate) struct AttemptsGrow {
    started: BTreeMap<Uid, AttemptNumber>,
    /// By replica and workload: the index at which it was seen, and its last attempt then.
    held: BTreeMap<Uid, (u64, AttemptNumber)>,
}

impl Invariant for AttemptsGrow {
    fn name(&self) -> &'static str {
        "5 attempt numbers grow"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Taken { order, .. } => {
                let before = self.started.insert(order.attempt.workload, order.attempt.number);
                if let Some(before) = before.filter(|before| *before >= order.attempt.number) {
                    return Err(format!("{} starts after attempt {before}", Attempt(order.attempt)));
                }
            }
            Fact::Applied { state, changed, .. } => {
                for workload in changed.iter().filter_map(|key| state.workloads.get(key)) {
                    let numbers: Vec<AttemptNumber> = workload.attempts.iter().map(|a| a.number).collect();
                    if numbers.windows(2).any(|pair| pair[1] <= pair[0]) {
                        return Err(format!("{} has attempts {numbers:?}", Short(workload.uid)));
                    }
                    let last = numbers.last().copied().unwrap_or_default();
                    let seen = self.held.entry(workload.uid).or_insert((state.applied.0, last));
                    if state.applied.0 >= seen.0 {
                        if last < seen.1 {
                            let uid = Short(workload.uid);
                            return Err(format!(
                                "{uid} had attempt {} at index {} and has {last} later",
                                seen.1, seen.0
                            ));
                        }
                        *seen = (state.applied.0, last);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}
