//! Whether an attempt may go on, where that has an end: nothing of it starts before the guard was let, and it ends once the guard was not let
//! go on for as long as its plan says. The guard asks, by way of the agent; whoever answers says how much longer, and the guard
//! counts that from when it *asked*. So its deadline comes before that of whoever answered.
//!
//! Knows no clock: every moment is told, in ms of a clock that also counts while the machine sleeps.

/// Between two questions, in ms, or a quarter of the time for which it may go on where that is less.
const ASK_EVERY_MS: u64 = 5_000;
/// The same before the first answer.
const ASK_FIRST_EVERY_MS: u64 = 1_000;

/// Between the polite and the hard end of an attempt that was not let go on, in ms. The coordinator waits for longer than that.
pub const GRACE_MS: u64 = 10_000;

/// What the guard may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Nothing yet: nobody has let it begin.
    NotYet,
    /// Go on.
    Granted,
    /// Not any more, or never.
    Over,
}

/// Until when the attempt may go on.
#[derive(Debug)]
pub struct Fence {
    after_ms: u64,
    since: u64,
    until: Option<u64>,
    asked: Option<u64>,
}

impl Fence {
    /// Nobody has let it begin yet, and if nobody does for as long as that, it never does.
    pub fn new(after_ms: u64, now: u64) -> Self {
        Self { after_ms, since: now, until: None, asked: None }
    }

    /// Whether to ask at this moment; if so, that is noted. The question is its own moment, which the answer brings back.
    pub fn asks(&mut self, now: u64) -> bool {
        let due = self.asked.is_none_or(|asked| now >= asked.saturating_add(self.every()));
        if due {
            self.asked = Some(now);
        }
        due
    }

    fn every(&self) -> u64 {
        let every = if self.until.is_some() { ASK_EVERY_MS } else { ASK_FIRST_EVERY_MS };
        every.min(self.after_ms / 4)
    }

    /// The last question.
    pub fn asked(&self) -> Option<u64> {
        self.asked
    }

    /// What was asked at `asked` is answered: it may go on for `ttl_ms` from then. Never for longer than its plan says, never cut
    /// shorter by an answer that comes late, and not at all by one to what was not asked.
    pub fn answered(&mut self, asked: u64, ttl_ms: u64) {
        if asked >= self.since && self.asked.is_some_and(|last| asked <= last) {
            self.until = self.until.max(Some(asked.saturating_add(ttl_ms.min(self.after_ms))));
        }
    }

    /// What may be done at this moment. At the deadline itself nothing.
    pub fn leave(&self, now: u64) -> Leave {
        match self.until {
            Some(until) if now < until => Leave::Granted,
            None if now < self.since.saturating_add(self.after_ms) => Leave::NotYet,
            _ => Leave::Over,
        }
    }

    /// The next moment at which something is due: a question or the end.
    pub fn next(&self) -> u64 {
        let ask = self.asked.map_or(self.since, |asked| asked.saturating_add(self.every()));
        let end = self.until.unwrap_or_else(|| self.since.saturating_add(self.after_ms));
        ask.min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_before_an_answer_and_it_counts_from_the_question() {
        let mut fence = Fence::new(60_000, 1_000);
        assert_eq!(fence.leave(1_000), Leave::NotYet);
        assert!(fence.asks(1_000) && !fence.asks(1_999), "one question at a time");
        fence.answered(1_000, 50_000);
        assert_eq!(fence.leave(50_999), Leave::Granted);
        assert_eq!(fence.leave(51_000), Leave::Over);
    }

    #[test]
    fn an_answer_to_nothing_that_was_asked_counts_for_nothing() {
        let mut fence = Fence::new(60_000, 1_000);
        fence.answered(2_000, 50_000);
        assert!(fence.asks(3_000));
        fence.answered(999, 50_000);
        fence.answered(3_001, 50_000);
        assert_eq!(fence.leave(3_002), Leave::NotYet);
    }

    #[test]
    fn a_late_answer_shortens_nothing_and_none_lasts_longer_than_the_plan_says() {
        let mut fence = Fence::new(60_000, 0);
        assert!(fence.asks(0) && fence.asks(4_000));
        fence.answered(4_000, 900_000);
        fence.answered(0, 60_000);
        assert_eq!((fence.leave(63_999), fence.leave(64_000)), (Leave::Granted, Leave::Over));
    }

    #[test]
    fn what_was_never_let_begin_never_does() {
        let fence = Fence::new(60_000, 1_000);
        assert_eq!((fence.leave(60_999), fence.leave(61_000)), (Leave::NotYet, Leave::Over));
    }

    #[test]
    fn it_is_looked_at_when_the_next_thing_is_due() {
        let mut fence = Fence::new(60_000, 1_000);
        assert_eq!(fence.next(), 1_000);
        fence.asks(1_000);
        assert_eq!(fence.next(), 1_000 + ASK_FIRST_EVERY_MS);
        fence.answered(1_000, 3_000);
        assert_eq!(fence.next(), 4_000, "the end comes before the next question");
    }
}
