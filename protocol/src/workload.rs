//! What a person asks for: a Ray, Spark or batch workload. Read from YAML or JSON, checked here, stored in the log as is.

mod check;
mod native;
mod secrets;
mod tokens;

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::ids::{DataName, GroupName, PoolName, Region, WorkloadName};
use crate::resources::{Cpu, Gpus, Memory, Money, Resources, Span};
use crate::sku::{self, Sku};

pub use native::{
    MAX_NATIVE, NativeGang, NativeManifest, POOL_LABEL, PRIORITY_ANNOTATION, is_native, native_kind, without_server,
    workload_of,
};
pub use secrets::{MAX_SECRETS, SecretUse};
pub use tokens::{MAX_TOKEN_LIFE, MAX_TOKENS, MIN_TOKEN_LIFE, TOKEN_FILE, TOKEN_LIFE, TokenUse, token_variable};

/// The most members a gang may have.
pub const MAX_MEMBERS: u32 = 100_000;
/// The most groups a gang may have.
pub const MAX_GROUPS: usize = 64;
/// The longest command, argument or environment value, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;
/// The most workloads that one may depend on.
pub const MAX_DEPENDENCIES: usize = 64;
/// The most data locations that one may name.
pub const MAX_DATA: usize = 64;
/// The shortest time without activity after which a workload may be ended: a program that loads its data is idle for a while.
pub const MIN_IDLE_TIMEOUT: Span = Span(60_000);
/// The shortest time without word after which an attempt may end itself: above a cluster's lease, so that an agent that was merely
/// started again ends nothing.
pub const MIN_FAILOVER_AFTER: Span = Span(60_000);
/// That time where none is given.
pub const FAILOVER_AFTER: Span = Span(300_000);

/// A workload's specification. Exactly one of `ray`, `spark`, `batch` and `manifest` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadSpec {
    /// The resource pool; left out: the owner's, by the ownership rules, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Higher goes first within its pool.
    #[serde(default)]
    pub priority: i32,
    /// Whether it may be ended to give room back, and is then tried again. One that may not must fit into its pool's
    /// reservation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preemptible: Preemptible,
    /// A Ray cluster and the job that runs on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ray: Option<RaySpec>,
    /// A Spark application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spark: Option<SparkSpec>,
    /// Plain processes with a rank each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchSpec>,
    /// A `RayJob`, `SparkApplication` or `Job` of Kubernetes, as it is. Its name and namespace are the workload's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<NativeManifest>,
    /// Where it may and should run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: PlacementSpec,
    /// What happens after a failure.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: RetrySpec,
    /// Environment of every member.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The folder in which commands run, where the runtime shares the submitter's files (the process runtime does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Workloads of its namespace that must have succeeded before it is placed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// How long it runs, as far as the submitter knows. Others are let past a waiting gang where they end before it could start;
    /// nothing is ended for being late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_duration: Option<Span>,
    /// It is ended, as its own failure and for good, once its GPUs have all been measured to do nothing for this long. What is not
    /// measured is never called idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Span>,
    /// How long its record is kept after its end; left out: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<Span>,
    /// What happens while its cluster is not heard from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_cluster_loss: OnClusterLoss,
    /// With `failover`: how long its attempt goes on without word from the coordinators; left out: 5 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_after: Option<Span>,
    /// Secrets of the cluster where it runs, by name, that all its members get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Tokens that say who it is to others, that all its members get as files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenUse>,
}

/// What happens to a workload while its cluster is not heard from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum OnClusterLoss {
    /// Its attempt goes on there for all that is known, so it is not started elsewhere.
    #[default]
    Wait,
    /// Its attempt ends itself after a while without word from the coordinators; then it is started elsewhere.
    Failover,
}

/// A workload that must have succeeded before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dependency {
    /// Its name, in the same namespace.
    pub workload: WorkloadName,
}

/// Whether a running workload may be ended to give room back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(from = "bool", into = "bool")]
pub enum Preemptible {
    /// It may, and is tried again.
    #[default]
    Yes,
    /// It may not.
    No,
}

impl From<bool> for Preemptible {
    fn from(yes: bool) -> Self {
        if yes { Preemptible::Yes } else { Preemptible::No }
    }
}

impl From<Preemptible> for bool {
    fn from(preemptible: Preemptible) -> Self {
        preemptible == Preemptible::Yes
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A Ray cluster and its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RaySpec {
    /// The shell command that Ray runs as the job's driver.
    pub entrypoint: String,
    /// The container image; the process runtime has none and ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Ray's head.
    pub head: HeadSpec,
    /// Ray's workers.
    #[serde(default)]
    pub workers: Vec<GroupSpec>,
}

/// A Spark application: one driver and its executors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SparkSpec {
    /// The application: a Python file or a jar.
    pub main: String,
    /// The main class, for a jar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The application's arguments.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// The container image; the process runtime has none and ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Spark properties, such as `spark.sql.shuffle.partitions`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conf: BTreeMap<String, String>,
    /// The driver.
    pub driver: HeadSpec,
    /// The executors, all alike.
    pub executors: GroupSpec,
}

/// Processes that start together, each told its rank and the world's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchSpec {
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
    /// The container image; the process runtime has none and ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Who runs it.
    pub groups: Vec<GroupSpec>,
}

/// One member: Ray's head or Spark's driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadSpec {
    /// Cores.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
}

/// Like members that each need the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupSpec {
    /// The group's name, unique in its workload.
    #[serde(default = "default_group")]
    pub name: GroupName,
    /// How many members; left out: 1, or as many as `min` and `max` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The fewest members, in place of `count`: so many start together, and stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// The most members, with `min`: those beyond it come while there is room that nobody waits for, and go first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Cores of each.
    pub cpu: Cpu,
    /// Memory of each.
    pub memory: Memory,
    /// GPUs of each.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: Gpus,
    /// Models that it accepts, best first; empty accepts any GPU. MIG slices are asked for by their name.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "sku::strict")]
    pub gpu: Vec<Sku>,
}

impl GroupSpec {
    /// How many members start together.
    pub fn least(&self) -> u32 {
        self.min.or(self.count).unwrap_or(1)
    }

    /// How many members there may be.
    pub fn most(&self) -> u32 {
        self.max.or(self.count).unwrap_or(1)
    }

    /// Whether it may grow beyond what starts together.
    pub fn is_elastic(&self) -> bool {
        self.min.is_some() || self.max.is_some()
    }
}

fn default_group() -> GroupName {
    GroupName::new("workers").expect("a constant name is valid")
}

/// Where a workload may and should run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlacementSpec {
    /// Regions.
    #[serde(default)]
    pub regions: RegionSpec,
    /// Whether members are kept apart.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spread: Spread,
    /// A workload of its namespace: only the cluster where that one is, or was last, is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_cluster_as: Option<WorkloadName>,
    /// What its GPUs may cost an hour at most, all together, in the fleet's currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_per_hour: Option<Money>,
    /// Data that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<DataNeed>,
}

/// Data that a workload reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataNeed {
    /// The data location.
    pub name: DataName,
    /// Whether only clusters that have a copy are taken; else such clusters are preferred.
    #[serde(default, skip_serializing_if = "is_default")]
    pub require: bool,
}

/// Whether the members of a group are kept apart. Groups of one workload may share nodes all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// They are packed: as few nodes as do least harm to others.
    #[default]
    None,
    /// Each member of a group has a node of its own, or the workload waits.
    Nodes,
}

impl Spread {
    /// How many members of one group may be on a node that has room for so many.
    pub fn most(self, members: u64) -> u64 {
        match self {
            Spread::None => members,
            Spread::Nodes => members.min(1),
        }
    }
}

/// Regions that are wanted and regions that are needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegionSpec {
    /// Taken where there is room.
    #[serde(default)]
    pub prefer: Vec<Region>,
    /// No other is taken; empty allows all.
    #[serde(default)]
    pub require: Vec<Region>,
}

/// What happens after a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// How many failures of the workload's own are tried again. Failures of the infrastructure do not count.
    #[serde(default)]
    pub limit: u32,
    /// The wait before the first try again; doubled each time, to at most an hour.
    #[serde(default = "default_backoff")]
    pub backoff: Span,
}

fn default_backoff() -> Span {
    Span(10_000)
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { limit: 0, backoff: default_backoff() }
    }
}

/// Which runtime a workload needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "lowercase")]
pub enum Framework {
    /// A Ray cluster and a job.
    Ray,
    /// A Spark application.
    Spark,
    /// Plain processes.
    Batch,
}

impl std::fmt::Display for Framework {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Framework::Ray => "ray",
            Framework::Spark => "spark",
            Framework::Batch => "batch",
        })
    }
}

/// What a group of a gang needs, whatever the framework.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct GroupNeed {
    /// The group: `head`, `driver`, `executors` or the name given.
    pub name: GroupName,
    /// How many members.
    pub count: u32,
    /// What each needs. A member sits on one node.
    pub each: Resources,
    /// Models that it accepts, best first; empty accepts any GPU.
    pub skus: Vec<Sku>,
    /// Whether its members are kept apart.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spread: Spread,
}

impl GroupNeed {
    /// Whether it may sit on this model. A group that names none accepts any GPU, and no slice of one.
    pub fn accepts(&self, sku: &Sku) -> bool {
        if self.skus.is_empty() { !sku.is_slice() } else { self.skus.contains(sku) }
    }
}

/// What is wrong with a specification, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, Encode, Decode)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// The field's path, such as `spec.ray.workers[1].gpus`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// Whether a group is one fixed member that leads the others: Ray's head, Spark's driver. No group that people name is called so.
pub fn is_fixed(group: &GroupName) -> bool {
    matches!(group.as_str(), "head" | "driver")
}

impl WorkloadSpec {
    /// Which runtime it needs; an error unless exactly one framework is set.
    pub fn framework(&self) -> Result<Framework, SpecError> {
        let bad = |problem: String| Err(SpecError { field: "spec".into(), problem });
        let set = [
            self.ray.as_ref().map(|_| "ray"),
            self.spark.as_ref().map(|_| "spark"),
            self.batch.as_ref().map(|_| "batch"),
            self.manifest.as_ref().map(|_| "manifest"),
        ];
        let set: Vec<&str> = set.into_iter().flatten().collect();
        match (&set[..], &self.manifest) {
            // What is wrong is looked for only where something is: this is asked at every look at a cluster.
            ([_], Some(manifest)) => match manifest.gang() {
                Some(gang) => Ok(gang.framework),
                None => match manifest.problems().into_iter().next() {
                    Some(problem) => Err(problem),
                    None => bad("its manifest was not understood".into()),
                },
            },
            (["ray"], _) => Ok(Framework::Ray),
            (["spark"], _) => Ok(Framework::Spark),
            ([_], _) => Ok(Framework::Batch),
            ([], _) => bad("set one of ray, spark, batch and manifest".into()),
            _ => bad(format!("only one of ray, spark, batch and manifest may be set, not {}", set.join(" and "))),
        }
    }

    /// A property of a Spark application, whoever wrote it down.
    pub fn spark_property(&self, name: &str) -> Option<String> {
        let own = self.spark.as_ref().and_then(|spark| spark.conf.get(name).cloned());
        own.or_else(|| self.manifest.as_ref()?.spark_property(name))
    }

    /// How long its attempt may go on without word from the coordinators before it ends itself; none: for ever.
    pub fn fence(&self) -> Option<Span> {
        let after = self.failover_after.unwrap_or(FAILOVER_AFTER);
        (self.on_cluster_loss == OnClusterLoss::Failover).then_some(after)
    }

    /// The groups that may grow, each with the fewest and the most members that it may have. Only Ray's workers may.
    pub fn elastic(&self) -> impl Iterator<Item = (&GroupName, u32, u32)> {
        let workers = self.ray.iter().flat_map(|ray| &ray.workers);
        workers.filter(|g| g.least() < g.most()).map(|g| (&g.name, g.least(), g.most()))
    }

    /// The gang: every group with what each member needs, as many as start together. All start together in one cluster, or none.
    pub fn gang(&self) -> Vec<GroupNeed> {
        let fixed = |name: &str, h: &HeadSpec| GroupNeed {
            name: GroupName::new(name).expect("a constant name is valid"),
            count: 1,
            each: Resources { cpu_milli: h.cpu.0, memory_mib: h.memory.0, gpu_milli: 0 },
            skus: vec![],
            spread: self.placement.spread,
        };
        let group = |g: &GroupSpec| GroupNeed {
            name: g.name.clone(),
            count: g.least(),
            each: Resources { cpu_milli: g.cpu.0, memory_mib: g.memory.0, gpu_milli: g.gpus.0 },
            skus: g.gpu.clone(),
            spread: self.placement.spread,
        };
        let native = self.manifest.as_ref().and_then(NativeManifest::gang);
        match (&self.ray, &self.spark, &self.batch) {
            (Some(ray), ..) => std::iter::once(fixed("head", &ray.head)).chain(ray.workers.iter().map(group)).collect(),
            (_, Some(spark), _) => vec![fixed("driver", &spark.driver), group(&spark.executors)],
            (_, _, Some(batch)) => batch.groups.iter().map(group).collect(),
            _ => {
                let apart = |need: &GroupNeed| GroupNeed { spread: self.placement.spread, ..need.clone() };
                native.iter().flat_map(|gang| &gang.groups).map(apart).collect()
            }
        }
    }
}
