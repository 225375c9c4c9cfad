//! Queued workloads as the planner meets them: who it is, when it may be tried, and what makes it like others. A plan that found no
//! room for one knows that its like find none, without looking at them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::ids::{DataName, Namespace, PoolName, Region, Uid, UnixMs, WorkloadKey, WorkloadName};
use protocol::resources::Money;
use protocol::workload::{Framework, GroupNeed, Preemptible};

use super::{Line, Workload};

/// One in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) key: WorkloadKey,
    pub(crate) uid: Uid,
    /// It waits out a backoff until then.
    pub(crate) not_before: Option<UnixMs>,
    /// It waits for others to succeed.
    pub(crate) dependent: bool,
    /// It failed before for what its infrastructure did: it may avoid where.
    pub(crate) failed: bool,
    pub(crate) alike: Arc<Likeness>,
}

/// What makes waiting workloads alike: one that found no room tells of all of them, for room and the pool's part only get less in a
/// plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Likeness {
    pub(crate) pool: PoolName,
    pub(crate) preemptible: Preemptible,
    /// None: it names none, or several, and can run nowhere.
    pub(crate) framework: Option<Framework>,
    pub(crate) needs: OfCluster,
    pub(crate) regions: Vec<Region>,
    pub(crate) gang: Vec<GroupNeed>,
    /// What it pays at most.
    pub(crate) most: Option<Money>,
    /// Beside which workload it is to be.
    pub(crate) beside: Option<(Namespace, WorkloadName)>,
    /// The data that it requires where it is, by name.
    pub(crate) data: Vec<DataName>,
}

/// What a workload needs its cluster to be able to do, beside running its framework.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OfCluster {
    pub(crate) fences: bool,
    pub(crate) secrets: bool,
    pub(crate) manifests: bool,
}

impl Likeness {
    fn of(workload: &Workload) -> Self {
        let (spec, namespace) = (&workload.spec, &workload.key.namespace);
        let required = spec.placement.data.iter().filter(|need| need.require);
        let mut data: Vec<DataName> = required.map(|need| need.name.clone()).collect();
        data.sort();
        Self {
            pool: workload.pool.clone(),
            preemptible: spec.preemptible,
            framework: spec.framework().ok(),
            needs: OfCluster {
                fences: spec.fence().is_some(),
                secrets: !spec.secrets.is_empty(),
                manifests: spec.manifest.is_some(),
            },
            regions: spec.placement.regions.require.clone(),
            gang: spec.gang(),
            most: spec.placement.max_cost_per_hour,
            beside: spec.placement.same_cluster_as.clone().map(|name| (namespace.clone(), name)),
            data,
        }
    }
}

/// Every likeness of those in line once, by pool: likenesses at different addresses differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Likenesses(BTreeMap<PoolName, OfPool>);

/// The likenesses of one pool's line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OfPool {
    /// Each with the places of those who have it.
    pub(crate) places: BTreeMap<Arc<Likeness>, BTreeSet<Line>>,
    /// The places of those who may find no room where their like do: they failed somewhere.
    pub(crate) failed: BTreeSet<Line>,
}

impl Likenesses {
    /// A workload comes into line.
    pub(super) fn enter(&mut self, workload: &Workload) -> Waiter {
        let (likeness, place) = (Likeness::of(workload), Line::of(workload));
        let of_pool = self.0.entry(workload.pool.clone()).or_default();
        let alike = match of_pool.places.get_key_value(&likeness) {
            Some((alike, _)) => Arc::clone(alike),
            None => Arc::new(likeness),
        };
        of_pool.places.entry(Arc::clone(&alike)).or_default().insert(place);
        let failed = !workload.avoids(UnixMs(0)).is_empty();
        if failed {
            of_pool.failed.insert(place);
        }
        Waiter {
            key: workload.key.clone(),
            uid: workload.uid,
            not_before: workload.not_before,
            dependent: workload.is_dependent(),
            failed,
            alike,
        }
    }

    /// It leaves its place in line.
    pub(super) fn leave(&mut self, waiter: &Waiter, place: Line) {
        let Some(of_pool) = self.0.get_mut(&waiter.alike.pool) else { return };
        of_pool.failed.remove(&place);
        if let Some(places) = of_pool.places.get_mut(&waiter.alike) {
            places.remove(&place);
            if places.is_empty() {
                of_pool.places.remove(&waiter.alike);
            }
        }
        if of_pool.places.is_empty() {
            self.0.remove(&waiter.alike.pool);
        }
    }

    /// Those of a pool's line.
    pub(crate) fn of_pool(&self, pool: &PoolName) -> Option<&OfPool> {
        self.0.get(pool)
    }
}
