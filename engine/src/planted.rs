//! The bugs that are planted in this crate for the simulation to find; [`protocol::planted`] is their switch.

/// The bugs planted in this crate, each with what it breaks.
pub const BUGS: &[(&str, &str)] = &[
    ("forget-epoch-check", "a binding that was planned in an earlier epoch is accepted"),
    ("count-inflight-never", "the planner forgets bindings that no capacity frame includes yet"),
    ("cancel-not-final", "the last report of a cancelled workload puts it back into the queue"),
    ("quota-off-by-one", "a pool gets one device more than its limit and its part allow"),
    ("reclaim-under-entitlement", "room is taken back from pools that hold no more than their part"),
    ("bind-into-cordoned", "a cordoned cluster takes new workloads"),
    ("retry-before-gone", "a lost cluster's attempts are queued again at once, while they may still run"),
];

pub use protocol::planted::is;
#[cfg(feature = "planted")]
pub use protocol::planted::select;
