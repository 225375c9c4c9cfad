//! Elastic attempts grow after the walk of the lines, into room that nobody in line could use: each that may grow gets one member after
//! the other in turn, by priority and then submission, until none finds a place.
//!
//! Nothing is taken that is kept for anybody, nor in a cluster where a gang within its pool's part waits for room: small holes there may
//! add up to its own. A member goes again the moment that a gang needs its room (`giving`), so that growing costs others nothing; what
//! it costs is the start of a member, and so an attempt grows only once it has run, and since its last change of size, for as long
//! as room must have been lent before it is taken back. That bounds flapping: one change there and back in that time, whoever comes.

use protocol::capacity::NodeState;
use protocol::control::GroupPlacement;
use protocol::placement::{add, all_members, on_node};
use protocol::pool::Amounts;
use protocol::workload::{GroupNeed, Preemptible, Spread};

use super::reservations::Passes;
use super::{Memory, Walk};
use crate::commands::Growth;
use crate::lifecycle::Phase;
use crate::placement::candidates::{place, take};
use crate::placement::holes::{AVOIDED, KeptFor};
use crate::placement::locality::Wants;
use crate::placement::price;
use crate::placement::rooms::{Order, Room};
use crate::pools::admission::Asks;
use crate::pools::usage::needs;
use crate::state::{Attempt, Line, Workload};

/// The most members that come in one plan.
const MOST_MEMBERS: u32 = 256;

/// One that may grow.
struct Grower<'a> {
    workload: &'a Workload,
    attempt: &'a Attempt,
    /// What it has, with what it gets.
    has: Vec<GroupPlacement>,
    more: Vec<GroupPlacement>,
}

impl<'a> Walk<'a> {
    /// Who gets members now.
    pub(crate) fn grow(&mut self, before: &Memory) -> Vec<Growth> {
        let growers = self.state.elastic().filter(|(w, a)| self.may_grow(w, a, before));
        let mut growers: Vec<Grower<'a>> = growers
            .map(|(workload, attempt)| Grower { workload, attempt, has: attempt.placement.clone(), more: vec![] })
            .collect();
        growers.sort_by_key(|g| Line::of(g.workload));
        let mut growing: Vec<usize> = (0..growers.len()).collect();
        let mut left = MOST_MEMBERS;
        while left > 0 && !growing.is_empty() {
            growing.retain(|&i| {
                let one = if left > 0 { self.one_more(&growers[i]) } else { None };
                let Some(one) = one else { return false };
                left -= 1;
                add(&mut growers[i].has, std::slice::from_ref(&one));
                add(&mut growers[i].more, std::slice::from_ref(&one));
                true
            });
        }
        let grown = growers.into_iter().filter(|g| all_members(&g.more) > 0);
        let growth = |g: Grower<'a>| Growth {
            epoch: self.state.epoch,
            key: g.workload.key.clone(),
            uid: g.workload.uid,
            attempt: g.attempt.number,
            sized_by: g.attempt.sized_by(),
            members: g.more,
        };
        grown.map(growth).collect()
    }

    /// Whether it runs, has kept its size for a while, and its cluster has room that nobody waits for.
    fn may_grow(&self, workload: &Workload, attempt: &Attempt, before: &Memory) -> bool {
        let resize = attempt.resize.as_ref();
        let steady = attempt.sized_at().is_some_and(|since| since.0.saturating_add(before.lasting_ms()) <= self.now.0);
        let settled = resize.is_none_or(|resize| resize.settled);
        let Some(room) = self.placer.rooms.get(&attempt.cluster) else { return false };
        let usable = super::books::usable(room) && room.capacity.is_some_and(|c| c.fresh);
        let known = room.cluster.incarnation == attempt.incarnation && !self.wanted.contains(&attempt.cluster);
        let runs = workload.phase == Phase::Running && attempt.stop.is_none();
        runs && settled
            && steady
            && usable
            && known
            && !workload.avoids(self.now).clusters.contains_key(&attempt.cluster)
    }

    /// A place for one more member, which takes its room and its pool's part.
    fn one_more(&mut self, grower: &Grower<'a>) -> Option<GroupPlacement> {
        let Grower { workload, attempt, has, .. } = grower;
        let elastic: Vec<_> = workload.spec.elastic().collect();
        let small = |g: &&GroupPlacement| {
            let most = elastic.iter().find(|(name, ..)| **name == g.group).map_or(0, |(_, _, most)| *most);
            protocol::placement::members(g) < most
        };
        let asks = Asks { preemptible: Preemptible::Yes, end: None, passes: false };
        for group in has.iter().filter(small) {
            let skus = group.sku.iter().cloned().collect();
            let need = GroupNeed { name: group.group.clone(), count: 1, each: group.each, skus, spread: Spread::None };
            let more: Amounts = needs(std::slice::from_ref(&need));
            if self.ledger.forbids(&self.state.pools, &workload.pool, &more, asks).is_some() {
                continue;
            }
            let avoids = workload.avoids(self.now);
            let Some(room) = self.placer.rooms.get_mut(&attempt.cluster) else { continue };
            if !affords(room, workload, has, group) {
                continue;
            }
            let apart = workload.spec.placement.spread == Spread::Nodes;
            let avoided = avoids.nodes.get(&attempt.cluster);
            let closed = close(room, |name| {
                avoided.is_some_and(|nodes| nodes.contains_key(name)) || (apart && on_node(has, &need.name, name) > 0)
            });
            let gang = std::slice::from_ref(&need);
            let shapes = room.shapes(gang, Order::BestFirst);
            let allowed = (&Passes::default() as &dyn crate::placement::fit::Allowed, Order::BestFirst);
            let wants = Wants::without_data(&workload.spec);
            let found = place(room, &room.judge(&self.placer.value), &wants, gang, &shapes, allowed);
            closed.into_iter().for_each(|(node, kept)| room.holes.keep_for(node, kept));
            let Some(found) = found else { continue };
            take(room, gang, &found.spots);
            self.ledger.take(&self.state.pools, &workload.pool, &more, Preemptible::Yes);
            let nodes = found.spots.first()?.nodes.keys().filter_map(|node| room.node(*node));
            let share = |node: &crate::capacity::NodeCapacity| protocol::control::NodeShare {
                node: node.name.clone(),
                members: 1,
            };
            return Some(GroupPlacement { nodes: nodes.map(share).collect(), ..group.clone() });
        }
        None
    }
}

/// Closes nodes for a search; returns them with those for whom they were kept.
fn close(room: &mut Room<'_>, closed: impl Fn(&protocol::ids::NodeName) -> bool) -> Vec<(u32, Option<KeptFor>)> {
    let nodes = (0u32..).zip(room.nodes());
    let nodes = nodes.filter(|(_, n)| n.state == NodeState::Ready && closed(&n.name));
    let nodes: Vec<(u32, Option<KeptFor>)> = nodes.map(|(node, _)| (node, room.holes.kept_for(node))).collect();
    nodes.iter().for_each(|(node, _)| room.holes.keep_for(*node, Some(AVOIDED)));
    nodes
}

/// Whether it pays for one more member of a group.
fn affords(room: &Room<'_>, workload: &Workload, has: &[GroupPlacement], more: &GroupPlacement) -> bool {
    let Some(most) = workload.spec.placement.max_cost_per_hour else { return true };
    let of = |group: &GroupPlacement| {
        let known = group.sku.as_ref().and_then(|sku| room.cluster.info.prices.iter().find(|p| p.sku == *sku));
        known.map_or(u64::MAX, |p| p.milli_per_gpu_hour)
    };
    let cost = |group: &GroupPlacement, members: u32| match group.each.times(u64::from(members)).gpu_milli {
        0 => 0,
        milli => price::cost(of(group), milli),
    };
    let all = has.iter().map(|group| cost(group, protocol::placement::members(group))).fold(0, u64::saturating_add);
    all.saturating_add(cost(more, 1)) <= most.0
}
