//! An attempt has ended itself, for nobody let it go on: its cluster was not heard from for so long. What asks for this is the leader,
//! which alone may let attempts go on and knows when it last did (the coordinator's `sessions::fences`); clocks are not in the log. What
//! state can tell is checked again: that the leader's reign is the present one, that the attempt ends itself at all, and that nobody sees
//! it: its cluster is lost, or the agent there is another than the one that held it. The attempt ends as a failure of the infrastructure; its workload goes on as after any such failure, or ends
//! where its end was asked for.

use bincode::{Decode, Encode};
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::{AttemptNumber, Epoch, Uid, WorkloadKey};
use protocol::resources::Span;
use protocol::workload::WorkloadSpec;

use super::end::end_attempt;
use super::step::Step;
use super::{Outcome, Refusal};
use crate::planted;
use crate::state::State;

/// An attempt that has ended itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Fence {
    /// The epoch of the leader that let it go on no more; must be the current one.
    pub epoch: Epoch,
    /// The workload.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// Its live attempt.
    pub attempt: AttemptNumber,
}

/// What an attempt has to end itself in, from its deadline on, in ms: the ten seconds between its polite and its hard end, and as long again.
const END_MS: u64 = 20_000;
/// A part in so many by which two monotonic clocks may differ in speed.
const DRIFT: u64 = 100;

/// How long after it was last let go on an attempt of this workload is gone for certain, in ms: its own time, what its end takes, and what
/// clocks may differ by meanwhile. None: it never ends itself.
pub fn fence_passes_after(spec: &WorkloadSpec) -> Option<u64> {
    let Span(after) = spec.fence()?;
    let inner = after.saturating_add(END_MS);
    Some(inner.saturating_add(inner / DRIFT))
}

impl Step<'_> {
    pub(super) fn fence(&mut self, fence: &Fence) -> Result<Outcome, Refusal> {
        let after = check(self.state, fence).map_err(|why| Refusal::NotFenced { key: fence.key.clone(), why })?;
        self.change(&fence.key, |w, now| {
            let Some(last) = w.attempts.last_mut() else { return };
            let cluster = &last.cluster;
            let gone = AttemptState::Failed {
                class: FailureClass::Infrastructure,
                message: format!(
                    "it ended itself: {cluster} was not heard from for longer than {after} (spec.failoverAfter)"
                ),
                exit_code: None,
            };
            last.reported = Some(gone.clone());
            end_attempt(w, &gone, now);
        });
        Ok(Outcome::Done)
    }
}

/// How long the attempt went on alone, where it is gone; else why it may not be taken for gone.
fn check(state: &State, fence: &Fence) -> Result<Span, String> {
    if fence.epoch != state.epoch && !planted::is("forget-epoch-check") {
        return Err(format!("it was asked for in epoch {}; now it is {}", fence.epoch, state.epoch));
    }
    let workload = state.workloads.get(&fence.key).filter(|w| w.uid == fence.uid).ok_or("the workload is gone")?;
    let after = workload.spec.fence().ok_or("its attempts do not end themselves (spec.onClusterLoss)")?;
    let live = workload.live_attempt().filter(|a| a.number == fence.attempt);
    let live = live.ok_or_else(|| format!("attempt {} does not live any more", fence.attempt))?;
    let member = state.clusters.get(&live.cluster);
    let seen = member.is_some_and(|m| m.lost_since.is_none() && m.incarnation == live.incarnation);
    match seen {
        true => Err(format!("cluster {} is heard from, and sees attempt {}", live.cluster, live.number)),
        false => Ok(after),
    }
}
