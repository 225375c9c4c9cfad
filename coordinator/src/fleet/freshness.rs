//! How old a cluster's capacity is, and whether that is too old to place on. By this replica's monotonic clock, from when
//! a frame came in: what an agent's clock says does not count.

use engine::plan::FRESH_MS;
use protocol::ids::MonotonicMs;

/// When a cluster was last heard.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Freshness {
    heard_at: Option<MonotonicMs>,
}

impl Freshness {
    /// A frame was taken; an empty one counts too.
    pub fn heard(&mut self, now: MonotonicMs) {
        self.heard_at = Some(now);
    }

    /// Time since the last frame, in ms; the longest there is before the first.
    pub fn age_ms(&self, now: MonotonicMs) -> u64 {
        self.heard_at.map_or(u64::MAX, |at| now.since(at))
    }

    /// Whether the capacity may be placed on.
    pub fn is_fresh(&self, now: MonotonicMs) -> bool {
        self.age_ms(now) <= FRESH_MS
    }
}
