//! Tidewater in one cluster: the node role reads GPUs, the cluster role streams capacity and carries out launches.

pub mod guard;
pub mod node;
pub mod runtime;
