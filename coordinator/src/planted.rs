//! The bugs that are planted in this crate for the simulation to find; [`protocol::planted`] is their switch.

/// The bugs planted in this crate, each with what it breaks.
pub const BUGS: &[(&str, &str)] = &[
    ("skip-persist", "what Raft must not forget is kept in memory and not written to the disk"),
    (
        "ack-before-commit",
        "a client hears that its submission is in once it is in the leader's log, before a quorum has it",
    ),
    ("fence-too-early", "an attempt is taken for gone as soon as its cluster is lost, long before it ends itself"),
    ("stale-read", "a linearizable read is served at once, without asking a quorum"),
];

pub use protocol::planted::is;
#[cfg(feature = "planted")]
pub use protocol::planted::select;
