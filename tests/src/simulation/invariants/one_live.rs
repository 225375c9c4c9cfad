//! 4: at most one attempt of a workload is alive in the whole fleet, and no attempt is started twice. By the runtimes' own
//! ledger: no state and no report is asked.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{AttemptId, Uid};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact};

#[derive(Default)]
pub(crate) struct OneLive {
    ordered: BTreeSet<AttemptId>,
    taken: BTreeSet<AttemptId>,
    live: BTreeMap<Uid, (AttemptId, usize)>,
}

impl Invariant for OneLive {
    fn name(&self) -> &'static str {
        "4 at most one live attempt of a workload, each started at most once"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::StartOrdered { agent, attempt } if !self.ordered.insert(*attempt) => {
                return Err(format!("agent {} orders a second start of {}", agent + 1, Attempt(*attempt)));
            }
            Fact::Taken { cluster, order, .. } => {
                let attempt = order.attempt;
                if !self.taken.insert(attempt) {
                    return Err(format!("runtime {} starts {} again", cluster + 1, Attempt(attempt)));
                }
            }
            Fact::Begun { cluster, attempt } => {
                if let Some((other, there)) = self.live.insert(attempt.workload, (*attempt, *cluster)) {
                    return Err(format!(
                        "{} begins in cluster {} while {} is alive in cluster {}",
                        Attempt(*attempt),
                        cluster + 1,
                        Attempt(other),
                        there + 1
                    ));
                }
            }
            Fact::Gone { attempt, .. } if self.live.get(&attempt.workload).is_some_and(|(id, _)| id == attempt) => {
                self.live.remove(&attempt.workload);
            }
            _ => {}
        }
        Ok(())
    }
}
