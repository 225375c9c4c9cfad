//! Tests of what is made of Kubernetes' objects, and of the way from a server's bytes to the cluster role's inputs.
#![allow(clippy::unwrap_used)]

mod amounts;
mod dra;
mod offers;
mod server;
mod store;
