//! What a peer's message must be before raft sees it. raft trusts its messages and panics on what can't be: here such a
//! message is refused, so that a peer with a defect does not take this replica with it.

use protocol::ids::ReplicaId;

use super::tag::{TAG_BYTES, Tag};
use super::{Driver, Fatal};
use crate::raft::wire::{EntryKind, MessageKind, PeerMessage, Snapshot};

/// Above any term or index that a cluster reaches; adding one to it is still safe.
const MOST: u64 = u64::MAX / 2;

/// Why a message was refused. Nothing changed, unless it is [`ReceiveError::Fatal`].
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It is not from whom it says.
    #[error("raft: a message from replica {from} says that it is from {claimed}")]
    Forged {
        /// Who sent it.
        from: ReplicaId,
        /// Who it says that it is from.
        claimed: ReplicaId,
    },
    /// It is for another replica.
    #[error("raft: a message from replica {from} is for {to}: its peer addresses are mixed up")]
    Misdirected {
        /// Who sent it.
        from: ReplicaId,
        /// For whom it is.
        to: ReplicaId,
    },
    /// The sender is not a voter.
    #[error("raft: replica {from} is not a voter here: correct its configuration")]
    Stranger {
        /// Who sent it.
        from: ReplicaId,
    },
    /// It can't be what it says.
    #[error("raft: a message {kind:?} from replica {from} makes no sense ({what}): it was not processed")]
    Nonsense {
        /// Who sent it.
        from: ReplicaId,
        /// Its kind.
        kind: MessageKind,
        /// What is wrong.
        what: &'static str,
    },
    /// raft refused it.
    #[error("raft: {cause}")]
    Raft {
        /// What raft said.
        cause: String,
    },
    /// The replica can't go on.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl Driver {
    pub(super) fn validate(&self, from: ReplicaId, message: &PeerMessage) -> Result<(), ReceiveError> {
        if message.from != from {
            return Err(ReceiveError::Forged { from, claimed: message.from });
        }
        if message.to != self.config.id {
            return Err(ReceiveError::Misdirected { from, to: message.to });
        }
        if from == self.config.id || !self.config.voters.contains(&from) {
            return Err(ReceiveError::Stranger { from });
        }
        let sense = match message.kind {
            _ if !numbers_are_sane(message) => Err("a number is out of range"),
            MessageKind::Append => self.append_makes_sense(message),
            MessageKind::Snapshot => self.snapshot_makes_sense(message),
            MessageKind::AppendResponse => self.append_response_makes_sense(message),
            MessageKind::ReadIndex => read_makes_sense(message, from),
            MessageKind::ReadIndexResponse => self.read_response_makes_sense(message),
            MessageKind::RequestVote | MessageKind::RequestPreVote => self.vote_makes_sense(message),
            _ => Ok(()),
        };
        sense.map_err(|what| ReceiveError::Nonsense { from, kind: message.kind, what })?;
        let last = self.node.raft.raft_log.last_index();
        // A leader only tells a follower of commits up to what that follower confirmed.
        if message.kind == MessageKind::Heartbeat && message.term >= self.node.raft.term && message.commit > last {
            return Err(Fatal::StorageLost { confirmed: message.commit, last }.into());
        }
        Ok(())
    }

    fn append_makes_sense(&self, message: &PeerMessage) -> Result<(), &'static str> {
        // raft takes the term 0 for that of any index which it does not have.
        if (message.index == 0) != (message.log_term == 0) {
            return Err("the entry before it has no term");
        }
        let (mut index, mut term) = (message.index, message.log_term);
        for entry in &message.entries {
            if entry.index != index + 1 {
                return Err("its entries are not in order");
            }
            if entry.term < term || entry.term > message.term || entry.term == 0 {
                return Err("its entries' terms are not in order");
            }
            if entry.kind != EntryKind::Normal {
                return Err("this version does not change members");
            }
            (index, term) = (entry.index, entry.term);
        }
        let differs = |index, term| index <= self.commit_index() && self.known_term(index).is_some_and(|t| t != term);
        if message.term >= self.node.raft.term && message.entries.iter().any(|entry| differs(entry.index, entry.term)) {
            return Err("it would change what is committed");
        }
        Ok(())
    }

    fn known_term(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok().filter(|term| *term != 0)
    }

    fn snapshot_makes_sense(&self, message: &PeerMessage) -> Result<(), &'static str> {
        let Some(Snapshot { index, term, conf_state, .. }) = &message.snapshot else {
            return Err("it has no snapshot");
        };
        if *index == 0 || *index > MOST || *term == 0 || *term > message.term {
            return Err("its snapshot's position is out of range");
        }
        if conf_state != self.store().conf_state() {
            return Err("its snapshot has other voters");
        }
        if *index > self.commit_index() && *term < self.known_term(self.commit_index()).unwrap_or(0) {
            return Err("its snapshot's term is below what is committed");
        }
        Ok(())
    }

    fn append_response_makes_sense(&self, message: &PeerMessage) -> Result<(), &'static str> {
        let ours = self.is_leader() && message.term == self.node.raft.term;
        if ours && !message.reject && message.index > self.node.raft.raft_log.last_index() {
            return Err("it confirms more than was sent");
        }
        if message.request_snapshot != 0 {
            return Err("this version does not ask for snapshots");
        }
        Ok(())
    }

    fn read_response_makes_sense(&self, message: &PeerMessage) -> Result<(), &'static str> {
        match message.entries.as_slice() {
            [entry] if Tag::from_bytes(&entry.data).is_some_and(|tag| tag.replica == self.config.id) => Ok(()),
            _ => Err("it answers no question of this replica"),
        }
    }

    fn vote_makes_sense(&self, message: &PeerMessage) -> Result<(), &'static str> {
        if message.commit > message.index { Err("more is committed than its log holds") } else { Ok(()) }
    }
}

fn numbers_are_sane(message: &PeerMessage) -> bool {
    // Only a forwarded read has no term: raft takes whatever has none for its own.
    let term = if message.kind == MessageKind::ReadIndex { message.term == 0 } else { message.term > 0 };
    let all = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.request_snapshot,
        message.reject_hint,
    ];
    term && all.into_iter().all(|number| number <= MOST)
}

fn read_makes_sense(message: &PeerMessage, from: ReplicaId) -> Result<(), &'static str> {
    match message.entries.as_slice() {
        [entry] if entry.data.len() != TAG_BYTES => Err("its question is not one"),
        [entry] if Tag::from_bytes(&entry.data).is_none_or(|tag| tag.replica != from) => {
            Err("it asks for another replica")
        }
        [_] => Ok(()),
        _ => Err("it asks not exactly one question"),
    }
}
