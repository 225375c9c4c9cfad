//! Bugs that the simulation must find. Without the feature `planted` every question here is a constant `false`, so a
//! product build carries none of them. A bug is chosen for one thread, so that simulations of several run side by side.

/// The bugs that this crate can carry.
pub const NAMES: &[&str] = &["launch-twice", "ignore-epoch", "ack-before-journal", "forget-stop"];

#[cfg(feature = "planted")]
mod chosen {
    use std::cell::Cell;

    thread_local! {
        static BUG: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Chooses the bug that code on this thread has from now on; `None` for none.
    pub fn select(bug: Option<&'static str>) {
        BUG.with(|b| b.set(bug));
    }

    /// Whether this thread's code has this bug.
    pub fn is(bug: &str) -> bool {
        BUG.with(|b| b.get() == Some(bug))
    }
}

#[cfg(feature = "planted")]
pub use chosen::{is, select};

/// Whether this thread's code has this bug: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_bug: &str) -> bool {
    false
}
