//! The control plane: Raft, log store, agent sessions, fleet, planner loop, API and pages.

pub mod api;
pub mod fleet;
pub mod handle;
pub mod identity;
pub mod pages;
pub mod planner;
pub mod planted;
pub mod raft;
pub mod replica;
pub mod run;
pub mod sessions;
pub mod transport;
