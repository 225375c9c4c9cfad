//! What a plan makes of each cluster alone, kept for the next plan: between two plans one cluster in a hundred has changed, and the
//! rooms of a large fleet take longer to make than a small plan takes.
//!
//! What is kept of a cluster rests on three things: its nodes as its frame has them, whether it takes members, and which members are in
//! flight. It is used again where the very same values come again (of nodes: where nobody changed them, `capacity::AsThen`), else it is
//! made anew, so nobody has to say what is out of date. Where assertions are checked, all that is used again is made anew and compared.
//!
//! A plan takes room, keeps nodes for gangs and marks them. All of that is undone when it ends: for that it costs what the plan did,
//! where a copy would cost what the fleet has.

use std::collections::BTreeMap;

use protocol::ids::{ClusterName, NodeName};
use protocol::pool::Amounts;
use protocol::resources::Resources;

use super::devices::Free;
use super::holes::Holes;
use super::models::Models;
use super::rooms::{healthy, less, ready};
use crate::capacity::{AsThen, NodeCapacity, Nodes};

/// What one plan leaves for the next of what it made of each cluster. It saves time and decides nothing: a plan is the same with any.
#[derive(Debug, Clone, Default)]
pub struct Kept(BTreeMap<ClusterName, KeptRoom>);

impl Kept {
    pub(super) fn take(&mut self, cluster: &ClusterName) -> Option<KeptRoom> {
        self.0.remove(cluster)
    }
}

impl FromIterator<(ClusterName, KeptRoom)> for Kept {
    fn from_iter<I: IntoIterator<Item = (ClusterName, KeptRoom)>>(rooms: I) -> Self {
        Self(rooms.into_iter().collect())
    }
}

/// What is kept of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct KeptRoom {
    nodes: AsThen,
    made: Made,
    holes: Holes,
}

/// By node the members in flight there, each so and so often.
pub(super) type InFlight = BTreeMap<NodeName, Vec<(Resources, u64)>>;

/// What is made of a cluster's nodes, whether it takes members, and what is in flight, beside its holes.
#[derive(Debug, Clone)]
pub(super) struct Made {
    open: bool,
    in_flight: InFlight,
    pub(super) models: Models,
    /// What is free in all, before this plan's bindings.
    pub(super) free: Amounts,
    empty: Option<Holes>,
    healthy: Option<Holes>,
}

impl Made {
    fn new(nodes: &[NodeCapacity], open: bool, in_flight: InFlight) -> (Self, Holes) {
        let models = Models::of(nodes);
        let none = Self { open, in_flight, models, free: Amounts::default(), empty: None, healthy: None };
        none.with_holes(nodes)
    }

    /// Of a cluster as it is now, with what was kept of it as far as that holds.
    pub(super) fn of(nodes: Option<&Nodes>, open: bool, in_flight: InFlight, kept: Option<KeptRoom>) -> (Self, Holes) {
        let there = nodes.map_or(&[][..], |nodes| nodes);
        let Some(KeptRoom { made, holes, .. }) = kept.filter(|kept| nodes.is_some_and(|n| kept.nodes.are(n))) else {
            return Self::new(there, open, in_flight);
        };
        let (made, holes) = match made.open == open && made.in_flight == in_flight {
            true => (made, holes),
            // Of the nodes alone are the models, and what there would be if all were empty.
            false => {
                let healthy = made.healthy.filter(|_| made.open == open);
                Self { open, in_flight, healthy, ..made }.with_holes(there)
            }
        };
        debug_assert!(made.holds(&holes, there), "what was kept of a cluster is another than what is made of it now");
        (made, holes)
    }

    fn with_holes(mut self, nodes: &[NodeCapacity]) -> (Self, Holes) {
        let in_flight = |n: &NodeCapacity| self.in_flight.get(&n.name).into_iter().flatten();
        let free = |n: &NodeCapacity| ready(n).filter(|_| self.open).map(|free| in_flight(n).fold(free, less));
        let holes = holes_of(nodes, &self.models, free);
        self.free = self.models.free_in(&holes);
        (self, holes)
    }

    /// Whether all of this is what is made of these nodes now.
    fn holds(&self, holes: &Holes, nodes: &[NodeCapacity]) -> bool {
        let (mut anew, holes_anew) = Self::new(nodes, self.open, self.in_flight.clone());
        let same = |kept: &Option<Holes>, anew: &Holes| kept.as_ref().is_none_or(|kept| kept == anew);
        *holes == holes_anew
            && (&self.models, &self.free) == (&anew.models, &anew.free)
            && same(&self.empty, anew.empty(nodes))
            && same(&self.healthy, anew.healthy(nodes))
    }

    /// What there would be if every node were empty, healthy and taking members. Made when first asked for.
    pub(super) fn empty(&mut self, nodes: &[NodeCapacity]) -> &mut Holes {
        let models = &self.models;
        self.empty.get_or_insert_with(|| holes_of(nodes, models, |n| Some(Free::whole(n.total, n.sharing))))
    }

    /// What there would be once every attempt has ended, with ghosts, sick and foreign devices, cordoned nodes and the cluster's own
    /// cordon as they are now. Made when first asked for.
    pub(super) fn healthy(&mut self, nodes: &[NodeCapacity]) -> &mut Holes {
        let (models, open) = (&self.models, self.open);
        self.healthy.get_or_insert_with(|| holes_of(nodes, models, |node| healthy(node).filter(|_| open)))
    }

    /// As it was made; none where that can't be had any more.
    pub(super) fn rest(mut self, mut holes: Holes, nodes: &Nodes) -> Option<KeptRoom> {
        let more = [&mut self.empty, &mut self.healthy].into_iter().flatten();
        let all = more.chain([&mut holes]).all(Holes::rest);
        all.then(|| KeptRoom { nodes: nodes.as_now(), made: self, holes })
    }
}

fn holes_of(nodes: &[NodeCapacity], models: &Models, free: impl Fn(&NodeCapacity) -> Option<Free>) -> Holes {
    Holes::new(nodes.iter().map(|n| (models.place(n.sku.as_ref()), free(n))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::capacity::{NodeState, Source};
    use protocol::sku::Sku;

    use super::*;

    fn nodes() -> Nodes {
        let total = Resources { cpu_milli: 8_000, memory_mib: 8_000, gpu_milli: 4_000 };
        let node = |name: &str, sku: Option<&str>, total| {
            NodeCapacity::untouched(NodeName::new(name).unwrap(), sku.map(Sku::from_driver), Source::Declared, total)
        };
        [
            node("a", Some("H100"), total),
            node("b", Some("L4"), total),
            node("c", None, Resources { gpu_milli: 0, ..total }),
        ]
        .into_iter()
        .collect()
    }

    /// What a plan leaves that asked for everything, took room, and kept nodes.
    fn kept(nodes: &Nodes, open: bool, in_flight: InFlight) -> KeptRoom {
        let (mut made, mut holes) = Made::of(Some(nodes), open, in_flight, None);
        made.empty(nodes);
        made.healthy(nodes).keep_for(0, Some(1));
        if open {
            holes.take(0, &Resources { cpu_milli: 1_000, memory_mib: 1, gpu_milli: 1_500 }, 1);
            holes.keep_for(0, Some(3));
            holes.take(0, &Resources { cpu_milli: 1_000, memory_mib: 1, gpu_milli: 300 }, 2);
            holes.give(1, &Resources { cpu_milli: 1_000, memory_mib: 1, gpu_milli: 0 }, 1);
        }
        made.rest(holes, nodes).unwrap()
    }

    fn in_flight() -> InFlight {
        InFlight::from([(NodeName::new("b").unwrap(), vec![(Resources { gpu_milli: 700, ..Resources::ZERO }, 2)])])
    }

    /// Of this cluster, with what was kept of it; what holds is looked at by [`Made::of`] itself.
    fn again(kept: KeptRoom, nodes: &Nodes, open: bool, in_flight: InFlight) -> (Made, Holes) {
        let (anew, holes_anew) = Made::of(Some(nodes), open, in_flight.clone(), None);
        let (made, holes) = Made::of(Some(nodes), open, in_flight, Some(kept));
        assert_eq!((&made.models, &made.free, &holes), (&anew.models, &anew.free, &holes_anew));
        (made, holes)
    }

    #[test]
    fn what_a_plan_changed_is_undone_and_the_rest_is_used_again() {
        let nodes = nodes();
        let (made, _) = again(kept(&nodes, true, in_flight()), &nodes, true, in_flight());
        assert!(made.empty.is_some() && made.healthy.is_some());
        let (made, _) = again(kept(&nodes, true, in_flight()), &nodes, true, InFlight::new());
        assert!(made.empty.is_some() && made.healthy.is_some(), "they don't ask who is in flight");
        let (made, _) = again(kept(&nodes, true, in_flight()), &nodes, false, in_flight());
        assert!(made.empty.is_some() && made.healthy.is_none(), "nothing is healthy where nothing may be placed");
        let (made, _) = again(kept(&nodes, false, in_flight()), &nodes, true, in_flight());
        assert!(made.empty.is_some() && made.healthy.is_none());
    }

    #[test]
    fn of_nodes_that_changed_nothing_is_used_again() {
        let mut nodes = nodes();
        let before = kept(&nodes, true, in_flight());
        nodes[2].state = NodeState::Cordoned;
        let (made, _) = again(before, &nodes, true, in_flight());
        assert!(made.empty.is_none() && made.healthy.is_none());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "what was kept of a cluster is another")]
    fn what_is_used_again_is_compared() {
        let nodes = nodes();
        let before = KeptRoom { nodes: nodes.as_now(), ..kept(&self::nodes(), true, in_flight()) };
        let holes = kept(&nodes, true, InFlight::new()).holes;
        Made::of(Some(&nodes), true, in_flight(), Some(KeptRoom { holes, ..before }));
    }

    #[test]
    fn what_was_changed_for_good_is_not_kept() {
        let nodes = nodes();
        let (made, mut holes) = Made::of(Some(&nodes), true, InFlight::new(), None);
        holes.take(0, &Resources { gpu_milli: 1_000, ..Resources::ZERO }, 1);
        holes.keep();
        assert!(made.clone().rest(holes, &nodes).is_none());
        let (_, mut holes) = Made::of(Some(&nodes), true, InFlight::new(), None);
        holes.renew(0, None);
        assert!(made.rest(holes, &nodes).is_none());
    }
}
