//! The life of a workload, as a table: which event leads from which phase to which. `commands` asks the table and decides
//! nothing about phases itself.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Where a workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
pub enum Phase {
    /// It waits for quota, a hole or the end of a backoff.
    Queued,
    /// A cluster and nodes are chosen; the agent has not confirmed yet.
    Bound,
    /// The agent has made the order durable.
    Launching,
    /// Its processes are coming up.
    Starting,
    /// Every member of the gang is up.
    Running,
    /// It is being ended and is not seen to be gone yet.
    Draining,
    /// Its cluster has not been heard from for longer than a lease; it may still run.
    Unknown,
    /// It ended well.
    Succeeded,
    /// It ended badly and is not tried again.
    Failed,
    /// A person ended it.
    Cancelled,
}

/// What moves a workload from phase to phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The planner found a place.
    Bind,
    /// The agent made the order durable.
    Accepted,
    /// The agent starts its processes.
    Starting,
    /// Every member is up.
    Running,
    /// It ended well.
    Succeeded,
    /// Its attempt is gone, and it is tried again.
    Retry,
    /// Its attempt is gone, and it is not tried again.
    GiveUp,
    /// A person asked for its end.
    Cancel,
    /// Its attempt is gone after its end was asked for, however it ended.
    Gone,
    /// Nothing is known of its attempt any more.
    Lost,
    /// Its cluster is back and had not accepted the order yet.
    Returned,
    /// Its room goes to another workload.
    Preempt,
    /// Its GPUs have done nothing for too long.
    Idle,
}

use Event as E;
use Phase as P;

/// Phases in which an attempt may exist and its end was not asked for.
const ALIVE: &[Phase] = &[P::Bound, P::Launching, P::Starting, P::Running, P::Unknown];

/// Every way on. What is not here does not happen, but for terminal phases: they absorb every event.
const TABLE: &[(&[Phase], Event, Phase)] = &[
    (&[P::Queued], E::Bind, P::Bound),
    (&[P::Queued], E::Cancel, P::Cancelled),
    (ALIVE, E::Accepted, P::Launching),
    (ALIVE, E::Starting, P::Starting),
    (ALIVE, E::Running, P::Running),
    (ALIVE, E::Succeeded, P::Succeeded),
    (ALIVE, E::Retry, P::Queued),
    (ALIVE, E::GiveUp, P::Failed),
    (ALIVE, E::Cancel, P::Draining),
    (ALIVE, E::Lost, P::Unknown),
    (&[P::Unknown], E::Returned, P::Bound),
    (&[P::Bound, P::Launching, P::Starting, P::Running], E::Preempt, P::Draining),
    (&[P::Running], E::Idle, P::Draining),
    // What is being ended stays so until it is gone, whatever is heard of it, or not heard.
    (&[P::Draining], E::Accepted, P::Draining),
    (&[P::Draining], E::Starting, P::Draining),
    (&[P::Draining], E::Running, P::Draining),
    (&[P::Draining], E::Cancel, P::Draining),
    (&[P::Draining], E::Lost, P::Draining),
    (&[P::Draining], E::Returned, P::Draining),
    (&[P::Draining], E::Gone, P::Cancelled),
    // One that was preempted is tried again, unless it ended well before the stop reached it.
    (&[P::Draining], E::Retry, P::Queued),
    // One that was idle is not.
    (&[P::Draining], E::GiveUp, P::Failed),
    (&[P::Draining], E::Succeeded, P::Succeeded),
];

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 10] = [
        P::Queued,
        P::Bound,
        P::Launching,
        P::Starting,
        P::Running,
        P::Draining,
        P::Unknown,
        P::Succeeded,
        P::Failed,
        P::Cancelled,
    ];

    /// Whether nothing comes after.
    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed | Phase::Cancelled)
    }

    /// Whether an attempt may exist in some cluster.
    pub fn is_live(self) -> bool {
        !self.is_terminal() && self != Phase::Queued
    }

    /// The phase after an event; none where the event can't happen in this phase.
    pub fn after(self, event: Event) -> Option<Phase> {
        if self.is_terminal() {
            return Some(self);
        }
        TABLE.iter().find(|(from, on, _)| *on == event && from.contains(&self)).map(|(_, _, to)| *to)
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Event; 13] = [
        E::Bind,
        E::Accepted,
        E::Starting,
        E::Running,
        E::Succeeded,
        E::Retry,
        E::GiveUp,
        E::Cancel,
        E::Gone,
        E::Lost,
        E::Returned,
        E::Preempt,
        E::Idle,
    ];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            P::Queued => "Queued",
            P::Bound => "Bound",
            P::Launching => "Launching",
            P::Starting => "Starting",
            P::Running => "Running",
            P::Draining => "Draining",
            P::Unknown => "Unknown",
            P::Succeeded => "Succeeded",
            P::Failed => "Failed",
            P::Cancelled => "Cancelled",
        })
    }
}
