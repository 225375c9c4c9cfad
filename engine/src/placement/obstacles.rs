//! What keeps a gang out of a cluster: the first condition that fails, with its numbers.

use std::collections::BTreeSet;

use protocol::capacity::{NodeState, Sharing};
use protocol::control::ClusterInfo;
use protocol::resources::Gpus;
use protocol::workload::{Framework, GroupNeed};

use super::avoid::NotAvoided;
use super::devices::{DEVICE, Free};
use super::fit::{Allowed, Everywhere, Fit, Fullest, Shape, Spot, count, fit, packing_order, place_group};
use super::holes::{AVOIDED, Holes, SkuId};
use super::locality::Wants;
use super::price::affordable;
use super::rooms::{Order, Room, healthy};
use crate::capacity::NodeCapacity;
use crate::plan::FRESH_MS;
use crate::reasons::Obstacle;

/// What bars a cluster by what it says of itself, whatever its nodes are.
pub(crate) fn unfit(info: &ClusterInfo, wants: &Wants<'_>, framework: Framework) -> Option<Obstacle> {
    let spec = wants.spec;
    let required = &spec.placement.regions.require;
    if !required.is_empty() && !required.contains(&info.region) {
        return Some(Obstacle::WrongRegion { region: info.region.clone(), required: required.clone() });
    }
    if !info.frameworks.contains(&framework) {
        return Some(Obstacle::NoRuntime { framework });
    }
    if spec.fence().is_some() && !info.fences {
        return Some(Obstacle::NoFence);
    }
    if !spec.secrets.is_empty() && !info.secrets {
        return Some(Obstacle::NoSecrets);
    }
    if spec.manifest.is_some() && !info.manifests.contains(&framework) {
        return Some(Obstacle::NoManifests { framework });
    }
    wants.lacks(info)
}

/// What bars the cluster before its room is looked at.
pub(crate) fn bars(room: &Room<'_>, wants: &Wants<'_>, framework: Framework, gang: &[GroupNeed]) -> Option<Obstacle> {
    if let Some(unfit) = unfit(&room.cluster.info, wants, framework) {
        return Some(unfit);
    }
    if let Some(since) = room.cluster.lost_since {
        return Some(Obstacle::ClusterLost { since });
    }
    if let Some(cordon) = room.cluster.cordon.as_ref().filter(|_| !room.cluster.takes_members()) {
        let (since, reason) = (cordon.since, cordon.reason.clone());
        return Some(Obstacle::Cordoned { since, reason, drained: cordon.drain.is_some() });
    }
    if room.capacity.is_none() {
        return Some(Obstacle::NoCapacityYet);
    }
    if let Some(avoided) = room.marks.cluster {
        return Some(Obstacle::Avoided(avoided));
    }
    let shapes = room.shapes(gang, Order::BestFirst);
    let without = gang.iter().zip(&shapes).find(|(need, shape)| need.each.gpu_milli > 0 && shape.skus.is_empty());
    if let Some((need, _)) = without {
        return Some(Obstacle::NoSku { group: need.name.clone(), accepted: need.skus.clone() });
    }
    let otherwise = gang.iter().zip(&shapes).find_map(|(need, shape)| given_otherwise(room, need, shape));
    otherwise.or_else(|| affordable(room, wants.spec, gang).err())
}

/// Where no node of an accepted model gives out its devices as a group asks for them.
fn given_otherwise(room: &Room<'_>, need: &GroupNeed, shape: &Shape) -> Option<Obstacle> {
    let ways = shape.models().filter_map(|sku| room.models().at(sku)).flat_map(|model| &model.sharing);
    let asked = need.each.gpu_milli;
    let given: BTreeSet<Sharing> = ways.copied().collect();
    if given.is_empty() || given.iter().any(|way| way.takes(asked).is_some()) {
        return None;
    }
    Some(Obstacle::OtherSharing { group: need.name.clone(), asked: Gpus(asked), given: given.into_iter().collect() })
}

/// Where the last frame is too old.
pub(crate) fn stale(room: &Room<'_>) -> Option<Obstacle> {
    let frame = room.capacity.filter(|c| !c.fresh)?;
    Some(Obstacle::StaleCapacity { age_ms: frame.age_ms, bound_ms: FRESH_MS })
}

/// Whether an obstacle stays until the cluster itself changes.
pub(crate) fn is_permanent(obstacle: &Obstacle) -> bool {
    matches!(
        obstacle,
        Obstacle::WrongRegion { .. }
            | Obstacle::NoRuntime { .. }
            | Obstacle::NoFence
            | Obstacle::NoSecrets
            | Obstacle::NoManifests { .. }
            | Obstacle::NoSku { .. }
            | Obstacle::OtherSharing { .. }
            | Obstacle::TooSmall { .. }
            | Obstacle::TooDear { .. }
            | Obstacle::NoPrice { .. }
            | Obstacle::ElsewhereThan { .. }
            | Obstacle::NoCopy { .. }
    )
}

/// Only where it is certain that the empty cluster could not hold the gang.
pub(crate) fn too_small(room: &mut Room<'_>, gang: &[GroupNeed], shapes: &[Shape]) -> Option<Obstacle> {
    let empty = room.empty();
    if fit(empty, &Everywhere, shapes, &Fullest) != Fit::No {
        return None;
    }
    let (group, _, holds) = first_without_room(empty, &Everywhere, shapes);
    let need = &gang[group];
    Some(Obstacle::TooSmall { group: need.name.clone(), needs: need.count, holds: narrow(holds), spread: need.spread })
}

/// Why the gang does not fit now, with its numbers. `fits` counts holes for the group after the groups before it took
/// theirs; each `held_by_…` counts for this group alone how many more members would fit if only that were gone.
pub(crate) fn no_room(room: &mut Room<'_>, gang: &[GroupNeed]) -> Obstacle {
    let shapes = room.shapes(gang, Order::BestFirst);
    let (group, sku, fits) = first_without_room(&mut room.holes, &NotAvoided, &shapes);
    let need = &gang[group];
    let each = &need.each;
    let nodes = || (0u32..).zip(room.nodes());
    let accepts = |n: &NodeCapacity| each.gpu_milli == 0 || n.sku.as_ref() == room.sku(sku);
    let usable =
        |i: u32, n: &NodeCapacity| n.state == NodeState::Ready && accepts(n) && room.holes.kept_for(i) != Some(AVOIDED);
    let (on_avoided, avoided) = room.on_avoided(need, |i| room.node(i).is_some_and(accepts));
    let more = |would: &dyn Fn(&NodeCapacity, &Free) -> Free| -> u32 {
        let gained = nodes().filter(|(i, n)| usable(*i, n)).map(|(i, n)| {
            let free = room.holes.free(i);
            let most = |free: &Free| need.spread.most(free.members(each));
            most(&would(n, free)).saturating_sub(most(free))
        });
        narrow(gained.fold(0, u64::saturating_add))
    };
    let devices = |free: &Free, devices: u16| {
        let mut more = free.clone();
        more.all.gpu_milli += u64::from(devices) * DEVICE;
        more
    };
    Obstacle::NoRoom {
        group: need.name.clone(),
        each: need.each,
        sku: room.sku(sku).cloned(),
        spread: need.spread,
        needs: need.count,
        fits: narrow(fits),
        held_by_ghosts: more(&|n, free| devices(free, n.ghosts)),
        held_by_sick: more(&|n, free| devices(free, n.sick)),
        held_by_foreign: more(&|n, free| devices(free, n.foreign)),
        held_by_attempts: more(&|n, free| healthy(n).unwrap_or_else(|| free.clone())),
        on_avoided: narrow(on_avoided),
        avoided,
    }
}

/// The first group, in packing order, for which there is no room after those before it: its place in the gang, the model of
/// which there is most, and how many members fit. Where each has room (only together they have not), the last.
fn first_without_room(holes: &mut Holes, allowed: &dyn Allowed, shapes: &[Shape]) -> (usize, SkuId, u64) {
    let mark = holes.mark();
    let mut found = (0, None, 0);
    for g in packing_order(shapes.iter().map(|s| s.each)) {
        let shape = &shapes[g];
        let (sku, fits) = best_model(holes, allowed, shape);
        found = (g, sku, fits.min(shape.count));
        if fits < shape.count {
            break;
        }
        place_group(holes, allowed, shape, &mut Spot { sku, nodes: Default::default() }, &Fullest);
    }
    holes.undo_to(mark);
    found
}

/// The first model with room for the whole group, else that with the most.
fn best_model(holes: &Holes, allowed: &dyn Allowed, shape: &Shape) -> (SkuId, u64) {
    if shape.each.gpu_milli == 0 {
        return (None, count(holes, allowed, shape, None));
    }
    let mut best = (None, 0);
    for sku in shape.models() {
        let fits = count(holes, allowed, shape, Some(sku));
        if best.0.is_none() || fits > best.1 {
            best = (Some(sku), fits);
        }
        if fits >= shape.count {
            break;
        }
    }
    best
}

fn narrow(members: u64) -> u32 {
    u32::try_from(members).unwrap_or(u32::MAX)
}
