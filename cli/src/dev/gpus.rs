//! This machine's own GPUs as a node of the first cluster, measured, where there are any.

use std::path::PathBuf;
use std::time::Duration;

use agent::cluster::DeclaredNode;
use agent::node::{NodeConfig, run_once};
use protocol::ids::NodeName;
use protocol::node::DriverState;

/// This machine as a node, where NVML finds a GPU in it.
pub fn find(nvml_lib: Option<PathBuf>) -> anyhow::Result<Option<(NodeConfig, DeclaredNode)>> {
    let host = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50).collect();
    let node = NodeName::new(name.trim_matches('-')).or_else(|_| NodeName::new("this-machine"))?;
    let mut config = NodeConfig::new(node.clone(), nvml_lib.clone());
    // The cluster role calls a node stale after 5 s of silence.
    config.heartbeat = Duration::from_secs(2);
    let frame = run_once(config.clone())?;
    let found = matches!(frame.driver, DriverState::Ready { .. }) && !frame.devices.is_empty();
    if !found {
        if let (Some(path), DriverState::Missing { cause }) = (nvml_lib, &frame.driver) {
            anyhow::bail!("--nvml-lib {}: {cause}", path.display());
        }
        return Ok(None);
    }
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
    let memory_mib = rustix::system::sysinfo().totalram as u64 / (1024 * 1024);
    let declared = DeclaredNode { name: node, sku: None, devices: 0, cpu_milli: cpus * 1000, memory_mib };
    Ok(Some((config, declared)))
}
