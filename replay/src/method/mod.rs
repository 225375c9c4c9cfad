//! What is replayed, and what is counted.

pub mod saturation;
pub mod waits;
