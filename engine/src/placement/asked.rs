//! How an ask for one member looks at the nodes of the fleet: for the index, which keeps the best places of each.

use protocol::sku::Sku;
use protocol::workload::GroupNeed;

use super::best::{Looks, Spot};
use super::devices::Free;
use super::journal::At;
use super::placer::{Model, Placer};
use super::rooms::Order;
use super::score::STEP;
use super::value::{Amiss, Waste};
use super::view::View;

/// An ask for one member.
pub(crate) struct Asked<'p, 'a> {
    placer: &'p Placer<'a>,
    need: &'p GroupNeed,
    /// By the fleet's models how early the ask names one that it accepts; none accepts none.
    ranks: Vec<Option<u64>>,
}

/// A node that will do, before it is judged.
pub(crate) struct Seen<'p> {
    free: &'p Free,
    view: Option<&'p View>,
    amiss: Amiss,
    at_least: Waste,
}

impl<'p, 'a> Asked<'p, 'a> {
    pub(crate) fn new(placer: &'p Placer<'a>, need: &'p GroupNeed, order: Order) -> Self {
        let rank = |sku: &Sku| match order {
            _ if !need.accepts(sku) => None,
            Order::BestFirst => Some(need.skus.iter().position(|s| s == sku).unwrap_or(0) as u64),
            Order::Alike => Some(0),
        };
        Self { placer, need, ranks: placer.skus().map(rank).collect() }
    }

    /// Every first node of a class that could do.
    pub(crate) fn all(&self) -> Vec<At> {
        let mut all: Vec<At> = vec![];
        for (cluster, room) in (0u32..).zip(self.placer.rooms.values()) {
            let models = std::iter::once(None).chain((0..).zip(room.models().iter()).map(|(sku, _)| Some(sku)));
            let models = models.filter(|sku| self.rank(self.placer.model(cluster, *sku)).is_some());
            let nodes = models.flat_map(|sku| room.holes.firsts(sku, self.need.each.gpu_milli));
            all.extend(nodes.map(|node| (cluster, node)));
        }
        all
    }

    fn rank(&self, model: Option<&Model>) -> Option<u64> {
        match self.need.each.gpu_milli {
            0 => Some(0),
            _ => self.ranks[model?.place],
        }
    }

    fn cost(&self, model: Option<&Model>) -> u64 {
        match self.need.each.gpu_milli {
            0 => 0,
            _ => model.and_then(|m| m.price).map_or(u64::MAX, |p| p.saturating_mul(self.need.each.gpus())),
        }
    }
}

impl<'p> Looks for Asked<'p, '_> {
    type Seen = Seen<'p>;

    fn see(&self, (cluster, node): At, amiss: Option<&Amiss>) -> Option<(Spot, Seen<'p>)> {
        let holes = &self.placer.rooms.at(cluster as usize).holes;
        let (free, each) = (holes.free(node), &self.need.each);
        if !free.holds(each) {
            return None;
        }
        let sku = holes.sku(node);
        let model = self.placer.model(cluster, sku);
        let rank = self.rank(model)?;
        let value = &self.placer.value;
        let view = model.and_then(|model| value.view_at(model.place));
        let amiss = amiss.copied().or_else(|| Some(value.amiss(view?, free))).unwrap_or_default();
        let at_least = view.map_or(Waste::default(), |view| value.at_least(view, (free, &amiss), each));
        let exactly = at_least.sum();
        let spot = Spot {
            rank,
            on_gpus: each.gpu_milli == 0 && sku.is_some(),
            wasted: exactly.div_euclid(STEP),
            cost: self.cost(model),
            exactly,
            cluster,
            gpu_milli: free.all.gpu_milli,
            node,
            version: holes.version(node),
        };
        Some((spot, Seen { free, view, amiss, at_least }))
    }

    fn judge(&self, at_best: Spot, Seen { free, view, amiss, at_least }: Seen<'p>) -> Spot {
        let Some(view) = view else { return at_best };
        let (value, each) = (&self.placer.value, &self.need.each);
        let waste = value.waste_of(view, (free, &amiss), each, at_least);
        debug_assert_eq!(waste, value.waste(view, free, each, 1), "{each} of {free:?}");
        let exactly = waste.sum();
        Spot { wasted: exactly.div_euclid(STEP), exactly, ..at_best }
    }

    fn version(&self, (cluster, node): At) -> u32 {
        self.placer.rooms.at(cluster as usize).holes.version(node)
    }
}
