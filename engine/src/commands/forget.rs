//! A person says that an attempt is gone, which nobody in the federation can see any more: its agent's records were wiped,
//! and the agent of today neither holds it nor can tell. The attempt ends as a failure of the infrastructure, for the reason
//! that the person gave; its workload goes on as after any such failure, or ends where its end was asked for.
//!
//! It is the one way by which an attempt ends unseen, so it is refused wherever somebody can still see: where the agent
//! that holds the attempt is the cluster's agent of today, and also while that is lost, for it may come back.

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, AttemptNumber, WorkloadKey};

use super::end::end_attempt;
use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::Phase;
use crate::state::{Happening, State, Workload};

/// Most characters of a reason.
pub const MAX_REASON: usize = 300;

impl Step<'_> {
    pub(super) fn forget(&mut self, key: &WorkloadKey, attempt: AttemptId, reason: &str) -> Result<Outcome, Refusal> {
        let Some(workload) = self.state.workloads.get(key) else {
            return Err(Refusal::NoWorkload { key: key.clone() });
        };
        if forgotten(workload, attempt) {
            // The same word again, from a client that did not hear the answer.
            return Ok(Outcome::Ended { phase: workload.phase, version: workload.version });
        }
        abandoned(self.state, workload, attempt).map_err(|why| Refusal::NotAbandoned { key: key.clone(), why })?;
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let phase = self.call_gone(key, attempt.number, &reason);
        Ok(Outcome::Ended { phase, version: self.index })
    }

    /// A workload's live attempt is gone, as a person says; the phase that this leads to.
    pub(super) fn call_gone(&mut self, key: &WorkloadKey, attempt: AttemptNumber, reason: &str) -> Phase {
        let gone = AttemptState::Failed {
            class: FailureClass::Infrastructure,
            message: format!("a person says that it is gone: {reason}"),
            exit_code: None,
        };
        let mut phase = Phase::Queued;
        self.change(key, |w, now| {
            w.remember(Happening::Forgotten { attempt, reason: reason.to_owned() }, now);
            if let Some(last) = w.attempts.last_mut() {
                last.reported = Some(gone.clone());
            }
            end_attempt(w, &gone, now);
            phase = w.phase;
        });
        phase
    }
}

fn forgotten(workload: &Workload, attempt: AttemptId) -> bool {
    let said = |what: &Happening| matches!(what, Happening::Forgotten { attempt: n, .. } if *n == attempt.number);
    workload.uid == attempt.workload && workload.timeline.iter().any(|m| said(&m.what))
}

/// Whether nobody can see an attempt any more; else why not, and what to do.
fn abandoned(state: &State, workload: &Workload, attempt: AttemptId) -> Result<(), String> {
    if workload.uid != attempt.workload {
        return Err(format!("the name belongs to another workload now (uid {})", workload.uid));
    }
    let number = attempt.number;
    let Some(live) = workload.live_attempt() else {
        return Err(format!("it is {}, and no attempt of it is left to forget", workload.phase));
    };
    if live.number != number {
        return Err(format!("attempt {number} is not its last one, which is {}", live.number));
    }
    let cluster = &live.cluster;
    match state.clusters.get(cluster) {
        None => Ok(()),
        Some(member) if member.incarnation != live.incarnation => Ok(()),
        Some(member) if member.lost_since.is_some() => Err(format!(
            "{cluster} is not heard from, and its agent may come back and go on with attempt {number}; where it never will, \
             `tidewater cluster remove {cluster} --lost-for-good` says so of all that was there"
        )),
        Some(_) => Err(format!(
            "the agent of {cluster} holds attempt {number} and sees when it is gone; `tidewater cancel {}` ends it",
            workload.key.name
        )),
    }
}

/// Whether a workload's live attempt is one that only a person can call gone.
pub(crate) fn is_abandoned(state: &State, workload: &Workload) -> bool {
    let live = workload.live_attempt();
    live.is_some_and(|live| abandoned(state, workload, workload.attempt_id(live.number)).is_ok())
}
