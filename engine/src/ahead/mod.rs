//! The time to come, as far as it can be told: a copy of the state, the very planner, and the ends that attempts are expected to have
//! (`queue::estimates`). Nobody submits anything, nothing fails, and everything ends when it is expected to. What has no expected end
//! stays. `forecast` asks when one workload starts, `whatif` what changes if the fleet, a pool or the line were different.
//!
//! Used for questions alone: nothing that is found here is ever committed. It begins with what the planner remembers, so that room is taken back
//! when that has lasted long enough. Who gives room is gone at once: times may be early by the grace that it has.

mod edits;
mod forecast;
mod whatif;

use std::collections::{BTreeMap, BTreeSet};

use protocol::control::{AttemptReport, AttemptState, GroupPlacement, Resized};
use protocol::ids::{AttemptNumber, ClusterName, LogIndex, NodeName, Uid, UnixMs, WorkloadKey};
use protocol::placement::{add, beyond};
use protocol::resources::Resources;

use crate::capacity::Capacity;
use crate::commands::{Command, Outcome, Refusal};
use crate::placement::rooms::{free, healthy};
use crate::plan::{Bounds, Kept, Memory, plan_again};
use crate::queue::SETTLING_MS;
use crate::queue::estimates::ends;
use crate::reasons::Basis;
use crate::state::{Attempt, State};

pub use edits::{Edit, EditFault};
pub use forecast::{Ended, Forecast, forecast};
pub use whatif::{Changes, Fate, FateChange, whatif};

/// Waiting workloads times plans, at most: about two seconds of work.
const MOST_WORK: usize = 1_000_000;
/// The most plans, whatever the line.
const MOST_PLANS: usize = 5_000;
/// The most bindings of one plan here.
const BINDINGS: usize = 256;

/// A workload started.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    key: WorkloadKey,
    cluster: ClusterName,
}

/// A workload gave room, all that it had or members, and starts again if it was all.
#[derive(Debug, Clone)]
pub(crate) struct Gave {
    room: WorkloadKey,
    to: WorkloadKey,
}

/// The time to come.
pub(crate) struct Ahead {
    state: State,
    capacity: Capacity,
    memory: Memory,
    kept: Kept,
    now: UnixMs,
    /// When room can be taken back again in a cluster in which attempts ended.
    settles: Option<UnixMs>,
    /// Who gave room to whom, in that order.
    gave: Vec<Gave>,
    /// Attempts that were met, each with its expected end: an end that has come must not be expected anew.
    met: BTreeSet<(Uid, AttemptNumber)>,
    /// What ends when, and on what that rests.
    agenda: BTreeMap<(UnixMs, Uid), (AttemptNumber, Basis)>,
    work: usize,
    plans: usize,
}

impl Ahead {
    /// From here on.
    pub(crate) fn new(state: State, capacity: Capacity, memory: Memory, at: UnixMs) -> Self {
        Self {
            now: state.now.max(at),
            state,
            capacity,
            memory,
            kept: Kept::default(),
            settles: None,
            gave: vec![],
            met: BTreeSet::new(),
            agenda: BTreeMap::new(),
            work: 0,
            plans: 0,
        }
    }

    /// Places what can be placed now. Returns who started, in that order.
    pub(crate) fn settle(&mut self) -> Vec<Started> {
        let mut started = vec![];
        while self.has_time() {
            self.plans += 1;
            self.work += self.state.waiting().len();
            let before = (&self.memory, &mut self.kept);
            let plan = plan_again(&self.state, &self.capacity, before, self.now, Bounds::of(BINDINGS));
            self.memory = plan.memory;
            let mut changed = false;
            for binding in plan.bindings {
                let (key, cluster) = (binding.key.clone(), binding.cluster.clone());
                if self.apply(Command::Bind(Box::new(binding))).is_ok() {
                    changed = true;
                    self.report(&key, AttemptState::Running);
                    started.push(Started { key, cluster });
                }
            }
            for raising in plan.raises {
                changed |= self.apply(Command::RaisePool(Box::new(raising))).is_ok();
            }
            for preemption in plan.preemptions {
                let victims: Vec<WorkloadKey> = preemption.victims.iter().map(|v| v.key.clone()).collect();
                let shrinks = preemption.shrinks.clone();
                let to = preemption.by.clone();
                if self.apply(Command::Preempt(Box::new(preemption))).is_ok() {
                    changed = true;
                    let givers = victims.iter().chain(shrinks.iter().map(|shrink| &shrink.key));
                    self.gave.extend(givers.map(|room| Gave { room: room.clone(), to: to.clone() }));
                    shrinks.iter().for_each(|shrink| self.shrunk(&shrink.key, &shrink.members));
                    victims.iter().for_each(|key| self.end(key, AttemptState::Stopped));
                }
            }
            for end in plan.drains {
                let key = end.key.clone();
                if self.apply(Command::EndDrained(Box::new(end))).is_ok() {
                    changed = true;
                    self.end(&key, AttemptState::Stopped);
                }
            }
            if !changed {
                break;
            }
        }
        self.meet();
        started
    }

    /// Whether there is time for another plan.
    pub(crate) fn has_time(&self) -> bool {
        self.plans < MOST_PLANS && self.work < MOST_WORK
    }

    /// Goes on to the next time at which something ends or is tried again; what ended. None where nothing is expected any more.
    pub(crate) fn advance(&mut self) -> Option<Vec<(WorkloadKey, Basis)>> {
        let end = self.agenda.keys().next().map(|(at, _)| *at);
        let again = self.state.indices.backoffs.iter().map(|(until, _)| *until).find(|until| *until > self.now);
        let failed =
            self.state.waiting().filter_map(|key| self.state.workloads.get(key)).filter(|w| !w.attempts.is_empty());
        let taken_again = failed.filter_map(|w| w.avoids(self.now).next_end()).min();
        let taken_back = [self.memory.next_lasted(self.now), self.settles.take()].into_iter().flatten();
        let taken_back = taken_back.filter(|at| *at > self.now && self.takes_back()).min();
        let next = [end, again, taken_again, taken_back].into_iter().flatten().min()?;
        self.now = self.now.max(next);
        let mut ended = vec![];
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let ((_, uid), (number, basis)) = entry.remove_entry();
            let Some(key) = self.state.by_uid.get(&uid).cloned() else { continue };
            let live = self.state.workloads.get(&key).and_then(|w| w.live_attempt());
            if let Some(attempt) = live.filter(|a| a.number == number) {
                let state = if attempt.stop.is_some() { AttemptState::Stopped } else { AttemptState::Succeeded };
                self.end(&key, state);
                ended.push((key, basis));
            }
        }
        Some(ended)
    }

    /// Whether anybody ever has to give room, and somebody waits for some.
    fn takes_back(&self) -> bool {
        let gives = !self.state.pools.is_plain() || !self.state.indices.elastic.is_empty();
        gives && self.state.waiting().next().is_some()
    }

    /// How many live attempts have no expected end.
    pub(crate) fn endless(&self) -> u64 {
        let expected: BTreeSet<Uid> = self.agenda.keys().map(|(_, uid)| *uid).collect();
        let live = self.state.indices.live.values().flat_map(BTreeMap::values);
        let uids = live.filter_map(|key| self.state.workloads.get(key)).map(|w| w.uid);
        uids.filter(|uid| !expected.contains(uid)).count() as u64
    }

    /// Notes when attempts that are new here are expected to end.
    fn meet(&mut self) {
        let live: Vec<&WorkloadKey> = self.state.indices.live.values().flat_map(BTreeMap::values).collect();
        for workload in live.into_iter().filter_map(|key| self.state.workloads.get(key)) {
            let Some(attempt) = workload.live_attempt() else { continue };
            if self.met.insert((workload.uid, attempt.number))
                && let Some((at, basis)) = ends(&self.state, workload, attempt, self.now)
            {
                self.agenda.insert((at, workload.uid), (attempt.number, basis));
            }
        }
    }

    /// Applies a command.
    fn apply(&mut self, command: Command) -> Result<Outcome, Refusal> {
        let index = LogIndex(self.state.applied.0 + 1);
        self.state.apply(index, &command, self.now).outcome
    }

    /// The agent's word on a workload's live attempt.
    fn report(&mut self, key: &WorkloadKey, state: AttemptState) {
        let Some(workload) = self.state.workloads.get(key) else { return };
        let Some(attempt) = workload.live_attempt() else { return };
        let revision = attempt.revision + 1;
        let report = AttemptReport {
            attempt: workload.attempt_id(attempt.number),
            revision,
            state,
            resized: None,
            at: self.now,
        };
        let cluster = attempt.cluster.clone();
        // One that is refused changes nothing: the attempt goes on.
        let _outcome = self.apply(Command::Report { cluster, report });
    }

    /// A live attempt ends, and its room is free.
    fn end(&mut self, key: &WorkloadKey, state: AttemptState) {
        let attempt = self.state.workloads.get(key).and_then(|w| w.live_attempt()).cloned();
        let Some(attempt) = attempt else { return };
        // Nothing is learnt from runs that are imagined.
        let durations = std::mem::take(&mut self.state.durations);
        self.report(key, state);
        self.state.durations = durations;
        let held: Vec<GroupPlacement> = attempt.held().cloned().collect();
        self.free(&attempt, &held);
    }

    /// Members of a live attempt are gone, and their room is free.
    fn shrunk(&mut self, key: &WorkloadKey, members: &[GroupPlacement]) {
        let Some(workload) = self.state.workloads.get(key) else { return };
        let Some(attempt) = workload.live_attempt().cloned() else { return };
        let report = AttemptReport {
            attempt: workload.attempt_id(attempt.number),
            revision: attempt.revision + 1,
            state: attempt.reported.clone().unwrap_or(AttemptState::Running),
            resized: attempt.resize.as_ref().map(|r| Resized { number: r.number, settled: true, missing: vec![] }),
            at: self.now,
        };
        let _outcome = self.apply(Command::Report { cluster: attempt.cluster.clone(), report });
        self.free(&attempt, members);
    }

    /// The room of an attempt's members is free.
    fn free(&mut self, attempt: &Attempt, members: &[GroupPlacement]) {
        give_back(&mut self.capacity, &self.state, attempt, members);
        self.settles = Some(UnixMs(self.now.0.saturating_add(SETTLING_MS)));
    }
}

/// The room of an attempt's members is free in its cluster's frame, where that had them. The frame never had those in flight.
fn give_back(capacity: &mut Capacity, state: &State, attempt: &Attempt, groups: &[GroupPlacement]) {
    let Some(frame) = capacity.clusters.get_mut(&attempt.cluster) else { return };
    let life = state.clusters.get(&attempt.cluster).map(|c| c.incarnation);
    if Some(attempt.incarnation) != life {
        return;
    }
    let mut seen = vec![];
    add(&mut seen, groups);
    let unseen: Vec<GroupPlacement> = attempt.unseen(frame.watermark).flatten().cloned().collect();
    let seen = beyond(&seen, &unseen);
    let mut held: BTreeMap<&NodeName, Vec<(Resources, u64)>> = BTreeMap::new();
    for group in &seen {
        for share in &group.nodes {
            held.entry(&share.node).or_default().push((group.each, u64::from(share.members)));
        }
    }
    for node in &mut frame.nodes {
        let (Some(held), Some(whole)) = (held.get(&node.name), healthy(node)) else { continue };
        let mut free = free(node);
        held.iter().for_each(|(each, members)| free.give(each, *members));
        let most = whole.all;
        node.free = Resources {
            cpu_milli: free.all.cpu_milli.min(most.cpu_milli),
            memory_mib: free.all.memory_mib.min(most.memory_mib),
            gpu_milli: free.all.gpu_milli.min(most.gpu_milli),
        };
    }
}
