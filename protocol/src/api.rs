//! The HTTP API's objects, in Kubernetes' conventions: what the coordinator serves and the CLI reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capacity::{DeviceState, NodeState, Sharing, Source};
use crate::ids::{AttemptId, AttemptNumber, ClusterName, Namespace, NodeName, Region, Uid, WorkloadName};
use crate::resources::Resources;
use crate::sku::Sku;
use crate::workload::{Framework, WorkloadSpec};

/// The API's group and version.
pub const API_VERSION: &str = "tidewater.dev/v1";

/// Metadata of every object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name.
    pub name: WorkloadName,
    /// The namespace; `default` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// Made by the submitter for idempotency, else by the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// The log index of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// RFC 3339; set once its deletion was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
}

/// A workload as people write it and as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadObject {
    /// `tidewater.dev/v1`.
    pub api_version: String,
    /// `Workload`.
    pub kind: String,
    /// Its name and so on.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: WorkloadSpec,
    /// How it is; ignored when a person sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkloadStatus>,
}

/// How a workload is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadStatus {
    /// `Queued`, `Bound`, `Launching`, `Starting`, `Running`, `Draining`, `Unknown`, `Succeeded`, `Failed` or `Cancelled`.
    pub phase: String,
    /// Why, in one sentence.
    pub message: String,
    /// Which runtime.
    pub framework: Framework,
    /// What the whole gang takes; of an elastic one that runs, with the members that it has now.
    pub resources: Resources,
    /// How large it is, where its size may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeStatus>,
    /// Its place in the queue from 1, while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place_in_queue: Option<u64>,
    /// The cluster of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The region of the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// Attempts, oldest first.
    pub attempts: Vec<AttemptStatus>,
    /// What happened, oldest first.
    pub timeline: Vec<MomentStatus>,
}

/// How large an elastic workload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SizeStatus {
    /// The members that its elastic groups have; none while it has no attempt.
    pub members: u32,
    /// The fewest that they may have.
    pub min: u32,
    /// The most that they may have.
    pub max: u32,
}

/// How an attempt is or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptStatus {
    /// Its id.
    pub id: AttemptId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its groups on their nodes, such as `workers: 2 x H100 on gpu-1, gpu-2`.
    pub placement: Vec<String>,
    /// The last word on it.
    pub state: String,
    /// RFC 3339.
    pub bound_at: String,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// The exit code, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// A moment of a workload's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MomentStatus {
    /// RFC 3339, with milliseconds.
    pub at: String,
    /// The phase that it led to.
    pub phase: String,
    /// What, in one sentence.
    pub message: String,
}

/// A member cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterObject {
    /// `tidewater.dev/v1`.
    pub api_version: String,
    /// `Cluster`.
    pub kind: String,
    /// Its name and version.
    pub metadata: Metadata,
    /// How it is.
    pub status: ClusterStatus,
}

/// How a cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// `Ready`, `Stale` (capacity too old to place on), `Cordoned`, `Draining` or `Drained` (as a person said), or `Lost` (no word within a lease).
    pub phase: String,
    /// Its region.
    pub region: Region,
    /// What it can run.
    pub frameworks: Vec<Framework>,
    /// How many nodes.
    pub nodes: usize,
    /// GPUs by what they are doing.
    pub gpus: BTreeMap<Sku, GpuCounts>,
    /// Everything that can be given out.
    pub total: Resources,
    /// What is not given out.
    pub free: Resources,
    /// Age of the capacity, in ms; none before the first frame.
    pub age_ms: Option<u64>,
    /// Live attempts there.
    pub running: usize,
    /// Why nothing new is placed there, where a person said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<CordonStatus>,
}

/// A cordon of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CordonStatus {
    /// Since when (RFC 3339).
    pub since: String,
    /// Who said so and why; may be empty.
    pub reason: String,
    /// The same in one line, with the cure.
    pub message: String,
    /// How far its drain is, where it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
}

/// How far a drain is. It is done once no attempt is left in the cluster; those that come to their own ends count too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Since when (RFC 3339).
    pub since: String,
    /// Whether what may not be preempted is ended too.
    pub force: bool,
    /// How many attempts may be ending at the same time; none: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_at_once: Option<u32>,
    /// Attempts that are still to be ended.
    pub to_end: u64,
    /// Attempts that are being ended.
    pub ending: u64,
    /// Workloads that may not be preempted, for which it waits: the first few.
    pub waits_for: Vec<String>,
    /// How many of those there are.
    pub waits_for_count: u64,
    /// Workloads of which nobody sees whether they still run there: the first few.
    pub unseen: Vec<String>,
    /// How many of those there are.
    pub unseen_count: u64,
}

/// What a person says with `POST …/clusters/NAME/cordon`. An empty body is one without a reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CordonRequest {
    /// Who says so and why; none: as it was said before.
    pub reason: Option<String>,
}

/// What a person says with `POST …/clusters/NAME/drain`. An empty body is one with nothing in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainRequest {
    /// Who says so and why; none: as it was said before.
    pub reason: Option<String>,
    /// Also end what may not be preempted.
    pub force: bool,
    /// How many attempts may be ending at the same time; none: any number.
    pub max_at_once: Option<u32>,
}

/// GPUs of one model by what they are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GpuCounts {
    /// All of them.
    pub total: u64,
    /// Can be given out.
    pub free: u64,
    /// Held by attempts.
    pub held: u64,
    /// Memory held by something unaccounted for.
    pub ghosts: u64,
    /// Out for a fault.
    pub sick: u64,
    /// Kubernetes' pods have them that are of no attempt here.
    #[serde(default)]
    pub foreign: u64,
}

/// Answer of `GET /capacity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapacityAnswer {
    /// Rows by cluster and model, as filtered.
    pub rows: Vec<CapacityRow>,
    /// With `gang=N`: how many gangs fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangFit>,
    /// Clusters of which nothing is free for they are cordoned, each in one line with the cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cordoned: Vec<String>,
}

/// One model in one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CapacityRow {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its region.
    pub region: Region,
    /// The model; none for nodes without GPUs.
    pub sku: Option<Sku>,
    /// Where the figures come from.
    pub source: Source,
    /// How its devices are given out.
    #[serde(default)]
    pub sharing: Sharing,
    /// Nodes.
    pub nodes: u64,
    /// GPUs.
    pub gpus: GpuCounts,
    /// Cores not given out, in thousandths.
    pub free_cpu_milli: u64,
    /// MiB not given out.
    pub free_memory_mib: u64,
    /// Mean activity of the devices in percent, where any is known.
    pub activity_percent: Option<u8>,
    /// Age of the capacity, in ms.
    pub age_ms: u64,
    /// Price of a GPU-hour in thousandths of the fleet's currency, where known.
    pub price_milli: Option<u64>,
}

/// How many gangs of the asked shape fit now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GangFit {
    /// Nodes in the gang.
    pub nodes: u32,
    /// GPUs on each.
    pub gpus_per_node: u32,
    /// Gangs that fit now, by cluster.
    pub fits: BTreeMap<String, u32>,
    /// The largest gang, in nodes, that would start now.
    pub largest: u32,
}

/// One node with its devices, for pages and `-o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Its model.
    pub sku: Option<Sku>,
    /// Whether it takes members.
    pub state: NodeState,
    /// Where its devices come from.
    pub source: Source,
    /// How they are given out.
    #[serde(default)]
    pub sharing: Sharing,
    /// What its devices are doing.
    pub devices: Vec<DeviceStatus>,
    /// What is not given out.
    pub free: Resources,
    /// What can be given out in all.
    pub total: Resources,
}

/// One device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceStatus {
    /// What it is doing.
    pub state: DeviceState,
    /// Percent; none is unknown.
    pub activity_percent: Option<u8>,
    /// MiB in use; none is unknown.
    pub memory_used_mib: Option<u32>,
}

/// A list of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// `tidewater.dev/v1`.
    pub api_version: String,
    /// `WorkloadList` and so on.
    pub kind: String,
    /// The list's version.
    pub metadata: ListMetadata,
    /// The objects.
    pub items: Vec<T>,
}

/// A list's version: a watch from here misses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// The log index as of which the list was made.
    pub resource_version: String,
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchEvent<T> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The object.
    pub object: T,
}

/// What a person says with `POST …/workloads/NAME/forget`: that an attempt is gone which nobody can see any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForgetRequest {
    /// Which attempt; none: the last one.
    pub attempt: Option<AttemptNumber>,
    /// How they know, or who says so; kept in the workload's timeline.
    pub reason: String,
}

/// How a request went wrong (or right, where there is nothing else to say), as Kubernetes' `Status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `v1`.
    pub api_version: String,
    /// `Status`.
    pub kind: String,
    /// `Failure` or `Success`.
    pub status: String,
    /// For a person: what, where and the cure.
    pub message: String,
    /// For a program: `NotFound`, `AlreadyExists`, `Invalid`, `ServiceUnavailable`, `Expired`, …
    pub reason: String,
    /// The HTTP status.
    pub code: u16,
}

impl Status {
    /// It went right, and there is no object to show.
    pub fn success(message: String) -> Self {
        Self {
            api_version: "v1".into(),
            kind: "Status".into(),
            status: "Success".into(),
            message,
            reason: String::new(),
            code: 200,
        }
    }
}
