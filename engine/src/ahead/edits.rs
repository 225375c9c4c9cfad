//! What is imagined to be different: the fleet, a pool, or the line.

use protocol::capacity::{NodeState, Source};
use protocol::control::{AttemptState, ClusterInfo};
use protocol::data::DataSpec;
use protocol::ids::{ClusterName, CommandNumber, DataName, Incarnation, NodeName, PoolName, Region, Uid, WorkloadKey};
use protocol::pool::PoolSpec;
use protocol::resources::{Cpu, Memory, Resources};
use protocol::sku::Sku;
use protocol::workload::{Framework, WorkloadSpec};
use serde::{Deserialize, Serialize};

use super::Ahead;
use crate::capacity::{ClusterCapacity, NodeCapacity, Nodes};
use crate::commands::{Command, Cordoning, Expect, Refusal};
use crate::state::State;

/// The most nodes that are imagined at once.
const MOST_NODES: u32 = 10_000;

/// One thing that is imagined to be different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind", deny_unknown_fields)]
pub enum Edit {
    /// A cluster joins. It has no nodes yet.
    AddCluster {
        /// Its name.
        cluster: ClusterName,
        /// Its region.
        region: Region,
    },
    /// Empty nodes come to a cluster.
    AddNodes {
        /// The cluster.
        cluster: ClusterName,
        /// How many.
        count: u32,
        /// Their model; none without GPUs.
        #[serde(default)]
        sku: Option<Sku>,
        /// GPUs of each.
        #[serde(default)]
        gpus: u16,
        /// Cores of each; left out: as a node of the fleet with such GPUs has.
        #[serde(default)]
        cpu: Option<Cpu>,
        /// Memory of each; left out: likewise.
        #[serde(default)]
        memory: Option<Memory>,
    },
    /// A node takes no members any more, and what runs there is ended and tried again.
    DrainNode {
        /// The cluster.
        cluster: ClusterName,
        /// The node.
        node: NodeName,
    },
    /// So do all nodes of a cluster, as by `tidewater cluster drain --force`.
    DrainCluster {
        /// The cluster.
        cluster: ClusterName,
        /// What may not be preempted is waited for, as without `--force`.
        #[serde(default)]
        waits: bool,
    },
    /// A cluster that is cordoned or drained is open again, as by `tidewater cluster uncordon`.
    OpenCluster {
        /// The cluster.
        cluster: ClusterName,
    },
    /// A pool is made or changed.
    SetPool {
        /// Its name.
        name: PoolName,
        /// What it is to be.
        spec: Box<PoolSpec>,
    },
    /// A pool goes.
    DeletePool {
        /// Its name.
        name: PoolName,
    },
    /// A data location is made or changed.
    SetData {
        /// Its name.
        name: DataName,
        /// What it is to be.
        spec: Box<DataSpec>,
    },
    /// A data location goes.
    DeleteData {
        /// Its name.
        name: DataName,
    },
    /// A workload is submitted.
    Submit {
        /// Its name; must be a new one.
        key: WorkloadKey,
        /// What it needs.
        spec: Box<WorkloadSpec>,
    },
}

/// Why something can't be imagined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditFault {
    /// No such cluster.
    #[error("cluster {0} has not joined: name one that has, or add it first")]
    NoCluster(ClusterName),
    /// No such node.
    #[error("cluster {0} has no node {1}")]
    NoNode(ClusterName, NodeName),
    /// The cluster is there already.
    #[error("cluster {0} has joined already")]
    ClusterExists(ClusterName),
    /// Nothing like it is in the fleet.
    #[error("no node of the fleet is like that: say cpu and memory of the nodes that are to be added")]
    NoSuchShape,
    /// GPUs without a model, or a model without GPUs.
    #[error("nodes with GPUs need both their model and how many each has; nodes without have neither")]
    HalfGpus,
    /// Too many.
    #[error("{0} nodes: at most {MOST_NODES} can be imagined at once")]
    TooMany(u32),
    /// The engine would refuse it.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
}

impl Ahead {
    /// Changes what is there. `number` tells several edits apart.
    pub(super) fn edit(&mut self, number: usize, edit: &Edit) -> Result<(), EditFault> {
        match edit {
            Edit::AddCluster { cluster, region } => self.add_cluster(cluster, region),
            Edit::AddNodes { cluster, count, sku, gpus, cpu, memory } => {
                if sku.is_some() != (*gpus > 0) {
                    return Err(EditFault::HalfGpus);
                }
                if *count > MOST_NODES {
                    return Err(EditFault::TooMany(*count));
                }
                let total = self.total(sku.as_ref(), *gpus, *cpu, *memory)?;
                self.add_nodes(cluster, number, *count, sku.as_ref(), total)
            }
            Edit::DrainNode { cluster, node } => self.drain_node(cluster, node),
            Edit::DrainCluster { cluster, waits } => {
                self.cordon(cluster, Cordoning::Drain { reason: None, force: !waits, max_at_once: None })
            }
            Edit::OpenCluster { cluster } => self.cordon(cluster, Cordoning::Lift),
            Edit::SetPool { name, spec } => {
                self.must(Command::SetPool { name: name.clone(), spec: spec.clone(), expect: Expect::Any })
            }
            Edit::DeletePool { name } => self.must(Command::DeletePool { name: name.clone() }),
            Edit::SetData { name, spec } => {
                self.must(Command::SetData { name: name.clone(), spec: spec.clone(), expect: Expect::Any })
            }
            Edit::DeleteData { name } => self.must(Command::DeleteData { name: name.clone() }),
            Edit::Submit { key, spec } => {
                let uid = free_uid(&self.state);
                self.must(Command::Submit { key: key.clone(), uid, spec: spec.clone() })
            }
        }
    }

    fn must(&mut self, command: Command) -> Result<(), EditFault> {
        self.apply(command).map(|_| ()).map_err(|refusal| EditFault::Refused(Box::new(refusal)))
    }

    fn add_cluster(&mut self, cluster: &ClusterName, region: &Region) -> Result<(), EditFault> {
        if self.state.clusters.contains_key(cluster) {
            return Err(EditFault::ClusterExists(cluster.clone()));
        }
        let info = ClusterInfo {
            name: cluster.clone(),
            region: region.clone(),
            frameworks: vec![Framework::Ray, Framework::Spark, Framework::Batch],
            fences: true,
            secrets: true,
            manifests: vec![Framework::Ray, Framework::Spark, Framework::Batch],
            prices: vec![],
        };
        let (incarnation, last_command) = (Incarnation(0), CommandNumber(0));
        self.must(Command::Join { info, incarnation, last_command, attempts: vec![] })?;
        let nodes = Nodes::default();
        let frame = ClusterCapacity { sequence: 0, watermark: CommandNumber(0), age_ms: 0, fresh: true, nodes };
        self.capacity.clusters.insert(cluster.clone(), frame);
        Ok(())
    }

    /// What a node has that is to be added.
    fn total(
        &self,
        sku: Option<&Sku>,
        gpus: u16,
        cpu: Option<Cpu>,
        memory: Option<Memory>,
    ) -> Result<Resources, EditFault> {
        let gpu_milli = u64::from(gpus) * 1000;
        let nodes = self.capacity.clusters.values().flat_map(|c| &c.nodes);
        let like = nodes.filter(|n| n.sku.as_ref() == sku && n.total.gpu_milli == gpu_milli).map(|n| n.total).next();
        let cpu_milli = cpu.map(|c| c.0).or(like.map(|l| l.cpu_milli)).ok_or(EditFault::NoSuchShape)?;
        let memory_mib = memory.map(|m| m.0).or(like.map(|l| l.memory_mib)).ok_or(EditFault::NoSuchShape)?;
        Ok(Resources { cpu_milli, memory_mib, gpu_milli })
    }

    fn add_nodes(
        &mut self,
        cluster: &ClusterName,
        number: usize,
        count: u32,
        sku: Option<&Sku>,
        total: Resources,
    ) -> Result<(), EditFault> {
        let frame = self.capacity.clusters.get_mut(cluster).ok_or_else(|| EditFault::NoCluster(cluster.clone()))?;
        for i in 0..count {
            let name = NodeName::new(format!("whatif-{number}-{i}")).expect("letters, digits and dashes are a name");
            frame.nodes.push(NodeCapacity::untouched(name, sku.cloned(), Source::Declared, total));
        }
        Ok(())
    }

    fn drain_node(&mut self, cluster: &ClusterName, name: &NodeName) -> Result<(), EditFault> {
        let frame = self.capacity.clusters.get_mut(cluster).ok_or_else(|| EditFault::NoCluster(cluster.clone()))?;
        let node = frame.nodes.iter_mut().find(|node| node.name == *name);
        let node = node.ok_or_else(|| EditFault::NoNode(cluster.clone(), name.clone()))?;
        node.state = NodeState::Cordoned;
        let there = |placement: &[protocol::control::GroupPlacement]| {
            placement.iter().flat_map(|g| &g.nodes).any(|share| share.node == *name)
        };
        let live = self.state.live_in(cluster).filter(|(_, attempt)| there(&attempt.placement));
        let keys: Vec<WorkloadKey> = live.map(|(workload, _)| workload.key.clone()).collect();
        keys.iter().for_each(|key| self.end(key, AttemptState::Stopped));
        Ok(())
    }

    /// As a person would: the planner ends what runs there.
    fn cordon(&mut self, cluster: &ClusterName, to: Cordoning) -> Result<(), EditFault> {
        if !self.state.clusters.contains_key(cluster) {
            return Err(EditFault::NoCluster(cluster.clone()));
        }
        self.must(Command::Cordon { cluster: cluster.clone(), to })
    }
}

/// A uid that nobody has.
fn free_uid(state: &State) -> Uid {
    Uid((0..).find(|uid| !state.by_uid.contains_key(&Uid(*uid))).unwrap_or_default())
}
