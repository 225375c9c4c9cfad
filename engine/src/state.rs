//! Everything that the Raft log decides: clusters, pools, and workloads with their attempts. Every replica has the same.
//!
//! Owns the types of the state, how they are stored (`codec`) and the views that are derived from them (`indices`,
//! `outstanding`). Changed by `commands` alone; read by the planner, the API and the sessions.

mod avoids;
mod codec;
mod cordon;
mod deleted;
mod dependencies;
mod durations;
mod indices;
mod live;
pub(crate) mod outstanding;
pub(crate) mod service;
pub(crate) mod size;
mod waiters;

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};
use protocol::control::{AttemptState, ClusterInfo, GroupPlacement, StopCause};
use protocol::errors::FailureClass;
use protocol::ids::{
    AttemptId, AttemptNumber, ClusterName, CommandNumber, Epoch, Incarnation, LogIndex, PoolName, Uid, UnixMs,
    WorkloadKey, WorkloadName,
};
use protocol::pool::Resource;
use protocol::resources::Span;
use protocol::workload::WorkloadSpec;
use serde::{Deserialize, Serialize};

use crate::data::DataLocations;
use crate::lifecycle::{Event, Phase};
use crate::pools::Pools;
use crate::reasons::Decision;
use crate::token_keys::TokenKeys;

pub use avoids::{AVOID_MS, Avoided, Avoids, MOST_AVOID_MS};
pub use cordon::{Cordon, Drain, Removal, UnderDrain};
pub use deleted::Deleted;
pub use dependencies::Awaited;
pub use durations::{Durations, Kind};
pub(crate) use indices::{Indices, Line};
pub use size::{Arrival, KEPT_ARRIVALS, Resize};
pub(crate) use waiters::{Likeness, Waiter};

/// How many ended attempts of one workload are kept.
pub const KEPT_ATTEMPTS: usize = 16;
/// How many moments of one workload's timeline are kept.
pub const KEPT_MOMENTS: usize = 64;

/// The replicated state.
///
/// The fields are read by everyone and written by [`State::apply`] alone: it keeps the indices in step with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The current leader's epoch; grows.
    pub epoch: Epoch,
    /// The last log entry applied.
    pub applied: LogIndex,
    /// The latest time that any command carried; never goes back.
    pub now: UnixMs,
    /// Clusters by name.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// Clusters that were removed, and have not joined again.
    pub removed: BTreeMap<ClusterName, Removal>,
    /// Workloads by name.
    pub workloads: BTreeMap<WorkloadKey, Workload>,
    /// Names by uid, for reports and for submissions that come again.
    pub by_uid: BTreeMap<Uid, WorkloadKey>,
    /// How many workloads were ever submitted: the next one's place in line.
    pub submitted: u64,
    /// Uids whose records went a short while ago.
    pub deleted: Deleted,
    /// Resource pools and ownership rules.
    pub pools: Pools,
    /// Data locations.
    pub data: DataLocations,
    /// How long workloads ran, by kind.
    pub durations: Durations,
    /// With which keys replicas sign workload tokens.
    pub token_keys: TokenKeys,
    /// Views of `workloads`, never stored.
    pub(crate) indices: Indices,
}

/// A member cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// What its agent says of it.
    pub info: ClusterInfo,
    /// Which life of its agent's data directory.
    #[serde(skip)]
    pub incarnation: Incarnation,
    /// The highest command number given out for it.
    pub last_command: CommandNumber,
    /// Since when it is lost (no word within a lease), if it is.
    pub lost_since: Option<UnixMs>,
    /// It takes nothing new, where a person said so.
    pub cordon: Option<Cordon>,
    /// When it first joined.
    pub joined_at: UnixMs,
    /// The log entry that last changed it.
    pub version: LogIndex,
}

/// A workload and its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Its name.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// What was asked for.
    pub spec: Arc<WorkloadSpec>,
    /// Its pool: the one that it names, else the one to which its owner's rules led when it was submitted.
    pub pool: PoolName,
    /// Place in line among equals, from 0; kept over retries.
    pub order: u64,
    /// When it was submitted.
    pub submitted_at: UnixMs,
    /// How much later than that it stands in its pool's line, in ms: where a pool serves the least served first, for what it has had.
    pub late_ms: u64,
    /// What its ended attempts had, in ms of a GPU, or of a core where they had no GPUs.
    pub served: u64,
    /// Where it is.
    pub phase: Phase,
    /// Its attempts, oldest first; all but the last have ended. At most [`KEPT_ATTEMPTS`] are kept.
    pub attempts: Vec<Attempt>,
    /// How many failures of its own count against its retries.
    pub user_failures: u32,
    /// It is not placed before this time (backoff).
    pub not_before: Option<UnixMs>,
    /// The workloads that have not succeeded yet of those that it depends on, each with how it ended, where it did.
    pub awaits: BTreeMap<WorkloadName, Option<Phase>>,
    /// When it ended, once it has.
    pub ended_at: Option<UnixMs>,
    /// Its cancellation was asked for; final.
    pub cancel_requested: bool,
    /// Its deletion was asked for: the record goes once it is terminal.
    pub delete_requested: bool,
    /// The log entry that made it.
    pub created: LogIndex,
    /// The log entry that last changed it; the API's resourceVersion.
    pub version: LogIndex,
    /// What happened to it, oldest first; at most [`KEPT_MOMENTS`].
    pub timeline: Vec<Moment>,
}

/// One try of a workload in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// Which try, from 1.
    pub number: AttemptNumber,
    /// Where.
    pub cluster: ClusterName,
    /// On which nodes, as ordered last.
    pub placement: Vec<GroupPlacement>,
    /// Why there.
    pub decision: Decision,
    /// Which life of the cluster's agent holds it. Another life knows nothing of it: it gets neither its launch nor its
    /// stop, and its silence proves nothing.
    #[serde(skip)]
    pub incarnation: Incarnation,
    /// The launch's number among the cluster's commands.
    pub launch: CommandNumber,
    /// The stop's number and cause, once it was asked for.
    pub stop: Option<(CommandNumber, StopCause)>,
    /// The last change of its size, if there was one.
    pub resize: Option<Resize>,
    /// The members by the command with which they came, oldest first, also those that went again; empty while it has the size with
    /// which it was launched. A capacity frame of before such a command does not include its members. At most [`KEPT_ARRIVALS`].
    #[serde(skip)]
    pub arrivals: Vec<Arrival>,
    /// The latest report's revision; 0 before the first.
    pub revision: u64,
    /// The latest reported state; none before the first report.
    pub reported: Option<AttemptState>,
    /// When it was bound.
    pub bound_at: UnixMs,
    /// When every member was up.
    pub running_at: Option<UnixMs>,
    /// When it was seen to be gone.
    pub ended_at: Option<UnixMs>,
}

/// Something that happened to a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// When.
    pub at: UnixMs,
    /// The phase that it led to.
    pub phase: Phase,
    /// What.
    pub what: Happening,
}

/// What happened. Text is made where a person reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Happening {
    /// It was submitted.
    Submitted,
    /// A place was chosen.
    Bound {
        /// The try.
        attempt: AttemptNumber,
        /// The cluster.
        cluster: ClusterName,
    },
    /// The agent reported.
    Reported {
        /// The try.
        attempt: AttemptNumber,
        /// What it said.
        state: AttemptState,
    },
    /// It goes back to the queue after a failure.
    Retried {
        /// The try that failed.
        attempt: AttemptNumber,
        /// Whose failure.
        class: FailureClass,
        /// Not before this time.
        not_before: UnixMs,
    },
    /// A person asked for its end.
    CancelRequested,
    /// Its cluster was not heard from for longer than a lease.
    ClusterLost {
        /// The cluster.
        cluster: ClusterName,
    },
    /// Its cluster is back.
    ClusterReturned {
        /// The cluster.
        cluster: ClusterName,
    },
    /// It is ended so that another workload gets its room; it keeps its place in line.
    Preempted {
        /// The try.
        attempt: AttemptNumber,
        /// Who gets the room.
        by: WorkloadKey,
        /// That one's pool.
        pool: PoolName,
        /// By what right.
        ground: Ground,
    },
    /// Its cluster is back with an agent that lost its records: whether the attempt still runs there is not known.
    ClusterReplaced {
        /// The cluster.
        cluster: ClusterName,
    },
    /// It is ended, for its GPUs have done nothing for too long.
    Idle {
        /// The try.
        attempt: AttemptNumber,
        /// Since when they did nothing.
        since: UnixMs,
        /// For how long they may.
        timeout: Span,
    },
    /// A person said that the attempt is gone.
    Forgotten {
        /// The try.
        attempt: AttemptNumber,
        /// How they know, in their words.
        reason: String,
    },
    /// It got more members, in room that nobody waits for.
    Grew {
        /// The try.
        attempt: AttemptNumber,
        /// How many came.
        by: u32,
        /// How many members of its elastic groups it has now.
        size: u32,
    },
    /// It gives up members beyond its minimum so that another workload gets their room; it goes on.
    Shrunk {
        /// The try.
        attempt: AttemptNumber,
        /// How many go.
        members: u32,
        /// How many members of its elastic groups it keeps.
        size: u32,
        /// Who gets the room.
        by: WorkloadKey,
        /// That one's pool.
        pool: PoolName,
        /// By what right.
        ground: Ground,
    },
    /// Members that it was to have beyond its minimum are not there.
    Missing {
        /// The try.
        attempt: AttemptNumber,
        /// How many.
        members: u32,
        /// How many members of its elastic groups it has.
        size: u32,
    },
    /// It is not tried again: its infrastructure failed too often in a row.
    GivenUp {
        /// How often.
        failures: u32,
    },
    /// It is ended, for its cluster is drained; it keeps its place in line.
    Drained {
        /// The try.
        attempt: AttemptNumber,
        /// The cluster.
        cluster: ClusterName,
        /// Who said so and why, in their words; may be empty.
        reason: String,
    },
}

/// By what right a workload's room goes to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Ground {
    /// Its pool held more than it was entitled to.
    Lent {
        /// The resource.
        resource: Resource,
        /// What its pool held, in the resource's unit.
        held: u64,
        /// What its pool was entitled to.
        entitled: u64,
    },
    /// It was let past the other on this condition.
    Passed,
    /// It has had more of its pool, which serves the least served first.
    Served {
        /// What it counts as, in ms of a GPU: what it has had, or has left where it declares how long it runs.
        own: u64,
        /// The same of the other.
        other: u64,
    },
    /// They are members beyond the minimum: those go before any gang of their pool waits.
    Extra,
    /// Its priority is lower, in a pool that allows that.
    Priority {
        /// Its priority.
        own: i32,
        /// The other's.
        other: i32,
    },
}

impl Attempt {
    /// Whether it is, or was, ended for its GPUs did nothing.
    pub fn is_idle(&self) -> bool {
        matches!(self.stop, Some((_, StopCause::Idle)))
    }

    /// Whether it was let past this workload, on condition that it ends once that can start in its place.
    pub(crate) fn ends_for(&self, workload: Uid) -> bool {
        self.decision.passed.iter().any(|passed| passed.uid == workload)
    }

    /// Whether it is, or was, ended through no doing of its own while it may run: to give its room to another, or for its cluster is
    /// drained.
    pub fn is_preempted(&self) -> bool {
        matches!(self.stop, Some((_, StopCause::Preempted | StopCause::Drained)))
    }
}

impl Workload {
    /// The attempt that may be alive, if any.
    pub fn live_attempt(&self) -> Option<&Attempt> {
        self.attempts.last().filter(|a| a.ended_at.is_none())
    }

    /// The id of one of its attempts.
    pub fn attempt_id(&self, number: AttemptNumber) -> AttemptId {
        AttemptId { workload: self.uid, number }
    }

    /// Why it is not tried again though its own failures did not use up its retries, if that is so.
    pub fn given_up(&self) -> Option<&Happening> {
        let last = &self.timeline.last()?.what;
        matches!(last, Happening::GivenUp { .. }).then_some(last)
    }

    /// Why it failed, if its last attempt was ended for being idle.
    pub fn failed_idle(&self) -> Option<&Happening> {
        self.attempts.last().filter(|a| a.is_idle() && self.phase == Phase::Failed)?;
        self.timeline.iter().rev().map(|moment| &moment.what).find(|what| matches!(what, Happening::Idle { .. }))
    }

    /// The number that its next attempt must have.
    pub fn next_attempt(&self) -> AttemptNumber {
        AttemptNumber(self.attempts.last().map_or(0, |a| a.number.0) + 1)
    }

    /// When its record is to go by itself, if it is: some time after its end.
    pub fn expires_at(&self) -> Option<UnixMs> {
        let ttl = self.spec.ttl_after_finished?;
        self.ended_at.map(|at| UnixMs(at.0.saturating_add(ttl.0)))
    }

    /// Goes on as the lifecycle's table says, and remembers what happened. The first moment is always kept, the others
    /// make room for newer ones.
    pub(crate) fn enter(&mut self, event: Event, what: Happening, now: UnixMs) {
        self.phase = self.phase.after(event).unwrap_or(self.phase);
        if self.phase.is_terminal() {
            self.ended_at.get_or_insert(now);
        }
        self.remember(what, now);
    }

    /// Remembers what happened.
    pub(crate) fn remember(&mut self, what: Happening, now: UnixMs) {
        if self.timeline.len() >= KEPT_MOMENTS {
            self.timeline.remove(1);
        }
        self.timeline.push(Moment { at: now, phase: self.phase, what });
    }
}
