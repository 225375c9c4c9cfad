//! One command at work: the state that it changes, and what came of it. The commands' files see the state through this
//! alone, so that versions, watchers' lists and effects can't be forgotten.

use std::collections::BTreeSet;

use protocol::control::Order;
use protocol::ids::{
    AttemptId, ClusterName, CommandNumber, DataName, LogIndex, Namespace, PoolName, UnixMs, WorkloadKey,
};

use super::{Applied, Outcome, Refusal};
use crate::effects::Effect;
use crate::state::{State, Workload};

/// One command at work.
pub(super) struct Step<'a> {
    pub(super) state: &'a mut State,
    pub(super) index: LogIndex,
    pub(super) now: UnixMs,
    effects: Vec<Effect>,
    changed: BTreeSet<WorkloadKey>,
    clusters: BTreeSet<ClusterName>,
    pools: BTreeSet<PoolName>,
    owners: BTreeSet<Namespace>,
    data: BTreeSet<DataName>,
}

impl<'a> Step<'a> {
    pub(super) fn new(state: &'a mut State, index: LogIndex) -> Self {
        let now = state.now;
        Self {
            state,
            index,
            now,
            effects: vec![],
            changed: BTreeSet::new(),
            clusters: BTreeSet::new(),
            pools: BTreeSet::new(),
            owners: BTreeSet::new(),
            data: BTreeSet::new(),
        }
    }

    pub(super) fn finish(self, outcome: Result<Outcome, Refusal>) -> Applied {
        Applied {
            outcome,
            effects: self.effects,
            changed: self.changed.into_iter().collect(),
            clusters: self.clusters.into_iter().collect(),
            pools: self.pools.into_iter().collect(),
            owners: self.owners.into_iter().collect(),
            data: self.data.into_iter().collect(),
        }
    }

    /// Changes one workload; watchers hear of it. Where that ends it, those that wait for it remember how.
    pub(super) fn change(&mut self, key: &WorkloadKey, change: impl FnOnce(&mut Workload, UnixMs)) {
        let (index, now) = (self.index, self.now);
        let mut ended = None;
        self.state.change(key, |workload| {
            let before = workload.phase;
            change(workload, now);
            workload.version = index;
            ended = Some(workload.phase).filter(|phase| phase.is_terminal() && !before.is_terminal());
        });
        self.changed.insert(key.clone());
        let Some(phase) = ended else { return };
        for dependent in self.state.dependents(key) {
            self.state.change(&dependent, |workload| {
                workload.hears_of(&key.name, phase);
                workload.version = index;
            });
            self.changed.insert(dependent);
        }
    }

    /// Adds a new workload; watchers hear of it.
    pub(super) fn add(&mut self, workload: Workload) {
        self.changed.insert(workload.key.clone());
        self.state.add(workload);
    }

    /// Watchers hear that this cluster changed.
    pub(super) fn cluster_changed(&mut self, cluster: &ClusterName) {
        if let Some(member) = self.state.clusters.get_mut(cluster) {
            member.version = self.index;
        }
        self.clusters.insert(cluster.clone());
    }

    /// Watchers hear that this pool changed, came or went.
    pub(super) fn pool_changed(&mut self, pool: &PoolName) {
        self.pools.insert(pool.clone());
    }

    /// Watchers hear that this owner's rule changed, came or went.
    pub(super) fn owner_changed(&mut self, owner: &Namespace) {
        self.owners.insert(owner.clone());
    }

    /// Watchers hear that this data location changed, came or went.
    pub(super) fn data_changed(&mut self, data: &DataName) {
        self.data.insert(data.clone());
    }

    /// The next number among a cluster's commands.
    pub(super) fn next_number(&mut self, cluster: &ClusterName) -> Option<CommandNumber> {
        let member = self.state.clusters.get_mut(cluster)?;
        member.last_command = CommandNumber(member.last_command.0 + 1);
        Some(member.last_command)
    }

    pub(super) fn send(&mut self, cluster: &ClusterName, number: CommandNumber, order: Order) {
        self.effects.push(Effect::Command { cluster: cluster.clone(), number, order });
    }

    pub(super) fn committed(&mut self, cluster: &ClusterName, attempt: AttemptId, revision: u64) {
        self.effects.push(Effect::ReportCommitted { cluster: cluster.clone(), attempt, revision });
    }
}
