//! What replicas say to each other and what the log holds, as structs of our own.
//!
//! They mirror raft's protobuf messages, so that nothing from the wire ever reaches a protobuf parser. A kind that only
//! exists inside a replica (a tick, a proposal) has no variant here: bytes that claim one are refused by the decoder.
//! Used by `driver` (messages), `store` (records) and the transport, which encodes [`PeerMessage`] with
//! `protocol::codec`.

use std::ops::Deref;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;
use protocol::ids::ReplicaId;

const MIB: usize = 1024 * 1024;

/// Most bytes of a snapshot: it must fit into one [`PeerMessage`].
pub const MAX_SNAPSHOT_BYTES: usize = 60 * MIB;
/// Most bytes of one proposal.
pub const MAX_PROPOSAL_BYTES: usize = 4 * MIB;

protocol::limits! {
    PeerMessage: 64 * MIB,
    Entry: 5 * MIB,
    HardState: 64,
    ConfState: 64 * 1024,
    Snapshot: 61 * MIB,
}

/// Bytes that raft carries and does not look into. A clone shares them: an entry is in raft's memory, in the store's, in a
/// message to each peer and in the caller's hands, and is copied for none of these. On the wire and on disk as a `Vec<u8>`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Bytes);

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl Payload {
    /// The bytes themselves, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Encode for Payload {
    fn encode<E: Encoder>(&self, e: &mut E) -> Result<(), EncodeError> {
        self.0.as_ref().encode(e)
    }
}

impl<C> Decode<C> for Payload {
    fn decode<D: Decoder<Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        Ok(Self(Vec::<u8>::decode(d)?.into()))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Payload {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        Self::decode(d)
    }
}

/// What a message between replicas asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum MessageKind {
    /// Entries to append (or none: a probe, or news of the commit index).
    Append,
    /// How far the log matches, or that it does not.
    AppendResponse,
    /// Asks for a vote.
    RequestVote,
    /// Gives or refuses it.
    RequestVoteResponse,
    /// A whole state instead of entries that the leader no longer has.
    Snapshot,
    /// The leader is alive.
    Heartbeat,
    /// So is the follower.
    HeartbeatResponse,
    /// The leader asks this replica to campaign at once.
    TimeoutNow,
    /// A follower asks from where a linearizable read may be served.
    ReadIndex,
    /// From there.
    ReadIndexResponse,
    /// Asks whether a vote would be given, before the term is raised.
    RequestPreVote,
    /// It would or would not.
    RequestPreVoteResponse,
}

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum EntryKind {
    /// A command, or nothing (a new leader's first entry).
    Normal,
    /// A change of one member.
    ConfChange,
    /// A change of members by joint consensus.
    ConfChangeV2,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// What it holds.
    pub kind: EntryKind,
    /// The term of the leader that made it.
    pub term: u64,
    /// Its place, from 1.
    pub index: u64,
    /// The command.
    pub data: Payload,
    /// Who proposed it: opaque to raft, see `driver::tag`.
    pub context: Payload,
}

/// What a replica must not forget between two messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub struct HardState {
    /// The latest term that it knows.
    pub term: u64,
    /// Whom it voted for in that term; 0 is nobody.
    pub vote: u64,
    /// The highest index that it knows to be committed.
    pub commit: u64,
}

/// Who votes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct ConfState {
    /// The voters.
    pub voters: Vec<ReplicaId>,
    /// Replicas that get the log and do not vote.
    pub learners: Vec<ReplicaId>,
    /// While members change: who voted before.
    pub voters_outgoing: Vec<ReplicaId>,
    /// While members change: voters that will be learners.
    pub learners_next: Vec<ReplicaId>,
    /// Whether raft ends the change by itself.
    pub auto_leave: bool,
}

/// The state after an entry, instead of the log up to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Snapshot {
    /// The last entry that it includes.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Who voted then.
    pub conf_state: ConfState,
    /// The state, opaque here.
    pub data: Vec<u8>,
}

/// One message from a replica to another.
///
/// Fields that a kind does not use are zero; which uses which is raft's own matter (its `Message` has the same fields,
/// less those that it keeps for versions that never spoke to us).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PeerMessage {
    /// What it asks or answers.
    pub kind: MessageKind,
    /// Who sends it.
    pub from: ReplicaId,
    /// Who gets it.
    pub to: ReplicaId,
    /// The sender's term; 0 for a forwarded read.
    pub term: u64,
    /// Term of the entry at `index`, or at `reject_hint` in a refusal.
    pub log_term: u64,
    /// The entry before `entries`, or the last one that matches.
    pub index: u64,
    /// Entries to append; in a read, its context.
    pub entries: Vec<Entry>,
    /// The sender's commit index.
    pub commit: u64,
    /// Its term, in a vote request.
    pub commit_term: u64,
    /// The state, in a snapshot.
    pub snapshot: Option<Snapshot>,
    /// The least index of a snapshot that is asked for; 0 is none.
    pub request_snapshot: u64,
    /// Whether the request is refused.
    pub reject: bool,
    /// Where a refused append may match.
    pub reject_hint: u64,
    /// Comes back with the answer.
    pub context: Vec<u8>,
    /// The candidate's priority.
    pub priority: i64,
}
