//! Where a workload is not tried again for a while, for it failed there through no fault of its own: the nodes of an attempt that
//! the infrastructure broke, the cluster that had no room for one after all. Derived from the attempts on record, so that every
//! replica knows the same; asked by the planner (`placement::avoid`) and again when a binding is applied.
//!
//! The first failure somewhere may be chance, so it counts for a minute; each further one there in a row doubles that. An attempt
//! that ended there otherwise, or got its room, clears the place. It is always over after [`MOST_AVOID_MS`] without a failure.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use protocol::control::{AttemptState, GroupPlacement};
use protocol::errors::FailureClass;
use protocol::ids::{AttemptNumber, ClusterName, NodeName, UnixMs};
use serde::{Deserialize, Serialize};

use super::{Attempt, Workload};

/// How long a place is avoided after the first failure there, in ms; doubled with each further one in a row.
pub const AVOID_MS: u64 = 60_000;
/// The longest that a place is avoided after a failure, in ms.
pub const MOST_AVOID_MS: u64 = 3_600_000;

/// Until when a place is avoided, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Avoided {
    /// From then on it is taken again.
    pub until: UnixMs,
    /// The last attempt that failed there.
    pub attempt: AttemptNumber,
    /// How many in a row failed there.
    pub failures: u32,
}

/// What a workload avoids now.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Avoids {
    /// Clusters that had no room for it after all.
    pub clusters: BTreeMap<ClusterName, Avoided>,
    /// Nodes of attempts that the infrastructure broke.
    pub nodes: BTreeMap<ClusterName, BTreeMap<NodeName, Avoided>>,
}

impl Avoids {
    /// Whether nothing is avoided.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.nodes.is_empty()
    }

    /// Whether something of a cluster is avoided, or all of it.
    pub fn concerns(&self, cluster: &ClusterName) -> bool {
        self.clusters.contains_key(cluster) || self.nodes.contains_key(cluster)
    }

    /// What of a place is avoided: its cluster, or the first of its nodes.
    pub fn first_of(
        &self,
        cluster: &ClusterName,
        placement: &[GroupPlacement],
    ) -> Option<(Option<&NodeName>, Avoided)> {
        if let Some(avoided) = self.clusters.get(cluster) {
            return Some((None, *avoided));
        }
        let nodes = self.nodes.get(cluster)?;
        let mut named = placement.iter().flat_map(|group| &group.nodes);
        named.find_map(|share| nodes.get_key_value(&share.node)).map(|(node, avoided)| (Some(node), *avoided))
    }

    /// When the first of these places is taken again.
    pub fn next_end(&self) -> Option<UnixMs> {
        let nodes = self.nodes.values().flat_map(BTreeMap::values);
        self.clusters.values().chain(nodes).map(|avoided| avoided.until).min()
    }
}

impl Workload {
    /// What it avoids at a time. At most the places of the attempts on record.
    pub fn avoids(&self, now: UnixMs) -> Avoids {
        let mut avoids = Avoids::default();
        for (attempt, ended) in self.attempts.iter().filter_map(|a| Some((a, a.ended_at?))) {
            let class = failure(attempt);
            let names = attempt.placement.iter().flat_map(|group| &group.nodes).map(|share| &share.node);
            if class == Some(FailureClass::Capacity) {
                again(avoids.clusters.entry(attempt.cluster.clone()).or_insert(NEVER), attempt, ended);
                continue;
            }
            avoids.clusters.remove(&attempt.cluster);
            let nodes = avoids.nodes.entry(attempt.cluster.clone()).or_default();
            for name in names.collect::<std::collections::BTreeSet<_>>() {
                match class {
                    Some(FailureClass::Infrastructure) => {
                        again(nodes.entry(name.clone()).or_insert(NEVER), attempt, ended);
                    }
                    _ => drop(nodes.remove(name)),
                }
            }
        }
        avoids.clusters.retain(|_, avoided| avoided.until > now);
        avoids.nodes.values_mut().for_each(|nodes| nodes.retain(|_, avoided| avoided.until > now));
        avoids.nodes.retain(|_, nodes| !nodes.is_empty());
        avoids
    }
}

/// Before the first failure.
const NEVER: Avoided = Avoided { until: UnixMs(0), attempt: AttemptNumber(0), failures: 0 };

/// An attempt failed there, once more.
fn again(avoided: &mut Avoided, attempt: &Attempt, ended: UnixMs) {
    let doublings = avoided.failures.min(63);
    let ms = AVOID_MS.saturating_mul(1 << doublings).min(MOST_AVOID_MS);
    let failures = avoided.failures.saturating_add(1);
    *avoided = Avoided { until: UnixMs(ended.0.saturating_add(ms)), attempt: attempt.number, failures };
}

/// Whose failure ended an attempt, where it was one: what is done on the way out by order is none.
fn failure(attempt: &Attempt) -> Option<FailureClass> {
    match &attempt.reported {
        Some(AttemptState::Failed { class, .. }) if attempt.stop.is_none() => Some(*class),
        _ => None,
    }
}
