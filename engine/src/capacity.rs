//! Capacity as the planner reads it: soft state that the coordinator keeps from the agents' frames, never in the log.

use std::collections::BTreeMap;

use protocol::capacity::{NodeState, Sharing, Source};
use protocol::ids::{ClusterName, CommandNumber, NodeName};
use protocol::resources::Resources;
use protocol::sku::Sku;

/// All clusters' capacity at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// By cluster. A cluster that has joined but is not here has sent no frame yet.
    pub clusters: BTreeMap<ClusterName, ClusterCapacity>,
}

/// One cluster's capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCapacity {
    /// The last frame's number.
    pub sequence: u64,
    /// The highest command whose effect the nodes' free figures include. Live attempts with a launch above it are not in
    /// them and are subtracted by the planner.
    pub watermark: CommandNumber,
    /// Time since the last frame, in ms.
    pub age_ms: u64,
    /// Whether the last frame is recent enough to place on.
    pub fresh: bool,
    /// The nodes, by row.
    pub nodes: Vec<NodeCapacity>,
}

/// One node's capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCapacity {
    /// Its name.
    pub name: NodeName,
    /// Its GPU model.
    pub sku: Option<Sku>,
    /// Whether it takes members.
    pub state: NodeState,
    /// Where its devices come from.
    pub source: Source,
    /// How they are given out.
    pub sharing: Sharing,
    /// What can be given out in all.
    pub total: Resources,
    /// What is not given out; devices that are held, ghosts, sick or foreign are not in it.
    pub free: Resources,
    /// What is left of each device that is partly given out, in thousandths; all of them are counted in `free` too.
    pub shares: Vec<u16>,
    /// Devices on which something unaccounted for holds memory.
    pub ghosts: u16,
    /// Devices with a fault.
    pub sick: u16,
    /// Devices that Kubernetes gave to pods of no attempt here.
    pub foreign: u16,
    /// Mean activity of its devices in percent, where any is known.
    pub activity_percent: Option<u8>,
    /// The activity in percent of all devices that attempts hold, added up; none unless there are such and that of
    /// each of them is measured.
    pub held_activity: Option<u32>,
}

impl NodeCapacity {
    /// Devices of which nothing is given out.
    pub fn whole_devices(&self) -> u64 {
        let shared: u64 = self.shares.iter().map(|left| u64::from(*left)).sum();
        self.free.gpu_milli.saturating_sub(shared) / 1000
    }

    /// A node on which nothing runs and nothing is wrong, and whose devices are given out whole or in any shares.
    pub fn untouched(name: NodeName, sku: Option<Sku>, source: Source, total: Resources) -> Self {
        Self {
            name,
            sku,
            state: NodeState::Ready,
            source,
            sharing: Sharing::Any,
            total,
            free: total,
            shares: vec![],
            ghosts: 0,
            sick: 0,
            foreign: 0,
            activity_percent: None,
            held_activity: None,
        }
    }
}
