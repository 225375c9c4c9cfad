//! Members that come and go while their attempt goes on: which were started, which are being ended, and which are gone. A member is
//! gone once the process that was started for it is reaped, and neither anything that was ever seen below it nor anything with its
//! mark is left. Names are never used twice, so that a member that went is never started again. Called by `supervise` alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::plan::{Plan, Process, Resize, Role};
use super::{note, sweep};

/// One member that is being ended.
struct Leaving {
    /// Every process of it that is known to live.
    pids: BTreeSet<i32>,
    hard_end: Instant,
}

/// The members.
#[derive(Default)]
pub(super) struct Members {
    started: BTreeSet<String>,
    leaving: BTreeMap<String, Leaving>,
    gone: BTreeSet<String>,
}

impl Members {
    /// Those of the plan.
    pub(super) fn of(plan: &Plan) -> Self {
        Self { started: plan.processes.iter().map(|p| p.name.clone()).collect(), ..Self::default() }
    }

    /// All that are gone.
    pub(super) fn gone(&self) -> Vec<String> {
        self.gone.iter().cloned().collect()
    }

    /// Whether some are being ended.
    pub(super) fn is_any_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// A member did not come, or nothing of it is left.
    pub(super) fn is_gone(&mut self, name: &str) {
        self.leaving.remove(name);
        self.gone.insert(name.to_owned());
    }

    /// Processes that an order starts: each name once, and none that is to end.
    pub(super) fn start(&mut self, order: &Resize) -> Vec<Process> {
        let new = order.start.iter().filter(|p| !order.end.contains(&p.name) && self.started.insert(p.name.clone()));
        new.cloned().collect()
    }

    /// Asks those to end that are to go. One that was never started is gone, and never will be.
    pub(super) fn end(&mut self, attempt: &str, running: &BTreeMap<i32, Process>, order: &Resize) {
        for name in &order.end {
            if self.started.insert(name.clone()) {
                self.gone.insert(name.clone());
            }
            if self.gone.contains(name) || self.leaving.contains_key(name) {
                continue;
            }
            self.leave(attempt, running, name, Duration::from_millis(order.grace_ms));
        }
    }

    fn leave(&mut self, attempt: &str, running: &BTreeMap<i32, Process>, name: &str, grace: Duration) {
        let main = running.iter().filter(|(_, p)| p.name == *name).map(|(pid, _)| *pid).collect();
        let mut pids = sweep::with_descendants(main);
        pids.extend(sweep::of_member(attempt, name));
        sweep::signal(pids.iter().copied(), &sweep::POLITE, note);
        self.leaving.insert(name.to_owned(), Leaving { pids, hard_end: Instant::now() + grace });
    }

    /// Whether the end of a process is its member's alone: it was asked to end, or the attempt goes on without it.
    pub(super) fn ends_alone(&mut self, attempt: &str, process: &Process) -> bool {
        if process.role == Role::Extra && !self.leaving.contains_key(&process.name) {
            // What it left behind is ended at once.
            self.leave(attempt, &BTreeMap::new(), &process.name, Duration::ZERO);
        }
        self.leaving.contains_key(&process.name)
    }

    /// Presses on; true where a member is gone now.
    pub(super) fn push(&mut self, attempt: &str, running: &BTreeMap<i32, Process>) -> bool {
        let mut over = vec![];
        for (name, leaving) in &mut self.leaving {
            leaving.pids = sweep::with_descendants(std::mem::take(&mut leaving.pids));
            if leaving.pids.is_empty() {
                // Those that left their tree before it was looked at still have their mark.
                leaving.pids = sweep::of_member(attempt, name);
            }
            if leaving.pids.is_empty() && running.values().all(|p| p.name != *name) {
                over.push(name.clone());
            } else if Instant::now() >= leaving.hard_end {
                sweep::signal(leaving.pids.iter().copied(), &[libc::SIGKILL], note);
            }
        }
        over.iter().for_each(|name| self.is_gone(name));
        !over.is_empty()
    }
}
