//! The control plane: Raft, log store, agent sessions, fleet, planner loop, API and pages.

pub mod fleet;
pub mod handle;
pub mod identity;
pub mod raft;
pub mod sessions;
