//! What a coordinator replica and a cluster's agent say to each other on their control stream.
//!
//! Commands are numbered for each cluster. The agent makes each durable before it acts and acts on a number at most once,
//! so a command may be sent again as often as it takes. Reports carry a revision for each attempt and are sent again until
//! a report of that revision or later is acknowledged, which happens once it is committed.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::capacity::CapacityFrame;
use crate::errors::FailureClass;
use crate::ids::{
    AttemptId, ClusterName, CommandNumber, Epoch, GroupName, Incarnation, NodeName, Region, ReplicaId, UnixMs,
    WorkloadKey,
};
use crate::resources::Resources;
use crate::sku::Sku;
use crate::workload::{Framework, WorkloadSpec};

/// What a cluster says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Its name; must be the one in the agent's certificate.
    pub name: ClusterName,
    /// Its region.
    pub region: Region,
    /// What it can run.
    pub frameworks: Vec<Framework>,
    /// Whether attempts end themselves there once they have not been let go on for as long as their specification says.
    pub fences: bool,
    /// Whether there are secrets that workloads can name.
    pub secrets: bool,
    /// The frameworks whose Kubernetes objects it takes as they are.
    pub manifests: Vec<Framework>,
    /// Price of a GPU-hour by model, in thousandths of the fleet's currency.
    pub prices: Vec<Price>,
}

/// Price of one model in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// The model.
    pub sku: Sku,
    /// Thousandths of the fleet's currency for a GPU-hour.
    pub milli_per_gpu_hour: u64,
}

/// Members of one group that go to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct NodeShare {
    /// The node.
    pub node: NodeName,
    /// How many members.
    pub members: u32,
}

/// Where one group of a gang goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct GroupPlacement {
    /// The group.
    pub group: GroupName,
    /// What each member takes.
    pub each: Resources,
    /// The model that was chosen, where it needs GPUs.
    pub sku: Option<Sku>,
    /// Its members, by node.
    pub nodes: Vec<NodeShare>,
}

impl GroupPlacement {
    /// How many members it has.
    pub fn members(&self) -> u32 {
        self.nodes.iter().map(|share| share.members).sum()
    }
}

/// Start this attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct LaunchOrder {
    /// The attempt.
    pub attempt: AttemptId,
    /// The workload's name, for people and labels.
    pub key: WorkloadKey,
    /// What to run.
    pub spec: WorkloadSpec,
    /// Where.
    pub placement: Vec<GroupPlacement>,
}

/// Why an attempt is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum StopCause {
    /// A person cancelled or deleted the workload.
    Cancelled,
    /// No live workload owns it.
    Orphaned,
    /// Its room goes to another; the workload is tried again.
    Preempted,
    /// Its GPUs have done nothing for too long; the workload has failed.
    Idle,
    /// Its cluster is drained: it goes on elsewhere.
    Drained,
}

/// End this attempt and see that it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct StopOrder {
    /// The attempt.
    pub attempt: AttemptId,
    /// Why.
    pub cause: StopCause,
    /// Between the polite and the hard end, in ms.
    pub grace_ms: u64,
}

/// Give this attempt these members: those that it has not come, those that it should not have go. Others are not touched. A later
/// one of the same attempt supersedes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct ResizeOrder {
    /// The attempt.
    pub attempt: AttemptId,
    /// All of its members.
    pub placement: Vec<GroupPlacement>,
    /// Between the polite and the hard end of those that go, in ms.
    pub grace_ms: u64,
}

/// What a command asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Start an attempt.
    Launch(Box<LaunchOrder>),
    /// End an attempt.
    Stop(StopOrder),
    /// Give a running attempt more or fewer members.
    Resize(Box<ResizeOrder>),
}

/// How far an attempt is, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum AttemptState {
    /// The order is durable at the agent; nothing runs yet.
    Accepted,
    /// Its processes are being started.
    Starting {
        /// What it waits for.
        waiting_for: String,
    },
    /// Every member of the gang is up.
    Running,
    /// It ended well, and is gone.
    Succeeded,
    /// It ended badly, and is gone.
    Failed {
        /// Whose failure.
        class: FailureClass,
        /// What happened.
        message: String,
        /// The exit code, where there was one.
        exit_code: Option<i32>,
    },
    /// It was stopped by order, and is gone (or never was).
    Stopped,
}

impl AttemptState {
    /// Whether nothing of the attempt is left and nothing will come after.
    pub fn is_final(&self) -> bool {
        matches!(self, AttemptState::Succeeded | AttemptState::Failed { .. } | AttemptState::Stopped)
    }
}

/// How far an agent is with the newest resize of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Resized {
    /// The resize.
    pub number: CommandNumber,
    /// Whether all that it, and those before it, took away is gone.
    pub settled: bool,
    /// Members that it ordered and that are not there: there was no room for them, or they ended by themselves.
    pub missing: Vec<GroupPlacement>,
}

/// An agent's word on one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct AttemptReport {
    /// The attempt.
    pub attempt: AttemptId,
    /// Grows with each change of this attempt.
    pub revision: u64,
    /// How far it is.
    pub state: AttemptState,
    /// How far its newest resize is, where there was one.
    pub resized: Option<Resized>,
    /// When, by the agent's clock.
    pub at: UnixMs,
}

/// From an agent to a coordinator replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum AgentMessage {
    /// First on every session: who this is and everything that it holds.
    Hello {
        /// The cluster.
        cluster: ClusterInfo,
        /// Which life of its data directory.
        incarnation: Incarnation,
        /// The highest command number that it made durable.
        last_command: CommandNumber,
        /// The latest word on every attempt that it has a record of.
        attempts: Vec<AttemptReport>,
    },
    /// Asks to go on acting for the next lease's length, counted from when this was sent.
    LeaseRequest {
        /// Names the request; the agent remembers when it sent it.
        nonce: u64,
    },
    /// An attempt's state changed, or was not acknowledged yet.
    Report(AttemptReport),
    /// Capacity.
    Capacity(CapacityFrame),
}

/// From a coordinator replica to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum CoordinatorMessage {
    /// Answers the hello.
    Welcome {
        /// Who answers.
        replica: ReplicaId,
    },
    /// The agent may act; sent by a leader only, once a quorum confirmed that it leads.
    Lease {
        /// The request that it answers.
        nonce: u64,
        /// The leader's epoch.
        epoch: Epoch,
        /// How long, in ms, from when the agent sent the request.
        ttl_ms: u64,
        /// Attempts in this cluster that would end themselves, and may go on: each for as long as its specification says, from when
        /// the agent sent the request.
        attempts: Vec<AttemptId>,
    },
    /// Carry this out, once.
    Command {
        /// Its number in this cluster.
        number: CommandNumber,
        /// The leader's epoch.
        epoch: Epoch,
        /// What to do.
        order: Order,
    },
    /// A report of this revision, or a later one, is committed.
    ReportCommitted {
        /// The attempt.
        attempt: AttemptId,
        /// Its revision.
        revision: u64,
    },
    /// A frame is missing: send a snapshot.
    SnapshotWanted,
    /// A new leader wants to know what the agent holds: say hello again.
    HelloWanted,
    /// The session ends for this reason; the agent shows it and tries again later.
    Refused {
        /// What is wrong and how it is mended.
        reason: String,
    },
}

/// Reset code of a log's stream: the agent has no log of this attempt.
pub const NO_LOG: u32 = 4;
/// Reset code of a log's stream: the agent has the attempt's log and not, or not any more, that of the worker asked for.
pub const NO_WORKER_LOG: u32 = 5;

/// What a coordinator opens a stream of its own for: the first frame on it, and the only one of this end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum Opening {
    /// An attempt's log.
    Log(LogRequest),
    /// An attempt's own page.
    Page(PageRequest),
}

/// Asks for an attempt's log. The answer is the log's bytes, then the end of the stream; a log that is not there resets it with [`NO_LOG`]
/// or [`NO_WORKER_LOG`], one that breaks off with another code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct LogRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether to go on until the attempt has ended.
    pub follow: bool,
    /// Of one worker alone, as the attempt's placement counts them from 0, without Ray's head and Spark's driver; none: what speaks for the
    /// program.
    pub worker: Option<u32>,
}

/// Asks for one connection to the page that an attempt serves itself: Ray's dashboard, Spark's UI. The answer is a [`PageAnswer`]; after one
/// that opens it, the bytes of that connection follow both ways. An end of either way is passed on as the end of that way, and whatever breaks
/// off as a reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct PageRequest {
    /// The attempt.
    pub attempt: AttemptId,
}

/// What comes of a [`PageRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum PageAnswer {
    /// The connection is there.
    Opened {
        /// What the page asks a visitor for, where it does: the secret of this attempt alone.
        token: Option<String>,
    },
    /// There is none, and the stream ends.
    Refused {
        /// Why, in one sentence.
        reason: String,
    },
}
