//! What people and the API ask of the fleet: counts by model, nodes with their devices, a cluster's figures. Passes over
//! columns; a cluster of 10,000 nodes takes a fraction of a millisecond.

use std::collections::BTreeMap;

use protocol::api::{CapacityRow, DeviceStatus, GpuCounts, NodeStatus};
use protocol::capacity::{DeviceState, MEMORY_UNKNOWN, Source};
use protocol::control::ClusterInfo;
use protocol::ids::{ClusterName, MonotonicMs};
use protocol::resources::Resources;
use protocol::sku::Sku;

use super::Fleet;
use super::columns::Table;

/// A cluster's capacity in a few figures: the part of its status that the fleet knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFigures {
    /// How many nodes.
    pub nodes: usize,
    /// GPUs by model and by what they are doing. Devices of a node that names no model are not in it.
    pub gpus: BTreeMap<Sku, GpuCounts>,
    /// Everything that can be given out.
    pub total: Resources,
    /// What is not given out.
    pub free: Resources,
    /// Time since the last frame, in ms.
    pub age_ms: u64,
    /// Whether that is recent enough to place on.
    pub fresh: bool,
}

fn count(counts: &mut GpuCounts, states: &[DeviceState]) {
    counts.total += states.len() as u64;
    for state in states {
        *match state {
            DeviceState::Free => &mut counts.free,
            DeviceState::Held => &mut counts.held,
            DeviceState::Ghost => &mut counts.ghosts,
            DeviceState::Sick => &mut counts.sick,
        } += 1;
    }
}

/// A row of the answer and the activity seen for it.
struct Gathered {
    row: CapacityRow,
    activity: u64,
    known: u64,
}

impl Fleet {
    fn table(&self, cluster: &ClusterName) -> Option<&Table> {
        self.streams.get(cluster)?.table.as_ref()
    }

    /// A cluster's figures; none before its first snapshot.
    pub fn figures(&self, cluster: &ClusterName, now: MonotonicMs) -> Option<ClusterFigures> {
        let freshness = self.streams.get(cluster)?.freshness;
        let table = self.table(cluster)?;
        let mut figures = ClusterFigures {
            nodes: table.nodes(),
            gpus: BTreeMap::new(),
            total: Resources::ZERO,
            free: Resources::ZERO,
            age_ms: freshness.age_ms(now),
            fresh: freshness.is_fresh(now),
        };
        for row in 0..table.nodes() {
            figures.total += table.total(row);
            figures.free += table.free(row);
            if let Some(sku) = table.sku(row) {
                let counts = match figures.gpus.get_mut(sku) {
                    Some(counts) => counts,
                    None => figures.gpus.entry(sku.clone()).or_default(),
                };
                count(counts, &table.columns.device_state[table.devices_of(row)]);
            }
        }
        Some(figures)
    }

    /// Rows of `GET /capacity` for one cluster: one for each model and source. Empty before its first snapshot.
    pub fn capacity_rows(&self, info: &ClusterInfo, now: MonotonicMs) -> Vec<CapacityRow> {
        let Some(table) = self.table(&info.name) else { return vec![] };
        let age_ms = self.streams.get(&info.name).map_or(u64::MAX, |s| s.freshness.age_ms(now));
        let mut gathered: BTreeMap<(Option<&Sku>, Source), Gathered> = BTreeMap::new();
        for node in 0..table.nodes() {
            let (sku, source) = (table.sku(node), table.columns.source[node]);
            let of = gathered.entry((sku, source)).or_insert_with(|| Gathered {
                row: CapacityRow {
                    cluster: info.name.clone(),
                    region: info.region.clone(),
                    sku: sku.cloned(),
                    source,
                    nodes: 0,
                    gpus: GpuCounts::default(),
                    free_cpu_milli: 0,
                    free_memory_mib: 0,
                    activity_percent: None,
                    age_ms,
                    price_milli: info.prices.iter().find(|p| Some(&p.sku) == sku).map(|p| p.milli_per_gpu_hour),
                },
                activity: 0,
                known: 0,
            });
            let devices = table.devices_of(node);
            of.row.nodes += 1;
            count(&mut of.row.gpus, &table.columns.device_state[devices.clone()]);
            of.row.free_cpu_milli = of.row.free_cpu_milli.saturating_add(table.columns.free_cpu_milli[node]);
            of.row.free_memory_mib = of.row.free_memory_mib.saturating_add(table.columns.free_memory_mib[node]);
            for activity in table.columns.activity[devices].iter().filter(|a| **a <= 100) {
                of.activity += u64::from(*activity);
                of.known += 1;
            }
        }
        let finish = |mut of: Gathered| {
            of.row.activity_percent = of.activity.checked_div(of.known).and_then(|p| u8::try_from(p).ok());
            of.row
        };
        gathered.into_values().map(finish).collect()
    }

    /// The first `limit` nodes of a cluster with their devices. Empty before its first snapshot.
    pub fn nodes(&self, cluster: &ClusterName, limit: usize) -> Vec<NodeStatus> {
        let Some(table) = self.table(cluster) else { return vec![] };
        let columns = &table.columns;
        let device = |at: usize| DeviceStatus {
            state: columns.device_state[at],
            activity_percent: Some(columns.activity[at]).filter(|a| *a <= 100),
            memory_used_mib: Some(columns.memory_used_mib[at]).filter(|m| *m != MEMORY_UNKNOWN),
        };
        let node = |row: usize| NodeStatus {
            name: columns.name[row].clone(),
            sku: table.sku(row).cloned(),
            state: columns.state[row],
            source: columns.source[row],
            devices: table.devices_of(row).map(device).collect(),
            free: table.free(row),
            total: table.total(row),
        };
        (0..table.nodes().min(limit)).map(node).collect()
    }
}

impl crate::handle::NodeSource for Fleet {
    fn nodes(&self, cluster: &ClusterName) -> Vec<NodeStatus> {
        Fleet::nodes(self, cluster, usize::MAX)
    }

    fn first_nodes(&self, cluster: &ClusterName, limit: usize) -> Vec<NodeStatus> {
        Fleet::nodes(self, cluster, limit)
    }
}
