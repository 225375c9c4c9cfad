//! The planner's choice of places, kept over many gangs: rooms and the value of the mix. `queue` walks the line with it; traces
//! (`replay`) hand gangs in one by one.

use std::collections::BTreeMap;

use protocol::capacity::NodeState;
use protocol::control::GroupPlacement;
use protocol::ids::ClusterName;
use protocol::sku::Sku;
use protocol::workload::{GroupNeed, WorkloadSpec};

use super::candidates::{Place, place, settle};
use super::mix::Mix;
use super::rooms::{Order, Room, rooms};
use super::value::Value;
use crate::capacity::Capacity;
use crate::state::State;

/// Rooms with a value: what the next gang's place is chosen by.
pub struct Placer<'a> {
    pub(crate) rooms: BTreeMap<&'a ClusterName, Room<'a>>,
    pub(crate) value: Value,
    fleet: BTreeMap<Sku, u64>,
    mix: Mix,
    /// The members of the mix of which `value` is.
    valued: u64,
}

impl<'a> Placer<'a> {
    /// For a plan: the mix is that of every workload on record.
    pub(crate) fn new(state: &'a State, capacity: &'a Capacity) -> Self {
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
                *fleet.entry(sku.clone()).or_default() += node.total.gpu_milli;
            }
        }
        let (value, valued) = (Value::new(&mix, &fleet), mix.members());
        Self { rooms: rooms(state, capacity), value, fleet, mix, valued }
    }

    /// Counts a gang into the mix. The mix is valued anew once it has grown by an eighth.
    pub fn see(&mut self, gang: &[GroupNeed]) {
        self.mix.see(gang);
        if self.mix.members() > self.valued + self.valued / 8 {
            (self.value, self.valued) = (Value::new(&self.mix, &self.fleet), self.mix.members());
        }
    }

    /// The best place for a gang in any cluster, which takes its room; none where it fits nowhere.
    pub fn place(&mut self, gang: &[GroupNeed], order: Order) -> Option<(ClusterName, Vec<GroupPlacement>)> {
        let spec = WorkloadSpec::default();
        let mut best: Option<Place> = None;
        for room in self.rooms.values_mut() {
            let shapes = room.shapes(gang, order);
            if let Some(place) = place(room, &self.value, &spec, gang, &shapes)
                && best.as_ref().is_none_or(|b| place.score < b.score)
            {
                best = Some(place);
            }
        }
        let best = best?;
        let room = self.rooms.get_mut(&best.cluster)?;
        let placement = settle(room, gang, &best.spots);
        Some((best.cluster, placement))
    }
}
