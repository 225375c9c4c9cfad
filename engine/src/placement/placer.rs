//! The planner's choice of places, kept over many gangs: rooms, the value of the mix, and the best places of each ask. `queue` walks
//! the line with its rooms; traces and benchmarks hand gangs in one by one.

use std::collections::BTreeMap;

use protocol::control::GroupPlacement;
use protocol::ids::ClusterName;
use protocol::sku::Sku;
use protocol::workload::{GroupNeed, WorkloadSpec};

use super::asked::Asked;
use super::best::Spot;
use super::candidates::{Place, place, settle};
use super::devices::Free;
use super::fit;
use super::holes::SkuId;
use super::index::Index;
use super::journal::At;
use super::kept::Kept;
use super::locality::Wants;
use super::mix::{Ask, Mix};
use super::models::Models;
use super::rooms::{ByWaste, Order, Room, Rooms, ready};
use super::score::Score;
use super::value::{Amiss, Value, Waste};
use super::view::View;
use crate::capacity::{Capacity, NodeCapacity};
use crate::state::State;

/// A model of a cluster.
pub(crate) struct Model {
    /// Its place among the fleet's.
    pub(crate) place: usize,
    /// Thousandths of the fleet's currency for a GPU-hour, where known.
    pub(crate) price: Option<u64>,
}

/// Rooms with a value: what the next gang's place is chosen by.
pub struct Placer<'a> {
    pub(crate) rooms: Rooms<'a>,
    pub(crate) value: Value,
    /// By cluster and its models.
    models: Vec<Vec<Model>>,
    /// Whether in no cluster one model is cheaper than another.
    one_price: bool,
    fleet: BTreeMap<Sku, u64>,
    mix: Mix,
    /// The members of the mix of which `value` is.
    valued: u64,
    index: Index,
}

impl<'a> Placer<'a> {
    /// For a plan: the mix is that of every workload on record.
    pub(crate) fn new(state: &'a State, capacity: &'a Capacity, kept: Kept) -> Self {
        Self::with(state, capacity, kept, |mix| mix.and_of(state))
    }

    /// For a trace: nothing has been asked for yet.
    pub fn of_fleet(state: &'a State, capacity: &'a Capacity) -> Self {
        Self::with(state, capacity, Kept::default(), |mix| mix)
    }

    fn with(state: &'a State, capacity: &'a Capacity, kept: Kept, mix: impl FnOnce(Mix) -> Mix) -> Self {
        let rooms = Rooms::from_kept(state, capacity, kept);
        // Clusters that have not joined are looked at too.
        let other = capacity.clusters.iter().filter(|(name, _)| rooms.find(name).is_none());
        let other: Vec<Models> = other.map(|(_, c)| Models::of(&c.nodes)).collect();
        let models = || rooms.values().map(Room::models).chain(&other);
        let mut fleet: BTreeMap<Sku, u64> = BTreeMap::new();
        for model in models().flat_map(Models::iter) {
            // Nodes that take no members now may take some later: their models are there.
            let known = fleet.entry(model.sku.clone()).or_default();
            *known = known.saturating_add(model.gpu_milli);
        }
        let mix = mix(Mix::of_fleet(models()));
        let (value, valued) = (Value::new(&mix, &fleet), mix.members());
        let places: BTreeMap<&Sku, usize> = fleet.keys().zip(0..).collect();
        let of = |room: &Room<'_>| {
            let skus = (0u16..).zip(room.models().skus());
            skus.map(|(at, sku)| Model { place: places[sku], price: room.price(Some(at)) }).collect()
        };
        let models: Vec<Vec<Model>> = rooms.values().map(of).collect();
        let one_price = models.iter().all(|of| of.windows(2).all(|two| two[0].price == two[1].price));
        Self { rooms, value, models, one_price, fleet, mix, valued, index: Index::default() }
    }

    /// Counts a gang into the mix. The mix is valued anew once it has grown by an eighth.
    pub fn see(&mut self, gang: &[GroupNeed]) {
        self.mix.see(gang);
        if self.mix.members() > self.valued + self.valued / 8 {
            (self.value, self.valued) = (Value::new(&self.mix, &self.fleet), self.mix.members());
            self.index.forget();
        }
    }

    /// What is free on a node is another now: a capacity frame said so, or an attempt ended.
    pub fn change(&mut self, cluster: &ClusterName, row: u32, node: &NodeCapacity) {
        let Some(at) = self.rooms.find(cluster) else { return };
        let holes = &mut self.rooms.at_mut(at).holes;
        let before = holes.free(row).clone();
        holes.renew(row, ready(node));
        self.note(at, row, &before);
    }

    /// The best place for a gang in any cluster, which takes its room; none where it fits nowhere.
    pub fn place(&mut self, gang: &[GroupNeed], order: Order) -> Option<(ClusterName, Vec<GroupPlacement>)> {
        let best = match gang {
            [one] if one.count == 1 && self.is_flat(one, order) => self.one(one, order)?,
            _ => self.best(gang, order)?,
        };
        let at = self.rooms.find(&best.cluster)?;
        let room = self.rooms.at_mut(at);
        let before: Vec<_> =
            best.spots.iter().flat_map(|s| s.nodes.keys()).map(|n| (*n, room.holes.free(*n).clone())).collect();
        let placement = settle(room, gang, &best.spots);
        room.holes.keep();
        before.iter().for_each(|(node, free)| self.note(at, *node, free));
        Some((best.cluster, placement))
    }

    /// By looking at every class of every cluster.
    pub(crate) fn best(&mut self, gang: &[GroupNeed], order: Order) -> Option<Place> {
        let spec = WorkloadSpec::default();
        let wants = Wants::without_data(&spec);
        let mut best: Option<Place> = None;
        for (room, models) in self.rooms.values_mut().zip(&self.models) {
            let shapes = room.shapes(gang, order);
            let judge = ByWaste::new(&self.value, models.iter().map(|model| self.value.view_at(model.place)));
            if let Some(place) = place(room, &judge, &wants, gang, &shapes, (&fit::Everywhere, order))
                && best.as_ref().is_none_or(|b| place.score < b.score)
            {
                best = Some(place);
            }
        }
        best
    }

    /// Whether all of a cluster's models that it accepts are alike to it: then one order of places holds over all clusters.
    fn is_flat(&self, need: &GroupNeed, order: Order) -> bool {
        match need.skus.len() {
            0 => self.one_price || need.each.gpu_milli == 0,
            models => models == 1 || order == Order::Alike,
        }
    }

    /// A node changed; of those that are as it was, the first stands for them from here on. Where that is before it, it did so already.
    fn note(&mut self, cluster: usize, node: u32, was: &Free) {
        let holes = &self.rooms.at(cluster).holes;
        let first = holes.first_of(node, was).filter(|first| *first > node);
        for node in std::iter::once(node).chain(first) {
            let (at, free) = ((cluster as u32, node), holes.free(node));
            let amiss = self.view(at).map_or(Amiss::default(), |view| self.value.amiss(view, free));
            self.index.changed(at, free, amiss);
        }
    }

    /// How the mix looks at a node's model; none where it has no GPUs.
    fn view(&self, (cluster, node): At) -> Option<&View> {
        let sku = self.rooms.at(cluster as usize).holes.sku(node);
        self.value.view_at(self.model(cluster, sku)?.place)
    }

    /// The fleet's models.
    pub(crate) fn skus(&self) -> impl Iterator<Item = &Sku> {
        self.fleet.keys()
    }

    pub(crate) fn model(&self, cluster: u32, sku: SkuId) -> Option<&Model> {
        self.models[cluster as usize].get(usize::from(sku?))
    }

    /// For one member, by the index.
    pub(crate) fn one(&mut self, need: &GroupNeed, order: Order) -> Option<Place> {
        let mut index = std::mem::take(&mut self.index);
        let spot = self.find(&mut index, need, order);
        self.index = index;
        let spot = spot?;
        let (place, at) = (spot.cluster as usize, (spot.cluster, spot.node));
        let room = self.rooms.at(place);
        let waste =
            self.view(at).map_or(Waste::default(), |v| self.value.waste(v, room.holes.free(spot.node), &need.each, 1));
        let sku = room.holes.sku(spot.node).filter(|_| need.each.gpu_milli > 0);
        let spots = vec![fit::Spot { sku, nodes: BTreeMap::from([(spot.node, 1)]) }];
        let gang = std::slice::from_ref(need);
        let spec = WorkloadSpec::default();
        let score = Score::new(room, &Wants::without_data(&spec), gang, &spots, waste, order);
        Some(Place { cluster: room.cluster.info.name.clone(), score, spots })
    }

    fn find(&self, index: &mut Index, need: &GroupNeed, order: Order) -> Option<Spot> {
        let ask = Ask { each: need.each, skus: need.skus.clone() };
        let asked = Asked::new(self, need, order);
        index.best(ask, &asked, || asked.all())
    }
}

#[cfg(test)]
mod tests;
