//! Views of the workloads by what is asked for most: who waits, in order, and what lives in a cluster. Kept in step by
//! `State::change` and never stored: a snapshot's reader makes them again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ClusterName, CommandNumber, DataName, PoolName, Uid, UnixMs, WorkloadKey};

use super::live::LiveViews;
use super::waiters::Likenesses;
use super::{Attempt, State, Workload};
use crate::lifecycle::Phase;
use crate::placement::mix::Mix;
use crate::pools::usage::{self, Usage, UsageByPool};

/// A place in line: higher priority first, then earlier submission, as far as the pool does not let it stand later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    priority: Reverse<i32>,
    stands: UnixMs,
    order: u64,
}

impl Line {
    /// A workload's place in line.
    pub(crate) fn of(workload: &Workload) -> Self {
        let stands = UnixMs(workload.submitted_at.0.saturating_add(workload.late_ms));
        Self { priority: Reverse(workload.spec.priority), stands, order: workload.order }
    }

    /// When it was submitted, among all workloads.
    pub(crate) fn order(&self) -> u64 {
        self.order
    }
}

/// The views.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Indices {
    /// Queued workloads, in the order in which they are placed.
    pub(crate) queue: BTreeMap<Line, WorkloadKey>,
    /// What makes queued workloads alike.
    pub(crate) likenesses: Likenesses,
    /// Workloads with a live attempt, by its cluster and launch.
    pub(crate) live: BTreeMap<ClusterName, BTreeMap<CommandNumber, WorkloadKey>>,
    /// Some of them.
    pub(crate) live_views: LiveViews,
    /// Workloads with a live attempt whose size may change.
    pub(crate) elastic: BTreeSet<WorkloadKey>,
    /// Workloads with a live attempt that was let past waiting ones, by those others.
    pub(crate) passers: BTreeMap<Uid, BTreeSet<WorkloadKey>>,
    /// What each pool's workloads hold and wait for.
    pub(crate) usage: UsageByPool,
    /// Queued workloads that wait out a backoff, by its end.
    pub(crate) backoffs: BTreeSet<(UnixMs, WorkloadKey)>,
    /// Ended workloads whose record is to go by itself, by when.
    pub(crate) expiries: BTreeSet<(UnixMs, WorkloadKey)>,
    /// Queued workloads that wait for others, by those others' names.
    pub(crate) dependents: BTreeMap<WorkloadKey, BTreeSet<WorkloadKey>>,
    /// Workloads that have not ended, by the data that they name.
    pub(crate) readers: BTreeMap<DataName, BTreeSet<WorkloadKey>>,
    /// What the workloads on record ask for, whatever their phase.
    pub(crate) mix: Mix,
}

impl Indices {
    /// Makes the views from the workloads alone.
    pub(crate) fn rebuilt<'a>(workloads: impl Iterator<Item = &'a Workload>) -> Self {
        let mut indices = Self::default();
        workloads.for_each(|w| {
            indices.insert(w);
            indices.mix.see(&w.spec.gang());
        });
        indices
    }

    pub(super) fn insert(&mut self, workload: &Workload) {
        if workload.phase == Phase::Queued {
            self.queue.insert(Line::of(workload), workload.key.clone());
            let line = &mut self.usage.entry(workload.pool.clone()).or_default().queue;
            line.insert(Line::of(workload), self.likenesses.enter(workload));
            if let Some(until) = workload.not_before {
                self.backoffs.insert((until, workload.key.clone()));
            }
            for other in awaited(workload) {
                self.dependents.entry(other).or_default().insert(workload.key.clone());
            }
        }
        if let Some(at) = workload.expires_at() {
            self.expiries.insert((at, workload.key.clone()));
        }
        for name in read(workload) {
            self.readers.entry(name.clone()).or_default().insert(workload.key.clone());
        }
        usage::count(&mut self.usage, workload);
        if let Some(attempt) = workload.live_attempt() {
            self.live.entry(attempt.cluster.clone()).or_default().insert(attempt.launch, workload.key.clone());
            self.live_views.insert(workload, attempt);
            if workload.spec.elastic().next().is_some() {
                self.elastic.insert(workload.key.clone());
            }
            for passed in &attempt.decision.passed {
                self.passers.entry(passed.uid).or_default().insert(workload.key.clone());
            }
        }
    }

    pub(super) fn remove(&mut self, workload: &Workload) {
        if workload.phase == Phase::Queued {
            self.queue.remove(&Line::of(workload));
            let line = self.usage.get_mut(&workload.pool).map(|usage| &mut usage.queue);
            if let Some(waiter) = line.and_then(|line| line.remove(&Line::of(workload))) {
                self.likenesses.leave(&waiter, Line::of(workload));
            }
            if let Some(until) = workload.not_before {
                self.backoffs.remove(&(until, workload.key.clone()));
            }
            for other in awaited(workload) {
                if let Some(all) = self.dependents.get_mut(&other) {
                    all.remove(&workload.key);
                    if all.is_empty() {
                        self.dependents.remove(&other);
                    }
                }
            }
        }
        if let Some(at) = workload.expires_at() {
            self.expiries.remove(&(at, workload.key.clone()));
        }
        for name in read(workload) {
            if let Some(all) = self.readers.get_mut(name) {
                all.remove(&workload.key);
                if all.is_empty() {
                    self.readers.remove(name);
                }
            }
        }
        usage::discount(&mut self.usage, workload);
        let Some(attempt) = workload.live_attempt() else { return };
        self.live_views.remove(attempt);
        if let Some(there) = self.live.get_mut(&attempt.cluster) {
            there.remove(&attempt.launch);
            if there.is_empty() {
                self.live.remove(&attempt.cluster);
            }
        }
        self.elastic.remove(&workload.key);
        for passed in &attempt.decision.passed {
            if let Some(all) = self.passers.get_mut(&passed.uid) {
                all.remove(&workload.key);
                if all.is_empty() {
                    self.passers.remove(&passed.uid);
                }
            }
        }
    }
}

/// The data that a workload names, until it ends.
fn read(workload: &Workload) -> impl Iterator<Item = &DataName> {
    let named = workload.spec.placement.data.iter().map(|need| &need.name);
    named.filter(|_| !workload.phase.is_terminal())
}

fn awaited(workload: &Workload) -> impl Iterator<Item = WorkloadKey> + '_ {
    let namespace = &workload.key.namespace;
    workload.awaits.keys().map(|name| WorkloadKey { namespace: namespace.clone(), name: name.clone() })
}

impl State {
    /// Changes one workload and everything that is derived from it. A terminal workload whose deletion was asked for goes.
    pub(crate) fn change(&mut self, key: &WorkloadKey, change: impl FnOnce(&mut Workload)) {
        let Some(workload) = self.workloads.get_mut(key) else { return };
        self.indices.remove(workload);
        change(workload);
        if workload.phase == Phase::Queued {
            workload.late_ms = workload.lateness_in(&self.pools, self.now);
        }
        if workload.delete_requested && workload.phase.is_terminal() {
            self.by_uid.remove(&workload.uid);
            self.deleted.add(workload.uid, self.now);
            self.indices.mix.forget(&workload.spec.gang());
            self.workloads.remove(key);
        } else {
            self.indices.insert(workload);
        }
    }

    /// Adds a new workload.
    pub(crate) fn add(&mut self, mut workload: Workload) {
        workload.late_ms = workload.lateness_in(&self.pools, self.now);
        self.indices.insert(&workload);
        self.indices.mix.see(&workload.spec.gang());
        self.by_uid.insert(workload.uid, workload.key.clone());
        self.workloads.insert(workload.key.clone(), workload);
    }

    /// Those of a pool's line who do not stand in it as its order has it now.
    pub(crate) fn out_of_line(&self, pool: &PoolName) -> Vec<WorkloadKey> {
        let line = self.indices.usage.get(pool).into_iter().flat_map(|usage| usage.queue.values());
        let stands = |w: &Workload| w.late_ms == w.lateness_in(&self.pools, self.now);
        let moved = |key: &&WorkloadKey| self.workloads.get(*key).is_some_and(|w| !stands(w));
        line.map(|waiter| &waiter.key).filter(moved).cloned().collect()
    }

    /// What the workloads on record ask for.
    pub(crate) fn mix(&self) -> &Mix {
        &self.indices.mix
    }

    /// Queued workloads, in the order in which they are placed.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &WorkloadKey> {
        self.indices.queue.values()
    }

    /// Ended workloads whose record is to go by now, the longest overdue first.
    pub(crate) fn overdue(&self, now: UnixMs) -> impl Iterator<Item = &Workload> {
        let due = self.indices.expiries.iter().take_while(move |(at, _)| *at <= now);
        due.filter_map(|(_, key)| self.workloads.get(key))
    }

    /// Live attempts that were let past a waiting workload, on condition that they end once it can start without them.
    pub(crate) fn passers(&self, of: Uid) -> impl Iterator<Item = (&Workload, &Attempt)> {
        let keys = self.indices.passers.get(&of).into_iter().flatten();
        keys.filter_map(|key| {
            let workload = self.workloads.get(key)?;
            Some((workload, workload.live_attempt()?))
        })
    }

    /// Workloads that have not ended and name this data, by name.
    pub fn readers(&self, data: &DataName) -> impl Iterator<Item = &WorkloadKey> {
        self.indices.readers.get(data).into_iter().flatten()
    }

    /// Workloads with a live attempt whose size may change.
    pub(crate) fn elastic(&self) -> impl Iterator<Item = (&Workload, &Attempt)> {
        let all = self.indices.elastic.iter().filter_map(|key| self.workloads.get(key));
        all.filter_map(|workload| Some((workload, workload.live_attempt()?)))
    }

    /// What a pool's workloads hold and wait for; none where it has no workloads that have not ended.
    pub fn usage(&self, pool: &PoolName) -> Option<&Usage> {
        self.indices.usage.get(pool)
    }

    /// Live attempts in a cluster, by launch.
    pub fn live_in<'a>(&'a self, cluster: &ClusterName) -> Box<dyn Iterator<Item = (&'a Workload, &'a Attempt)> + 'a> {
        let keys = self.indices.live.get(cluster).into_iter().flat_map(BTreeMap::values);
        Box::new(keys.filter_map(|key| {
            let workload = self.workloads.get(key)?;
            Some((workload, workload.live_attempt()?))
        }))
    }
}
