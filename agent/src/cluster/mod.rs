//! The cluster role: joins node frames and what Kubernetes says into the capacity table, streams it to every coordinator replica, and carries out
//! what the leader commands, each command once.
//!
//! [`Agent`] is a state machine: it is stepped with (now, input) and gives outputs back. It touches no clock, socket or
//! task; its one side effect is the journal, which commits inside the step, before the outputs that depend on it exist for
//! anyone else. The shell around it owns the connections, the runtime and the clocks.

mod agent;
mod attempt;
mod bits;
mod fence;
mod inbox;
mod interface;
mod journal;
mod lease;
mod nodes;
mod offer;
mod reports;
mod reservations;
mod size;
mod table;
mod uplink;

#[cfg(test)]
mod tests;

pub use agent::{Agent, OpenError, StepError};
pub use attempt::{Assignment, KnownAttempt, KnownLaunch, MemberAssignment};
pub use interface::{
    AgentConfig, ClusterNode, DeclaredNode, Input, KubernetesInput, NodePods, Output, PodGpus, PodName,
};
pub use journal::{Elsewhere, Journal, JournalError};
pub use nodes::{NodeInput, NodeSession};
pub use offer::{ByClaims, ClaimDevice, Offer};
pub(crate) use table::MAX_DEVICES;
pub use table::{IDLE_MEMORY_MIB, KUBERNETES_SILENT_AFTER_MS, STALE_AFTER_MS, Table};
pub use uplink::{Pace, Uplink};
