//! The node role: reads this node's GPUs through NVML and says what changed.
//!
//! Owns NVML: one thread makes every NVML call, a second one watches it, because a call into a sick driver
//! can block for as long as it likes. Touches no socket and needs no async runtime; the frames leave through a channel, and
//! the agent's uplink and `tidewater node` take them from there.
//!
//! A reading that is not known is `None`, never 0: an idle GPU and a silent one must not look alike.
//!
//! The way of a reading: `device` asks through `nvml` and `gpm`, `health` judges, `known` keeps what outlives a driver,
//! `publish` and `changes` make frames of it; `session` is one life of the driver, `sampler` the two threads.
//!
//! [`kubelet`] is apart: where there is one, it asks whose pods have which GPUs, on its own socket and async.

pub mod changes;
mod device;
mod gpm;
pub mod health;
mod known;
pub mod kubelet;
mod nvml;
mod publish;
mod sampler;
mod session;
mod watch;

pub use nvml::OpenError;
pub use sampler::{NodeSampler, StartError, run_once};

use std::path::PathBuf;
use std::time::Duration;

use protocol::ids::NodeName;

/// How the node role reads. `NodeConfig::new` has the usual times.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// This node's name in its cluster.
    pub node: NodeName,
    /// Where `libnvidia-ml.so.1` is; none for the loader's search path.
    pub nvml_lib: Option<PathBuf>,
    /// Between two readings of activity and memory.
    pub interval: Duration,
    /// Between two looks for XIDs, which say so at once: a program that one of them ends may be over within the second.
    pub xid_interval: Duration,
    /// Between two readings of processes, temperature, power and the slow signs of health.
    pub slow_interval: Duration,
    /// How long a call may take before its driver counts as stalled.
    pub stall_after: Duration,
    /// A frame goes out at least this often, empty where nothing changed, so that whoever reads it knows that it is current.
    pub heartbeat: Duration,
    /// First and longest wait before a missing driver is tried again.
    pub driver_retry: (Duration, Duration),
    /// First and longest wait before the driver is opened again to look for a GPU that was lost.
    pub lost_retry: (Duration, Duration),
}

impl NodeConfig {
    /// Readings each second, slow ones each 10 s.
    pub fn new(node: NodeName, nvml_lib: Option<PathBuf>) -> Self {
        Self {
            node,
            nvml_lib,
            interval: Duration::from_secs(1),
            xid_interval: Duration::from_millis(200),
            slow_interval: Duration::from_secs(10),
            stall_after: Duration::from_secs(2),
            heartbeat: Duration::from_secs(10),
            driver_retry: (Duration::from_secs(1), Duration::from_secs(60)),
            lost_retry: (Duration::from_secs(10), Duration::from_secs(300)),
        }
    }
}
