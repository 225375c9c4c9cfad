//! The clock by which deadlines are kept: time since the machine started, with the time that it was suspended, which the usual monotonic
//! clock leaves out. Whoever must have stopped by a deadline would otherwise go on after a sleep through it.

use rustix::time::{ClockId, clock_gettime};

/// Since the machine started, in ms.
pub fn since_boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1000).saturating_add(nanos.unwrap_or_default() / 1_000_000)
}
