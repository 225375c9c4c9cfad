//! How a driver is set up.

use ::raft::{Config, ReadOnlyOption};
use protocol::ids::ReplicaId;

use crate::raft::wire::MAX_PROPOSAL_BYTES;

/// How a replica chooses when to campaign, between one and two times [`DriverConfig::election_ticks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionTimeout {
    /// At random: what a real cluster needs.
    Random,
    /// By this seed, the replica's id and the term: the same run again, for the simulation.
    Seeded(u64),
    /// Always after this many ticks: for tests that say who campaigns first.
    Fixed(usize),
}

/// What a replica takes on at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of entries in one message, beyond its first entry.
    pub max_message_bytes: u64,
    /// Messages with entries on their way to one peer.
    pub max_inflight_messages: usize,
    /// Bytes of proposals that are not committed; more are refused.
    pub max_uncommitted_bytes: u64,
    /// Bytes of committed entries that one step gives out, beyond its first entry.
    pub max_committed_bytes_per_step: u64,
    /// Bytes of one proposal.
    pub max_proposal_bytes: usize,
    /// Reads that wait for an index.
    pub max_reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            max_message_bytes: MIB,
            max_inflight_messages: 256,
            max_uncommitted_bytes: 64 * MIB,
            max_committed_bytes_per_step: 8 * MIB,
            max_proposal_bytes: MAX_PROPOSAL_BYTES,
            max_reads: 100_000,
        }
    }
}

/// How a driver is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverConfig {
    /// This replica.
    pub id: ReplicaId,
    /// All replicas that vote, this one among them.
    pub voters: Vec<ReplicaId>,
    /// How often the caller ticks, in ms. The driver only counts ticks.
    pub tick_ms: u64,
    /// Ticks without word from a leader before a replica may campaign.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// When exactly it campaigns.
    pub election_timeout: ElectionTimeout,
    /// Ticks after which a read that got no index has failed.
    pub read_timeout_ticks: u64,
    /// What it takes on at most.
    pub limits: Limits,
}

impl DriverConfig {
    /// Ticks of 25 ms, heartbeats of 50 ms, campaigns after 300 to 600 ms, reads fail after 600 ms.
    pub fn new(id: ReplicaId, voters: Vec<ReplicaId>) -> Self {
        Self {
            id,
            voters,
            tick_ms: 25,
            election_ticks: 12,
            heartbeat_ticks: 2,
            election_timeout: ElectionTimeout::Random,
            read_timeout_ticks: 24,
            limits: Limits::default(),
        }
    }

    pub(super) fn sorted_voters(&self) -> Vec<ReplicaId> {
        let mut voters = self.voters.clone();
        voters.sort_unstable();
        voters
    }

    /// What raft's own check does not see.
    pub(super) fn check(&self, store: ReplicaId) -> Result<(), String> {
        let voters = self.sorted_voters();
        if voters.contains(&ReplicaId(0)) || voters.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("voters {voters:?} must be different and not 0"));
        }
        if !voters.contains(&self.id) {
            return Err(format!("replica {} is not among the voters {voters:?}", self.id));
        }
        if store != self.id {
            return Err(format!("the log store is replica {store}'s, this is replica {}", self.id));
        }
        if self.limits.max_proposal_bytes > MAX_PROPOSAL_BYTES {
            return Err(format!("proposals may have at most {MAX_PROPOSAL_BYTES} bytes"));
        }
        if let ElectionTimeout::Fixed(ticks) = self.election_timeout
            && !(self.election_ticks..2 * self.election_ticks).contains(&ticks)
        {
            let to = 2 * self.election_ticks;
            return Err(format!("a fixed election timeout of {ticks} ticks is not in {}..{to}", self.election_ticks));
        }
        Ok(())
    }

    /// The election timeout of a term, in ticks, where chance does not choose it.
    pub(super) fn seeded_timeout(&self, term: u64) -> Option<usize> {
        match self.election_timeout {
            ElectionTimeout::Random => None,
            ElectionTimeout::Fixed(ticks) => Some(ticks),
            ElectionTimeout::Seeded(seed) => {
                let mixed = mix(mix(mix(seed) ^ self.id.0) ^ term);
                Some(self.election_ticks + (mixed % self.election_ticks as u64) as usize)
            }
        }
    }

    pub(super) fn to_raft(&self, applied: u64) -> Config {
        Config {
            id: self.id.0,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: self.limits.max_message_bytes,
            max_inflight_msgs: self.limits.max_inflight_messages,
            max_uncommitted_size: self.limits.max_uncommitted_bytes,
            max_committed_size_per_ready: self.limits.max_committed_bytes_per_step,
            // A replica that was cut off comes back without an election.
            pre_vote: true,
            // A leader that is cut off stops leading, so that clients go elsewhere.
            check_quorum: true,
            // Not by lease: clocks are not trusted.
            read_only_option: ReadOnlyOption::Safe,
            // See `proposals`.
            batch_append: false,
            ..Config::default()
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): spreads near seeds.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
