//! How long to wait before the API server is asked again after it failed: twice as long each time, at least what it asked
//! for, and never so long that its return goes unseen.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);
/// No server may silence the agent for longer.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// The wait before the next try.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// Before the first failure.
    pub fn new() -> Self {
        Self(FIRST)
    }

    /// The wait after one more failure; `asked` is the server's `Retry-After`.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(LAST);
        wait.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }

    /// Waits after one more failure of which the server said nothing.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next(None)).await;
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_no_shorter_than_was_asked_for() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(None).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.next(Some(Duration::from_secs(9))).as_secs(), 9);
        assert_eq!(backoff.next(Some(Duration::from_secs(1 << 40))).as_secs(), 60);
        backoff.reset();
        assert_eq!(backoff.next(None), FIRST);
    }
}
