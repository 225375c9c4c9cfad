//! Between our message structs and raft's. Ours to raft's always succeeds; raft's to ours is refused for what never
//! leaves a replica. Called by `driver` and `store` only.

use ::raft::eraftpb;
use protocol::ids::ReplicaId;

use super::wire::{ConfState, Entry, EntryKind, HardState, MessageKind, PeerMessage, Snapshot};

/// Raft gave a message that has no place on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("raft wants to send {kind}, which never leaves a replica: this is a defect, report it")]
pub struct NotOnTheWire {
    /// Raft's name for it.
    pub kind: &'static str,
}

fn kind_to_raft(kind: MessageKind) -> eraftpb::MessageType {
    use eraftpb::MessageType as Raft;
    match kind {
        MessageKind::Append => Raft::MsgAppend,
        MessageKind::AppendResponse => Raft::MsgAppendResponse,
        MessageKind::RequestVote => Raft::MsgRequestVote,
        MessageKind::RequestVoteResponse => Raft::MsgRequestVoteResponse,
        MessageKind::Snapshot => Raft::MsgSnapshot,
        MessageKind::Heartbeat => Raft::MsgHeartbeat,
        MessageKind::HeartbeatResponse => Raft::MsgHeartbeatResponse,
        MessageKind::TimeoutNow => Raft::MsgTimeoutNow,
        MessageKind::ReadIndex => Raft::MsgReadIndex,
        MessageKind::ReadIndexResponse => Raft::MsgReadIndexResp,
        MessageKind::RequestPreVote => Raft::MsgRequestPreVote,
        MessageKind::RequestPreVoteResponse => Raft::MsgRequestPreVoteResponse,
    }
}

fn kind_from_raft(kind: eraftpb::MessageType) -> Result<MessageKind, NotOnTheWire> {
    use eraftpb::MessageType as Raft;
    Ok(match kind {
        Raft::MsgAppend => MessageKind::Append,
        Raft::MsgAppendResponse => MessageKind::AppendResponse,
        Raft::MsgRequestVote => MessageKind::RequestVote,
        Raft::MsgRequestVoteResponse => MessageKind::RequestVoteResponse,
        Raft::MsgSnapshot => MessageKind::Snapshot,
        Raft::MsgHeartbeat => MessageKind::Heartbeat,
        Raft::MsgHeartbeatResponse => MessageKind::HeartbeatResponse,
        Raft::MsgTimeoutNow => MessageKind::TimeoutNow,
        Raft::MsgReadIndex => MessageKind::ReadIndex,
        Raft::MsgReadIndexResp => MessageKind::ReadIndexResponse,
        Raft::MsgRequestPreVote => MessageKind::RequestPreVote,
        Raft::MsgRequestPreVoteResponse => MessageKind::RequestPreVoteResponse,
        Raft::MsgHup => return Err(NotOnTheWire { kind: "MsgHup" }),
        Raft::MsgBeat => return Err(NotOnTheWire { kind: "MsgBeat" }),
        Raft::MsgPropose => return Err(NotOnTheWire { kind: "MsgPropose" }),
        Raft::MsgUnreachable => return Err(NotOnTheWire { kind: "MsgUnreachable" }),
        Raft::MsgSnapStatus => return Err(NotOnTheWire { kind: "MsgSnapStatus" }),
        Raft::MsgCheckQuorum => return Err(NotOnTheWire { kind: "MsgCheckQuorum" }),
        Raft::MsgTransferLeader => return Err(NotOnTheWire { kind: "MsgTransferLeader" }),
    })
}

impl From<Entry> for eraftpb::Entry {
    fn from(ours: Entry) -> Self {
        let mut raft = eraftpb::Entry::default();
        raft.set_entry_type(match ours.kind {
            EntryKind::Normal => eraftpb::EntryType::EntryNormal,
            EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
            EntryKind::ConfChangeV2 => eraftpb::EntryType::EntryConfChangeV2,
        });
        raft.term = ours.term;
        raft.index = ours.index;
        raft.data = ours.data.into_bytes();
        raft.context = ours.context.into_bytes();
        raft
    }
}

impl From<&eraftpb::Entry> for Entry {
    fn from(raft: &eraftpb::Entry) -> Self {
        Self {
            kind: match raft.get_entry_type() {
                eraftpb::EntryType::EntryNormal => EntryKind::Normal,
                eraftpb::EntryType::EntryConfChange => EntryKind::ConfChange,
                eraftpb::EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
            },
            term: raft.term,
            index: raft.index,
            data: raft.data.clone().into(),
            context: raft.context.clone().into(),
        }
    }
}

impl From<HardState> for eraftpb::HardState {
    fn from(ours: HardState) -> Self {
        Self { term: ours.term, vote: ours.vote, commit: ours.commit, ..Self::default() }
    }
}

impl From<&eraftpb::HardState> for HardState {
    fn from(raft: &eraftpb::HardState) -> Self {
        Self { term: raft.term, vote: raft.vote, commit: raft.commit }
    }
}

fn ids_to_raft(ids: Vec<ReplicaId>) -> Vec<u64> {
    ids.into_iter().map(|id| id.0).collect()
}

fn ids_from_raft(ids: &[u64]) -> Vec<ReplicaId> {
    ids.iter().copied().map(ReplicaId).collect()
}

impl From<ConfState> for eraftpb::ConfState {
    fn from(ours: ConfState) -> Self {
        Self {
            voters: ids_to_raft(ours.voters),
            learners: ids_to_raft(ours.learners),
            voters_outgoing: ids_to_raft(ours.voters_outgoing),
            learners_next: ids_to_raft(ours.learners_next),
            auto_leave: ours.auto_leave,
            ..Self::default()
        }
    }
}

impl From<&eraftpb::ConfState> for ConfState {
    fn from(raft: &eraftpb::ConfState) -> Self {
        Self {
            voters: ids_from_raft(&raft.voters),
            learners: ids_from_raft(&raft.learners),
            voters_outgoing: ids_from_raft(&raft.voters_outgoing),
            learners_next: ids_from_raft(&raft.learners_next),
            auto_leave: raft.auto_leave,
        }
    }
}

impl From<Snapshot> for eraftpb::Snapshot {
    fn from(ours: Snapshot) -> Self {
        let mut raft = Self { data: ours.data.into(), ..Self::default() };
        let metadata = raft.mut_metadata();
        metadata.index = ours.index;
        metadata.term = ours.term;
        metadata.set_conf_state(ours.conf_state.into());
        raft
    }
}

impl From<&eraftpb::Snapshot> for Snapshot {
    fn from(raft: &eraftpb::Snapshot) -> Self {
        let metadata = raft.get_metadata();
        Self {
            index: metadata.index,
            term: metadata.term,
            conf_state: metadata.get_conf_state().into(),
            data: raft.data.to_vec(),
        }
    }
}

impl From<PeerMessage> for eraftpb::Message {
    fn from(ours: PeerMessage) -> Self {
        let mut raft = eraftpb::Message::default();
        raft.set_msg_type(kind_to_raft(ours.kind));
        raft.from = ours.from.0;
        raft.to = ours.to.0;
        raft.term = ours.term;
        raft.log_term = ours.log_term;
        raft.index = ours.index;
        raft.set_entries(ours.entries.into_iter().map(Into::into).collect::<Vec<_>>().into());
        raft.commit = ours.commit;
        raft.commit_term = ours.commit_term;
        if let Some(snapshot) = ours.snapshot {
            raft.set_snapshot(snapshot.into());
        }
        raft.request_snapshot = ours.request_snapshot;
        raft.reject = ours.reject;
        raft.reject_hint = ours.reject_hint;
        raft.context = ours.context.into();
        raft.priority = ours.priority;
        raft
    }
}

impl TryFrom<&eraftpb::Message> for PeerMessage {
    type Error = NotOnTheWire;
    fn try_from(raft: &eraftpb::Message) -> Result<Self, NotOnTheWire> {
        Ok(Self {
            kind: kind_from_raft(raft.get_msg_type())?,
            from: ReplicaId(raft.from),
            to: ReplicaId(raft.to),
            term: raft.term,
            log_term: raft.log_term,
            index: raft.index,
            entries: raft.entries.iter().map(Into::into).collect(),
            commit: raft.commit,
            commit_term: raft.commit_term,
            snapshot: raft.has_snapshot().then(|| raft.get_snapshot().into()),
            request_snapshot: raft.request_snapshot,
            reject: raft.reject,
            reject_hint: raft.reject_hint,
            context: raft.context.to_vec(),
            priority: raft.priority,
        })
    }
}
