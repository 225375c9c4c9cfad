//! What people and the API ask of the fleet beyond the planner's view: nodes with their devices one by one.

use protocol::api::{DeviceStatus, NodeStatus};
use protocol::capacity::MEMORY_UNKNOWN;
use protocol::ids::ClusterName;

use super::Fleet;
use super::columns::Table;

impl Fleet {
    fn table(&self, cluster: &ClusterName) -> Option<&Table> {
        self.streams.get(cluster)?.table.as_ref()
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
            sharing: columns.sharing[row],
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
