//! The books of a run: nodes with their devices one by one, and what pods ask for. Every placement of every policy, ours too, is
//! entered here, and refused where it does not fit; shares nothing with the engine.

use std::collections::{BTreeMap, BTreeSet};

/// Thousandths of one device.
pub const DEVICE: u16 = 1000;

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pod {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB of memory.
    pub memory_mib: u64,
    /// How many devices.
    pub devices: u16,
    /// Thousandths of each; below 1000 it is a share of one device.
    pub milli: u16,
    /// Models that it accepts; empty accepts any.
    pub models: BTreeSet<String>,
}

impl Pod {
    /// Thousandths of GPUs in all.
    pub fn gpu_milli(&self) -> u64 {
        u64::from(self.devices) * u64::from(self.milli)
    }
}

/// What is free on a node. Nodes that are alike compare equal, whatever the order of their devices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its model, by its place in [`Fleet::models`]; none without GPUs.
    pub model: Option<usize>,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB of memory.
    pub memory_mib: u64,
    /// What is left of each device, growing.
    pub left: Vec<u16>,
}

impl Node {
    /// Thousandths of GPUs left.
    pub fn gpu_milli(&self) -> u64 {
        self.left.iter().map(|l| u64::from(*l)).sum()
    }

    /// Devices of which nothing is given out.
    pub fn whole(&self) -> usize {
        self.left.iter().filter(|l| **l == DEVICE).count()
    }

    /// Takes a pod's room; a share that of the device with this much left, else of the fullest that holds it. None where it does
    /// not fit.
    pub fn take(&self, pod: &Pod, device_left: Option<u16>) -> Option<Node> {
        let mut after = self.clone();
        after.cpu_milli = after.cpu_milli.checked_sub(pod.cpu_milli)?;
        after.memory_mib = after.memory_mib.checked_sub(pod.memory_mib)?;
        if pod.devices == 1 && pod.milli < DEVICE {
            let holds = |left: u16| left >= pod.milli && device_left.is_none_or(|d| d == left);
            let device = after.left.iter().position(|left| holds(*left))?;
            after.left[device] -= pod.milli;
        } else {
            let whole = after.left.iter_mut().filter(|left| **left == DEVICE).take(usize::from(pod.devices));
            let taken = whole.map(|left| *left = 0).count();
            if taken < usize::from(pod.devices) {
                return None;
            }
        }
        after.left.sort_unstable();
        Some(after)
    }
}

/// One node of a list, before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its GPU model; none without GPUs.
    pub model: Option<String>,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB of memory.
    pub memory_mib: u64,
    /// Its devices.
    pub devices: u16,
    /// Its cluster, where the list says it.
    pub cluster: Option<String>,
}

/// How nodes are given to clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Any node to any cluster.
    Random,
    /// Nodes of a model stay together as far as they can.
    Model,
}

/// Every node, and in which cluster it is.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The list.
    pub rows: Vec<NodeRow>,
    /// What is free on each.
    pub nodes: Vec<Node>,
    /// The cluster of each.
    pub cluster: Vec<usize>,
    /// How many clusters.
    pub clusters: usize,
    /// Models by name, sorted.
    pub models: Vec<String>,
    /// Nodes that are alike: they have one state.
    states: BTreeMap<(usize, Node), BTreeSet<usize>>,
}

impl Fleet {
    /// All nodes empty. Where the list names clusters, those are the clusters, and nothing is split.
    pub fn new(rows: &[NodeRow], clusters: usize, split: Split, seed: u64) -> Self {
        let models: BTreeSet<String> = rows.iter().filter_map(|r| r.model.clone()).collect();
        let models: Vec<String> = models.into_iter().collect();
        let nodes: Vec<Node> = rows
            .iter()
            .map(|row| Node {
                model: row.model.as_ref().and_then(|m| models.binary_search(m).ok()),
                cpu_milli: row.cpu_milli,
                memory_mib: row.memory_mib,
                left: vec![DEVICE; usize::from(row.devices)],
            })
            .collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        match split {
            Split::Random => crate::chance::Chance::new(seed, crate::chance::Chance::SPLIT).shuffle(&mut order),
            Split::Model => order.sort_by_key(|n| (nodes[*n].model, *n)),
        }
        let mut clusters = clusters.max(1);
        let mut cluster = vec![0; rows.len()];
        for (place, node) in order.iter().enumerate() {
            cluster[*node] = place * clusters / rows.len().max(1);
        }
        let named: BTreeSet<&str> = rows.iter().map(|r| r.cluster.as_deref().unwrap_or_default()).collect();
        if named.iter().any(|name| !name.is_empty()) {
            clusters = named.len();
            let of = |row: &NodeRow| named.iter().position(|n| row.cluster.as_deref().unwrap_or_default() == *n);
            cluster = rows.iter().map(|row| of(row).unwrap_or_default()).collect();
        }
        let mut states: BTreeMap<(usize, Node), BTreeSet<usize>> = BTreeMap::new();
        for (i, node) in nodes.iter().enumerate() {
            states.entry((cluster[i], node.clone())).or_default().insert(i);
        }
        Self { rows: rows.to_vec(), nodes, cluster, clusters, models, states }
    }

    /// Thousandths of GPUs left.
    pub fn gpu_milli(&self) -> u64 {
        self.nodes.iter().map(Node::gpu_milli).sum()
    }

    /// Whether a node's model is accepted.
    pub fn accepts(&self, pod: &Pod, node: &Node) -> bool {
        pod.devices == 0 || pod.models.is_empty() || node.model.is_some_and(|m| pod.models.contains(&self.models[m]))
    }

    /// Whether a pod fits on a node.
    pub fn fits(&self, pod: &Pod, node: usize) -> bool {
        self.accepts(pod, &self.nodes[node]) && self.nodes[node].take(pod, None).is_some()
    }

    /// Whether a pod fits anywhere.
    pub fn fits_anywhere(&self, pod: &Pod) -> bool {
        self.states().any(|(_, node, _)| self.accepts(pod, node) && node.take(pod, None).is_some())
    }

    /// Every state that some nodes are in, by cluster: the cluster, the state, the first such node.
    pub fn states(&self) -> impl Iterator<Item = (usize, &Node, usize)> {
        self.states.iter().filter_map(|((cluster, node), all)| Some((*cluster, node, *all.first()?)))
    }

    /// A pod of whole devices is gone from a node; false, and nothing is changed, where it was not there or shares a device.
    pub fn release(&mut self, pod: &Pod, node: usize) -> bool {
        let (Some(before), Some(row)) = (self.nodes.get(node).cloned(), self.rows.get(node)) else { return false };
        let mut after = before.clone();
        let given = after.left.iter_mut().filter(|left| **left == 0).take(usize::from(pod.devices));
        let back = given.map(|left| *left = DEVICE).count();
        after.left.sort_unstable();
        after.cpu_milli += pod.cpu_milli;
        after.memory_mib += pod.memory_mib;
        let fits = after.cpu_milli <= row.cpu_milli && after.memory_mib <= row.memory_mib;
        if back < usize::from(pod.devices) || pod.milli < DEVICE && pod.devices > 0 || !fits {
            return false;
        }
        self.set(node, after);
        true
    }

    fn set(&mut self, node: usize, after: Node) {
        let cluster = self.cluster[node];
        let before = (cluster, std::mem::replace(&mut self.nodes[node], after.clone()));
        if let Some(alike) = self.states.get_mut(&before) {
            alike.remove(&node);
            if alike.is_empty() {
                self.states.remove(&before);
            }
        }
        self.states.entry((cluster, after)).or_default().insert(node);
    }

    /// Enters a placement; false, and nothing is changed, where it does not fit.
    pub fn place(&mut self, pod: &Pod, choice: Choice) -> bool {
        let Some(node) = self.nodes.get(choice.node).filter(|n| self.accepts(pod, n)) else { return false };
        let Some(after) = node.take(pod, choice.device_left) else { return false };
        self.set(choice.node, after);
        true
    }
}

/// Where a policy puts a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The node.
    pub node: usize,
    /// For a share, how much is left on its device; none: the fullest that holds it.
    pub device_left: Option<u16>,
}

impl Choice {
    /// On this node; a share on the fullest device that holds it.
    pub fn on(node: usize) -> Self {
        Self { node, device_left: None }
    }
}
