//! Every cluster as a place for one gang: where it fits with its score, where it does not with the first obstacle.

use protocol::control::{GroupPlacement, NodeShare};
use protocol::ids::ClusterName;
use protocol::workload::{Framework, GroupNeed};

use super::avoid::NotAvoided;
use super::fit::{Allowed, Fit, Fullest, Shape, Spot, fit, packing_order};
use super::locality::Wants;
use super::obstacles::{bars, no_room, stale, too_small};
use super::price::payable;
use super::rooms::{ByWaste, Order, Room, Rooms};
use super::score::Score;
use super::value::Value;
use crate::queue::reservations::{Passes, Reservations};
use crate::reasons::{Candidate, Decision, Obstacle};

/// The most candidates that a decision keeps: it goes into the log.
const KEPT_CANDIDATES: usize = 64;

/// A cluster that could hold the gang now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cluster: ClusterName,
    pub(crate) score: Score,
    pub(crate) spots: Vec<Spot>,
}

/// A cluster that could not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Barred {
    pub(crate) cluster: ClusterName,
    pub(crate) obstacle: Obstacle,
    /// Whether it could hold the gang once attempts end, or those ahead have started.
    pub(crate) waits: bool,
}

/// What came of looking at a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// It could hold the gang now.
    Open(Place),
    /// It could not.
    Barred(Barred),
}

/// Looks at one cluster.
pub(crate) fn look(
    room: &mut Room<'_>,
    value: &Value,
    wants: &Wants<'_>,
    framework: Framework,
    gang: &[GroupNeed],
    (reservations, passes): (&Reservations<'_>, &Passes),
) -> Look {
    if let Some(obstacle) = bars(room, wants, framework, gang) {
        return Look::Barred(Barred { cluster: room.cluster.info.name.clone(), obstacle, waits: false });
    }
    let mut first = None;
    // Whether it can pay at all is among what bars it.
    for gang in payable(room, wants.spec, gang) {
        match look_for(room, value, wants, &gang, (reservations, passes)) {
            Look::Open(place) => return Look::Open(place),
            Look::Barred(barred) => first = first.or(Some(barred)),
        }
    }
    first.map_or_else(|| look_for(room, value, wants, gang, (reservations, passes)), Look::Barred)
}

/// Looks for room for a gang in a cluster that may run it.
fn look_for(
    room: &mut Room<'_>,
    value: &Value,
    wants: &Wants<'_>,
    gang: &[GroupNeed],
    (reservations, passes): (&Reservations<'_>, &Passes),
) -> Look {
    let cluster = room.cluster.info.name.clone();
    let barred = |obstacle, waits| Look::Barred(Barred { cluster: cluster.clone(), obstacle, waits });
    let shapes = room.shapes(gang, Order::BestFirst);
    let stale = stale(room);
    if stale.is_none()
        && let Some(place) = place(room, &room.judge(value), wants, gang, &shapes, (passes, Order::BestFirst))
    {
        return Look::Open(place);
    }
    if let Some(obstacle) = too_small(room, gang, &shapes).or(stale) {
        return barred(obstacle, false);
    }
    if let Some(ahead) = reservations.ahead(room, passes)
        && matches!(fit(&mut room.holes, &NotAvoided, &shapes, &Fullest), Fit::Fits(..))
    {
        let (first, until) = (ahead.key.to_string(), ahead.pass_until);
        return barred(Obstacle::BehindOthers { first, until }, true);
    }
    let obstacle = no_room(room, gang);
    // Where even the end of every attempt would make no room, keeping room would only leave it idle.
    let worth = fit(room.healthy(), &NotAvoided, &shapes, &Fullest) != Fit::No;
    barred(obstacle, worth)
}

/// The best place for the gang in this cluster now.
pub(crate) fn place(
    room: &mut Room<'_>,
    judge: &ByWaste<'_>,
    wants: &Wants<'_>,
    gang: &[GroupNeed],
    shapes: &[Shape],
    (allowed, order): (&dyn Allowed, Order),
) -> Option<Place> {
    let Fit::Fits(spots, waste) = fit(&mut room.holes, allowed, shapes, judge) else { return None };
    let score = Score::new(room, wants, gang, &spots, waste, order);
    Some(Place { cluster: room.cluster.info.name.clone(), score, spots })
}

/// Takes the room, until that is undone.
pub(crate) fn take(room: &mut Room<'_>, gang: &[GroupNeed], spots: &[Spot]) {
    for g in packing_order(gang.iter().map(|g| g.each)) {
        for (node, members) in &spots[g].nodes {
            room.holes.take(*node, &gang[g].each, *members);
        }
    }
}

/// Takes the room, and says who sits where.
pub(crate) fn settle(room: &mut Room<'_>, gang: &[GroupNeed], spots: &[Spot]) -> Vec<GroupPlacement> {
    take(room, gang, spots);
    gang.iter().zip(spots).map(|(need, spot)| placement(room, need, spot)).collect()
}

fn placement(room: &Room<'_>, need: &GroupNeed, spot: &Spot) -> GroupPlacement {
    let share = |(node, members): (&u32, &u64)| {
        let node = room.node(*node)?.name.clone();
        Some(NodeShare { node, members: u32::try_from(*members).ok()? })
    };
    GroupPlacement {
        group: need.name.clone(),
        each: need.each,
        sku: room.sku(spot.sku).cloned(),
        nodes: spot.nodes.iter().filter_map(share).collect(),
    }
}

/// Why there: the chosen place, then the others by score, then those that could not.
pub(crate) fn decision(rooms: &Rooms<'_>, places: &[Place], barred: &[Barred]) -> Decision {
    let frame = places.first().and_then(|p| rooms.get(&p.cluster)?.capacity);
    let could = places.iter().map(|p| Candidate { cluster: p.cluster.clone(), obstacle: None, score: p.score.terms() });
    let candidates = could.chain(obstacles(barred)).take(KEPT_CANDIDATES).collect();
    Decision {
        candidates,
        sequence: frame.map_or(0, |f| f.sequence),
        age_ms: frame.map_or(0, |f| f.age_ms),
        engine: env!("CARGO_PKG_VERSION").into(),
        passed: vec![],
        despite: None,
    }
}

/// The clusters that could not, as data.
pub(crate) fn obstacles(barred: &[Barred]) -> impl Iterator<Item = Candidate> + '_ {
    barred.iter().map(|b| Candidate { cluster: b.cluster.clone(), obstacle: Some(b.obstacle.clone()), score: vec![] })
}
