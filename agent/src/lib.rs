//! Tidewater in one cluster: the node role reads GPUs, the cluster role streams capacity and runs attempts.

pub mod guard;
pub mod runtime;
