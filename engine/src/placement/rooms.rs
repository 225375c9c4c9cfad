//! The free room of every cluster at the start of a plan: what the capacity frames say, less the bindings that they do not
//! include yet.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::NodeState;
use protocol::ids::{ClusterName, NodeName, WorkloadKey};
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::GroupNeed;

use super::fit::{Allowed, Shape};
use super::holes::{Holes, SkuId};
use crate::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use crate::planted;
use crate::state::{Cluster, State};

/// One joined cluster during a plan.
pub(crate) struct Room<'a> {
    pub(crate) cluster: &'a Cluster,
    /// None before its first frame.
    pub(crate) capacity: Option<&'a ClusterCapacity>,
    /// Its models, sorted.
    pub(crate) skus: Vec<Sku>,
    /// What is free now.
    pub(crate) holes: Holes,
    empty: Option<Holes>,
    healthy: Option<Holes>,
    /// What is kept free for those ahead in line.
    pub(crate) kept: Kept,
}

/// What is kept free for those ahead in line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    all: bool,
    skus: BTreeSet<u16>,
    /// Who was first to be kept room for.
    pub(crate) first: Option<WorkloadKey>,
    /// For how many it is kept.
    pub(crate) ahead: u64,
}

impl Allowed for Kept {
    fn allows(&self, sku: SkuId) -> bool {
        !self.all && sku.is_none_or(|s| !self.skus.contains(&s))
    }
}

impl Kept {
    /// Keeps room for a waiting gang: the nodes of every model that it accepts, or all nodes where a group without GPUs is
    /// what finds no room.
    pub(crate) fn keep(&mut self, key: &WorkloadKey, gang: &[Shape], any_node: bool) {
        self.all |= any_node || gang.iter().all(|g| g.each.gpu_milli == 0);
        self.skus.extend(gang.iter().flat_map(|g| g.skus.iter().copied()));
        self.first.get_or_insert_with(|| key.clone());
        self.ahead += 1;
    }
}

impl<'a> Room<'a> {
    pub(crate) fn new(state: &'a State, cluster: &'a Cluster, capacity: Option<&'a ClusterCapacity>) -> Self {
        let skus: BTreeSet<&Sku> = capacity.iter().flat_map(|c| &c.nodes).filter_map(|n| n.sku.as_ref()).collect();
        let skus: Vec<Sku> = skus.into_iter().cloned().collect();
        let taken = capacity.map(|c| in_flight(state, cluster, c)).unwrap_or_default();
        let free = |n: &NodeCapacity| {
            let taken = taken.get(&n.name).copied().unwrap_or(Resources::ZERO);
            (n.state == NodeState::Ready).then(|| n.free.saturating_sub(&taken))
        };
        let holes = holes_of(capacity, &skus, free);
        Self { cluster, capacity, skus, holes, empty: None, healthy: None, kept: Kept::default() }
    }

    /// What there would be if every node were empty, healthy and taking members. Made when first asked for.
    pub(crate) fn empty(&mut self) -> &mut Holes {
        let (capacity, skus) = (self.capacity, &self.skus);
        self.empty.get_or_insert_with(|| holes_of(capacity, skus, |n| Some(n.total)))
    }

    /// What there would be once every attempt has ended, with ghosts, sick devices and cordoned nodes as they are now. Made
    /// when first asked for.
    pub(crate) fn healthy(&mut self) -> &mut Holes {
        let (capacity, skus) = (self.capacity, &self.skus);
        self.healthy.get_or_insert_with(|| holes_of(capacity, skus, healthy))
    }

    /// The gang as this cluster sees it.
    pub(crate) fn shapes(&self, gang: &[GroupNeed]) -> Vec<Shape> {
        gang.iter()
            .map(|need| Shape { count: u64::from(need.count), each: need.each, skus: self.accepted(need) })
            .collect()
    }

    /// Models of this cluster that a group accepts, best first. One that accepts any gets the cheapest first.
    fn accepted(&self, need: &GroupNeed) -> Vec<u16> {
        if need.each.gpu_milli == 0 {
            return vec![];
        }
        if need.skus.is_empty() {
            let mut all: Vec<u16> = (0..).take(self.skus.len()).collect();
            all.sort_by_key(|&s| (self.price(Some(s)).unwrap_or(u64::MAX), s));
            return all;
        }
        need.skus.iter().filter_map(|sku| sku_id(&self.skus, Some(sku))).collect()
    }

    /// Thousandths of the fleet's currency for a GPU-hour of a model, where known.
    pub(crate) fn price(&self, sku: SkuId) -> Option<u64> {
        let sku = self.sku(sku)?;
        self.cluster.info.prices.iter().find(|p| p.sku == *sku).map(|p| p.milli_per_gpu_hour)
    }

    pub(crate) fn sku(&self, sku: SkuId) -> Option<&Sku> {
        self.skus.get(usize::from(sku?))
    }

    pub(crate) fn node(&self, node: u32) -> Option<&'a NodeCapacity> {
        self.capacity.and_then(|c| c.nodes.get(node as usize))
    }
}

fn holes_of(
    capacity: Option<&ClusterCapacity>,
    skus: &[Sku],
    free: impl Fn(&NodeCapacity) -> Option<Resources>,
) -> Holes {
    let nodes = capacity.map_or(&[][..], |c| &c.nodes);
    Holes::new(nodes.iter().map(|n| (sku_id(skus, n.sku.as_ref()), free(n))))
}

/// A node once nothing runs on it, its ghosts and sick devices left out; none where it takes no members.
pub(crate) fn healthy(node: &NodeCapacity) -> Option<Resources> {
    let out = (u64::from(node.ghosts) + u64::from(node.sick)) * 1000;
    let left = Resources { gpu_milli: node.total.gpu_milli.saturating_sub(out), ..node.total };
    (node.state == NodeState::Ready).then_some(left)
}

fn sku_id(skus: &[Sku], sku: Option<&Sku>) -> SkuId {
    let place = skus.binary_search(sku?).ok()?;
    u16::try_from(place).ok()
}

/// The room of every joined cluster.
pub(crate) fn rooms<'a>(state: &'a State, capacity: &'a Capacity) -> BTreeMap<&'a ClusterName, Room<'a>> {
    state.clusters.iter().map(|(name, c)| (name, Room::new(state, c, capacity.clusters.get(name)))).collect()
}

/// What bindings take that the frame does not include: live attempts whose launch is above its watermark. An attempt that
/// another life of the agent holds is counted too, whatever the watermark: this life's frames can't know of it.
fn in_flight<'a>(state: &'a State, cluster: &'a Cluster, frame: &ClusterCapacity) -> BTreeMap<&'a NodeName, Resources> {
    let mut taken: BTreeMap<&NodeName, Resources> = BTreeMap::new();
    if planted::is("count-inflight-never") {
        return taken;
    }
    for (_, attempt) in state.live_in(&cluster.info.name) {
        if attempt.launch <= frame.watermark && attempt.incarnation == cluster.incarnation {
            continue;
        }
        for group in &attempt.placement {
            for share in &group.nodes {
                *taken.entry(&share.node).or_default() += group.each.times(u64::from(share.members));
            }
        }
    }
    taken
}
