//! Which NVML call is under way and since when: written by the NVML thread around each call, read by the one that watches it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The call under way, if any.
#[derive(Debug, Default)]
pub struct CallWatch(Mutex<Option<(&'static str, Instant)>>);

impl CallWatch {
    fn lock(&self) -> MutexGuard<'_, Option<(&'static str, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the call `name`, seen by the watch while it lasts.
    pub fn during<T>(&self, name: &'static str, call: impl FnOnce() -> T) -> T {
        *self.lock() = Some((name, Instant::now()));
        let answer = call();
        *self.lock() = None;
        answer
    }

    /// The call that has lasted for at least `limit`, and for how long.
    pub fn stalled(&self, limit: Duration) -> Option<(&'static str, Duration)> {
        let (name, since) = (*self.lock())?;
        let lasted = since.elapsed();
        (lasted >= limit).then_some((name, lasted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_that_lasts_is_stalled() {
        let watch = CallWatch::default();
        assert_eq!(watch.stalled(Duration::ZERO), None);
        watch.during("nvmlInit_v2", || {
            assert_eq!(watch.stalled(Duration::from_secs(60)), None);
            assert_eq!(watch.stalled(Duration::ZERO).map(|(name, _)| name), Some("nvmlInit_v2"));
        });
        assert_eq!(watch.stalled(Duration::ZERO), None);
    }
}
