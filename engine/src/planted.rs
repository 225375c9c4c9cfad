//! Bugs planted on purpose, so that the simulation can show that it finds them. Only the feature `planted`, which no product
//! build has, makes them selectable; without it [`is`] is `false` at compile time and every planted branch goes away.

/// The bugs planted in this crate, each with what it breaks.
pub const BUGS: &[(&str, &str)] = &[
    ("forget-epoch-check", "a binding that was planned in an earlier epoch is accepted"),
    ("count-inflight-never", "the planner forgets bindings that no capacity frame includes yet"),
    ("cancel-not-final", "the last report of a cancelled workload puts it back into the queue"),
    ("retry-before-gone", "a lost cluster's attempts are queued again at once, while they may still run"),
];

#[cfg(feature = "planted")]
thread_local! {
    static SELECTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Chooses the bug for this thread; none takes it out again.
#[cfg(feature = "planted")]
pub fn select(name: Option<&'static str>) {
    SELECTED.set(name);
}

/// Whether the bug is in force on this thread.
#[cfg(feature = "planted")]
pub fn is(name: &str) -> bool {
    SELECTED.get() == Some(name)
}

/// Never: this build has no planted bugs.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}
