//! When to plan, on the leader. What to plan is the engine's.
//!
//! A plan is made when state or capacity changed since the last, at most every [`SPACING_MS`], and once a second in any case
//! (backoffs end by time alone).

use engine::capacity::Capacity;
use engine::commands::Binding;
use engine::plan::{Plan, plan};
use engine::state::State;
use protocol::ids::{Epoch, MonotonicMs};

use crate::replica::Now;

/// Time between two plans while something changes, in ms.
pub const SPACING_MS: u64 = 10;
/// Time between two plans while nothing changes, in ms.
pub const IDLE_MS: u64 = 1_000;
/// The most bindings of one plan: they are one Raft batch, and the next plan sees them applied.
pub const MOST_BINDINGS: usize = 256;

/// The planner loop's memory.
#[derive(Debug, Default)]
pub struct Planner {
    changed: bool,
    planned_at: Option<MonotonicMs>,
    last: Option<Plan>,
}

impl Planner {
    /// Capacity changed.
    pub fn capacity_changed(&mut self) {
        self.changed = true;
    }

    /// State changed.
    pub fn state_changed(&mut self) {
        self.changed = true;
    }

    /// This replica leads no more.
    pub fn forget(&mut self) {
        *self = Planner { changed: true, ..Planner::default() };
    }

    /// The last plan of this reign.
    pub fn last_plan(&self) -> Option<&Plan> {
        self.last.as_ref()
    }

    /// Plans if it is time to; the bindings are to be committed, in order, before the next plan.
    pub fn plan(&mut self, state: &State, capacity: &Capacity, now: Now, epoch: Epoch) -> Option<Vec<Binding>> {
        let since = self.planned_at.map(|at| now.mono.since(at));
        let due = match since {
            None => true,
            Some(ms) => ms >= IDLE_MS || (self.changed && ms >= SPACING_MS),
        };
        if !due || state.epoch != epoch {
            return None;
        }
        self.changed = false;
        self.planned_at = Some(now.mono);
        let mut made = plan(state, capacity, now.unix, MOST_BINDINGS);
        let bindings = std::mem::take(&mut made.bindings);
        self.last = Some(made);
        Some(bindings)
    }
}
