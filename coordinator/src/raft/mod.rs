//! Consensus: raft's state machine, its log store and its messages, as steps without threads, clocks or sockets.
//!
//! Owns everything of the `raft` crate: its types do not leave this room. [`Driver`] takes inputs (ticks, messages,
//! proposals, reads) and gives back, as data, what the caller must send and apply; the caller owns the thread, the timer
//! and the transport. [`Store`] is the only thing here that touches a disk, through a `redb::StorageBackend`, so that the
//! same code runs on a file and on [`SimDisk`]. Called by the coordinator's raft thread and by the simulation.

mod convert;
pub mod disk;
pub mod driver;
mod record;
pub mod store;
pub mod wire;

#[cfg(test)]
mod tests;

pub use disk::SimDisk;
pub use driver::{Driver, DriverConfig, ElectionTimeout, Ready};
pub use store::Store;
