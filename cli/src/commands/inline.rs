//! A workload from the command line instead of a manifest: `submit --name N --gpus 8 -- python train.py`.

use std::collections::BTreeMap;

use clap::ValueEnum;
use protocol::api::{API_VERSION, Metadata, WorkloadObject};
use protocol::ids::{DataName, GroupName, Region, WorkloadName};
use protocol::resources::{Cpu, Gpus, Memory, Money, Span};
use protocol::sku::Sku;
use protocol::workload::{
    BatchSpec, DataNeed, Dependency, GroupSpec, HeadSpec, OnClusterLoss, PlacementSpec, RaySpec, RegionSpec, RetrySpec,
    SparkSpec, Spread, WorkloadSpec,
};

use crate::args::Global;
use crate::exit::Failure;
use crate::manifest::settle;

/// The workload, where no file describes it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Without a file")]
pub struct Inline {
    /// Its name
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    name: Option<WorkloadName>,
    /// What runs it: batch (plain processes), ray (the command is the job's driver) or spark (the command is the
    /// application's file and its arguments) [default: batch]
    #[arg(long, value_enum, value_name = "FRAMEWORK", requires = "name", hide_possible_values = true)]
    framework: Option<Kind>,
    /// Members: processes of a batch, workers of Ray, executors of Spark [default: 1]
    #[arg(long, value_name = "N", requires = "name", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// GPUs of each member [default: 0]
    #[arg(long, value_name = "G", requires = "name")]
    gpus: Option<Gpus>,
    /// GPU models that are accepted, best first
    #[arg(long, value_name = "MODEL", requires = "gpus", value_delimiter = ',')]
    gpu: Vec<Sku>,
    /// Cores of each member [default: 1]
    #[arg(long, value_name = "CORES", requires = "name")]
    cpu: Option<Cpu>,
    /// Memory of each member [default: 1Gi]
    #[arg(long, value_name = "AMOUNT", requires = "name")]
    memory: Option<Memory>,
    /// Cores of Ray's head or Spark's driver [default: 1]
    #[arg(long, value_name = "CORES", requires = "name")]
    head_cpu: Option<Cpu>,
    /// Memory of Ray's head or Spark's driver [default: 2Gi]
    #[arg(long, value_name = "AMOUNT", requires = "name")]
    head_memory: Option<Memory>,
    /// The container image; runtimes without containers ignore it
    #[arg(long, requires = "name")]
    image: Option<String>,
    /// An environment variable of every member
    #[arg(long, value_name = "NAME=VALUE", requires = "name", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The folder in which the command runs [default: the current one]
    #[arg(long, value_name = "DIR", requires = "name")]
    working_dir: Option<String>,
    /// Higher goes first [default: 0]
    #[arg(long, value_name = "N", requires = "name", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Only these regions
    #[arg(long, value_name = "REGION", requires = "name", value_delimiter = ',')]
    region: Vec<Region>,
    /// These regions first
    #[arg(long, value_name = "REGION", requires = "name", value_delimiter = ',')]
    prefer_region: Vec<Region>,
    /// How often it is tried again after a failure of its own [default: 0]
    #[arg(long, value_name = "N", requires = "name")]
    retries: Option<u32>,
    /// How long it runs, as far as you know, such as 6h: it may then go past gangs that wait
    #[arg(long, value_name = "TIME", requires = "name")]
    expected_duration: Option<Span>,
    /// Workloads of its namespace that must have succeeded before
    #[arg(long, value_name = "NAME", requires = "name", value_delimiter = ',')]
    depends_on: Vec<WorkloadName>,
    /// It fails once its GPUs have been measured to do nothing for this long, such as 30m
    #[arg(long, value_name = "TIME", requires = "name")]
    idle_timeout: Option<Span>,
    /// Once its cluster has been cut off for this long, such as 5m, it has ended itself there and starts elsewhere
    #[arg(long, value_name = "TIME", requires = "name")]
    failover_after: Option<Span>,
    /// Its record goes this long after its end, such as 7d [default: it stays until it is deleted]
    #[arg(long, value_name = "TIME", requires = "name")]
    ttl_after_finished: Option<Span>,
    /// Only the cluster where this workload of its namespace is, or was last
    #[arg(long, value_name = "NAME", requires = "name")]
    same_cluster_as: Option<WorkloadName>,
    /// Whether each member of a group has a node of its own: none or nodes [default: none]
    #[arg(long, value_enum, value_name = "SPREAD", requires = "name", hide_possible_values = true)]
    spread: Option<Apart>,
    /// What its GPUs may cost an hour at most, all together
    #[arg(long, value_name = "MONEY", requires = "name")]
    max_cost_per_hour: Option<Money>,
    /// Data that it reads: clusters that have a copy are preferred
    #[arg(long, value_name = "NAME", requires = "name", value_delimiter = ',')]
    data: Vec<DataName>,
    /// Data that it reads: only clusters that have a copy
    #[arg(long, value_name = "NAME", requires = "name", value_delimiter = ',')]
    require_data: Vec<DataName>,
    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND", requires = "name")]
    command: Vec<String>,
}

/// What runs a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Plain processes, each told its rank and the world's size
    Batch,
    /// A Ray cluster; the command is its job's driver
    Ray,
    /// A Spark application; the command is its file and its arguments
    Spark,
}

/// Whether members are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Apart {
    /// They are packed
    None,
    /// Each member of a group has a node of its own
    Nodes,
}

impl From<Apart> for Spread {
    fn from(apart: Apart) -> Self {
        match apart {
            Apart::None => Spread::None,
            Apart::Nodes => Spread::Nodes,
        }
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Inline {
    /// The workload; none where no name was given, so that nothing is described.
    pub fn workload(self, global: &Global) -> anyhow::Result<Option<WorkloadObject>> {
        let Some(name) = self.name.clone() else { return Ok(None) };
        if self.command.is_empty() {
            return Err(Failure::input("there is no command: write it after `--`, such as `-- python train.py`").into());
        }
        let mut working_dir = self.working_dir.clone();
        settle(&mut working_dir, &std::env::current_dir()?).map_err(Failure::input)?;
        let mut spec = WorkloadSpec {
            priority: self.priority.unwrap_or(0),
            placement: PlacementSpec {
                regions: RegionSpec { prefer: self.prefer_region.clone(), require: self.region.clone() },
                same_cluster_as: self.same_cluster_as.clone(),
                spread: self.spread.map_or(Spread::None, Spread::from),
                max_cost_per_hour: self.max_cost_per_hour,
                data: self.reads(),
            },
            retries: RetrySpec { limit: self.retries.unwrap_or(0), ..RetrySpec::default() },
            env: self.env.iter().cloned().collect::<BTreeMap<_, _>>(),
            working_dir,
            depends_on: self.depends_on.iter().cloned().map(|workload| Dependency { workload }).collect(),
            expected_duration: self.expected_duration,
            idle_timeout: self.idle_timeout,
            ttl_after_finished: self.ttl_after_finished,
            on_cluster_loss: self.failover_after.map_or(OnClusterLoss::Wait, |_| OnClusterLoss::Failover),
            failover_after: self.failover_after,
            ..WorkloadSpec::default()
        };
        self.fill(&mut spec);
        let problems: Vec<String> = spec.problems().iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return Err(Failure::Input(problems).into());
        }
        Ok(Some(WorkloadObject {
            api_version: API_VERSION.into(),
            kind: "Workload".into(),
            metadata: Metadata {
                name,
                namespace: Some(global.namespace()),
                uid: None,
                resource_version: None,
                creation_timestamp: None,
                deletion_timestamp: None,
            },
            spec,
            status: None,
        }))
    }

    fn reads(&self) -> Vec<DataNeed> {
        let need = |require| move |name: &DataName| DataNeed { name: name.clone(), require };
        self.data.iter().map(need(false)).chain(self.require_data.iter().map(need(true))).collect()
    }

    fn fill(self, spec: &mut WorkloadSpec) {
        let head =
            HeadSpec { cpu: self.head_cpu.unwrap_or(Cpu(1000)), memory: self.head_memory.unwrap_or(Memory(2048)) };
        let members = |name: &str| GroupSpec {
            name: GroupName::new(name).expect("a constant name is valid"),
            count: Some(self.count.unwrap_or(1)),
            min: None,
            max: None,
            cpu: self.cpu.unwrap_or(Cpu(1000)),
            memory: self.memory.unwrap_or(Memory(1024)),
            gpus: self.gpus.unwrap_or_default(),
            gpu: self.gpu.clone(),
        };
        match self.framework.unwrap_or(Kind::Batch) {
            Kind::Batch => {
                let groups = vec![members("workers")];
                spec.batch = Some(BatchSpec { command: self.command, image: self.image, groups });
            }
            Kind::Ray => {
                let (entrypoint, workers) = (shell(&self.command), vec![members("workers")]);
                spec.ray = Some(RaySpec { entrypoint, image: self.image, head, workers });
            }
            Kind::Spark => {
                let executors = members("executors");
                let mut command = self.command.into_iter();
                spec.spark = Some(SparkSpec {
                    main: command.next().unwrap_or_default(),
                    class: None,
                    arguments: command.collect(),
                    image: self.image,
                    conf: BTreeMap::new(),
                    driver: head,
                    executors,
                });
            }
        }
    }
}

/// Words as one shell command that gives them back as they are. A single word is a shell command already.
fn shell(words: &[String]) -> String {
    if let [command] = words {
        return command.clone();
    }
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let quoted = words.iter().map(|word| match !word.is_empty() && word.chars().all(safe) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        let quoted = |words: &[&str]| shell(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(quoted(&["python", "train.py", "--lr=0.1"]), "python train.py --lr=0.1");
        assert_eq!(quoted(&["echo", "two words", "it's", ""]), r"echo 'two words' 'it'\''s' ''");
        assert_eq!(quoted(&["a && b"]), "a && b");
    }
}
