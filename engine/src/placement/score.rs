//! Which of several places is best. The order of [`Score`]'s fields is the policy.

use protocol::ids::ClusterName;
use protocol::workload::{GroupNeed, WorkloadSpec};

use super::fit::Spot;
use super::rooms::Room;
use crate::reasons::ScoreTerm;

/// How good a place is; the least is best, and an earlier field decides before a later one is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Place of the cluster's region in the workload's preferences; past the last where it is not preferred.
    region: u64,
    /// The worst place of a chosen model in its group's order.
    model: u64,
    /// Members without GPUs that would sit on GPU nodes.
    cpu_on_gpu: u64,
    /// GPU nodes that are wholly free now and would be partly free: room that large gangs lose.
    broken: u64,
    /// Thousandths of the fleet's currency an hour; unknown prices come last.
    cost: u64,
    /// Ties go by name.
    name: ClusterName,
}

impl Score {
    pub(crate) fn new(room: &Room<'_>, spec: &WorkloadSpec, gang: &[GroupNeed], spots: &[Spot]) -> Self {
        let prefer = &spec.placement.regions.prefer;
        let info = &room.cluster.info;
        let region = prefer.iter().position(|r| *r == info.region).unwrap_or(prefer.len()) as u64;
        let pairs = || gang.iter().zip(spots);
        let model = pairs().map(|(need, spot)| model_rank(room, need, spot)).max().unwrap_or(0);
        let cpu_on_gpu = pairs().filter(|(need, _)| need.each.gpu_milli == 0).map(|(_, s)| on_gpu_nodes(room, s)).sum();
        let cost = pairs().map(|(need, spot)| cost(room, need, spot)).fold(0, u64::saturating_add);
        Self { region, model, cpu_on_gpu, broken: broken(room, gang, spots), cost, name: info.name.clone() }
    }

    /// The score as data, in the order in which it counts.
    pub(crate) fn terms(&self) -> Vec<ScoreTerm> {
        let term = |name: &str, value: u64, unit: &str| ScoreTerm {
            name: name.into(),
            value: i64::try_from(value).unwrap_or(i64::MAX),
            unit: unit.into(),
        };
        vec![
            term("region", self.region, ""),
            term("model", self.model, ""),
            term("cpu-on-gpu-nodes", self.cpu_on_gpu, "members"),
            term("whole-nodes-broken", self.broken, "nodes"),
            term("cost", self.cost, "milli/h"),
        ]
    }
}

fn model_rank(room: &Room<'_>, need: &GroupNeed, spot: &Spot) -> u64 {
    need.skus.iter().position(|s| Some(s) == room.sku(spot.sku)).unwrap_or(0) as u64
}

fn on_gpu_nodes(room: &Room<'_>, spot: &Spot) -> u64 {
    let on_gpu = |node: &u32| room.node(*node).is_some_and(|n| n.sku.is_some());
    spot.nodes.iter().filter(|(node, _)| on_gpu(node)).map(|(_, members)| members).sum()
}

fn cost(room: &Room<'_>, need: &GroupNeed, spot: &Spot) -> u64 {
    let gpus = need.each.times(u64::from(need.count)).gpus();
    if gpus == 0 {
        return 0;
    }
    room.price(spot.sku).map_or(u64::MAX, |price| price.saturating_mul(gpus))
}

fn broken(room: &Room<'_>, gang: &[GroupNeed], spots: &[Spot]) -> u64 {
    let mut taken = std::collections::BTreeMap::<u32, u64>::new();
    for (need, spot) in gang.iter().zip(spots) {
        for (node, members) in &spot.nodes {
            *taken.entry(*node).or_default() += need.each.gpu_milli.saturating_mul(*members);
        }
    }
    let breaks = |(node, gpu_milli): &(u32, u64)| {
        let whole = room.node(*node).map_or(0, |n| n.total.gpu_milli);
        *gpu_milli > 0 && room.holes.free(*node).gpu_milli == whole && *gpu_milli < whole
    };
    taken.into_iter().filter(breaks).count() as u64
}
