//! The cluster's Kubernetes: what its nodes have and what its pods take, followed through the API server for as long as the
//! agent runs, and told to the cluster role as [`KubernetesInput`](crate::cluster::KubernetesInput).
//!
//! [`follow`] lists and watches one kind of object each; [`seen`] says what is kept of an object; [`store`] adds up by node; [`feed`] gathers what
//! changed and hands it on, a few times a second. Only the trimmed records are in memory. [`dra`] is devices that are given out by claims. [`leadership`] and [`review`] are apart from them: which of the
//! agent's replicas acts, and who a node is that shows a token.

mod amounts;
mod backoff;
mod client;
mod dra;
mod feed;
mod follow;
mod http;
pub mod leadership;
mod objects;
mod offer;
pub mod review;
mod seen;
mod store;

#[cfg(test)]
mod tests;

pub(crate) use backoff::Backoff;
pub(crate) use client::with_causes;
pub use client::{Access, ClientError, connect, connect_behind};
pub(crate) use dra::{DRIVER, NodeSlices, any_slice, read_node, slices_of};
pub use feed::run;
pub(crate) use offer::{own_name, shared_product};

pub(crate) use protocol::kubernetes::GPU;
