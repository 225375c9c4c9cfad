//! From state and capacity to bindings, in named phases. Deterministic: the same inputs give the same plan.
//!
//! Run by the leader alone, for its result must become commands; the questions beside it (`explain`, `warnings`, `gangs`) may
//! be asked anywhere. Free room, fit and score are `placement`'s, the order and the rule of waiting are `queue`'s.

mod drains;
mod explain;
mod gangs;
pub(crate) mod idle;
mod pools;
mod warnings;

use std::collections::BTreeMap;

use protocol::ids::{Uid, UnixMs, WorkloadKey};

use crate::capacity::Capacity;
use crate::commands::{Binding, DrainEnd, Growth, IdleEnd, Preemption, Raising};
use crate::queue::{Turn, Walk};
use crate::reasons::Waiting;
use crate::state::State;

pub use crate::placement::kept::Kept;
pub use crate::queue::{LASTING_MS, Memory};
pub use explain::explain;
pub use gangs::{GangAnswer, GangQuestion, gangs};
pub use pools::{IDLE_AFTER_MS, IDLE_PERCENT, Standing, pools};
pub use warnings::warnings;

/// Frames older than this are not placed on, in ms.
pub const FRESH_MS: u64 = 10_000;
/// How many waiting workloads a plan gives its reasons for; [`explain`] gives them for any.
pub const EXPLAINED: usize = 1_000;

/// The most records that a plan lets go.
pub const EXPIRATIONS: usize = 256;

/// What the planner would do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Places, in the order in which they are to be committed.
    pub bindings: Vec<Binding>,
    /// Whose attempts are to end for whom.
    pub preemptions: Vec<Preemption>,
    /// Which attempts are to get members, in this order, after all others are committed.
    pub growths: Vec<Growth>,
    /// Whose part is to be raised, or is not any more, after all others are committed.
    pub raises: Vec<Raising>,
    /// Whose attempts are to end for their GPUs do nothing.
    pub idle: Vec<IdleEnd>,
    /// Whose attempts are to end for their clusters are drained.
    pub drains: Vec<DrainEnd>,
    /// Ended workloads whose records are to go by themselves.
    pub expirations: Vec<(WorkloadKey, Uid)>,
    /// What the next plan of this leader is to remember.
    pub memory: Memory,
    /// Why each other queued workload waits: the first [`EXPLAINED`] in line, as far as the plan went.
    pub waiting: BTreeMap<Uid, Waiting>,
}

/// Plans at most `limit` bindings. Ends where it has that many: those behind wait for the next plan. Remembers nothing, so takes
/// no room back.
pub fn plan(state: &State, capacity: &Capacity, at: UnixMs, limit: usize) -> Plan {
    plan_on(state, capacity, &Memory::default(), at, limit)
}

/// As [`plan`], with what the last plan of this leader remembered: room that is lent is taken back once that has lasted.
pub fn plan_on(state: &State, capacity: &Capacity, memory: &Memory, at: UnixMs, limit: usize) -> Plan {
    plan_within(state, capacity, memory, at, Bounds::of(limit))
}

/// How much a plan does and says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most bindings.
    pub bindings: usize,
    /// How many waiting workloads get their reasons. Once they have, those that are like others that found no room are not even
    /// looked at.
    pub explained: usize,
}

impl Bounds {
    /// So many bindings, and the reasons of the first [`EXPLAINED`] that wait.
    pub fn of(bindings: usize) -> Self {
        Self { bindings, explained: EXPLAINED }
    }
}

/// As [`plan_on`], within bounds.
pub fn plan_within(state: &State, capacity: &Capacity, memory: &Memory, at: UnixMs, bounds: Bounds) -> Plan {
    plan_again(state, capacity, (memory, &mut Kept::default()), at, bounds)
}

/// As [`plan_within`], with what the last plan made of clusters that are as they were, and leaves that to the next. The plan is the
/// same with whatever was kept, and with nothing.
pub fn plan_again(
    state: &State,
    capacity: &Capacity,
    (memory, kept): (&Memory, &mut Kept),
    at: UnixMs,
    bounds: Bounds,
) -> Plan {
    let limit = bounds.bindings;
    let mut plan = Plan::default();
    let mut walk = Walk::new((state, capacity), (memory, std::mem::take(kept)), at);
    while plan.bindings.len() < limit
        && let Some((waiter, turn)) = walk.step()
    {
        match turn {
            Turn::Placed { workload, cluster, placement, decision } => plan.bindings.push(Binding {
                key: workload.key.clone(),
                uid: workload.uid,
                attempt: workload.next_attempt(),
                epoch: state.epoch,
                cluster,
                placement,
                decision,
            }),
            Turn::Waits(verdict) if plan.waiting.len() < bounds.explained => {
                plan.waiting.insert(waiter.uid, walk.waiting(&verdict));
            }
            // Without any cluster nobody behind can be placed either, and enough are told why.
            Turn::Waits(_) if state.clusters.is_empty() => break,
            Turn::Waits(_) => walk.hurry(),
        }
    }
    let walked = plan.bindings.len() < limit;
    (plan.preemptions, plan.memory) = walk.reclaim(memory);
    (plan.raises, plan.memory.savings) = walk.raises(memory);
    // Only what everybody in line has left, and nobody is being made room for.
    if walked && plan.preemptions.is_empty() {
        plan.growths = walk.grow(memory);
    }
    (plan.idle, plan.memory.idle) = idle::idle(state, capacity, &memory.idle, state.now.max(at));
    plan.drains = drains::drains(state);
    let overdue = state.overdue(state.now.max(at)).take(EXPIRATIONS);
    plan.expirations = overdue.map(|w| (w.key.clone(), w.uid)).collect();
    *kept = walk.rest();
    plan
}
