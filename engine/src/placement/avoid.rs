//! Keeping a workload off the places where it failed lately (`state::avoids`), for the time of its turn: what it avoids is a mark
//! on the room, which `obstacles` and every search see, and is taken off again.
//!
//! Waiting for other places makes sense only where there are any. So a gang that no cluster could hold otherwise, once all attempts
//! have ended, avoids nothing: it takes the nodes on which it failed least often first. In a cluster of one node it is tried again
//! there, in one of three nodes a gang of two tries every pair. And it waits no longer than the time for which a place is avoided.

use protocol::ids::ClusterName;
use protocol::workload::{Framework, GroupNeed};

use super::fit::{Allowed, Fit, Fullest, fit};
use super::holes::{AVOIDED, Class, KeptFor, taken_last};
use super::locality::Wants;
use super::obstacles::bars;
use super::price::payable;
use super::rooms::{Order, Room, Rooms};
use crate::state::{Avoided, Avoids};

/// Every node that is not avoided.
pub(crate) struct NotAvoided;

impl Allowed for NotAvoided {
    fn allows(&self, class: &Class) -> bool {
        class.kept() != Some(AVOIDED)
    }
}

/// What is avoided in a cluster during one workload's turn.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// All of it.
    pub(crate) cluster: Option<Avoided>,
    /// Nodes, each with the gang for which it is kept.
    nodes: Vec<(u32, Option<KeptFor>, Avoided)>,
}

impl Room<'_> {
    /// Marks what a workload avoids here.
    pub(crate) fn avoid(&mut self, avoids: &Avoids) {
        let name = &self.cluster.info.name;
        self.marks.cluster = avoids.clusters.get(name).copied();
        let Some(nodes) = avoids.nodes.get(name) else { return };
        let places = self.places();
        for (node, avoided) in nodes.iter().filter_map(|(name, avoided)| Some((*places.get(name)?, *avoided))) {
            let before = self.holes.kept_for(node);
            self.holes.keep_for(node, Some(AVOIDED));
            self.healthy().keep_for(node, Some(AVOIDED));
            self.marks.nodes.push((node, before, avoided));
        }
    }

    /// What is avoided may be taken after all, but last.
    pub(crate) fn avoid_less(&mut self) {
        self.marks.cluster = None;
        let nodes = std::mem::take(&mut self.marks.nodes);
        for (node, before, avoided) in nodes {
            self.healthy().keep_for(node, None);
            match before {
                Some(gang) => self.holes.keep_for(node, Some(gang)),
                None => {
                    self.holes.keep_for(node, Some(taken_last(avoided.failures)));
                    self.marks.nodes.push((node, None, avoided));
                }
            }
        }
    }

    /// Takes the marks off. Avoided nodes that were kept for the workload itself, under the number `own`, are not any more.
    pub(crate) fn avoid_nothing(&mut self, own: Option<KeptFor>) {
        self.marks.cluster = None;
        for (node, before, _) in std::mem::take(&mut self.marks.nodes) {
            self.holes.unmark(node, before.filter(|gang| Some(*gang) != own));
            self.healthy().keep_for(node, None);
        }
    }

    /// For how many members there is room on avoided nodes that `usable` lets through, and when the first of those is taken again.
    pub(crate) fn on_avoided(&self, need: &GroupNeed, usable: impl Fn(u32) -> bool) -> (u64, Option<Avoided>) {
        let hard = |node: u32| self.holes.kept_for(node) == Some(AVOIDED);
        let there = self.marks.nodes.iter().filter(|(node, ..)| hard(*node) && usable(*node));
        let room =
            there.map(|(node, _, avoided)| (need.spread.most(self.holes.free(*node).members(&need.each)), *avoided));
        room.filter(|(members, _)| *members > 0).fold(
            (0, None),
            |(sum, first): (u64, Option<Avoided>), (members, at)| {
                (sum.saturating_add(members), Some(first.map_or(at, |first| first.min(at))))
            },
        )
    }
}

/// Whether some cluster could hold the gang on what is not avoided, once attempts have ended.
pub(crate) fn elsewhere(
    rooms: &mut Rooms<'_>,
    wants: &Wants<'_>,
    framework: Framework,
    gang: &[GroupNeed],
    beside: Option<&ClusterName>,
) -> bool {
    let there = rooms.iter_mut().filter(|(name, _)| beside.is_none_or(|cluster| cluster == *name));
    let mut open = there.map(|(_, room)| room).filter(|room| bars(room, wants, framework, gang).is_none());
    open.any(|room| {
        payable(room, wants.spec, gang).iter().any(|gang| {
            let shapes = room.shapes(gang, Order::BestFirst);
            fit(room.healthy(), &NotAvoided, &shapes, &Fullest) != Fit::No
        })
    })
}
