//! What the node role reads of its GPUs and sends to its cluster's agent: only what changed, and never 0 for unknown.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::ids::{NodeName, UnixMs};
use crate::sku::Sku;

/// Where a figure of activity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum ActivitySource {
    /// GPM's SM activity (Hopper and later): the share of SMs that had work, in percent of time.
    GpmSm,
    /// `utilization.gpu`: the share of time in which any kernel ran.
    Utilization,
}

/// Activity of one GPU, measured over the last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Percent, 0 to 100.
    pub percent: u8,
    /// What was measured.
    pub source: ActivitySource,
}

/// A process that holds memory on a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct GpuProcess {
    /// Its id on the node.
    pub pid: u32,
    /// MiB that it holds; none where the driver does not say.
    pub memory_mib: Option<u64>,
}

/// Whether a GPU can be given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum DeviceHealth {
    /// Nothing is known against it.
    Ok,
    /// A fault that takes it out of the placeable capacity.
    Sick {
        /// The fault, such as `XID 79` or `uncorrectable ECC errors: 2`.
        cause: String,
    },
    /// It no longer answers; its last readings are gone, not 0.
    Lost {
        /// What NVML said.
        cause: String,
    },
}

/// Everything that is read of one GPU. `None` is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct DeviceReport {
    /// NVML's index on this node.
    pub index: u32,
    /// NVML's UUID, such as `GPU-…`.
    pub uuid: String,
    /// The model.
    pub sku: Sku,
    /// Whether MIG is on; then whole-device activity is unknown.
    pub mig: Option<bool>,
    /// Activity.
    pub activity: Option<Activity>,
    /// MiB of device memory in all.
    pub memory_total_mib: Option<u64>,
    /// MiB in use.
    pub memory_used_mib: Option<u64>,
    /// Processes on it, read every 10 s.
    pub processes: Option<Vec<GpuProcess>>,
    /// Degrees Celsius.
    pub temperature_c: Option<u32>,
    /// Milliwatts.
    pub power_mw: Option<u32>,
    /// Whether it can be given out.
    pub health: DeviceHealth,
}

impl DeviceReport {
    /// A GPU of which nothing was read yet, or is any more: what it is, and whether it can be given out.
    pub fn unread(index: u32, uuid: String, sku: Sku, health: DeviceHealth) -> Self {
        Self {
            index,
            uuid,
            sku,
            mig: None,
            activity: None,
            memory_total_mib: None,
            memory_used_mib: None,
            processes: None,
            temperature_c: None,
            power_mw: None,
            health,
        }
    }
}

/// What the node role knows of its driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum DriverState {
    /// NVML answers.
    Ready {
        /// The driver's version, such as `580.159.04`.
        version: String,
    },
    /// No NVML on this node, or it refuses; tried again with back-off.
    Missing {
        /// What was tried and what it said.
        cause: String,
    },
    /// A call has not returned for a while: readings are old, not 0.
    Stalled {
        /// The call.
        call: String,
        /// How long, in ms.
        for_ms: u64,
    },
}

/// Readings of one node: all of them first and after a reconnect, then only devices of which something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct NodeFrame {
    /// The node.
    pub node: NodeName,
    /// Grows by one a frame; a gap asks for a full frame, which may have any number.
    pub sequence: u64,
    /// Whether `devices` is all of them.
    pub full: bool,
    /// When it was measured.
    pub at: UnixMs,
    /// The driver.
    pub driver: DriverState,
    /// Devices of which something changed since the last frame.
    pub devices: Vec<DeviceReport>,
}

/// From a cluster's agent to a node, on the node's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum NodeOrder {
    /// A frame is missing: the next one is to be full, and is to come now.
    FullFrame,
}

/// Why an agent closed a node's connection, as the close code says; the reason's words come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeClosed {
    /// The certificate is no node's of this cluster.
    NotWelcome,
    /// A newer connection speaks for this node.
    Replaced,
    /// A frame was wrong.
    BadFrame,
}

impl NodeClosed {
    /// The close code.
    pub fn code(self) -> u32 {
        match self {
            NodeClosed::NotWelcome => 1,
            NodeClosed::Replaced => 2,
            NodeClosed::BadFrame => 3,
        }
    }

    /// What a close code means; none where it is none of these.
    pub fn from_code(code: u64) -> Option<Self> {
        [Self::NotWelcome, Self::Replaced, Self::BadFrame].into_iter().find(|c| u64::from(c.code()) == code)
    }
}
