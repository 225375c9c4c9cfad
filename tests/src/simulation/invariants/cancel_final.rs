//! 20: a cancel is final: once it is acknowledged, nothing new of the workload is bound or started, and it ends Cancelled (or
//! as it had ended before).

use std::collections::BTreeMap;

use engine::lifecycle::Phase;
use engine::state::{State, Workload};
use protocol::ids::{AttemptNumber, LogIndex, Uid};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact, Short};

/// What is known of a workload whose end was asked for.
struct Asked {
    /// The first index at which some replica held that it was asked for.
    at: LogIndex,
    /// Its last attempt then.
    last: AttemptNumber,
}

#[derive(Default)]
pub(crate) struct CancelFinal {
    asked: BTreeMap<Uid, Asked>,
    acknowledged: BTreeMap<Uid, u64>,
}

impl CancelFinal {
    fn look(&mut self, workload: &Workload, at: LogIndex) -> Result<(), String> {
        let last = workload.attempts.last().map_or(AttemptNumber(0), |a| a.number);
        let uid = workload.uid;
        if let Some(asked) = self.asked.get(&uid) {
            if at < asked.at {
                return Ok(());
            }
            if !workload.cancel_requested {
                return Err(format!("the cancel of {} was in state at {} and is not at {at}", Short(uid), asked.at));
            }
            if last > asked.last {
                return Err(format!("{} got attempt {last} after its cancel", Short(uid)));
            }
            if !matches!(workload.phase, Phase::Draining | Phase::Cancelled) {
                return Err(format!("{} is {} after its cancel", Short(uid), workload.phase));
            }
        } else if workload.cancel_requested {
            self.asked.insert(uid, Asked { at, last });
        }
        Ok(())
    }

    /// Everything acknowledged before the read began shows in it.
    fn read(&self, state: &State, since_us: u64) -> Result<(), String> {
        for (uid, _) in self.acknowledged.iter().filter(|(_, at)| **at <= since_us) {
            let workload = state.by_uid.get(uid).and_then(|key| state.workloads.get(key));
            if let Some(workload) = workload
                && !workload.cancel_requested
                && !workload.phase.is_terminal()
            {
                return Err(format!("the cancel of {} was acknowledged, and a read does not see it", Short(*uid)));
            }
        }
        Ok(())
    }
}

impl Invariant for CancelFinal {
    fn name(&self) -> &'static str {
        "20 a cancel is final"
    }

    fn observe(&mut self, at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Ended { uid, .. } => {
                self.acknowledged.entry(*uid).or_insert(at_us);
                Ok(())
            }
            Fact::Applied { state, changed, .. } => changed
                .iter()
                .filter_map(|key| state.workloads.get(key))
                .try_for_each(|workload| self.look(workload, state.applied)),
            Fact::Read { since_us, state } => self.read(state, *since_us),
            Fact::Taken { order, .. } => match self.asked.get(&order.attempt.workload) {
                Some(asked) if order.attempt.number > asked.last => {
                    Err(format!("{} starts after its cancel", Attempt(order.attempt)))
                }
                _ => Ok(()),
            },
            Fact::Done { states } => states.iter().try_for_each(|state| self.read(state, at_us)),
            _ => Ok(()),
        }
    }
}
