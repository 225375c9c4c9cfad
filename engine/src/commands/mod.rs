//! The commands of the log, one file each. `apply` is total: a command that makes no sense is refused with its reason and
//! changes nothing but `applied` and `now` (and, for a stray report of something that still runs, the number of the stop
//! that answers it).

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use protocol::control::{AttemptReport, ClusterInfo, GroupPlacement};
use protocol::data::DataSpec;
use protocol::ids::{
    AttemptId, AttemptNumber, ClusterName, CommandNumber, DataName, Epoch, Incarnation, LogIndex, Namespace, PoolName,
    ReplicaId, Uid, UnixMs, WorkloadKey,
};
use protocol::pool::{Amounts, OwnershipSpec, PoolSpec};
use protocol::workload::WorkloadSpec;
use serde::{Deserialize, Serialize};

use crate::effects::Effect;
use crate::lifecycle::Phase;
use crate::pools::Raise;
use crate::reasons::Decision;
use crate::state::State;
use crate::token_keys::PublicKey;

mod bind;
mod cancel;
mod cordon;
mod delete_data;
mod delete_ownership_rule;
mod delete_pool;
mod end;
mod end_drained;
mod end_idle;
mod expire;
mod fence;
pub(crate) mod forget;
mod grow;
mod join;
mod lose_cluster;
mod open_epoch;
mod preempt;
mod raise_pool;
mod refusal;
mod remove_cluster;
mod report;
mod set_data;
mod set_ownership_rule;
mod set_pool;
mod set_token_key;
mod step;
mod submit;

pub use cordon::Cordoning;
pub use end::{FREE_RETRIES, PROGRESS_MS};
pub use end_drained::DrainEnd;
pub use fence::{Fence, fence_passes_after};
pub use forget::MAX_REASON;
pub use refusal::Refusal;

use cancel::Record;
use step::Step;

/// One command of the log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// A new leader's first: its epoch begins. Binds of earlier epochs are refused from here on.
    OpenEpoch {
        /// The leader's Raft term.
        epoch: Epoch,
    },
    /// A workload is submitted. The same uid and name again is the same submission.
    Submit {
        /// Its name.
        key: WorkloadKey,
        /// Its id.
        uid: Uid,
        /// What it needs.
        spec: Box<WorkloadSpec>,
    },
    /// A workload gets its place.
    Bind(Box<Binding>),
    /// An agent begins a session with the leader: its cluster joins or returns, with all that it holds.
    Join {
        /// The cluster.
        info: ClusterInfo,
        /// Which life of the agent's data directory.
        incarnation: Incarnation,
        /// The highest command that it made durable.
        last_command: CommandNumber,
        /// Its latest word on every attempt that it has a record of.
        attempts: Vec<AttemptReport>,
    },
    /// An agent's word on one attempt.
    Report {
        /// The cluster that says so.
        cluster: ClusterName,
        /// Its word.
        report: AttemptReport,
    },
    /// A cluster was not heard from for longer than a lease.
    LoseCluster {
        /// The cluster.
        cluster: ClusterName,
    },
    /// A workload's end is asked for. Final.
    Cancel {
        /// Its name.
        key: WorkloadKey,
    },
    /// A workload's end is asked for, and then that its record goes.
    Delete {
        /// Its name.
        key: WorkloadKey,
    },
    /// A person says that an attempt is gone which nobody can see any more.
    Forget {
        /// The workload's name.
        key: WorkloadKey,
        /// The attempt: never one that came after the one that the person meant.
        attempt: AttemptId,
        /// How the person knows, or who says so; at most [`MAX_REASON`] characters are kept.
        reason: String,
    },
    /// The record of an ended workload goes: its time to live is over.
    Expire {
        /// Its name.
        key: WorkloadKey,
        /// Its id.
        uid: Uid,
    },
    /// Running attempts are ended, or give up members, so that a waiting gang gets their room.
    Preempt(Box<Preemption>),
    /// A pool is made or changed.
    SetPool {
        /// Its name.
        name: PoolName,
        /// What it is to be.
        spec: Box<PoolSpec>,
        /// What must be there before.
        expect: Expect,
    },
    /// A pool goes.
    DeletePool {
        /// Its name.
        name: PoolName,
    },
    /// An owner's rule is made or changed.
    SetOwnershipRule {
        /// The owner.
        owner: Namespace,
        /// What it is to be.
        spec: OwnershipSpec,
        /// What must be there before.
        expect: Expect,
    },
    /// An owner's rule goes.
    DeleteOwnershipRule {
        /// The owner.
        owner: Namespace,
    },
    /// A workload ends whose GPUs have done nothing for longer than it allows.
    EndIdle(Box<IdleEnd>),
    /// A data location is made or changed.
    SetData {
        /// Its name.
        name: DataName,
        /// What it is to be.
        spec: Box<DataSpec>,
        /// What must be there before.
        expect: Expect,
    },
    /// A data location goes.
    DeleteData {
        /// Its name.
        name: DataName,
    },
    /// A running attempt gets more members.
    Grow(Box<Growth>),
    /// A pool's part is raised, or not any more.
    RaisePool(Box<Raising>),
    /// A person says whether a cluster takes anything new, and whether what runs there ends.
    Cordon {
        /// The cluster.
        cluster: ClusterName,
        /// What it is to be.
        to: Cordoning,
    },
    /// An attempt ends, for its cluster is drained.
    EndDrained(Box<DrainEnd>),
    /// A person removes a cluster.
    RemoveCluster {
        /// The cluster.
        cluster: ClusterName,
        /// Who says so and why; at most [`MAX_REASON`] characters are kept.
        reason: String,
        /// It is lost and never comes back: nothing of what was there runs any more.
        lost_for_good: bool,
    },
    /// An attempt that nobody let go on for so long has ended itself.
    Fence(Box<Fence>),
    /// A replica signs workload tokens with another key from now on.
    SetTokenKey {
        /// The replica.
        replica: ReplicaId,
        /// The key's public half; none: it issues no tokens any more.
        key: Option<PublicKey>,
    },
}

/// What must be there before something is set, so that nobody overwrites what they have not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Expect {
    /// Anything.
    Any,
    /// Nothing, or the very same.
    Absent,
    /// This version, or the very same.
    Version(LogIndex),
}

/// A place for a workload, as the planner proposes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Binding {
    /// The workload.
    pub key: WorkloadKey,
    /// Its id: a workload made anew under the same name is another.
    pub uid: Uid,
    /// Which try this is; must be the next.
    pub attempt: AttemptNumber,
    /// The epoch in which it was planned; must be the current one.
    pub epoch: Epoch,
    /// The cluster.
    pub cluster: ClusterName,
    /// The groups on their nodes; each group whole.
    pub placement: Vec<GroupPlacement>,
    /// Why there.
    pub decision: Decision,
}

/// Attempts that are to end, or to give up members, so that a waiting gang gets their room: all of them, or none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Preemption {
    /// The epoch in which it was planned; must be the current one.
    pub epoch: Epoch,
    /// Who gets the room.
    pub by: WorkloadKey,
    /// Its id.
    pub by_uid: Uid,
    /// Whose attempts end.
    pub victims: Vec<Victim>,
    /// Who gives up members beyond its minimum, and goes on.
    pub shrinks: Vec<Shrink>,
    /// What there is to divide among pools, as the planner sees it: capacity is not in the log.
    pub fleet: Amounts,
    /// The clusters whose capacity and attempts count in that.
    pub clusters: BTreeSet<ClusterName>,
}

/// An attempt that is to end, for its GPUs do nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct IdleEnd {
    /// The epoch in which it was planned; must be the current one.
    pub epoch: Epoch,
    /// The workload.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// Its live attempt.
    pub attempt: AttemptNumber,
    /// Since when all its GPUs have been measured to do nothing: the planner's word, for capacity is not in the log.
    pub since: UnixMs,
}

/// One attempt that is to end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Victim {
    /// The workload.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// Its live attempt.
    pub attempt: AttemptNumber,
}

/// An elastic attempt that is to give up members.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Shrink {
    /// The workload.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// Its live attempt.
    pub attempt: AttemptNumber,
    /// Which members: it must keep its minimum of each group.
    pub members: Vec<GroupPlacement>,
}

/// Members that an elastic attempt is to get.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Growth {
    /// The epoch in which it was planned; must be the current one.
    pub epoch: Epoch,
    /// The workload.
    pub key: WorkloadKey,
    /// Its id.
    pub uid: Uid,
    /// Its live attempt.
    pub attempt: AttemptNumber,
    /// The newest command that sized it when this was planned: nothing may have changed its size since.
    pub sized_by: CommandNumber,
    /// The members. Free room is the planner's word, for capacity is not in the log.
    pub members: Vec<GroupPlacement>,
}

/// A pool's part that is to be raised for what the pool missed, or that is not to be any more.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Raising {
    /// The epoch in which it was planned; must be the current one.
    pub epoch: Epoch,
    /// The pool: a leaf.
    pub pool: PoolName,
    /// To what and until when: what it missed is the planner's word, for capacity is not in the log. None: not any more.
    pub raise: Option<Raise>,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
pub enum Outcome {
    /// A workload is in the queue.
    Submitted {
        /// Its version.
        version: LogIndex,
        /// Whether it was there already, from the same submission.
        existed: bool,
    },
    /// A workload has its place.
    Bound {
        /// The attempt.
        attempt: AttemptId,
        /// The launch's number.
        launch: CommandNumber,
    },
    /// The workload is in this phase now.
    Ended {
        /// The phase: `Draining` until its attempt is gone.
        phase: Phase,
        /// Its version.
        version: LogIndex,
    },
    /// Noted; nothing more to say.
    Done,
    /// A pool or rule is as was asked.
    Set {
        /// Its version.
        version: LogIndex,
    },
}

/// Everything that one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What the proposer hears.
    pub outcome: Result<Outcome, Refusal>,
    /// What the leader sends.
    pub effects: Vec<Effect>,
    /// Workloads that changed or went, for watchers.
    pub changed: Vec<WorkloadKey>,
    /// Clusters that changed.
    pub clusters: Vec<ClusterName>,
    /// Pools that changed, came or went.
    pub pools: Vec<PoolName>,
    /// Owners whose rules changed, came or went.
    pub owners: Vec<Namespace>,
    /// Data locations that changed, came or went.
    pub data: Vec<DataName>,
}

impl State {
    /// Applies the committed command at `index`, which its proposer made at `at`. Total and deterministic: equal states and
    /// commands give equal states. `at` only moves `now` forward.
    pub fn apply(&mut self, index: LogIndex, command: &Command, at: UnixMs) -> Applied {
        self.applied = index;
        self.now = self.now.max(at);
        let mut step = Step::new(self, index);
        let outcome = match command {
            Command::OpenEpoch { epoch } => step.open_epoch(*epoch),
            Command::Submit { key, uid, spec } => step.submit(key, *uid, spec),
            Command::Bind(binding) => step.bind(binding),
            Command::Join { info, incarnation, last_command, attempts } => {
                step.join(info, *incarnation, *last_command, attempts)
            }
            Command::Report { cluster, report } => step.report(cluster, report),
            Command::LoseCluster { cluster } => step.lose_cluster(cluster),
            Command::Cancel { key } => step.cancel(key, Record::Keep),
            Command::Delete { key } => step.cancel(key, Record::Remove),
            Command::Forget { key, attempt, reason } => step.forget(key, *attempt, reason),
            Command::Expire { key, uid } => step.expire(key, *uid),
            Command::Preempt(preemption) => step.preempt(preemption),
            Command::SetPool { name, spec, expect } => step.set_pool(name, spec, *expect),
            Command::DeletePool { name } => step.delete_pool(name),
            Command::SetOwnershipRule { owner, spec, expect } => step.set_ownership_rule(owner, spec, *expect),
            Command::DeleteOwnershipRule { owner } => step.delete_ownership_rule(owner),
            Command::EndIdle(end) => step.end_idle(end),
            Command::SetData { name, spec, expect } => step.set_data(name, spec, *expect),
            Command::DeleteData { name } => step.delete_data(name),
            Command::Grow(growth) => step.grow(growth),
            Command::RaisePool(raising) => step.raise_pool(raising),
            Command::Cordon { cluster, to } => step.cordon(cluster, to),
            Command::EndDrained(end) => step.end_drained(end),
            Command::RemoveCluster { cluster, reason, lost_for_good } => {
                step.remove_cluster(cluster, reason, *lost_for_good)
            }
            Command::Fence(fence) => step.fence(fence),
            Command::SetTokenKey { replica, key } => step.set_token_key(*replica, *key),
        };
        step.finish(outcome)
    }
}

protocol::limits! {
    Command: 2 * 1024 * 1024,
    Outcome: 4 * 1024,
    Refusal: 256 * 1024,
}
