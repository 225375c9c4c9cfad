//! Workloads with a live attempt, by what every plan asks of them, so that a plan need not look at all that lives: whom a capacity frame may
//! not include, who is being ended, and who may not be idle for ever.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use protocol::ids::{ClusterName, CommandNumber, Incarnation, WorkloadKey};

use super::{Attempt, State, Workload};

/// By cluster and some mark of the attempt.
type By<K> = BTreeMap<ClusterName, BTreeMap<K, WorkloadKey>>;

/// The views.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LiveViews {
    /// By the life of the agent that holds it, and the newest command that gave it members.
    newest: By<(Incarnation, CommandNumber)>,
    /// By launch, those that are being ended, or some of whose members are.
    going: By<CommandNumber>,
    /// By launch, those that may not be idle for ever.
    timed: By<CommandNumber>,
}

impl LiveViews {
    pub(super) fn insert(&mut self, workload: &Workload, attempt: &Attempt) {
        insert(&mut self.newest, workload, attempt, newest(attempt));
        if attempt.stop.is_some() || !attempt.leaving().is_empty() {
            insert(&mut self.going, workload, attempt, attempt.launch);
        }
        if workload.spec.idle_timeout.is_some() {
            insert(&mut self.timed, workload, attempt, attempt.launch);
        }
    }

    pub(super) fn remove(&mut self, attempt: &Attempt) {
        remove(&mut self.newest, attempt, newest(attempt));
        remove(&mut self.going, attempt, attempt.launch);
        remove(&mut self.timed, attempt, attempt.launch);
    }
}

/// Each command of a cluster has a number of its own, so that no two attempts have the same.
fn newest(attempt: &Attempt) -> (Incarnation, CommandNumber) {
    let arrived = attempt.arrivals.iter().map(|arrival| arrival.number).max();
    (attempt.incarnation, arrived.unwrap_or(attempt.launch))
}

fn insert<K: Ord>(all: &mut By<K>, workload: &Workload, attempt: &Attempt, mark: K) {
    all.entry(attempt.cluster.clone()).or_default().insert(mark, workload.key.clone());
}

fn remove<K: Ord>(all: &mut By<K>, attempt: &Attempt, mark: K) {
    let Some(there) = all.get_mut(&attempt.cluster) else { return };
    there.remove(&mark);
    if there.is_empty() {
        all.remove(&attempt.cluster);
    }
}

/// A workload and its live attempt.
type Lives<'a> = (&'a Workload, &'a Attempt);

impl State {
    /// Live attempts in a cluster, by launch, of which a frame with this watermark from this life of its agent may not include every
    /// member: others surely are in it.
    pub(crate) fn unseen_in(
        &self,
        cluster: &ClusterName,
        life: Incarnation,
        watermark: CommandNumber,
    ) -> Vec<Lives<'_>> {
        let Some(there) = self.indices.live_views.newest.get(cluster) else { return vec![] };
        let last = (life, CommandNumber(u64::MAX));
        let earlier = there.range(..(life, CommandNumber(0)));
        let this = there.range((Excluded((life, watermark)), Included(last)));
        let later = there.range((Excluded(last), Unbounded));
        let keys = earlier.chain(this).chain(later).map(|(_, key)| key);
        let mut found: Vec<_> = keys.filter_map(|key| self.lives(key)).collect();
        found.sort_by_key(|(_, attempt)| attempt.launch);
        found
    }

    /// Live attempts in a cluster that are being ended, or some of whose members are, by launch.
    pub(crate) fn going_in(&self, cluster: &ClusterName) -> impl Iterator<Item = Lives<'_>> {
        let keys = self.indices.live_views.going.get(cluster).into_iter().flat_map(BTreeMap::values);
        keys.filter_map(|key| self.lives(key))
    }

    /// Live attempts in a cluster that may not be idle for ever, by launch.
    pub(crate) fn timed_in(&self, cluster: &ClusterName) -> impl Iterator<Item = Lives<'_>> {
        let keys = self.indices.live_views.timed.get(cluster).into_iter().flat_map(BTreeMap::values);
        keys.filter_map(|key| self.lives(key))
    }

    fn lives(&self, key: &WorkloadKey) -> Option<Lives<'_>> {
        let workload = self.workloads.get(key)?;
        Some((workload, workload.live_attempt()?))
    }
}
