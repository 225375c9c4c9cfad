//! How the pools stand: what each is entitled to, holds, waits for, and holds without using.

use std::collections::BTreeMap;

use protocol::ids::{NodeName, PoolName, UnixMs};
use protocol::pool::{Amounts, Resource};

use crate::capacity::Capacity;
use crate::placement::rooms::Rooms;
use crate::pools::Raise;
use crate::pools::parts::parts;
use crate::queue::books::books;
use crate::state::{Attempt, State};

/// A node whose devices are less busy than this, in percent, does nothing with them.
pub const IDLE_PERCENT: u8 = 5;
/// An attempt that has run for less than this, in ms, is not called idle yet: it may be loading.
pub const IDLE_AFTER_MS: u64 = 60_000;

/// How one pool stands. Of an inner pool: all below it together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it is entitled to of the fleet now.
    pub entitled: Amounts,
    /// What its attempts hold in clusters that can be used.
    pub held: Amounts,
    /// What its queued workloads need.
    pub pending: Amounts,
    /// GPUs that are held and do nothing, where that is measured.
    pub idle: Amounts,
    /// To what its part is raised for a while, for what it missed, where it is.
    pub raised: Option<Raise>,
    /// Workloads that wait.
    pub queued: u64,
    /// Workloads with a live attempt.
    pub running: u64,
}

/// How every pool stands.
pub fn pools(state: &State, capacity: &Capacity, at: UnixMs) -> BTreeMap<PoolName, Standing> {
    let now = state.now.max(at);
    let books = books(state, &Rooms::new(state, capacity), now);
    let entitled = parts(state, &books.fleet, &books.held, &books.demands, now);
    let mut all: BTreeMap<PoolName, Standing> =
        entitled.into_iter().map(|(pool, entitled)| (pool, Standing { entitled, ..Standing::default() })).collect();
    for (pool, raise) in state.pools.raises() {
        all.entry(pool.clone()).or_default().raised = Some(raise.clone());
    }
    let mut idle = idle(state, capacity, now);
    for (pool, usage) in &state.indices.usage {
        let held = books.held.get(pool).cloned().unwrap_or_default();
        let idle = idle.remove(pool).unwrap_or_default();
        let queued = usage.queue.len() as u64;
        for above in state.pools.line_up(pool) {
            let Some(standing) = all.get_mut(above) else { continue };
            standing.held.add_all(&held);
            standing.pending.add_all(&usage.pending);
            standing.idle.add_all(&idle);
            standing.queued += queued;
            standing.running += usage.live.saturating_sub(queued);
        }
    }
    all
}

/// GPUs that are held and do nothing, by pool.
fn idle(state: &State, capacity: &Capacity, now: UnixMs) -> BTreeMap<PoolName, Amounts> {
    let mut idle: BTreeMap<PoolName, Amounts> = BTreeMap::new();
    for (name, cluster) in &capacity.clusters {
        let quiet = |n: &&crate::capacity::NodeCapacity| n.activity_percent.is_some_and(|p| p < IDLE_PERCENT);
        let quiet: std::collections::BTreeSet<&NodeName> =
            cluster.nodes.iter().filter(quiet).map(|n| &n.name).collect();
        if quiet.is_empty() {
            continue;
        }
        for (workload, attempt) in state.live_in(name) {
            let gpus = gpus_on(attempt, &quiet, now);
            if !gpus.is_empty() {
                idle.entry(workload.pool.clone()).or_default().add_all(&gpus);
            }
        }
    }
    idle
}

/// The GPUs that an attempt holds on these nodes, once it has run for a while.
fn gpus_on(attempt: &Attempt, nodes: &std::collections::BTreeSet<&NodeName>, now: UnixMs) -> Amounts {
    let mut gpus = Amounts::default();
    if attempt.running_at.is_none_or(|since| since.0.saturating_add(IDLE_AFTER_MS) > now.0) {
        return gpus;
    }
    for group in &attempt.placement {
        let members = group.nodes.iter().filter(|n| nodes.contains(&n.node)).map(|n| u64::from(n.members)).sum();
        let held = group.each.times(members).gpu_milli;
        gpus.add(Resource::Gpu, held);
        if let Some(sku) = &group.sku {
            gpus.add(Resource::Model(sku.clone()), held);
        }
    }
    gpus
}
