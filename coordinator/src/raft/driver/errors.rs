//! What can go wrong with a replica, one enum for each operation.

use protocol::ids::ReplicaId;

use crate::raft::convert::NotOnTheWire;
use crate::raft::store::PersistError;
use crate::raft::wire::MAX_SNAPSHOT_BYTES;

/// Why a driver could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration does not make sense.
    #[error("raft: {0}")]
    Config(String),
    /// The store was made for other voters.
    #[error(
        "raft: the log says that {stored:?} vote, the configuration says {configured:?}: correct the configuration"
    )]
    Voters {
        /// Who votes.
        stored: Vec<ReplicaId>,
        /// Who was said to vote.
        configured: Vec<ReplicaId>,
    },
    /// The store could not be written.
    #[error(transparent)]
    Persist(#[from] PersistError),
}

/// The replica can't go on; the process must end, and may be started again.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The store failed.
    #[error(transparent)]
    Persist(#[from] PersistError),
    /// The disk does not hold what this replica once confirmed that it holds.
    #[error(
        "raft: the leader says that this replica confirmed entry {confirmed}, but its log ends at {last}: its disk lost data or \
         an old copy was put back. Remove this replica and let it join again under a new id"
    )]
    StorageLost {
        /// What it confirmed.
        confirmed: u64,
        /// What it has.
        last: u64,
    },
    /// A defect of ours.
    #[error(transparent)]
    Message(#[from] NotOnTheWire),
    /// It failed before, or a step was dropped before it was persisted.
    #[error("raft: this replica stopped after an earlier failure: end the process")]
    Stopped,
}

/// Why a proposal was not taken. It will certainly not be committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none does.
    #[error("this replica does not lead{}", .leader.map_or(String::from(" and knows no leader: try again"), |l| format!(": replica {l} does")))]
    NotLeader {
        /// Who leads.
        leader: Option<ReplicaId>,
    },
    /// Too much is waiting to be committed, or leadership is being handed over.
    #[error("too many proposals are waiting to be committed: try again")]
    Overloaded,
    /// It is larger than an entry may be.
    #[error("a proposal of {bytes} bytes is more than the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The replica has stopped.
    #[error("this replica has stopped")]
    Stopped,
}

/// Why leadership is not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// It is not this replica's to hand over.
    #[error("this replica does not lead{}", .leader.map_or(String::new(), |l| format!(": ask replica {l}")))]
    NotLeader {
        /// Who leads.
        leader: Option<ReplicaId>,
    },
    /// The other one does not vote.
    #[error("replica {to} is not a voter")]
    NotAVoter {
        /// Who was named.
        to: ReplicaId,
    },
}

/// Why the log is not compacted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// The state can't include that entry yet.
    #[error("a snapshot at {index} is ahead of {applied}, the last entry that was given out")]
    NotApplied {
        /// The snapshot's index.
        index: u64,
        /// The last entry that was given out.
        applied: u64,
    },
    /// There is a later one.
    #[error("a snapshot at {index} is older than the one at {latest}")]
    Old {
        /// The snapshot's index.
        index: u64,
        /// The latest one's.
        latest: u64,
    },
    /// It could not be sent to a replica that needs it.
    #[error("a snapshot of {bytes} bytes is more than the limit of {MAX_SNAPSHOT_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}
