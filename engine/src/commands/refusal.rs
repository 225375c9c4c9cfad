//! Why a command changed nothing: one sentence each, with what to do about it where a person may have asked.

use bincode::{Decode, Encode};
use protocol::ids::{AttemptId, ClusterName, Epoch, PoolName, ReplicaId, Uid, UnixMs, WorkloadKey};
use protocol::workload::SpecError;
use serde::{Deserialize, Serialize};

use crate::data::DataFault;
use crate::pools::PoolFault;

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, Encode, Decode)]
pub enum Refusal {
    /// Another workload has the name.
    #[error("workload {key} exists already (uid {uid}); delete it first or choose another name")]
    NameTaken {
        /// The name.
        key: WorkloadKey,
        /// Who has it.
        uid: Uid,
    },
    /// The uid was used for another name.
    #[error("uid {uid} belongs to workload {key}")]
    UidTaken {
        /// The name that has it.
        key: WorkloadKey,
        /// The uid.
        uid: Uid,
    },
    /// No such workload.
    #[error("there is no workload {key}")]
    NoWorkload {
        /// The name.
        key: WorkloadKey,
    },
    /// No such cluster.
    #[error("cluster {cluster} has not joined")]
    NoCluster {
        /// The name.
        cluster: ClusterName,
    },
    /// The specification has faults.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<SpecError>),
    /// The binding does not fit the state any more.
    #[error("binding of {key} refused: {why}")]
    StaleBinding {
        /// The workload.
        key: WorkloadKey,
        /// What changed.
        why: String,
    },
    /// The epoch is not newer.
    #[error("epoch {epoch} is not above {current}")]
    OldEpoch {
        /// The epoch offered.
        epoch: Epoch,
        /// The epoch in force.
        current: Epoch,
    },
    /// The report fits no attempt.
    #[error("cluster {cluster} reported on attempt {attempt}, which it does not hold")]
    StrayReport {
        /// The cluster.
        cluster: ClusterName,
        /// The attempt.
        attempt: AttemptId,
    },
    /// Somebody can still see the attempt, or there is none.
    #[error("workload {key}: {why}")]
    NotAbandoned {
        /// The workload.
        key: WorkloadKey,
        /// Why its attempt can't be forgotten, and what to do.
        why: String,
    },
    /// The preemption does not fit the state any more.
    #[error("preemption for {by} refused: {why}")]
    StalePreemption {
        /// Who was to get the room.
        by: WorkloadKey,
        /// What changed.
        why: String,
    },
    /// The growth does not fit the state any more.
    #[error("growth of {key} refused: {why}")]
    StaleGrowth {
        /// The workload.
        key: WorkloadKey,
        /// What changed.
        why: String,
    },
    /// The raise does not fit the state any more.
    #[error("the part of pool {pool} is not raised: {why}")]
    StaleRaise {
        /// The pool.
        pool: PoolName,
        /// What changed.
        why: String,
    },
    /// The workload is not to end for being idle.
    #[error("{key} is not ended for being idle: {why}")]
    NotIdle {
        /// The workload.
        key: WorkloadKey,
        /// Why not.
        why: String,
    },
    /// A record is not to go yet.
    #[error("the record of {key} is not to go by itself: {}", .due.map_or_else(
        || "it has not ended, or names no time after its end".to_owned(),
        |at| format!("it is due at {at}, and now it is {now}"),
    ))]
    NotDue {
        /// The workload.
        key: WorkloadKey,
        /// When it is, if ever.
        due: Option<UnixMs>,
        /// The time now.
        now: UnixMs,
    },
    /// A pool or rule exists already.
    #[error("{what} exists already: change it, or choose another name")]
    Exists {
        /// Which.
        what: String,
    },
    /// A rule of the pools would not hold.
    #[error(transparent)]
    Pool(Box<PoolFault>),
    /// A data location can't be so, or is not there.
    #[error(transparent)]
    Data(Box<DataFault>),
    /// No such cluster; a person may have mistyped.
    #[error("there is no cluster {cluster}; {}", known_clusters(.known))]
    UnknownCluster {
        /// The name.
        cluster: ClusterName,
        /// Those that there are; the first few.
        known: Vec<ClusterName>,
    },
    /// The cluster was removed.
    #[error("cluster {cluster} was removed{}: `tidewater cluster uncordon {cluster}` lets it join again", said(.reason))]
    ClusterRemoved {
        /// The name.
        cluster: ClusterName,
        /// Who said so and why; may be empty.
        reason: String,
    },
    /// The cluster can't be removed.
    #[error("cluster {cluster} is not removed: {why}")]
    ClusterStays {
        /// The name.
        cluster: ClusterName,
        /// What is in the way, and what to do.
        why: String,
    },
    /// The attempt did not end itself, for all that is known.
    #[error("{key} is not taken for gone: {why}")]
    NotFenced {
        /// The workload.
        key: WorkloadKey,
        /// Why not.
        why: String,
    },
    /// The attempt is not to end for its cluster is drained.
    #[error("{key} is not ended for a drain: {why}")]
    NotDrained {
        /// The workload.
        key: WorkloadKey,
        /// Why not.
        why: String,
    },
    /// A replica can't sign workload tokens with this key.
    #[error("replica {replica} does not sign workload tokens with its new key: {why}")]
    TokenKeyRefused {
        /// The replica.
        replica: ReplicaId,
        /// Why not.
        why: String,
    },
}

fn known_clusters(known: &[ClusterName]) -> String {
    match known {
        [] => "none has joined".into(),
        known => format!("there are {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// A person's reason behind what they said.
fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

impl From<DataFault> for Refusal {
    fn from(fault: DataFault) -> Self {
        Refusal::Data(Box::new(fault))
    }
}

impl From<PoolFault> for Refusal {
    fn from(fault: PoolFault) -> Self {
        Refusal::Pool(Box::new(fault))
    }
}
