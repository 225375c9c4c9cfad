//! Tidewater's vocabulary: what coordinators, agents and people say to each other, and how it is encoded.
//!
//! Owns the types that cross a process boundary and their codec. Touches no clock, socket or file,
//! but for `quic` (a feature), which both ends of the QUIC links share.
//! JSON and YAML (serde) are for people and the HTTP API; bincode (`Encode`, `Decode`) is for the wire and the log.

pub mod api;
pub mod capacity;
pub mod codec;
pub mod control;
pub mod data;
pub mod errors;
pub mod ids;
pub mod kubernetes;
pub mod node;
pub mod placement;
pub mod planted;
pub mod pool;
#[cfg(feature = "quic")]
pub mod quic;
pub mod resources;
pub mod sku;
pub mod token;
pub mod workload;
