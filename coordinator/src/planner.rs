//! When to plan, on the leader. What to plan is the engine's.
//!
//! A plan is made when state or capacity changed since the last, at most every [`SPACING_MS`] (less often while the line is
//! long, see [`spacing_ms`]), and once a second in any case (backoffs end by time alone).

use engine::capacity::Capacity;
use engine::commands::Command;
use engine::plan::{Bounds, Kept, Memory, Plan, plan_again};
use engine::state::State;
use protocol::ids::{Epoch, MonotonicMs};

use crate::replica::Now;

/// Time between two plans while something changes, in ms.
pub const SPACING_MS: u64 = 10;
/// Time between two plans while nothing changes, in ms.
pub const IDLE_MS: u64 = 1_000;
/// Waiting workloads for each further ms between two plans. A plan walks the line, at about 1 µs a workload; with this it takes
/// at most a tenth of the core's thread, however long the line is.
pub const WAITING_PER_MS: u64 = 100;
/// The most bindings of one plan: they are one Raft batch, and the next plan sees them applied.
pub const MOST_BINDINGS: usize = 256;
/// Nodes of the fleet times bindings of a plan, at most. A binding takes at most about 0.06 µs for each node of a busy
/// fleet (bench/results/decide.json), and a plan is made on the thread that also sends Raft's heartbeats: this is 45 ms of it, where
/// followers elect another leader after 300.
pub const NODES_TIMES_BINDINGS: usize = 750_000;

/// The planner loop's memory.
#[derive(Debug)]
pub struct Planner {
    /// How long room must have been lent beyond a pool's part before it is taken back, in ms.
    reclaim_after_ms: u64,
    changed: bool,
    planned_at: Option<MonotonicMs>,
    last: Option<Plan>,
    /// What the last plan of this reign remembers for the next.
    memory: Memory,
    /// What it made of clusters, for those that are as they were.
    kept: Kept,
}

/// Time between two plans over a line of this length, in ms.
pub fn spacing_ms(waiting: u64) -> u64 {
    (SPACING_MS + waiting / WAITING_PER_MS).min(IDLE_MS)
}

/// The most bindings of one plan over a fleet of so many nodes.
pub fn most_bindings(nodes: usize) -> usize {
    (NODES_TIMES_BINDINGS / nodes.max(1)).clamp(1, MOST_BINDINGS)
}

impl Planner {
    /// A planner that has planned nothing yet.
    pub fn new(reclaim_after_ms: u64) -> Self {
        let memory = Memory::new(reclaim_after_ms);
        Self { reclaim_after_ms, changed: false, planned_at: None, last: None, memory, kept: Kept::default() }
    }

    /// Capacity changed.
    pub fn capacity_changed(&mut self) {
        self.changed = true;
    }

    /// State changed.
    pub fn state_changed(&mut self) {
        self.changed = true;
    }

    /// This replica leads no more, or its state was replaced.
    pub fn forget(&mut self) {
        *self = Planner { changed: true, ..Planner::new(self.reclaim_after_ms) };
    }

    /// The last plan of this reign.
    pub fn last_plan(&self) -> Option<&Plan> {
        self.last.as_ref()
    }

    /// What it remembers from plan to plan.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Plans if it is time to; the commands are to be committed, in order, before the next plan.
    pub fn plan(&mut self, state: &State, capacity: &Capacity, now: Now, epoch: Epoch) -> Option<Vec<Command>> {
        let since = self.planned_at.map(|at| now.mono.since(at));
        let due = match since {
            None => true,
            Some(ms) => ms >= IDLE_MS || (self.changed && ms >= spacing_ms(state.waiting().len() as u64)),
        };
        if !due || state.epoch != epoch {
            return None;
        }
        self.changed = false;
        self.planned_at = Some(now.mono);
        let limit = most_bindings(capacity.clusters.values().map(|c| c.nodes.len()).sum());
        let mut made = plan_again(state, capacity, (&self.memory, &mut self.kept), now.unix, Bounds::of(limit));
        self.memory = std::mem::take(&mut made.memory);
        let bindings = std::mem::take(&mut made.bindings).into_iter().map(|b| Command::Bind(Box::new(b)));
        let drains = std::mem::take(&mut made.drains).into_iter().map(|end| Command::EndDrained(Box::new(end)));
        let preemptions = std::mem::take(&mut made.preemptions).into_iter().map(|p| Command::Preempt(Box::new(p)));
        let idle = std::mem::take(&mut made.idle).into_iter().map(|end| Command::EndIdle(Box::new(end)));
        let over = std::mem::take(&mut made.expirations).into_iter().map(|(key, uid)| Command::Expire { key, uid });
        let growths = std::mem::take(&mut made.growths).into_iter().map(|growth| Command::Grow(Box::new(growth)));
        let raises = std::mem::take(&mut made.raises).into_iter().map(|raising| Command::RaisePool(Box::new(raising)));
        let commands =
            bindings.chain(drains).chain(preemptions).chain(idle).chain(over).chain(growths).chain(raises).collect();
        self.last = Some(made);
        Some(commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_planned_less_often_but_every_second() {
        assert_eq!(spacing_ms(0), SPACING_MS);
        assert_eq!(spacing_ms(2_000), SPACING_MS + 20);
        assert_eq!(spacing_ms(10_000_000), IDLE_MS);
    }

    #[test]
    fn a_plan_over_a_large_fleet_binds_fewer_but_always_one() {
        assert_eq!(most_bindings(0), MOST_BINDINGS);
        assert_eq!(most_bindings(1_000), MOST_BINDINGS);
        assert_eq!(most_bindings(10_000), 75);
        assert_eq!(most_bindings(10_000_000), 1);
    }
}
