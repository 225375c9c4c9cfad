//! The agent's permission to launch: asked for every few seconds, granted by the leader, counted from when it was asked
//! for, so that the agent's deadline always lies before the coordinator's. By the monotonic clock alone.

use std::collections::BTreeMap;

use protocol::ids::{MonotonicMs, ReplicaId};

/// A request that is this old can grant nothing any more: longer than any lease.
const FORGET_AFTER_MS: u64 = 120_000;

/// The lease and the requests for it.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    next_nonce: u64,
    sent: BTreeMap<u64, (ReplicaId, MonotonicMs)>,
    until: Option<MonotonicMs>,
}

impl Lease {
    /// No lease yet. `first_nonce` differs from life to life, so that no answer to an earlier life's request fits.
    pub fn new(first_nonce: u64) -> Self {
        Self { next_nonce: first_nonce, ..Self::default() }
    }

    /// A request to `replica` goes out now; returns its nonce.
    pub fn request(&mut self, replica: ReplicaId, now: MonotonicMs) -> u64 {
        self.sent.retain(|_, (_, at)| now.since(*at) < FORGET_AFTER_MS);
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        self.sent.insert(nonce, (replica, now));
        nonce
    }

    /// `replica` granted a request. The lease lasts for `ttl_ms` from when the request was sent, and is never cut shorter
    /// by an answer that comes late. Returns when it was sent; none where no such request is open.
    pub fn grant(&mut self, replica: ReplicaId, nonce: u64, ttl_ms: u64) -> Option<MonotonicMs> {
        match self.sent.get(&nonce) {
            Some((asked, at)) if *asked == replica => {
                let at = *at;
                self.until = self.until.max(Some(at.plus(ttl_ms)));
                self.sent.remove(&nonce);
                Some(at)
            }
            _ => None,
        }
    }

    /// The session is gone: what was asked there will not be answered.
    pub fn disconnected(&mut self, replica: ReplicaId) {
        self.sent.retain(|_, (asked, _)| *asked != replica);
    }

    /// Whether the agent may launch at this moment. At the deadline itself it may not.
    pub fn is_valid(&self, now: MonotonicMs) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the lease ends or ended.
    pub fn until(&self) -> Option<MonotonicMs> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: ReplicaId = ReplicaId(1);

    #[test]
    fn a_lease_ends_to_the_millisecond_counted_from_the_request() {
        let mut lease = Lease::new(7);
        let nonce = lease.request(R, MonotonicMs(1_000));
        assert!(!lease.is_valid(MonotonicMs(1_000)), "asking grants nothing");
        assert!(lease.grant(R, nonce, 500).is_some());
        assert!(lease.is_valid(MonotonicMs(1_499)));
        assert!(!lease.is_valid(MonotonicMs(1_500)));
    }

    #[test]
    fn a_late_answer_to_an_early_request_shortens_nothing() {
        let mut lease = Lease::new(0);
        let early = lease.request(R, MonotonicMs(0));
        let late = lease.request(R, MonotonicMs(100));
        assert!(lease.grant(R, late, 500).is_some());
        assert!(lease.grant(R, early, 500).is_some());
        assert_eq!(lease.until(), Some(MonotonicMs(600)));
    }

    #[test]
    fn only_the_replica_that_was_asked_can_grant_and_only_once() {
        let mut lease = Lease::new(0);
        let nonce = lease.request(R, MonotonicMs(0));
        assert!(lease.grant(ReplicaId(2), nonce, 500).is_none());
        assert!(lease.grant(R, nonce + 1, 500).is_none());
        lease.disconnected(R);
        assert!(lease.grant(R, nonce, 500).is_none(), "an answer of an ended session counts for nothing");
        let again = lease.request(R, MonotonicMs(0));
        assert!(lease.grant(R, again, 500).is_some());
        assert!(lease.grant(R, again, 500_000).is_none(), "an answer counts once");
        assert!(!lease.is_valid(MonotonicMs(500)));
    }
}
