//! Why: typed, with numbers. `Display` makes the text, at the edge (`text`).

mod text;

pub(crate) use text::largest_share;

use bincode::{Decode, Encode};
use protocol::capacity::Sharing;
use protocol::ids::{ClusterName, DataName, GroupName, PoolName, Region, Uid, UnixMs, WorkloadKey, WorkloadName};
use protocol::pool::Resource;
use protocol::resources::{DataSize, Gpus, Money, Resources};
use protocol::sku::Sku;
use protocol::workload::{Framework, Spread};
use serde::{Deserialize, Serialize};

use crate::lifecycle::Phase;
use crate::state::{Avoided, Awaited};

pub use text::state_text;

/// Why a workload was put where it is; kept with its attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Every cluster that was looked at: the chosen one first, then by score, then those that could not.
    pub candidates: Vec<Candidate>,
    /// The capacity frame of the chosen cluster that it rests on.
    pub sequence: u64,
    /// That frame's age then, in ms.
    pub age_ms: u64,
    /// The engine's version.
    pub engine: String,
    /// Those ahead in line whose kept room it uses: it ends once one of them can start in its place.
    pub passed: Vec<Passed>,
    /// It is where an attempt failed lately: no cluster could ever hold the gang elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub despite: Option<Avoided>,
}

/// One that was ahead in line and could not start yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Passed {
    /// Its name.
    pub workload: WorkloadKey,
    /// Its id.
    pub uid: Uid,
}

/// One cluster as a place for one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// The cluster.
    pub cluster: ClusterName,
    /// The first condition that failed; none: it could hold the gang.
    pub obstacle: Option<Obstacle>,
    /// What spoke for it, in the order in which it counts; empty where it could not.
    pub score: Vec<ScoreTerm>,
}

/// One term of a score: lower is better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct ScoreTerm {
    /// What is judged, such as `region` or `cost`.
    pub name: String,
    /// The judgement; lower is better.
    pub value: i64,
    /// Its unit, such as `milli/h`; empty for a step.
    pub unit: String,
}

/// The first condition that keeps a gang out of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Obstacle {
    /// The cluster has not been heard from for longer than a lease.
    ClusterLost {
        /// Since.
        since: UnixMs,
    },
    /// No capacity frame came yet.
    NoCapacityYet,
    /// The last frame is too old to place on.
    StaleCapacity {
        /// Its age, in ms.
        age_ms: u64,
        /// How old it may be, in ms.
        bound_ms: u64,
    },
    /// Not in a region that the workload requires.
    WrongRegion {
        /// The cluster's.
        region: Region,
        /// The required ones.
        required: Vec<Region>,
    },
    /// The cluster can't run the framework.
    NoRuntime {
        /// The framework.
        framework: Framework,
    },
    /// Attempts do not end themselves there, and the workload needs that.
    NoFence,
    /// There are no secrets there, and the workload names some.
    NoSecrets,
    /// Objects of Kubernetes can't be handed in there as they are, and the workload is one.
    NoManifests {
        /// What it runs on.
        framework: Framework,
    },
    /// No node has an accepted model.
    NoSku {
        /// The group that needs it.
        group: GroupName,
        /// The accepted models.
        accepted: Vec<Sku>,
    },
    /// Even empty, its nodes could not hold the gang.
    TooSmall {
        /// The group that does not fit.
        group: GroupName,
        /// Members that it needs.
        needs: u32,
        /// Members that the empty cluster could hold.
        holds: u32,
        /// Whether they are kept apart.
        #[serde(default)]
        spread: Spread,
    },
    /// Its nodes could hold the gang, but not now.
    NoRoom {
        /// The group that does not fit.
        group: GroupName,
        /// What each member needs.
        each: Resources,
        /// The model tried, if it needs one.
        sku: Option<Sku>,
        /// Whether its members are kept apart.
        #[serde(default)]
        spread: Spread,
        /// Members that it needs.
        needs: u32,
        /// Members for which there are holes, after the gang's larger groups took theirs.
        fits: u32,
        /// More members of this group alone that would fit but for ghosts.
        held_by_ghosts: u32,
        /// More members of this group alone that would fit but for sick GPUs.
        held_by_sick: u32,
        /// More members of this group alone that would fit but for GPUs that Kubernetes gave to pods of others.
        #[serde(default)]
        held_by_foreign: u32,
        /// More members of this group alone that would fit once running attempts end.
        held_by_attempts: u32,
        /// More members of this group alone for which there is room on nodes that the workload avoids.
        on_avoided: u32,
        /// Until when the first of those nodes is avoided, and why.
        avoided: Option<Avoided>,
    },
    /// What the gang would cost an hour there, on the cheapest models that it accepts, is more than the workload pays.
    TooDear {
        /// What it pays at most.
        most: Money,
        /// The least that it would cost.
        least: Money,
    },
    /// The workload pays so much at most, and no price is known of any model that a group accepts.
    NoPrice {
        /// The group.
        group: GroupName,
        /// Those of its models that the cluster has.
        models: Vec<Sku>,
    },
    /// The workload is to be where another is, which is elsewhere.
    ElsewhereThan {
        /// The other.
        workload: WorkloadName,
        /// Where that one is, or was last.
        cluster: ClusterName,
    },
    /// It had no room for the workload's last attempt there, though the planner saw some.
    Avoided(Avoided),
    /// It has room, which is kept for workloads ahead in line.
    BehindOthers {
        /// The first of them.
        first: String,
        /// Who ends by then may use it all the same; none: nobody may.
        until: Option<UnixMs>,
    },
    /// It has no copy of data that the workload requires.
    NoCopy {
        /// The data.
        data: DataName,
        /// How large it is.
        size: DataSize,
        /// Where copies are.
        copies: Copies,
    },
    /// A person said that nothing new is placed there.
    Cordoned {
        /// Since when.
        since: UnixMs,
        /// Who said so and why; may be empty.
        reason: String,
        /// Whether what runs there is ended too.
        drained: bool,
    },
    /// No node of an accepted model gives out its devices as a group asks for them: a share where there are whole ones only, one that is
    /// larger than a part, or a whole one where there are only parts.
    OtherSharing {
        /// The group.
        group: GroupName,
        /// What each member asks for.
        asked: Gpus,
        /// The ways in which nodes of the accepted models give out theirs.
        given: Vec<Sharing>,
    },
}

/// Where copies of data are: the first few places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Copies {
    /// Clusters.
    pub clusters: Vec<ClusterName>,
    /// Regions.
    pub regions: Vec<Region>,
    /// Places that are not named here.
    pub more: u32,
}

/// On what it rests how long something takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Basis {
    /// Its submitter said so.
    Declared,
    /// Others of its kind took so long: of its namespace, framework and size.
    Learnt {
        /// How many of them are known.
        runs: u32,
    },
    /// It is being ended.
    Ending,
    /// Some of its members are being ended.
    Shrinking,
}

/// Nodes that are kept for a waiting gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Where.
    pub cluster: ClusterName,
    /// How many.
    pub nodes: u32,
    /// When it is expected to start; none: not known.
    pub at: Option<UnixMs>,
    /// Whose end it waits for last.
    pub last: Option<AwaitedEnd>,
}

/// A workload whose end is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitedEnd {
    /// Its name.
    pub workload: String,
    /// On what its expected end rests; none: it is not known when it ends.
    pub basis: Option<Basis>,
}

/// Why a workload waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Its place in its pool's queue, from 1.
    pub place: u64,
    /// How many wait in that queue.
    pub of: u64,
    /// Its pool.
    pub pool: PoolName,
    /// The main reason.
    pub cause: WaitCause,
    /// Every cluster with the first condition that failed.
    pub candidates: Vec<Candidate>,
    /// Other pools that hold more than their part, where it waits for room: that is taken back for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lent: Vec<Lent>,
    /// The nodes that are kept for it, where it is the first of its pool that waits for room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
}

/// A pool that holds more than its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lent {
    /// The pool.
    pub pool: PoolName,
    /// The resource.
    pub resource: Resource,
    /// What it holds, in the resource's unit.
    pub held: u64,
    /// What it is entitled to.
    pub entitled: u64,
}

/// The main reason for waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum WaitCause {
    /// No cluster has joined.
    NoClusters,
    /// No cluster could ever hold it, even empty.
    Impossible,
    /// It failed and waits before the next try.
    Backoff {
        /// Until then.
        until: UnixMs,
    },
    /// Workloads on which it depends have not succeeded.
    Dependencies {
        /// Which, by name.
        awaited: Vec<Awaited>,
    },
    /// It is to be in the cluster of another workload, which was never placed.
    Companion {
        /// The other, in the same namespace.
        workload: WorkloadName,
        /// Where it is; none: it is not on record.
        phase: Option<Phase>,
    },
    /// Data that it requires is not known.
    UnknownData {
        /// Which.
        data: Vec<DataName>,
    },
    /// It needs workload tokens, and no coordinator issues any.
    NoTokens,
    /// No cluster has room for the whole gang now.
    NoRoom,
    /// One ahead of it in line waits for the same room.
    BehindOthers {
        /// How many are ahead.
        ahead: u64,
        /// The first of them.
        first: String,
    },
    /// It has a place in the plan; the binding is being committed.
    BeingPlaced,
    /// Its pool's part does not suffice.
    Quota(Shortfall),
}

/// What bounds a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum QuotaBound {
    /// What it is entitled to of the fleet now.
    Entitlement,
    /// What it, or a pool above it, may hold at most.
    Limit,
    /// What it may hold of workloads that may not be preempted.
    Reservation,
}

/// How a gang goes beyond what bounds its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shortfall {
    /// The pool: the workload's, or one above it.
    pub pool: PoolName,
    /// What bounds it.
    pub bound: QuotaBound,
    /// The first resource that does not suffice.
    pub resource: Resource,
    /// How much there may be of it, in its unit.
    pub most: u64,
    /// How much is held already.
    pub held: u64,
    /// How much more is kept for those ahead in the pool's line.
    pub kept: u64,
    /// How much the gang needs.
    pub needs: u64,
}

/// The whole answer to "why", in any phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Where it is.
    pub phase: Phase,
    /// Where it is, in one sentence.
    pub summary: String,
    /// Why it waits, where it does.
    pub waiting: Option<Waiting>,
    /// Why it is where it is, where it has been placed.
    pub decision: Option<Decision>,
    /// What would let it start, each in one sentence, where it waits; or what would end the doubt about an attempt that nobody
    /// can see any more.
    pub cures: Vec<String>,
}
