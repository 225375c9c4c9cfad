//! Which of several places is best. The order of [`Score`]'s fields is the policy.

use protocol::ids::ClusterName;
use protocol::resources::DataSize;
use protocol::workload::GroupNeed;

use super::fit::Spot;
use super::locality::{Wants, step};
use super::rooms::{Order, Room};
use super::value::Waste;
use crate::reasons::ScoreTerm;

/// How good a place is; the least is best, and an earlier field decides before a later one is looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Score {
    /// Data that it would read from elsewhere, in coarse steps (`locality`).
    data: u64,
    /// Place of the cluster's region in the workload's preferences; past the last where it is not preferred.
    region: u64,
    /// The worst place of a chosen model in its group's order.
    model: u64,
    /// Members without GPUs that would sit on GPU nodes.
    cpu_on_gpu: u64,
    /// GPU wasted, in steps of [`STEP`]: less than one is not worth money.
    wasted: i64,
    /// Thousandths of the fleet's currency an hour; unknown prices come last.
    cost: u64,
    /// GPU wasted, in millionths.
    exactly: i64,
    /// Ties go by name.
    name: ClusterName,
    /// What `wasted` is made of; decides nothing any more.
    kinds: Waste,
    /// What `data` is a step of, where it reads any data; decides nothing any more.
    elsewhere: Option<DataSize>,
}

/// A step of waste, in millionths of a GPU.
pub(crate) const STEP: i64 = 50_000;

impl Score {
    pub(crate) fn new(
        room: &Room<'_>,
        wants: &Wants<'_>,
        gang: &[GroupNeed],
        spots: &[Spot],
        kinds: Waste,
        order: Order,
    ) -> Self {
        let prefer = &wants.spec.placement.regions.prefer;
        let info = &room.cluster.info;
        let elsewhere = wants.reads_data().then(|| wants.elsewhere(info));
        let data = elsewhere.map_or(0, step);
        let region = prefer.iter().position(|r| *r == info.region).unwrap_or(prefer.len()) as u64;
        let pairs = || gang.iter().zip(spots);
        let rank = |(need, spot): (&GroupNeed, &Spot)| match order {
            Order::BestFirst => model_rank(room, need, spot),
            Order::Alike => 0,
        };
        let model = pairs().map(rank).max().unwrap_or(0);
        let cpu_on_gpu = pairs().filter(|(need, _)| need.each.gpu_milli == 0).map(|(_, s)| on_gpu_nodes(room, s)).sum();
        let cost = pairs().map(|(need, spot)| cost(room, need, spot)).fold(0, u64::saturating_add);
        let exactly = kinds.sum();
        let wasted = exactly.div_euclid(STEP);
        Self { data, region, model, cpu_on_gpu, wasted, cost, exactly, name: info.name.clone(), kinds, elsewhere }
    }

    /// Everything that decides but the name.
    #[cfg(test)]
    pub(crate) fn decisive(&self) -> (u64, u64, u64, u64, i64, u64, i64) {
        (self.data, self.region, self.model, self.cpu_on_gpu, self.wasted, self.cost, self.exactly)
    }

    /// The score as data, in the order in which it counts.
    pub(crate) fn terms(&self) -> Vec<ScoreTerm> {
        let term = |name: &str, value: i64, unit: &str| ScoreTerm { name: name.into(), value, unit: unit.into() };
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let milli = |micro: i64| micro.div_euclid(1000);
        let Waste { pieces, starved, fragments, claimed } = self.kinds;
        let kinds = [("pieces", pieces), ("starved-of-cpu", starved), ("fragments", fragments), ("claimed", claimed)];
        let first = [
            term("region", count(self.region), ""),
            term("model", count(self.model), ""),
            term("cpu-on-gpu-nodes", count(self.cpu_on_gpu), "members"),
            term("wasted", milli(self.wasted * STEP), "gpu-milli"),
            term("cost", count(self.cost), "milli/h"),
        ];
        let made_of = kinds.iter().filter(|(_, micro)| milli(*micro) != 0);
        let made_of = made_of.map(|(kind, micro)| term(&format!("wasted-{kind}"), milli(*micro), "gpu-milli"));
        let elsewhere = self.elsewhere.map(|data| term("data-elsewhere", count(data.0 / 1024), "Gi"));
        elsewhere.into_iter().chain(first).chain(made_of).collect()
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
