//! Lists of nodes and pods as Alibaba's GPU cluster trace of 2023 has them (clusterdata, `cluster-trace-gpu-v2023`), and as lists of
//! one's own may: the columns named here in any order, others are left alone.

use super::csv::{BadTrace, Table};
use crate::fleet::{DEVICE, NodeRow, Pod};

/// The columns of a list of nodes.
pub(super) const NODE_COLUMNS: &[&str] = &["sn", "cpu_milli", "memory_mib", "gpu", "model"];
/// The columns of a list of pods; `gpu_spec` may be there too.
pub(super) const POD_COLUMNS: &[&str] = &["name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"];
/// Above any amount of a machine, and far from overflow when many are summed.
const MOST: u64 = 1_000_000_000_000;
/// The most devices of a node.
const MOST_DEVICES: u64 = 1024;

/// Reads a list of nodes.
pub fn nodes(table: &Table) -> Result<Vec<NodeRow>, BadTrace> {
    if NODE_COLUMNS.iter().any(|c| table.column(c).is_none()) {
        return Err(table.bad_header(&format!("the columns of nodes: {}", NODE_COLUMNS.join(","))));
    }
    let node = |row: super::csv::Row<'_>| {
        let devices = row.number("gpu", 0, MOST_DEVICES, "devices")? as u16;
        let model = row.text("model");
        if devices > 0 && model.is_empty() {
            return Err(row.bad("model", "a GPU model, for the node has GPUs"));
        }
        Ok(NodeRow {
            name: row.text("sn").to_owned(),
            model: (devices > 0).then(|| model.to_owned()),
            cpu_milli: row.number("cpu_milli", 0, MOST, "thousandths of a core")?,
            memory_mib: row.number("memory_mib", 0, MOST, "MiB")?,
            devices,
            cluster: Some(row.text("cluster").to_owned()).filter(|c| !c.is_empty()),
        })
    };
    table.rows().map(node).collect()
}

/// Reads a list of pods.
pub fn pods(table: &Table) -> Result<Vec<Pod>, BadTrace> {
    if POD_COLUMNS.iter().any(|c| table.column(c).is_none()) {
        return Err(table.bad_header(&format!("the columns of pods: {}", POD_COLUMNS.join(","))));
    }
    let pod = |row: super::csv::Row<'_>| {
        let devices = row.number("num_gpu", 0, MOST_DEVICES, "devices")? as u16;
        let least = u64::from(devices > 0);
        let milli = row.number("gpu_milli", least, u64::from(DEVICE), "thousandths of a device")? as u16;
        if devices > 1 && milli < DEVICE {
            return Err(row.bad("gpu_milli", "1000, for num_gpu is above 1 and a share sits on one device"));
        }
        let models = row.text("gpu_spec").split('|').filter(|m| !m.is_empty() && devices > 0);
        Ok(Pod {
            cpu_milli: row.number("cpu_milli", 0, MOST, "thousandths of a core")?,
            memory_mib: row.number("memory_mib", 0, MOST, "MiB")?,
            devices,
            milli: if devices == 0 { 0 } else { milli },
            models: models.map(str::to_owned).collect(),
        })
    };
    table.rows().map(pod).collect()
}
