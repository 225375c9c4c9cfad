//! Leases of clusters, as the leader keeps them. The agent counts from when it asked, the leader from when it answered, so
//! the agent's deadline always comes first.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ClusterName, MonotonicMs};

use super::SessionId;

/// How long a lease lasts, in ms.
pub const LEASE_MS: u64 = 30_000;

/// Requests that wait for a quorum's word, and the leases granted in this reign.
#[derive(Debug, Default)]
pub struct Leases {
    /// The requests under way, by the token of their confirmation.
    asked: BTreeMap<u64, (SessionId, u64)>,
    next_token: u64,
    granted: BTreeMap<ClusterName, MonotonicMs>,
    declared: BTreeSet<ClusterName>,
    reign_since: MonotonicMs,
}

impl Leases {
    /// A new leader knows of no lease: it counts every cluster's from now.
    pub fn begin_reign(&mut self, now: MonotonicMs) {
        self.end_reign();
        self.reign_since = now;
    }

    /// Nothing is granted any more.
    pub fn end_reign(&mut self) {
        self.asked.clear();
        self.granted.clear();
        self.declared.clear();
    }

    /// An agent asks; returns the token of the confirmation to ask for.
    pub fn requested(&mut self, session: SessionId, nonce: u64) -> u64 {
        self.next_token += 1;
        self.asked.insert(self.next_token, (session, nonce));
        self.next_token
    }

    /// Takes the request that this confirmation covers.
    pub fn confirmed(&mut self, token: u64) -> Option<(SessionId, u64)> {
        self.asked.remove(&token)
    }

    /// A lease goes out now.
    pub fn granted(&mut self, cluster: ClusterName, now: MonotonicMs) {
        self.declared.remove(&cluster);
        self.granted.insert(cluster, now.plus(LEASE_MS));
    }

    /// Whether a cluster's last lease of this reign (or, without one, the reign's first lease length) is over.
    pub fn lapsed(&self, cluster: &ClusterName, now: MonotonicMs) -> bool {
        let until = self.granted.get(cluster).copied().unwrap_or_else(|| self.reign_since.plus(LEASE_MS));
        now >= until
    }

    /// Notes that a cluster is being declared lost; false if that was noted before.
    pub fn declare_lost(&mut self, cluster: &ClusterName) -> bool {
        self.declared.insert(cluster.clone())
    }

    /// The declaration came to nothing: it may be made again.
    pub fn undeclare(&mut self, cluster: &ClusterName) {
        self.declared.remove(cluster);
    }

    /// A session ended: its requests need no answer.
    pub fn forget_session(&mut self, session: SessionId) {
        self.asked.retain(|_, (s, _)| *s != session);
    }
}
