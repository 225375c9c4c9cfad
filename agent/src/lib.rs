//! agent

pub mod node;
