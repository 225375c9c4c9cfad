//! The planner's choice of places, kept over many gangs: rooms, the value of the mix, and the best places of each ask. `queue` walks
//! the line with its rooms; traces and benchmarks hand gangs in one by one.

use std::collections::BTreeMap;

use protocol::capacity::NodeState;
use protocol::control::GroupPlacement;
use protocol::ids::ClusterName;
use protocol::sku::Sku;
use protocol::workload::{GroupNeed, WorkloadSpec};

use super::candidates::{Place, place, settle};
use super::devices::Free;
use super::fit;
use super::index::{At, Index, Spot};
use super::locality::Wants;
use super::mix::{Ask, Mix};
use super::rooms::{Order, Room, ready, rooms};
use super::score::{STEP, Score};
use super::value::{Value, Waste};
use crate::capacity::{Capacity, NodeCapacity};
use crate::state::State;

/// Rooms with a value: what the next gang's place is chosen by.
pub struct Placer<'a> {
    pub(crate) rooms: BTreeMap<&'a ClusterName, Room<'a>>,
    pub(crate) value: Value,
    names: Vec<&'a ClusterName>,
    /// By cluster: its models by their places among the fleet's.
    models: Vec<Vec<usize>>,
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
    pub fn new(state: &'a State, capacity: &'a Capacity) -> Self {
        Self::with(state, capacity, Mix::of(state, capacity))
    }

    /// For a trace: nothing has been asked for yet.
    pub fn of_fleet(state: &'a State, capacity: &'a Capacity) -> Self {
        Self::with(state, capacity, Mix::of_fleet(capacity))
    }

    fn with(state: &'a State, capacity: &'a Capacity, mix: Mix) -> Self {
        let mut fleet: BTreeMap<Sku, u64> = BTreeMap::new();
        for node in capacity.clusters.values().flat_map(|c| &c.nodes).filter(|n| n.state == NodeState::Ready) {
            if let Some(sku) = &node.sku {
                let known = fleet.entry(sku.clone()).or_default();
                *known = known.saturating_add(node.total.gpu_milli);
            }
        }
        let (value, valued) = (Value::new(&mix, &fleet), mix.members());
        let rooms = rooms(state, capacity);
        let names = rooms.keys().copied().collect();
        let places: BTreeMap<&Sku, usize> = fleet.keys().zip(0..).collect();
        let of = |room: &Room<'_>| room.skus.iter().filter_map(|s| places.get(s).copied()).collect();
        let models = rooms.values().map(of).collect();
        let prices = |room: &Room<'_>| (0..).take(room.skus.len()).map(|s| room.price(Some(s))).collect::<Vec<_>>();
        let one_price = rooms.values().all(|room| prices(room).windows(2).all(|two| two[0] == two[1]));
        Self { rooms, value, names, models, one_price, fleet, mix, valued, index: Index::default() }
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
        let Ok(at) = self.names.binary_search(&cluster) else { return };
        let Some(room) = self.rooms.get_mut(cluster) else { return };
        let before = room.holes.free(row).clone();
        room.holes.renew(row, ready(node));
        let next = room.holes.first_of(row, &before);
        self.note(at as u32, row, next);
    }

    /// The best place for a gang in any cluster, which takes its room; none where it fits nowhere.
    pub fn place(&mut self, gang: &[GroupNeed], order: Order) -> Option<(ClusterName, Vec<GroupPlacement>)> {
        let best = match gang {
            [one] if one.count == 1 && self.is_flat(one, order) => self.one(one, order)?,
            _ => self.best(gang, order)?,
        };
        let at = self.names.binary_search(&&best.cluster).ok()? as u32;
        let room = self.rooms.get_mut(&best.cluster)?;
        let before: Vec<_> =
            best.spots.iter().flat_map(|s| s.nodes.keys()).map(|n| (*n, room.holes.free(*n).clone())).collect();
        let placement = settle(room, gang, &best.spots);
        let next: Vec<_> = before.iter().map(|(node, free)| (*node, room.holes.first_of(*node, free))).collect();
        next.into_iter().for_each(|(node, next)| self.note(at, node, next));
        Some((best.cluster, placement))
    }

    /// A node changed, and this one stands for those that are as it was.
    fn note(&mut self, cluster: u32, node: u32, next: Option<u32>) {
        self.index.changed((cluster, node));
        if let Some(next) = next {
            self.index.changed((cluster, next));
        }
    }

    /// By looking at every class of every cluster.
    pub(crate) fn best(&mut self, gang: &[GroupNeed], order: Order) -> Option<Place> {
        let spec = WorkloadSpec::default();
        let wants = Wants::without_data(&spec);
        let mut best: Option<Place> = None;
        for room in self.rooms.values_mut() {
            let shapes = room.shapes(gang, order);
            if let Some(place) = place(room, &self.value, &wants, gang, &shapes, (&fit::Everywhere, order))
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

    /// For one member, by the index.
    pub(crate) fn one(&mut self, need: &GroupNeed, order: Order) -> Option<Place> {
        let ask = Ask { each: need.each, skus: need.skus.clone() };
        let rooms: Vec<&Room<'_>> = self.rooms.values().collect();
        let gpus = need.each.gpu_milli;
        let accepts = |room: &Room<'_>, sku| gpus == 0 || room.sku(sku).is_some_and(|s| need.accepts(s));
        let all = || {
            let mut all: Vec<At> = vec![];
            for (cluster, room) in (0u32..).zip(&rooms) {
                let models = std::iter::once(None).chain((0..).take(room.skus.len()).map(Some));
                let nodes = models.filter(|sku| accepts(room, *sku)).flat_map(|sku| room.holes.firsts(sku, gpus));
                all.extend(nodes.map(|node| (cluster, node)));
            }
            all
        };
        let waste = |cluster: u32, sku: Option<u16>, free: &Free| {
            let model = sku.and_then(|s| self.models[cluster as usize].get(usize::from(s)));
            let view = model.and_then(|m| self.value.view_at(*m));
            view.map_or(Waste::default(), |view| self.value.waste(view, free, &need.each, 1))
        };
        let rank = |room: &Room<'_>, sku| match order {
            Order::BestFirst => need.skus.iter().position(|s| Some(s) == room.sku(sku)).unwrap_or(0) as u64,
            Order::Alike => 0,
        };
        let judge = |(cluster, node): At| {
            let room = rooms[cluster as usize];
            let (sku, free) = (room.holes.sku(node), room.holes.free(node));
            if free.members(&need.each) == 0 || !accepts(room, sku) {
                return None;
            }
            let exactly = waste(cluster, sku, free).sum();
            let price = |sku| room.price(sku).map_or(u64::MAX, |p| p.saturating_mul(need.each.gpus()));
            Some(Spot {
                rank: rank(room, sku),
                on_gpus: gpus == 0 && sku.is_some(),
                wasted: exactly.div_euclid(STEP),
                cost: if gpus == 0 { 0 } else { price(sku) },
                exactly,
                cluster,
                gpu_milli: free.all.gpu_milli,
                node,
                version: room.holes.version(node),
            })
        };
        let holds = |spot: &Spot| rooms[spot.cluster as usize].holes.version(spot.node) == spot.version;
        let spot = self.index.best(&ask, all, judge, holds)?;
        let room = rooms[spot.cluster as usize];
        let sku = room.holes.sku(spot.node);
        let waste = waste(spot.cluster, sku, room.holes.free(spot.node));
        let sku = sku.filter(|_| gpus > 0);
        let spots = vec![fit::Spot { sku, nodes: BTreeMap::from([(spot.node, 1)]) }];
        let gang = std::slice::from_ref(need);
        let spec = WorkloadSpec::default();
        let score = Score::new(room, &Wants::without_data(&spec), gang, &spots, waste, order);
        Some(Place { cluster: room.cluster.info.name.clone(), score, spots })
    }
}

#[cfg(test)]
mod tests;
