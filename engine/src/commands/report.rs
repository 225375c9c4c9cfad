//! An agent's word on one attempt. Agents say it again until they hear that it is committed, so every report is answered,
//! also one that changes nothing.

use protocol::control::{AttemptReport, AttemptState, Order, Resized, StopCause, StopOrder};
use protocol::ids::{AttemptId, ClusterName, UnixMs, WorkloadKey};
use protocol::placement::all_members;

use super::end::end_attempt;
use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::{Event, Phase};
use crate::state::outstanding::GRACE_MS;
use crate::state::{Happening, Kind, Workload};

/// What state holds of an attempt that a cluster speaks of.
pub(super) enum Held {
    /// It is the live attempt of this workload, there.
    Live(WorkloadKey),
    /// It was there and ended; its last recorded revision.
    Ended(u64),
    /// State knows of no such attempt there.
    Not,
}

impl Step<'_> {
    pub(super) fn report(&mut self, cluster: &ClusterName, report: &AttemptReport) -> Result<Outcome, Refusal> {
        if !self.state.clusters.contains_key(cluster) {
            return Err(Refusal::NoCluster { cluster: cluster.clone() });
        }
        match self.held(cluster, report.attempt) {
            Held::Live(key) => self.take_word(&key, report),
            Held::Ended(revision) if report.state.is_final() || report.revision <= revision => {}
            Held::Ended(_) | Held::Not => {
                if report.state.is_final() {
                    // The agent may forget it.
                    self.committed(cluster, report.attempt, report.revision);
                } else {
                    self.stop_orphan(cluster, report.attempt);
                }
                return Err(Refusal::StrayReport { cluster: cluster.clone(), attempt: report.attempt });
            }
        }
        self.committed(cluster, report.attempt, report.revision);
        Ok(Outcome::Done)
    }

    pub(super) fn held(&self, cluster: &ClusterName, id: AttemptId) -> Held {
        let workload = self.state.by_uid.get(&id.workload).and_then(|key| self.state.workloads.get(key));
        let Some(workload) = workload else { return Held::Not };
        match workload.attempts.iter().find(|a| a.number == id.number && a.cluster == *cluster) {
            Some(attempt) if attempt.ended_at.is_some() => Held::Ended(attempt.revision),
            Some(_) => Held::Live(workload.key.clone()),
            None => Held::Not,
        }
    }

    /// Takes the word on a live attempt, unless it is an old one.
    pub(super) fn take_word(&mut self, key: &WorkloadKey, report: &AttemptReport) {
        let Some(attempt) = self.state.workloads.get(key).and_then(|w| w.live_attempt()) else { return };
        if report.revision <= attempt.revision {
            return;
        }
        let member = self.state.clusters.get(&attempt.cluster);
        // A late word of an agent's earlier life tells nothing of what its present life holds: it can't end the Unknown.
        let stranger = member.is_some_and(|c| c.incarnation != attempt.incarnation);
        if report.state == AttemptState::Succeeded {
            self.learn(key);
        }
        self.change(key, |w, now| {
            let Some(attempt) = w.attempts.last_mut() else { return };
            attempt.revision = report.revision;
            let known = attempt.reported.as_ref() == Some(&report.state);
            attempt.reported = Some(report.state.clone());
            if report.state == AttemptState::Running {
                attempt.running_at.get_or_insert(now);
            }
            if report.state.is_final() {
                return end_attempt(w, &report.state, now);
            }
            if let Some(word) = &report.resized {
                hear_of_size(w, word, now);
                if known && w.phase == Phase::Running {
                    return;
                }
            }
            let what = Happening::Reported { attempt: report.attempt.number, state: report.state.clone() };
            match progress(&report.state) {
                Some(event) if !(stranger && w.phase == Phase::Unknown) => w.enter(event, what, now),
                _ => w.remember(what, now),
            }
        });
    }

    /// How long a workload ran that succeeds now: what others of its kind are expected to take. One that was preempted may have gone on
    /// from where it was, so that its last attempt tells nothing.
    fn learn(&mut self, key: &WorkloadKey) {
        let Some(workload) = self.state.workloads.get(key) else { return };
        let running = workload.live_attempt().and_then(|attempt| attempt.running_at);
        let (Some(since), Some(kind)) = (running, Kind::of(workload)) else { return };
        if workload.attempts.iter().all(|a| !a.is_preempted()) {
            self.state.durations.record(kind, self.now.0.saturating_sub(since.0));
        }
    }

    /// Tells an agent to end what no live workload owns. Not kept in state: the agent speaks of it until it is gone, and each
    /// time is told again.
    pub(super) fn stop_orphan(&mut self, cluster: &ClusterName, attempt: AttemptId) {
        if let Some(number) = self.next_number(cluster) {
            let order = Order::Stop(StopOrder { attempt, cause: StopCause::Orphaned, grace_ms: GRACE_MS });
            self.send(cluster, number, order);
        }
    }
}

/// Takes in how far an agent is with a resize.
fn hear_of_size(workload: &mut Workload, word: &Resized, now: UnixMs) {
    let Some(attempt) = workload.attempts.last_mut() else { return };
    let missing = attempt.hear_of_size(word, &workload.spec, now);
    let attempt = attempt.number;
    if !missing.is_empty() {
        let (members, size) = (all_members(&missing), workload.size().map_or(0, |(size, ..)| size));
        workload.remember(Happening::Missing { attempt, members, size }, now);
    }
}

/// The event that a state means, where it is not final.
pub(super) fn progress(state: &AttemptState) -> Option<Event> {
    match state {
        AttemptState::Accepted => Some(Event::Accepted),
        AttemptState::Starting { .. } => Some(Event::Starting),
        AttemptState::Running => Some(Event::Running),
        AttemptState::Succeeded | AttemptState::Failed { .. } | AttemptState::Stopped => None,
    }
}
