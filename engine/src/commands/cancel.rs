//! A person asks for a workload's end, and perhaps that its record goes. Once acknowledged it is final: whatever is heard of
//! the attempt afterwards, the workload ends `Cancelled`.
//!
//! An attempt that only an earlier life of its agent knew can't be ended, for nobody is there who could see it gone: it stays
//! `Draining` until the attempt is reported (see `join`).

use protocol::control::StopCause;
use protocol::ids::{CommandNumber, WorkloadKey};

use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::{Event, Phase};
use crate::state::Happening;
use crate::state::outstanding::stop_order;

/// What becomes of the record once the workload is terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
}

impl Step<'_> {
    pub(super) fn cancel(&mut self, key: &WorkloadKey, record: Record) -> Result<Outcome, Refusal> {
        let Some(workload) = self.state.workloads.get(key) else {
            return Err(Refusal::NoWorkload { key: key.clone() });
        };
        let (phase, version) = (workload.phase, workload.version);
        let ask = !phase.is_terminal() && !workload.cancel_requested;
        let mark = record == Record::Remove && !workload.delete_requested;
        if !ask && !mark {
            return Ok(Outcome::Ended { phase, version });
        }
        let stop = if ask { self.stop_number(key) } else { None };
        self.change(key, |w, now| {
            w.delete_requested |= mark;
            if ask {
                w.cancel_requested = true;
                w.not_before = None;
                if let (Some(number), Some(attempt)) = (stop, w.attempts.last_mut()) {
                    attempt.stop = Some((number, StopCause::Cancelled));
                }
                w.enter(Event::Cancel, Happening::CancelRequested, now);
            }
        });
        if ask {
            self.send_stop(key);
        }
        let phase = phase_after(phase, ask);
        Ok(Outcome::Ended { phase, version: self.index })
    }

    /// Asks for the end of a workload's live attempt, which is the event that happens to it; false where there is none.
    pub(super) fn ask_to_end(&mut self, key: &WorkloadKey, cause: StopCause, event: Event, what: Happening) -> bool {
        let Some(number) = self.stop_number(key) else { return false };
        self.change(key, |w, now| {
            if let Some(attempt) = w.attempts.last_mut() {
                attempt.stop = Some((number, cause));
            }
            w.enter(event, what, now);
        });
        self.send_stop(key);
        true
    }

    /// The number of the order to stop, where there is something to stop.
    pub(super) fn stop_number(&mut self, key: &WorkloadKey) -> Option<CommandNumber> {
        let cluster = self.state.workloads.get(key)?.live_attempt()?.cluster.clone();
        self.next_number(&cluster)
    }

    pub(super) fn send_stop(&mut self, key: &WorkloadKey) {
        let Some(workload) = self.state.workloads.get(key) else { return };
        let Some(attempt) = workload.live_attempt() else { return };
        let cluster = attempt.cluster.clone();
        let known = self.state.clusters.get(&cluster).is_some_and(|c| c.incarnation == attempt.incarnation);
        if let Some((number, order)) = stop_order(workload, attempt).filter(|_| known) {
            self.send(&cluster, number, order);
        }
    }
}

/// The phase that the cancel led to: the record itself may be gone.
fn phase_after(before: Phase, asked: bool) -> Phase {
    if asked { before.after(Event::Cancel).unwrap_or(before) } else { before }
}
