//! The long-running roles of a federation, each one process.

pub mod agent;
pub mod coordinator;
pub mod node;
