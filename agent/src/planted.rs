//! The bugs that are planted in this crate for the simulation to find; [`protocol::planted`] is their switch.

/// The bugs that this crate can carry.
pub const NAMES: &[&str] = &["launch-twice", "ignore-epoch", "ack-before-journal", "forget-stop"];

pub use protocol::planted::is;
#[cfg(feature = "planted")]
pub use protocol::planted::select;
