//! Tidewater in one cluster: the node role reads GPUs, the cluster role streams capacity and carries out launches.

pub mod clock;
pub mod cluster;
pub mod guard;
pub mod kube;
pub mod node;
pub mod planted;
pub mod run;
pub mod runtime;
