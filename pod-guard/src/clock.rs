//! The clock by which deadlines are kept: time since the machine started, with the time that it was suspended, which the usual monotonic
//! clock leaves out. Whoever must have stopped by a deadline would otherwise go on after a sleep through it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since the machine started.
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The same, in ms.
pub fn since_boot_ms() -> u64 {
    u64::try_from(since_boot().as_millis()).unwrap_or(u64::MAX)
}
