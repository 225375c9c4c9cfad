//! One replica of raft, as a machine that is stepped: no threads, no clocks, no sockets.
//!
//! The caller gives it inputs in any order ([`Driver::tick`], [`Driver::receive`], [`Driver::propose`], …) and then, as long
//! as [`Driver::begin`] gives a [`Step`], sends the step's early messages, persists it, and sends and applies what
//! [`Step::persist`] gives back, in order. So a caller can stop (crash, in a test) between any two of these. Inputs that
//! arrive together share one step, and so one sync of the disk. Nothing here waits.
//!
//! What the caller owes: one thread owns the driver; a [`Fatal`] error, and a panic (raft panics by design when a disk has
//! lost what it once confirmed), end the process; committed entries are applied in order, once; after a restart the state
//! starts from [`Driver::snapshot`] and is given the entries after it again; a sent [`MessageKind::Snapshot`] is followed by
//! [`Driver::report_snapshot`]; messages may be lost, repeated and reordered, but not altered.
//!
//! [`MessageKind::Snapshot`]: super::wire::MessageKind::Snapshot

mod config;
mod errors;
mod log;
mod proposals;
mod reads;
mod step;
mod tag;
mod validate;

use ::raft::{RawNode, SnapshotStatus, StateRole};
use protocol::ids::ReplicaId;

use super::store::{Compaction, Store};
use super::wire::{ConfState, HardState, MAX_SNAPSHOT_BYTES, PeerMessage, Snapshot};
pub use config::{DriverConfig, ElectionTimeout, Limits};
pub use errors::{CompactError, Fatal, OpenError, ProposeError, TransferError};
use proposals::Proposals;
pub use reads::ReadError;
use reads::Reads;
pub use step::{Committed, InstalledSnapshot, Ready, Role, Step};
use tag::Tag;
pub use validate::ReceiveError;

/// One replica of raft.
pub struct Driver {
    node: RawNode<Store>,
    config: DriverConfig,
    /// As it is known now; what is on disk may be behind in `commit`, which raft allows.
    hard_state: HardState,
    reads: Reads,
    proposals: Proposals,
    /// Proposals that raft did not take after all, to be told with the next step.
    dropped: Vec<u64>,
    /// Waits for the next step, so that it shares its transaction.
    compaction: Option<Compaction>,
    /// The last entry that was given to the caller.
    given_out: u64,
    reported: Option<Role>,
    /// False from the begin of a step until it is persisted, and for ever after a failure.
    usable: bool,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("role", &self.role())
            .field("given_out", &self.given_out)
            .field("store", self.store())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Starts a replica on its store. An empty store gets the configured voters; a used one must have them.
    pub fn open(config: DriverConfig, mut store: Store) -> Result<Driver, OpenError> {
        config.check(store.replica()).map_err(OpenError::Config)?;
        let voters = ConfState { voters: config.sorted_voters(), ..ConfState::default() };
        if *store.conf_state() != ConfState::default() && *store.conf_state() != voters {
            return Err(OpenError::Voters { stored: store.conf_state().voters.clone(), configured: voters.voters });
        }
        store.begin_life(voters)?;
        let applied = store.snapshot_index();
        let reads = Reads::new(Tag::new(config.id, store.life(), 0), config.read_timeout_ticks, config.limits);
        let hard_state = store.hard_state();
        let node = RawNode::new(&config.to_raft(applied), store, &log::logger())
            .map_err(|cause| OpenError::Config(cause.to_string()))?;
        let mut driver = Driver {
            node,
            config,
            hard_state,
            reads,
            proposals: Proposals::default(),
            dropped: Vec::new(),
            compaction: None,
            given_out: applied,
            reported: None,
            usable: true,
        };
        if driver.config.voters.len() == 1 {
            // There is nobody to wait for.
            driver.campaign();
        }
        Ok(driver)
    }

    /// The state to start from: entries after its index follow as committed.
    pub fn snapshot(&self) -> Option<InstalledSnapshot> {
        let Snapshot { index, term, data, .. } = self.store().latest_snapshot()?;
        Some(InstalledSnapshot { index, term, bytes: data })
    }

    /// The store, to look at.
    pub fn store(&self) -> &Store {
        self.node.store()
    }

    /// The configuration.
    pub fn config(&self) -> &DriverConfig {
        &self.config
    }

    /// Who leads, as this replica knows.
    pub fn role(&self) -> Role {
        let raft = &self.node.raft;
        Role { leader: self.leader(), is_self_leader: raft.state == StateRole::Leader, term: raft.term }
    }

    fn leader(&self) -> Option<ReplicaId> {
        let id = self.node.raft.leader_id;
        (id != ::raft::INVALID_ID).then_some(ReplicaId(id))
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The highest index that is known to be committed.
    pub fn commit_index(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The last entry that was given out in a [`Ready`], or the snapshot that was.
    pub fn given_out(&self) -> u64 {
        self.given_out
    }

    /// How far each other voter's log is known to match this leader's; empty where this replica does not lead.
    pub fn progress(&self) -> Vec<(ReplicaId, u64)> {
        if !self.is_leader() {
            return Vec::new();
        }
        let progress = self.node.raft.prs();
        let matched = |id: &ReplicaId| progress.get(id.0).map(|p| (*id, p.matched));
        self.config.sorted_voters().iter().filter_map(matched).collect()
    }

    /// A tick of the clock has passed: [`DriverConfig::tick_ms`].
    pub fn tick(&mut self) {
        if !self.usable {
            return;
        }
        self.settle_timeout();
        self.node.tick();
        self.reads.tick();
    }

    /// A message came from a peer; `from` is who it is by its certificate. A message that is refused changes nothing.
    pub fn receive(&mut self, from: ReplicaId, message: PeerMessage) -> Result<(), ReceiveError> {
        if !self.usable {
            return Err(ReceiveError::Fatal(Fatal::Stopped));
        }
        self.validate(from, &message)?;
        self.node.step(message.into()).map_err(|cause| ReceiveError::Raft { cause: cause.to_string() })
    }

    /// Proposes an entry, with the next step. `id` is the caller's own number for it: it comes back in [`Committed::own`]
    /// if the entry is committed while this driver lives, or in [`Ready::dropped`] if it certainly never will be. One of
    /// which neither came when leadership is lost may still be committed, or never.
    pub fn propose(&mut self, id: u64, payload: Vec<u8>) -> Result<(), ProposeError> {
        if !self.usable {
            return Err(ProposeError::Stopped);
        }
        // raft would forward it to the leader; the caller does that better, and knows whom to ask.
        if !self.is_leader() {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        let limit = self.config.limits.max_proposal_bytes;
        if payload.len() > limit {
            return Err(ProposeError::TooLarge { bytes: payload.len(), limit });
        }
        let uncommitted = self.node.raft.uncommitted_size() + self.proposals.bytes();
        let full = (uncommitted + payload.len()) as u64 > self.config.limits.max_uncommitted_bytes;
        if self.node.raft.lead_transferee.is_some() || (full && uncommitted > 0) {
            return Err(ProposeError::Overloaded);
        }
        self.proposals.push(self.reads.tag(id), payload);
        Ok(())
    }

    /// Gives raft the proposals that wait.
    fn pass_proposals(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let (ids, message) = self.proposals.take(self.config.id.0);
        // Leadership may have gone since they were taken; a follower's raft would forward them.
        if !self.is_leader() || self.node.step(message).is_err() {
            self.dropped.extend(ids);
        }
    }

    /// Asks from which index on a read sees everything that was committed before now. The answer, or its failure, comes
    /// with `id` in [`Ready::reads`] or [`Ready::failed_reads`].
    pub fn read_index(&mut self, id: u64) -> Result<(), ReadError> {
        if !self.usable {
            return Err(ReadError::Stopped);
        }
        if self.leader().is_none() {
            return Err(ReadError::NoLeader);
        }
        self.reads.wait(id)
    }

    /// The last message to this peer could not be sent.
    pub fn report_unreachable(&mut self, peer: ReplicaId) {
        if self.usable {
            self.node.report_unreachable(peer.0);
        }
    }

    /// A snapshot to this peer was sent whole, or was not.
    pub fn report_snapshot(&mut self, peer: ReplicaId, outcome: SnapshotOutcome) {
        let status = match outcome {
            SnapshotOutcome::Sent => SnapshotStatus::Finish,
            SnapshotOutcome::Failed => SnapshotStatus::Failure,
        };
        if self.usable {
            self.node.report_snapshot(peer.0, status);
        }
    }

    /// Hands leadership to another voter; until that is done, or an election timeout has passed, proposals are refused.
    pub fn transfer_leader(&mut self, to: ReplicaId) -> Result<(), TransferError> {
        if !self.usable || !self.is_leader() {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if !self.config.voters.contains(&to) {
            return Err(TransferError::NotAVoter { to });
        }
        self.pass_proposals();
        self.node.transfer_leader(to.0);
        Ok(())
    }

    /// Campaigns now instead of after a timeout.
    pub fn campaign(&mut self) {
        if self.usable {
            // The one error is that of a message which never fails.
            let _ = self.node.campaign();
        }
    }

    /// Replaces the log up to `index` by the state after it, all but the last `keep` entries, which spare a follower that
    /// is a little behind the whole snapshot. Becomes durable with the next step.
    pub fn compact(&mut self, index: u64, bytes: Vec<u8>, keep: u64) -> Result<(), CompactError> {
        if bytes.len() > MAX_SNAPSHOT_BYTES {
            return Err(CompactError::TooLarge { bytes: bytes.len() });
        }
        if index > self.given_out {
            return Err(CompactError::NotApplied { index, applied: self.given_out });
        }
        let latest = self.store().snapshot_index();
        let staged = self.compaction.as_ref().map_or(0, |compaction| compaction.snapshot.index);
        let old = CompactError::Old { index, latest: latest.max(staged) };
        // An index that was given out and is after the latest snapshot is in the log.
        let Some(term) = self.store().term_of(index).filter(|_| index > latest.max(staged)) else {
            return Err(old);
        };
        let conf_state = self.store().conf_state().clone();
        let drop_to = index.saturating_sub(keep).max(self.store().first() - 1);
        self.compaction = Some(Compaction { snapshot: Snapshot { index, term, conf_state, data: bytes }, drop_to });
        Ok(())
    }

    /// raft draws its election timeouts from the system's randomness. Where the caller wants the same run again, they are
    /// replaced before a tick, which is all that looks at them.
    fn settle_timeout(&mut self) {
        if let Some(ticks) = self.config.seeded_timeout(self.node.raft.term) {
            self.node.raft.set_randomized_election_timeout(ticks);
        }
    }
}

/// What became of a snapshot that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// All of it was handed over.
    Sent,
    /// It was not.
    Failed,
}
