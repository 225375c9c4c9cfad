//! What every simulated process has, coordinator replica or agent: a disk, clocks, and ways to die.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use coordinator::raft::SimDisk;

use super::clock::Clock;

/// A process by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Process {
    /// A coordinator replica.
    Replica(usize),
    /// A cluster's agent.
    Agent(usize),
}

/// Replicas in a world.
pub(crate) const REPLICAS: usize = 3;
/// Agents, and so clusters, in a world.
pub(crate) const AGENTS: usize = 3;

impl Process {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Process> {
        (0..REPLICAS).map(Process::Replica).chain((0..AGENTS).map(Process::Agent))
    }

    /// Its row in tables over all processes.
    pub fn row(self) -> usize {
        match self {
            Process::Replica(n) => n,
            Process::Agent(n) => REPLICAS + n,
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Replica(n) => write!(f, "replica {}", n + 1),
            Process::Agent(n) => write!(f, "agent {}", n + 1),
        }
    }
}

/// Where between two steps a process is to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// At once.
    Now,
    /// At the n-th change of its disk from now.
    Persist(u64),
    /// Once it has sent this many of a step's outputs.
    Send(usize),
    /// At the next order from an agent to its runtime.
    Order(OrderBoundary),
}

/// Where on the way of an order an agent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderBoundary {
    /// It is durable, and the runtime never hears of it.
    BeforeGiven,
    /// The runtime took it, and the agent never hears of that.
    Taken,
}

/// Everything of a process but the code that it runs.
pub(crate) struct Machine {
    pub disk: SimDisk,
    pub clock: Clock,
    /// How often it was started; grows also when it dies, so that timers of a life end with it.
    pub life: u64,
    pub paused: bool,
    /// It dies once it has sent this many more outputs.
    pub dies_after_sending: Option<usize>,
    /// It dies at the next order to its runtime.
    pub dies_at_order: Option<OrderBoundary>,
    /// Its disk is to be searched for undetected damage when it starts next.
    pub flip_bits: bool,
    /// The change of its disk that is to fail.
    pub fails_at: Option<u64>,
    /// How long it stays down after a crash that has not happened yet.
    pub down_us: u64,
    /// Its next crash is a loss of power: what was not synced is lost in part.
    pub loses_power: bool,
}

impl Machine {
    pub fn new(disk: SimDisk, clock: Clock) -> Self {
        Self {
            disk,
            clock,
            life: 1,
            paused: false,
            dies_after_sending: None,
            dies_at_order: None,
            flip_bits: false,
            fails_at: None,
            down_us: 0,
            loses_power: false,
        }
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a process's code; a panic becomes its text, as it would end that process alone.
pub(crate) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if GUARDED.with(|depth| depth.get()) {
                PANIC.with(|text| *text.borrow_mut() = Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
    GUARDED.with(|guarded| guarded.set(true));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    GUARDED.with(|guarded| guarded.set(false));
    outcome.map_err(|cause: Box<dyn Any + Send>| {
        drop(cause);
        PANIC.with(|text| text.borrow_mut().take()).unwrap_or_else(|| "a panic without a text".into())
    })
}

thread_local! {
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
