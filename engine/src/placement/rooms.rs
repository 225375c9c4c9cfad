//! The free room of every cluster at the start of a plan: what the capacity frames say, less the bindings that they do not
//! include yet.

use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::capacity::NodeState;
use protocol::control::GroupPlacement;
use protocol::ids::{ClusterName, NodeName};
use protocol::pool::Amounts;
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::GroupNeed;

use super::avoid::Marks;
use super::devices::{DEVICE, Free, Shares};
use super::fit::{Judge, Shape, packing_order};
use super::holes::{Holes, SkuId};
use super::kept::{InFlight, Kept, KeptRoom, Made};
use super::models::Models;
use super::value::{Value, Waste};
use super::view::View;
use crate::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use crate::planted;
use crate::state::{Attempt, Cluster, State, Workload};

/// One joined cluster during a plan.
pub(crate) struct Room<'a> {
    pub(crate) cluster: &'a Cluster,
    /// None before its first frame.
    pub(crate) capacity: Option<&'a ClusterCapacity>,
    /// What is made of the cluster alone.
    made: Made,
    /// What is free now.
    pub(crate) holes: Holes,
    /// What the workload whose turn it is avoids here.
    pub(crate) marks: Marks,
    state: &'a State,
    places: Option<Rc<BTreeMap<&'a NodeName, u32>>>,
}

/// What the order of the models that a workload names means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// An earlier one is taken wherever it has room: what a specification says.
    BestFirst,
    /// They are alike: what traces say.
    Alike,
}

/// Judges places by what they waste of a mix.
pub(crate) struct ByWaste<'v> {
    value: &'v Value,
    /// By the cluster's models.
    views: Vec<Option<&'v View>>,
}

impl<'v> ByWaste<'v> {
    /// Of a cluster with models that the mix looks at so.
    pub(crate) fn new(value: &'v Value, views: impl Iterator<Item = Option<&'v View>>) -> Self {
        Self { value, views: views.collect() }
    }
}

impl Judge for ByWaste<'_> {
    fn waste(&self, sku: SkuId, free: &Free, each: &Resources, members: u64) -> Waste {
        match sku.and_then(|s| self.views.get(usize::from(s)).copied().flatten()) {
            Some(view) => self.value.waste(view, free, each, members),
            None => Waste::default(),
        }
    }
}

impl<'a> Room<'a> {
    /// Of one cluster, without a plan.
    pub(crate) fn alone(state: &'a State, cluster: &'a Cluster, capacity: Option<&'a ClusterCapacity>) -> Self {
        Self::new(state, cluster, capacity, None)
    }

    /// As it is now, with what was kept of it.
    fn new(
        state: &'a State,
        cluster: &'a Cluster,
        capacity: Option<&'a ClusterCapacity>,
        kept: Option<KeptRoom>,
    ) -> Self {
        let name = &cluster.info.name;
        let in_flight = capacity.map_or_else(InFlight::new, |frame| {
            let found = in_flight(state.unseen_in(name, cluster.incarnation, frame.watermark), cluster, frame);
            debug_assert_eq!(found, in_flight(state.live_in(name), cluster, frame), "others are in the frame");
            found
        });
        let (made, holes) = Made::of(capacity.map(|c| &c.nodes), cluster.takes_members(), in_flight, kept);
        Self { cluster, capacity, made, holes, marks: Marks::default(), state, places: None }
    }

    /// What the next plan may start from.
    fn rest(self) -> Option<KeptRoom> {
        self.made.rest(self.holes, &self.capacity?.nodes)
    }

    /// What lives here, by launch: each is looked up anew.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&'a Workload, &'a Attempt)> + use<'a> {
        self.state.live_in(&self.cluster.info.name)
    }

    /// Its nodes, by row.
    pub(crate) fn nodes(&self) -> &'a [NodeCapacity] {
        self.capacity.map_or(&[], |c| &c.nodes)
    }

    /// Its models.
    pub(crate) fn models(&self) -> &Models {
        &self.made.models
    }

    /// What is free in all before anything is placed.
    pub(crate) fn free_at_first(&self) -> &Amounts {
        &self.made.free
    }

    /// What there would be if every node were empty, healthy and taking members. Made when first asked for.
    pub(crate) fn empty(&mut self) -> &mut Holes {
        let nodes = self.nodes();
        self.made.empty(nodes)
    }

    /// What there would be once every attempt has ended, with ghosts, sick and foreign devices, cordoned nodes and the cluster's own
    /// cordon as they are now. Made when first asked for.
    pub(crate) fn healthy(&mut self) -> &mut Holes {
        let nodes = self.nodes();
        self.made.healthy(nodes)
    }

    /// The gang as this cluster sees it.
    pub(crate) fn shapes(&self, gang: &[GroupNeed], order: Order) -> Vec<Shape> {
        let shape = |n: &GroupNeed| Shape {
            count: u64::from(n.count),
            each: n.each,
            skus: self.accepted(n, order),
            spread: n.spread,
        };
        gang.iter().map(shape).collect()
    }

    /// Judges places of this cluster by what they waste.
    pub(crate) fn judge<'v>(&self, value: &'v Value) -> ByWaste<'v> {
        ByWaste::new(value, self.models().skus().map(|sku| value.view(sku)))
    }

    /// Models of this cluster that a group accepts, best first. One that accepts any gets the cheapest first; models with one
    /// price are alike to it.
    pub(crate) fn accepted(&self, need: &GroupNeed, order: Order) -> Vec<Vec<u16>> {
        if need.each.gpu_milli == 0 {
            return vec![];
        }
        if need.skus.is_empty() {
            let mut by_price: BTreeMap<u64, Vec<u16>> = BTreeMap::new();
            for sku in (0..).zip(self.models().skus()).filter(|(_, sku)| !sku.is_slice()).map(|(at, _)| at) {
                by_price.entry(self.price(Some(sku)).unwrap_or(u64::MAX)).or_default().push(sku);
            }
            return by_price.into_values().collect();
        }
        let mut known: Vec<u16> = vec![];
        for sku in need.skus.iter().filter_map(|sku| self.models().place(Some(sku))) {
            if !known.contains(&sku) {
                known.push(sku);
            }
        }
        match order {
            Order::BestFirst => known.into_iter().map(|sku| vec![sku]).collect(),
            Order::Alike if known.is_empty() => vec![],
            Order::Alike => vec![known],
        }
    }

    /// Thousandths of the fleet's currency for a GPU-hour of a model, where known.
    pub(crate) fn price(&self, sku: SkuId) -> Option<u64> {
        let sku = self.sku(sku)?;
        self.cluster.info.prices.iter().find(|p| p.sku == *sku).map(|p| p.milli_per_gpu_hour)
    }

    pub(crate) fn sku(&self, sku: SkuId) -> Option<&Sku> {
        self.models().at(sku?).map(|model| &model.sku)
    }

    /// The nodes that take members, by name. Made when first asked for.
    pub(crate) fn places(&mut self) -> Rc<BTreeMap<&'a NodeName, u32>> {
        let nodes = (0u32..).zip(self.nodes());
        let open = self.cluster.takes_members();
        let ready = nodes.filter(|(_, n)| open && n.state == NodeState::Ready).map(|(i, n)| (&n.name, i));
        Rc::clone(self.places.get_or_insert_with(|| Rc::new(ready.collect())))
    }

    /// Makes the room of placed members free.
    pub(crate) fn give<'g>(
        &mut self,
        places: &BTreeMap<&NodeName, u32>,
        groups: impl IntoIterator<Item = &'g GroupPlacement>,
    ) {
        for group in groups {
            for share in &group.nodes {
                if let Some(node) = places.get(&share.node) {
                    self.holes.give(*node, &group.each, u64::from(share.members));
                }
            }
        }
    }

    /// Takes the room of an attempt's members again that was made free; false, and nothing is taken, where it is gone.
    pub(crate) fn take_back(&mut self, attempt: &Attempt) -> bool {
        let (places, mark) = (self.places(), self.holes.mark());
        for group in &attempt.placement {
            for share in &group.nodes {
                let Some(node) = places.get(&share.node) else { continue };
                if self.holes.free(*node).members(&group.each) < u64::from(share.members) {
                    self.holes.undo_to(mark);
                    return false;
                }
                self.holes.take(*node, &group.each, u64::from(share.members));
            }
        }
        true
    }

    pub(crate) fn node(&self, node: u32) -> Option<&'a NodeCapacity> {
        self.nodes().get(node as usize)
    }
}

/// A node once no attempt runs on it, its ghosts, sick and foreign devices left out; none where it takes no members.
pub(crate) fn healthy(node: &NodeCapacity) -> Option<Free> {
    let out = (u64::from(node.ghosts) + u64::from(node.sick) + u64::from(node.foreign)) * DEVICE;
    let left = Resources { gpu_milli: node.total.gpu_milli.saturating_sub(out), ..node.total };
    (node.state == NodeState::Ready).then(|| Free::whole(left, node.sharing))
}

/// What a frame says is free on a node; none where it takes no members.
pub(crate) fn ready(node: &NodeCapacity) -> Option<Free> {
    (node.state == NodeState::Ready).then(|| free(node))
}

/// What a frame says is free on a node.
pub(crate) fn free(node: &NodeCapacity) -> Free {
    let mut shares = Shares::from_slice(&node.shares);
    shares.sort_unstable();
    Free { all: node.free, shares, sharing: node.sharing }
}

/// What is left once these members took theirs, as far as there is room. What a frame and a binding say together can be more than
/// there is, where Kubernetes or a person did something else meanwhile.
pub(super) fn less(mut free: Free, (each, members): &(Resources, u64)) -> Free {
    let fit = free.members(each).min(*members);
    free.take_all(each, fit);
    if fit < *members {
        let more = each.times(members - fit);
        free.all.cpu_milli = free.all.cpu_milli.saturating_sub(more.cpu_milli);
        free.all.memory_mib = free.all.memory_mib.saturating_sub(more.memory_mib);
        if more.gpu_milli > 0 {
            // Which devices it took is not known: none of them is given out again.
            free.all.gpu_milli =
                free.devices().saturating_mul(DEVICE).saturating_sub(more.gpu_milli.next_multiple_of(DEVICE));
            free.shares.clear();
        }
    }
    free
}

/// The room of every joined cluster, by name. Sorted, and not a map: a place in it stands for a cluster in what is looked up millions of times.
pub(crate) struct Rooms<'a>(Vec<(&'a ClusterName, Room<'a>)>);

impl<'a> Rooms<'a> {
    pub(crate) fn new(state: &'a State, capacity: &'a Capacity) -> Self {
        Self::from_kept(state, capacity, Kept::default())
    }

    /// With what the last plan kept.
    pub(crate) fn from_kept(state: &'a State, capacity: &'a Capacity, mut kept: Kept) -> Self {
        let room = |(name, cluster): (&'a ClusterName, &'a Cluster)| {
            (name, Room::new(state, cluster, capacity.clusters.get(name), kept.take(name)))
        };
        Self(state.clusters.iter().map(room).collect())
    }

    /// What the next plan may start from.
    pub(crate) fn rest(self) -> Kept {
        self.0.into_iter().filter_map(|(name, room)| Some((name.clone(), room.rest()?))).collect()
    }

    /// A cluster's place.
    pub(crate) fn find(&self, name: &ClusterName) -> Option<usize> {
        self.0.binary_search_by(|(known, _)| (*known).cmp(name)).ok()
    }

    /// The room at a place that was found.
    pub(crate) fn at(&self, place: usize) -> &Room<'a> {
        &self.0[place].1
    }

    pub(crate) fn at_mut(&mut self, place: usize) -> &mut Room<'a> {
        &mut self.0[place].1
    }

    pub(crate) fn get(&self, name: &ClusterName) -> Option<&Room<'a>> {
        self.find(name).map(|place| self.at(place))
    }

    pub(crate) fn get_mut(&mut self, name: &ClusterName) -> Option<&mut Room<'a>> {
        self.find(name).map(|place| self.at_mut(place))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'a ClusterName> {
        self.0.iter().map(|(name, _)| *name)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Room<'a>> {
        self.0.iter().map(|(_, room)| room)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Room<'a>> {
        self.0.iter_mut().map(|(_, room)| room)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a ClusterName, &Room<'a>)> {
        self.0.iter().map(|(name, room)| (*name, room))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&'a ClusterName, &mut Room<'a>)> {
        self.0.iter_mut().map(|(name, room)| (*name, room))
    }
}

/// What bindings and resizes take that the frame does not include: members that came by a command above its watermark. What a resize
/// takes away is free once a frame says so. An attempt that another life of the agent holds is counted too, whatever the watermark:
/// this life's frames can't know of it.
fn in_flight<'s>(
    live: impl IntoIterator<Item = (&'s Workload, &'s Attempt)>,
    cluster: &Cluster,
    frame: &ClusterCapacity,
) -> InFlight {
    let mut taken = InFlight::new();
    if planted::is("count-inflight-never") {
        return taken;
    }
    for (_, attempt) in live {
        let mut take = |groups: &[GroupPlacement]| {
            for g in packing_order(groups.iter().map(|g| g.each)) {
                let group = &groups[g];
                for share in &group.nodes {
                    taken.entry(share.node.clone()).or_default().push((group.each, u64::from(share.members)));
                }
            }
        };
        if attempt.incarnation == cluster.incarnation {
            attempt.unseen(frame.watermark).for_each(take);
        } else {
            take(&attempt.placement);
            take(attempt.leaving());
        }
    }
    taken
}
