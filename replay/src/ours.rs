//! The product's own planner on a replay's fleet: a state with joined clusters, capacity as agents would send it, and the placer
//! that `plan` uses. Nothing is decided here.

use std::collections::BTreeMap;

use engine::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use engine::{Command, Order, Placer, State};
use protocol::capacity::Source;
use protocol::control::ClusterInfo;
use protocol::ids::{ClusterName, CommandNumber, GroupName, Incarnation, LogIndex, NodeName, Region, UnixMs};
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::{Framework, GroupNeed, Spread};

use crate::fleet::{Choice, DEVICE, Fleet, Pod};
use crate::policy::Policy;

/// What the planner reads: clusters that joined, and their capacity.
pub struct World {
    state: State,
    capacity: Capacity,
}

impl World {
    /// This fleet, empty.
    pub fn new(fleet: &Fleet) -> Self {
        Self { state: joined(fleet), capacity: capacity(fleet) }
    }

    /// To be changed from here on.
    pub(crate) fn into_parts(self) -> (State, Capacity) {
        (self.state, self.capacity)
    }
}

/// The planner.
pub struct Tidewater<'a> {
    placer: Placer<'a>,
    node: BTreeMap<String, usize>,
}

impl<'a> Tidewater<'a> {
    /// On this fleet, empty.
    pub fn new(fleet: &Fleet, world: &'a World) -> Self {
        let node = (0..fleet.rows.len()).map(|n| (node_name(n).to_string(), n)).collect();
        Self { placer: Placer::of_fleet(&world.state, &world.capacity), node }
    }
}

/// Names of our own: those of a list may not be names of Kubernetes.
fn node_name(node: usize) -> NodeName {
    NodeName::new(format!("n{node}")).expect("a letter and digits are a name")
}

/// The node of a name that [`World`] gave.
pub(crate) fn node_of(name: &NodeName) -> Option<usize> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

fn cluster_name(cluster: usize) -> ClusterName {
    ClusterName::new(format!("c{cluster}")).expect("a letter and digits are a name")
}

fn joined(fleet: &Fleet) -> State {
    let mut state = State::default();
    for cluster in 0..fleet.clusters {
        let info = ClusterInfo {
            name: cluster_name(cluster),
            region: Region::new("here").expect("a constant name is valid"),
            frameworks: vec![Framework::Batch],
            fences: true,
            secrets: true,
            manifests: vec![],
            prices: vec![],
        };
        let command =
            Command::Join { info, incarnation: Incarnation(1), last_command: CommandNumber(0), attempts: vec![] };
        state.apply(LogIndex(cluster as u64 + 1), &command, UnixMs(0));
    }
    state
}

fn capacity(fleet: &Fleet) -> Capacity {
    let mut capacity = Capacity::default();
    for cluster in 0..fleet.clusters {
        let there = (0..fleet.rows.len()).filter(|n| fleet.cluster[*n] == cluster);
        let node = |n: usize| {
            let row = &fleet.rows[n];
            let gpu_milli = u64::from(row.devices) * u64::from(DEVICE);
            let total = Resources { cpu_milli: row.cpu_milli, memory_mib: row.memory_mib, gpu_milli };
            NodeCapacity::untouched(node_name(n), row.model.as_deref().map(Sku::from_driver), Source::Declared, total)
        };
        let frame = ClusterCapacity {
            sequence: 1,
            watermark: CommandNumber(0),
            age_ms: 0,
            fresh: true,
            nodes: there.map(node).collect(),
        };
        capacity.clusters.insert(cluster_name(cluster), frame);
    }
    capacity
}

/// A pod as a gang of one.
pub(crate) fn gang(pod: &Pod) -> Vec<GroupNeed> {
    vec![GroupNeed {
        name: GroupName::new("pod").expect("a constant name is valid"),
        count: 1,
        each: Resources { cpu_milli: pod.cpu_milli, memory_mib: pod.memory_mib, gpu_milli: pod.gpu_milli() },
        skus: if pod.devices == 0 { vec![] } else { pod.models.iter().map(|m| Sku::from_driver(m)).collect() },
        spread: Spread::None,
    }]
}

impl Policy for Tidewater<'_> {
    fn place(&mut self, _: &Fleet, pod: &Pod) -> Option<Choice> {
        let gang = gang(pod);
        self.placer.see(&gang);
        let (_, placement) = self.placer.place(&gang, Order::Alike)?;
        let node = &placement.first()?.nodes.first()?.node;
        self.node.get(node.as_str()).copied().map(Choice::on)
    }
}
