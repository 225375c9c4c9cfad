//! Virtual time, and the clocks that processes have of it: each runs a little fast or slow, and each has its own idea of the
//! date.

use coordinator::replica::Now;
use protocol::ids::{MonotonicMs, UnixMs};

/// A millisecond of virtual time, in its unit (µs).
pub(crate) const MS: u64 = 1_000;
/// A second.
pub(crate) const SECOND: u64 = 1_000 * MS;

/// The date at virtual time 0.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// One machine's clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// When the process that reads it started: its monotonic clock counts from there.
    pub started_us: u64,
    /// Millionths by which it runs fast.
    pub fast_ppm: i64,
    /// By how much its date is ahead, in ms.
    pub ahead_ms: i64,
}

impl Clock {
    pub fn mono(&self, at_us: u64) -> MonotonicMs {
        let passed = at_us - self.started_us;
        let drift = i128::from(passed) * i128::from(self.fast_ppm) / 1_000_000;
        MonotonicMs((i128::from(passed) + drift) as u64 / MS)
    }

    pub fn unix(&self, at_us: u64) -> UnixMs {
        UnixMs((EPOCH_MS + at_us / MS).saturating_add_signed(self.ahead_ms))
    }

    pub fn now(&self, at_us: u64) -> Now {
        Now { mono: self.mono(at_us), unix: self.unix(at_us) }
    }

    /// How long `ms` by this clock are in virtual time, in µs.
    pub fn period(&self, ms: u64) -> u64 {
        let real = ms * MS;
        real.saturating_add_signed(-(real as i64 * self.fast_ppm / 1_000_000))
    }
}
