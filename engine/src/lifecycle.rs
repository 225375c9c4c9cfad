//! The life of a workload, as a table: which event leads from which phase to which.

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

impl Phase {
    /// Whether nothing comes after.
    pub fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed | Phase::Cancelled)
    }

    /// Whether an attempt may exist in some cluster.
    pub fn is_live(self) -> bool {
        !self.is_terminal() && self != Phase::Queued
    }
}
