//! Real Kubernetes on this machine, for tests and for people: any number of control planes side by side on loopback, fleets
//! of nodes whose kubelets kwok plays, and nodes that really run containers ([`node`]), of images made here ([`images`]).
//!
//! Nothing is installed and no image is pulled: the programs are built once from their pinned Go modules ([`build`]) into
//! the user's cache. A [`ControlPlane`] has a folder, ports, certificates and processes of its own; the processes die with
//! the process that started them, unless they are released to outlive it (`cargo xtask kubernetes up`).
//!
//! Called by tests, by benchmarks and by `xtask`; knows nothing of the rest of Tidewater.

pub mod bed;
pub mod build;
pub mod client;
pub mod control_plane;
pub mod fake;
mod folders;
pub mod images;
pub mod node;
pub mod process;

pub use build::{Binaries, BuildError, Tool};
pub use client::{connect, drivers_may_make_executors, make_namespace};
pub use control_plane::{Component, ControlPlane, Settings, StartError, free_port};
pub use fake::FakeNodes;
pub use images::{Image, ImageError, Images};
pub use node::{NodeError, NodeLack, NodeSettings};
