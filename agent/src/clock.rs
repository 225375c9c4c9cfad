//! The clock by which deadlines are kept.

use protocol::ids::MonotonicMs;

/// Since the machine started, with the time that it was suspended, in ms.
pub fn monotonic() -> MonotonicMs {
    MonotonicMs(pod_guard::clock::since_boot_ms())
}
