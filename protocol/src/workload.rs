//! What a person asks for: a Ray, Spark or batch workload. Read from YAML or JSON, checked here, stored in the log as is.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::ids::{GroupName, PoolName, Region};
use crate::resources::{Cpu, Gpus, Memory, Resources, Span};
use crate::sku::{self, Sku};

/// The most members a gang may have.
pub const MAX_MEMBERS: u32 = 100_000;
/// The most groups a gang may have.
pub const MAX_GROUPS: usize = 64;
/// The longest command, argument or environment value, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// A workload's specification. Exactly one of `ray`, `spark` and `batch` is set.
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

fn one() -> u32 {
    1
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
    /// How many members.
    #[serde(default = "one")]
    pub count: u32,
    /// Cores of each.
    pub cpu: Cpu,
    /// Memory of each.
    pub memory: Memory,
    /// GPUs of each.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gpus: Gpus,
    /// Models that it accepts, best first; empty accepts any.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "sku::strict")]
    pub gpu: Vec<Sku>,
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
    /// Models that it accepts, best first; empty accepts any.
    pub skus: Vec<Sku>,
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

impl WorkloadSpec {
    /// Which runtime it needs; an error unless exactly one framework is set.
    pub fn framework(&self) -> Result<Framework, SpecError> {
        let set: Vec<Framework> = [
            self.ray.as_ref().map(|_| Framework::Ray),
            self.spark.as_ref().map(|_| Framework::Spark),
            self.batch.as_ref().map(|_| Framework::Batch),
        ]
        .into_iter()
        .flatten()
        .collect();
        match set[..] {
            [one] => Ok(one),
            [] => Err(SpecError { field: "spec".into(), problem: "set one of ray, spark and batch".into() }),
            _ => Err(SpecError {
                field: "spec".into(),
                problem: format!(
                    "only one of ray, spark and batch may be set, not {}",
                    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
                ),
            }),
        }
    }

    /// The gang: every group with what each member needs. All start together in one cluster, or none.
    pub fn gang(&self) -> Vec<GroupNeed> {
        let fixed = |name: &str, h: &HeadSpec| GroupNeed {
            name: GroupName::new(name).expect("a constant name is valid"),
            count: 1,
            each: Resources { cpu_milli: h.cpu.0, memory_mib: h.memory.0, gpu_milli: 0 },
            skus: vec![],
        };
        let group = |g: &GroupSpec| GroupNeed {
            name: g.name.clone(),
            count: g.count,
            each: Resources { cpu_milli: g.cpu.0, memory_mib: g.memory.0, gpu_milli: g.gpus.0 },
            skus: g.gpu.clone(),
        };
        match (&self.ray, &self.spark, &self.batch) {
            (Some(ray), ..) => std::iter::once(fixed("head", &ray.head)).chain(ray.workers.iter().map(group)).collect(),
            (_, Some(spark), _) => vec![fixed("driver", &spark.driver), group(&spark.executors)],
            (_, _, Some(batch)) => batch.groups.iter().map(group).collect(),
            _ => vec![],
        }
    }

    /// Everything that is wrong with it, each with its field. Empty: it can be accepted.
    pub fn problems(&self) -> Vec<SpecError> {
        let mut found = Vec::new();
        let mut bad = |field: String, problem: String| found.push(SpecError { field, problem });
        if let Err(e) = self.framework() {
            bad(e.field, e.problem);
            return found;
        }
        for (field, text) in self.texts() {
            if text.len() > MAX_TEXT {
                bad(field, format!("it has {} bytes; at most {MAX_TEXT} are allowed", text.len()));
            } else if text.contains('\0') {
                bad(field, "it has a NUL character, which no command line can carry".into());
            }
        }
        for name in self.env.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                bad(format!("spec.env[{name:?}]"), "a variable's name is not empty and has no '='".into());
            }
        }
        let (at, groups): (&str, Vec<&GroupSpec>) = match (&self.ray, &self.spark, &self.batch) {
            (Some(ray), ..) => {
                if ray.entrypoint.trim().is_empty() {
                    bad("spec.ray.entrypoint".into(), "it is empty: write the command that the job runs".into());
                }
                check_head("spec.ray.head", &ray.head, &mut bad);
                ("spec.ray.workers", ray.workers.iter().collect())
            }
            (_, Some(spark), _) => {
                if spark.main.trim().is_empty() {
                    bad("spec.spark.main".into(), "it is empty: name the application's file".into());
                }
                check_head("spec.spark.driver", &spark.driver, &mut bad);
                ("spec.spark.executors", vec![&spark.executors])
            }
            (_, _, Some(batch)) => {
                if batch.command.first().is_none_or(|c| c.is_empty()) {
                    bad("spec.batch.command".into(), "it is empty: write the program and its arguments".into());
                }
                if batch.groups.is_empty() {
                    bad("spec.batch.groups".into(), "it is empty: at least one group runs the command".into());
                }
                ("spec.batch.groups", batch.groups.iter().collect())
            }
            _ => unreachable!("framework() was checked above"),
        };
        if groups.len() > MAX_GROUPS {
            bad(at.into(), format!("{} groups; at most {MAX_GROUPS} are allowed", groups.len()));
        }
        let mut names = BTreeSet::new();
        let mut members = 0u64;
        for (i, group) in groups.iter().enumerate() {
            let place = if self.spark.is_some() { at.to_owned() } else { format!("{at}[{i}]") };
            members += u64::from(group.count);
            if !names.insert(group.name.as_str()) || matches!(group.name.as_str(), "head" | "driver") {
                bad(format!("{place}.name"), format!("{} is taken: each group needs a name of its own", group.name));
            }
            check_group(&place, group, &mut bad);
        }
        if members > u64::from(MAX_MEMBERS) {
            bad(at.into(), format!("{members} members in all; at most {MAX_MEMBERS} are allowed"));
        }
        found
    }

    /// What it asks for that the planner understands and no agent of this version carries out. Refused where workloads come in.
    pub fn not_carried_out(&self) -> Vec<SpecError> {
        let shares = |(field, group): (String, &GroupSpec)| {
            let problem =
                format!("{} is a share of a GPU, which no agent of this version gives out yet: ask for 1", group.gpus);
            (1..1000).contains(&group.gpus.0).then(|| SpecError { field: format!("{field}.gpus"), problem })
        };
        let (at, groups): (&str, &[GroupSpec]) = match (&self.ray, &self.spark, &self.batch) {
            (Some(ray), ..) => ("spec.ray.workers", &ray.workers),
            (_, Some(spark), _) => {
                return shares(("spec.spark.executors".into(), &spark.executors)).into_iter().collect();
            }
            (_, _, Some(batch)) => ("spec.batch.groups", &batch.groups),
            _ => return vec![],
        };
        groups.iter().enumerate().filter_map(|(i, group)| shares((format!("{at}[{i}]"), group))).collect()
    }

    fn texts(&self) -> Vec<(String, &str)> {
        let mut texts: Vec<(String, &str)> = Vec::new();
        for (name, value) in &self.env {
            texts.push((format!("spec.env[{name:?}]"), value));
        }
        if let Some(dir) = &self.working_dir {
            texts.push(("spec.workingDir".into(), dir));
        }
        if let Some(ray) = &self.ray {
            texts.push(("spec.ray.entrypoint".into(), &ray.entrypoint));
        }
        if let Some(spark) = &self.spark {
            texts.push(("spec.spark.main".into(), &spark.main));
            texts.extend(
                spark.arguments.iter().enumerate().map(|(i, a)| (format!("spec.spark.arguments[{i}]"), a.as_str())),
            );
            texts.extend(spark.conf.iter().map(|(k, v)| (format!("spec.spark.conf[{k:?}]"), v.as_str())));
        }
        if let Some(batch) = &self.batch {
            texts.extend(
                batch.command.iter().enumerate().map(|(i, a)| (format!("spec.batch.command[{i}]"), a.as_str())),
            );
        }
        texts
    }
}

fn check_head(place: &str, head: &HeadSpec, bad: &mut impl FnMut(String, String)) {
    if head.cpu.0 == 0 {
        bad(format!("{place}.cpu"), "it is 0: ask for at least 1m".into());
    }
    if head.memory.0 == 0 {
        bad(format!("{place}.memory"), "it is 0: ask for at least 1Mi".into());
    }
}

fn check_group(place: &str, group: &GroupSpec, bad: &mut impl FnMut(String, String)) {
    check_head(place, &HeadSpec { cpu: group.cpu, memory: group.memory }, bad);
    if group.count == 0 {
        bad(format!("{place}.count"), "it is 0: a group has at least one member".into());
    }
    if group.gpus.0 > 1000 && !group.gpus.0.is_multiple_of(1000) {
        let problem =
            format!("{} is no whole number of GPUs, and a share is a part of one: ask for less than 1", group.gpus);
        bad(format!("{place}.gpus"), problem);
    }
    if group.gpus.0 == 0 && !group.gpu.is_empty() {
        bad(format!("{place}.gpu"), "models are named, but gpus is 0: set gpus, or leave gpu out".into());
    }
}
