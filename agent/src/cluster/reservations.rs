//! Who holds what on which node, and first-fit assignment of a launch to devices. Kept by node name rather than by row,
//! because after a restart the attempts are known before their nodes report. Used by [`super::Table`] alone.

use std::collections::BTreeMap;

use protocol::control::{GroupPlacement, LaunchOrder};
use protocol::ids::{AttemptId, NodeName};
use protocol::sku::Sku;
use protocol::workload::MAX_MEMBERS;

use super::attempt::{Assignment, MemberAssignment};

/// What one attempt holds on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub devices: Vec<u16>,
}

/// Everything that is held.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    by_node: BTreeMap<NodeName, BTreeMap<AttemptId, Hold>>,
    by_attempt: BTreeMap<AttemptId, Vec<NodeName>>,
}

impl Reservations {
    /// Enters what an assignment of this order holds; returns the nodes that it touches.
    pub fn insert(&mut self, order: &LaunchOrder, assignment: &Assignment) -> Vec<NodeName> {
        let mut nodes: BTreeMap<NodeName, Hold> = BTreeMap::new();
        for member in &assignment.members {
            let Some(placement) = order.placement.iter().find(|p| p.group == member.group) else { continue };
            let hold = nodes.entry(member.node.clone()).or_default();
            hold.cpu_milli = hold.cpu_milli.saturating_add(placement.each.cpu_milli);
            hold.memory_mib = hold.memory_mib.saturating_add(placement.each.memory_mib);
            hold.devices.extend_from_slice(&member.devices);
        }
        let names: Vec<NodeName> = nodes.keys().cloned().collect();
        for (node, hold) in nodes {
            self.by_node.entry(node).or_default().insert(order.attempt, hold);
        }
        self.by_attempt.insert(order.attempt, names.clone());
        names
    }

    /// Takes out what an attempt holds; returns the nodes that it touched.
    pub fn remove(&mut self, attempt: AttemptId) -> Vec<NodeName> {
        let nodes = self.by_attempt.remove(&attempt).unwrap_or_default();
        for node in &nodes {
            if let Some(holds) = self.by_node.get_mut(node) {
                holds.remove(&attempt);
                if holds.is_empty() {
                    self.by_node.remove(node);
                }
            }
        }
        nodes
    }

    /// What is held on a node.
    pub fn on(&self, node: &NodeName) -> impl Iterator<Item = &Hold> {
        self.by_node.get(node).into_iter().flat_map(BTreeMap::values)
    }
}

/// What a node can still take.
#[derive(Debug, Clone)]
pub(crate) struct Room<'a> {
    pub sku: Option<&'a Sku>,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Free devices, growing.
    pub devices: Vec<u16>,
    /// How many of them are given out in this assignment.
    pub taken: usize,
}

/// Finds devices for every member, lowest index first, or says with numbers what is missing. Changes nothing.
pub(crate) fn assign<'a>(
    placed: &'a [GroupPlacement],
    room: impl Fn(&NodeName) -> Option<Room<'a>>,
) -> Result<Assignment, String> {
    let asked: u64 = placed.iter().flat_map(|p| &p.nodes).map(|n| u64::from(n.members)).sum();
    if asked > u64::from(MAX_MEMBERS) {
        return Err(format!("the order has {asked} members; at most {MAX_MEMBERS} are allowed"));
    }
    let mut rooms: BTreeMap<&NodeName, Room<'a>> = BTreeMap::new();
    let mut members = Vec::new();
    for placement in placed {
        let each = &placement.each;
        let gpus = usize::try_from(each.gpus()).unwrap_or(usize::MAX);
        let mut rank = 0;
        for share in &placement.nodes {
            let node = &share.node;
            if !rooms.contains_key(node) {
                let found = room(node).ok_or_else(|| format!("node {node} is not in this cluster's table"))?;
                rooms.insert(node, found);
            }
            let left = rooms.get_mut(node).expect("it was just put in");
            if gpus > 0 && placement.sku.is_some() && placement.sku.as_ref() != left.sku {
                let has = left.sku.map_or("no GPUs", Sku::as_str);
                let wants = placement.sku.as_ref().map_or("", Sku::as_str);
                return Err(format!("node {node} has {has}, and group {} is placed on {wants}", placement.group));
            }
            for _ in 0..share.members {
                let short = |what: &str, needs: u64, has: u64| {
                    format!(
                        "node {node}: a member of group {} needs {needs} {what}, and {has} are free",
                        placement.group
                    )
                };
                let devices_left = left.devices.len() - left.taken;
                if gpus > devices_left {
                    return Err(short("GPUs", each.gpus(), devices_left as u64));
                }
                if each.cpu_milli > left.cpu_milli {
                    return Err(short("thousandths of a core", each.cpu_milli, left.cpu_milli));
                }
                if each.memory_mib > left.memory_mib {
                    return Err(short("MiB of memory", each.memory_mib, left.memory_mib));
                }
                left.cpu_milli -= each.cpu_milli;
                left.memory_mib -= each.memory_mib;
                let devices = left.devices[left.taken..left.taken + gpus].to_vec();
                left.taken += gpus;
                members.push(MemberAssignment { group: placement.group.clone(), rank, node: node.clone(), devices });
                rank += 1;
            }
        }
    }
    Ok(Assignment { members })
}
