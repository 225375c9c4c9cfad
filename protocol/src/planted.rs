//! Bugs planted on purpose, so that the simulation can show that it finds them. Only the feature `planted`, which no product
//! build has, makes them selectable; without it [`is`] is `false` at compile time and every planted branch goes away.
//!
//! The one switch of all crates; each of them lists its own bugs. A bug is chosen for one thread, so that simulations of several
//! run side by side.

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
