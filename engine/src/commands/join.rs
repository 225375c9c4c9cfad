//! A cluster joins or returns, with everything that its agent holds. What the agent says, and what it is silent about,
//! settles every live attempt there:
//!
//! | the agent | then the attempt |
//! |---|---|
//! | reports it | is as reported; a life of the agent that did not hold it before holds it now |
//! | is silent, in the life that holds it, and has made its launch durable | is gone: an infrastructure failure |
//! | is silent, in the life that holds it, and has not | never began; its launch is sent again |
//! | is silent, in another life (its records were wiped) | may run on unseen: `Unknown`, and never replaced |
//!
//! The last stays `Unknown` until some life of the agent reports it, or until a person says that it is gone (see `forget`).
//! A person's cancel makes it `Draining` and can't end it either: this agent would call gone what it never knew.

use std::collections::BTreeSet;

use protocol::control::{AttemptReport, AttemptState, ClusterInfo};
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, ClusterName, CommandNumber, Incarnation, WorkloadKey};

use super::cordon::removed;
use super::end::end_attempt;
use super::report::{Held, progress};
use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::{Event, Phase};
use crate::state::{Cluster, Happening};

impl Step<'_> {
    pub(super) fn join(
        &mut self,
        info: &ClusterInfo,
        incarnation: Incarnation,
        last_command: CommandNumber,
        attempts: &[AttemptReport],
    ) -> Result<Outcome, Refusal> {
        let cluster = &info.name;
        if self.state.removed.get(cluster).is_some_and(|removal| !removal.readmitted) {
            return Err(removed(self.state, cluster));
        }
        self.admit(info, incarnation, last_command);
        let orphans = self.hear(cluster, incarnation, attempts);
        let reported: BTreeSet<AttemptId> = attempts.iter().map(|r| r.attempt).collect();
        for key in self.live_keys(cluster) {
            self.judge_silence(&key, &reported, incarnation, last_command);
        }
        for key in self.live_keys(cluster) {
            self.bring_back(&key, incarnation);
        }
        for (number, order) in self.state.outstanding(cluster) {
            self.send(cluster, number, order);
        }
        for attempt in orphans {
            self.stop_orphan(cluster, attempt);
        }
        Ok(Outcome::Done)
    }

    fn admit(&mut self, info: &ClusterInfo, incarnation: Incarnation, last_command: CommandNumber) {
        let now = self.now;
        let before = self.state.removed.remove(&info.name).map(|removal| removal.last_command);
        let member = self.state.clusters.entry(info.name.clone()).or_insert_with(|| Cluster {
            info: info.clone(),
            incarnation,
            last_command,
            lost_since: None,
            cordon: None,
            joined_at: now,
            version: self.index,
        });
        member.info = info.clone();
        member.incarnation = incarnation;
        // A number that the agent has seen is never given out again.
        member.last_command = member.last_command.max(last_command).max(before.unwrap_or_default());
        member.lost_since = None;
        self.cluster_changed(&info.name);
    }

    /// Takes the agent's word on each attempt; returns those that no live workload owns.
    fn hear(&mut self, cluster: &ClusterName, incarnation: Incarnation, attempts: &[AttemptReport]) -> Vec<AttemptId> {
        let mut orphans = vec![];
        for report in attempts {
            match self.held(cluster, report.attempt) {
                Held::Live(key) => {
                    self.adopt(&key, incarnation);
                    self.take_word(&key, report);
                }
                _ if !report.state.is_final() => {
                    orphans.push(report.attempt);
                    continue;
                }
                _ => {}
            }
            self.committed(cluster, report.attempt, report.revision);
        }
        orphans
    }

    /// Another life of the agent found this attempt running: it holds it from now on. Its revisions begin anew, and a stop is
    /// given a number that it can't have seen.
    fn adopt(&mut self, key: &WorkloadKey, incarnation: Incarnation) {
        let Some(attempt) = self.state.workloads.get(key).and_then(|w| w.live_attempt()) else { return };
        if attempt.incarnation == incarnation {
            return;
        }
        let cluster = attempt.cluster.clone();
        let resized = attempt.resize.is_some();
        let stop = attempt.stop.and_then(|(_, cause)| Some((self.next_number(&cluster)?, cause)));
        let resize = if resized { self.next_number(&cluster) } else { None };
        self.change(key, |w, _| {
            if let Some(attempt) = w.attempts.last_mut() {
                attempt.incarnation = incarnation;
                attempt.revision = 0;
                attempt.stop = stop;
                if let (Some(number), Some(known)) = (resize, &mut attempt.resize) {
                    (known.number, known.settled) = (number, false);
                }
            }
        });
    }

    fn judge_silence(
        &mut self,
        key: &WorkloadKey,
        reported: &BTreeSet<AttemptId>,
        incarnation: Incarnation,
        last_command: CommandNumber,
    ) {
        let Some(workload) = self.state.workloads.get(key) else { return };
        let Some(attempt) = workload.live_attempt() else { return };
        if reported.contains(&workload.attempt_id(attempt.number)) {
            return;
        }
        if attempt.incarnation != incarnation {
            let what = Happening::ClusterReplaced { cluster: attempt.cluster.clone() };
            let said = workload.timeline.last().is_some_and(|m| m.what == what);
            if !said {
                self.change(key, |w, now| w.enter(Event::Lost, what, now));
            }
        } else if attempt.launch <= last_command {
            let gone = AttemptState::Failed {
                class: FailureClass::Infrastructure,
                message: "the agent has no record of it".into(),
                exit_code: None,
            };
            self.change(key, |w, now| {
                if let Some(attempt) = w.attempts.last_mut() {
                    attempt.reported = Some(gone.clone());
                }
                end_attempt(w, &gone, now);
            });
        }
    }

    /// What was Unknown only because its cluster was not heard from is again as it was last reported.
    fn bring_back(&mut self, key: &WorkloadKey, incarnation: Incarnation) {
        let Some(workload) = self.state.workloads.get(key) else { return };
        let Some(attempt) = workload.live_attempt() else { return };
        if workload.phase != Phase::Unknown || attempt.incarnation != incarnation {
            return;
        }
        let event = attempt.reported.as_ref().and_then(progress).unwrap_or(Event::Returned);
        let what = Happening::ClusterReturned { cluster: attempt.cluster.clone() };
        self.change(key, |w, now| w.enter(event, what, now));
    }

    pub(super) fn live_keys(&self, cluster: &ClusterName) -> Vec<WorkloadKey> {
        self.state.live_in(cluster).map(|(w, _)| w.key.clone()).collect()
    }
}
