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
    /// The UUIDs of its MIG devices, such as `MIG-…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<String>,
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
    /// The errors that its driver told of.
    #[serde(default, skip_serializing_if = "Xids::is_empty")]
    pub xids: Xids,
}

/// XIDs of one GPU (NVIDIA's Xid catalog), since its node role began to listen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Xids {
    /// How many there were.
    pub count: u64,
    /// The last of them, the newest last; at most [`Xids::KEPT`].
    pub last: Vec<u64>,
}

impl Xids {
    /// How many are kept.
    pub const KEPT: usize = 8;

    /// None were told of.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// One more.
    pub fn add(&mut self, xid: u64) {
        self.count += 1;
        if self.last.len() >= Self::KEPT {
            self.last.remove(0);
        }
        self.last.push(xid);
    }

    /// Those that came after the first so many, as far as they are kept; all of them where there were never so many: a node role that
    /// was started again counts anew.
    pub fn after(&self, count: u64) -> &[u64] {
        let new = self.count.checked_sub(count).unwrap_or(self.count);
        let new = usize::try_from(new).unwrap_or(usize::MAX).min(self.last.len());
        &self.last[self.last.len() - new..]
    }
}

impl DeviceReport {
    /// A GPU of which nothing was read yet, or is any more: what it is, and whether it can be given out.
    pub fn unread(index: u32, uuid: String, sku: Sku, health: DeviceHealth) -> Self {
        Self {
            index,
            uuid,
            sku,
            mig: None,
            slices: vec![],
            activity: None,
            memory_total_mib: None,
            memory_used_mib: None,
            processes: None,
            temperature_c: None,
            power_mw: None,
            health,
            xids: Xids::default(),
        }
    }
}

/// The most devices that pods of a node can have: each GPU may be shared by many.
pub const MAX_HELD: usize = 8192;

/// The devices that a kubelet gave to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct PodDevices {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Devices as their plugin names them: `GPU-…`, `MIG-…`, or `GPU-…::3` for the fourth part of one that is shared.
    pub devices: Vec<String>,
}

/// Whose pods have which GPUs, by the node's kubelet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum Holders {
    /// The kubelet does not say.
    Unknown {
        /// What went wrong.
        cause: String,
    },
    /// Every container that has some.
    Known {
        /// In order of namespace, pod and container.
        pods: Vec<PodDevices>,
    },
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
    /// Whose pods have which devices, where it changed; in a full frame none means that nobody asks the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Holders>,
}

/// What a node without a certificate shows of itself before it may say anything else, and again before that expires, each on a stream of its
/// own: the token that its kubelet projects into its pod.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeToken {
    /// The token, as it stands in its file.
    pub token: String,
}

impl std::fmt::Debug for NodeToken {
    /// It opens doors, so that no log gets it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeToken")
    }
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
    /// The certificate or token is no node's of this cluster.
    NotWelcome,
    /// A newer connection speaks for this node.
    Replaced,
    /// A frame was wrong.
    BadFrame,
    /// Who it is could not be found out at the moment.
    NotNow,
    /// Its token's time is over.
    Expired,
}

impl NodeClosed {
    /// The close code.
    pub fn code(self) -> u32 {
        match self {
            NodeClosed::NotWelcome => 1,
            NodeClosed::Replaced => 2,
            NodeClosed::BadFrame => 3,
            NodeClosed::NotNow => 4,
            NodeClosed::Expired => 5,
        }
    }

    /// What a close code means; none where it is none of these.
    pub fn from_code(code: u64) -> Option<Self> {
        let all = [Self::NotWelcome, Self::Replaced, Self::BadFrame, Self::NotNow, Self::Expired];
        all.into_iter().find(|c| u64::from(c.code()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_xids_are_kept_and_all_are_counted() {
        let mut xids = Xids::default();
        assert!(xids.is_empty() && xids.after(0).is_empty() && xids.after(3).is_empty());
        (1..=10).for_each(|xid| xids.add(xid));
        assert_eq!((xids.count, &xids.last[..]), (10, &[3, 4, 5, 6, 7, 8, 9, 10][..]));
        assert_eq!(xids.after(10), &[] as &[u64]);
        assert_eq!(xids.after(8), [9, 10]);
        assert_eq!(xids.after(0).len(), Xids::KEPT, "older ones are gone");
        // They were counted anew.
        assert_eq!(xids.after(11).len(), Xids::KEPT);
        // A sender's count is not to be trusted.
        assert_eq!(Xids { count: u64::MAX, last: vec![] }.after(0), &[] as &[u64]);
    }
}
