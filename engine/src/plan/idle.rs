//! Whose GPUs have done nothing for longer than they may: workloads with an `idleTimeout`. Only what is surely measured counts. Of a node
//! the activity of all held devices together is known, not which of them is whose: an attempt is idle there if even all of it, on its
//! own devices alone, would be less than [`IDLE_PERCENT`] of them. One device without a reading, a stale frame, or one that does not
//! include the attempt yet, and nothing is known: then the time begins anew, as it does with a new leader.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::NodeState;
use protocol::ids::{AttemptNumber, NodeName, Uid, UnixMs};

use super::IDLE_PERCENT;
use crate::capacity::{Capacity, NodeCapacity};
use crate::commands::IdleEnd;
use crate::lifecycle::Phase;
use crate::state::{Attempt, State};

/// Since when attempts have been idle.
pub(crate) type Since = BTreeMap<(Uid, AttemptNumber), UnixMs>;

/// Who is to end now, and since when those are idle that may not be for ever.
pub(super) fn idle(state: &State, capacity: &Capacity, before: &Since, now: UnixMs) -> (Vec<IdleEnd>, Since) {
    let (mut ends, mut since) = (vec![], Since::new());
    for (name, frame) in capacity.clusters.iter().filter(|(_, frame)| frame.fresh) {
        let Some(cluster) = state.clusters.get(name).filter(|c| c.lost_since.is_none()) else { continue };
        let live = state.timed_in(name).filter(|(w, a)| {
            let runs = w.phase == Phase::Running && a.running_at.is_some() && a.stop.is_none();
            runs && a.sized_by() <= frame.watermark && a.incarnation == cluster.incarnation
        });
        let live: Vec<_> = live.collect();
        // Most clusters have none: their nodes need not be looked through.
        let named: BTreeSet<&NodeName> = live.iter().flat_map(|(_, a)| gpus(a).into_keys()).collect();
        if named.is_empty() {
            continue;
        }
        let there = frame.nodes.iter().filter(|n| named.contains(&n.name));
        let nodes: BTreeMap<&NodeName, &NodeCapacity> = there.map(|n| (&n.name, n)).collect();
        for (workload, attempt) in live.into_iter().filter(|(_, a)| is_idle(a, &nodes)) {
            let key = (workload.uid, attempt.number);
            let from = before.get(&key).copied().unwrap_or(now);
            since.insert(key, from);
            let timeout = workload.spec.idle_timeout.unwrap_or_default();
            if from.0.saturating_add(timeout.0) <= now.0 {
                ends.push(IdleEnd {
                    epoch: state.epoch,
                    key: workload.key.clone(),
                    uid: workload.uid,
                    attempt: attempt.number,
                    since: from,
                });
            }
        }
    }
    (ends, since)
}

/// What an attempt holds of GPUs, in thousandths, by node.
fn gpus(attempt: &Attempt) -> BTreeMap<&NodeName, u64> {
    let mut held: BTreeMap<&NodeName, u64> = BTreeMap::new();
    for group in attempt.placement.iter().filter(|g| g.each.gpu_milli > 0) {
        for share in &group.nodes {
            let more = group.each.times(u64::from(share.members)).gpu_milli;
            let known = held.entry(&share.node).or_default();
            *known = known.saturating_add(more);
        }
    }
    held
}

/// Whether all its GPUs surely do nothing.
fn is_idle(attempt: &Attempt, nodes: &BTreeMap<&NodeName, &NodeCapacity>) -> bool {
    let held = gpus(attempt);
    let quiet = |(name, milli): (&&NodeName, &u64)| {
        let active = nodes.get(*name).filter(|node| node.state != NodeState::Stale).and_then(|node| node.held_activity);
        active.is_some_and(|sum: u32| u64::from(sum).saturating_mul(1000) < milli.saturating_mul(IDLE_PERCENT.into()))
    };
    !held.is_empty() && held.iter().all(quiet)
}
