//! Clusters and nodes as tables.

use protocol::api::{ClusterObject, GpuCounts, NodeStatus};
use protocol::capacity::{DeviceState, NodeState};
use protocol::resources::{Cpu, Memory};

use super::table::{Table, Tone, cell, known, phase, trouble};
use super::{Out, age, capacity};

/// Clusters as a table.
pub fn list(clusters: &[ClusterObject], out: &Out) -> String {
    let mut columns = vec!["NAME", "PHASE", "REGION", "#NODES", "MODELS", "#GPUS", "#FREE", "#RUNNING", "#AGE"];
    if out.wide() {
        columns.extend(["#GHOSTS", "#SICK", "#OTHERS", "#FREE CPU", "#FREE MEMORY", "FRAMEWORKS"]);
    }
    let mut table = Table::new(&columns);
    clusters.iter().for_each(|cluster| table.row(row(cluster, out.wide())));
    if table.is_empty() {
        return "No cluster has joined yet.\n".into();
    }
    let cordons = clusters.iter().filter_map(|cluster| cluster.status.cordon.as_ref());
    table.text(out) + &lines(cordons.map(|cordon| cordon.message.as_str()))
}

/// Remarks below a table.
pub fn lines<'a>(remarks: impl Iterator<Item = &'a str>) -> String {
    let all: String = remarks.map(|remark| format!("{remark}\n")).collect();
    if all.is_empty() { all } else { format!("\n{all}") }
}

fn row(cluster: &ClusterObject, wide: bool) -> Vec<(String, Tone)> {
    let status = &cluster.status;
    let all = status.gpus.values().fold(GpuCounts::default(), |sum, n| GpuCounts {
        total: sum.total + n.total,
        free: sum.free + n.free,
        held: sum.held + n.held,
        ghosts: sum.ghosts + n.ghosts,
        sick: sum.sick + n.sick,
        foreign: sum.foreign + n.foreign,
    });
    let models: Vec<String> = status.gpus.keys().map(ToString::to_string).collect();
    let mut cells = vec![
        cell(&cluster.metadata.name),
        phase(&status.phase),
        cell(&status.region),
        cell(status.nodes),
        known(Some(models.join(",")).filter(|m| !m.is_empty())),
        cell(all.total),
        cell(all.free),
        cell(status.running),
        known(status.age_ms.map(age::span_ms)),
    ];
    if wide {
        let frameworks: Vec<String> = status.frameworks.iter().map(ToString::to_string).collect();
        cells.extend([
            trouble(all.ghosts),
            trouble(all.sick),
            cell(all.foreign),
            cell(Cpu(status.free.cpu_milli)),
            cell(Memory(status.free.memory_mib)),
            cell(frameworks.join(",")),
        ]);
    }
    cells
}

/// Nodes of a cluster as a table.
pub fn nodes(nodes: &[NodeStatus], out: &Out) -> String {
    let mut columns =
        vec!["NODE", "STATE", "GPU", "#GPUS", "#FREE", "#HELD", "#GHOSTS", "#SICK", "#OTHERS", "ACTIVITY", "SOURCE"];
    if out.wide() {
        columns.extend(["#CPU", "#FREE CPU", "#MEMORY", "#FREE MEMORY"]);
    }
    let mut table = Table::new(&columns);
    nodes.iter().for_each(|node| table.row(node_row(node, out.wide())));
    if table.is_empty() { "It has no nodes.\n".into() } else { table.text(out) }
}

fn node_row(node: &NodeStatus, wide: bool) -> Vec<(String, Tone)> {
    let count = |state: DeviceState| node.devices.iter().filter(|d| d.state == state).count() as u64;
    let activity: Vec<String> = node
        .devices
        .iter()
        .map(|device| device.activity_percent.map_or("?".to_owned(), |percent| format!("{percent}%")))
        .collect();
    let mut cells = vec![
        cell(&node.name),
        state(node.state),
        known(node.sku.as_ref()),
        cell(node.devices.len()),
        cell(count(DeviceState::Free)),
        cell(count(DeviceState::Held)),
        trouble(count(DeviceState::Ghost)),
        trouble(count(DeviceState::Sick)),
        cell(count(DeviceState::Foreign)),
        known(Some(activity.join(" ")).filter(|a| !a.is_empty())),
        cell(capacity::source(node.source)),
    ];
    if wide {
        cells.extend([
            cell(Cpu(node.total.cpu_milli)),
            cell(Cpu(node.free.cpu_milli)),
            cell(Memory(node.total.memory_mib)),
            cell(Memory(node.free.memory_mib)),
        ]);
    }
    cells
}

fn state(state: NodeState) -> (String, Tone) {
    match state {
        NodeState::Ready => ("Ready".into(), Tone::Good),
        NodeState::Cordoned => ("Cordoned".into(), Tone::Pending),
        NodeState::Stale => ("Stale".into(), Tone::Bad),
    }
}
