//! 21: terminal phases absorb: what has ended stays as it ended, in every replica, and nothing of it starts again.

use std::collections::BTreeMap;

use engine::lifecycle::Phase;
use protocol::ids::{LogIndex, Uid};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact, Short};

#[derive(Default)]
pub(crate) struct Terminal {
    ended: BTreeMap<Uid, (LogIndex, Phase)>,
}

impl Invariant for Terminal {
    fn name(&self) -> &'static str {
        "21 terminal phases absorb"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Applied { state, changed, .. } => {
                for workload in changed.iter().filter_map(|key| state.workloads.get(key)) {
                    let ended = match workload.phase {
                        Phase::Succeeded | Phase::Failed | Phase::Cancelled => Some((state.applied, workload.phase)),
                        _ => None,
                    };
                    match (self.ended.get(&workload.uid), ended) {
                        (Some((index, phase)), _) if state.applied >= *index && workload.phase != *phase => {
                            let (uid, now) = (Short(workload.uid), workload.phase);
                            return Err(format!(
                                "{uid} was {phase} at index {index} and is {now} at {}",
                                state.applied
                            ));
                        }
                        (None, Some(ended)) => {
                            self.ended.insert(workload.uid, ended);
                        }
                        _ => {}
                    }
                }
                Ok(())
            }
            Fact::Taken { order, .. } => match self.ended.get(&order.attempt.workload) {
                Some((index, phase)) => {
                    Err(format!("{} starts, and its workload was {phase} at index {index}", Attempt(order.attempt)))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
