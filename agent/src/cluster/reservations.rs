//! Who holds what on which node, and the assignment of a launch to devices. Kept by node name rather than by row, because
//! after a restart the attempts are known before their nodes report. Used by [`super::Table`] alone.
//!
//! Whole devices are given out lowest index first. A share of a GPU goes to the fullest device that still holds it, and opens
//! a new one last; groups take theirs in packing order. Where devices are in parts, a share is one of them, however small it is. The planner counts by the same rule (`placement/devices.rs` of the
//! engine), so that its books and this table agree without a device in any order.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::Sharing;
use protocol::control::{GroupPlacement, LaunchOrder};
use protocol::ids::{AttemptId, NodeName};
use protocol::resources::{Gpus, packing_order};
use protocol::sku::Sku;
use protocol::workload::MAX_MEMBERS;

use super::attempt::{Assignment, MemberAssignment};

/// Thousandths of a whole device.
pub(crate) const WHOLE_MILLI: u16 = 1000;

/// What one attempt holds on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hold {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Devices, each with the thousandths of it.
    pub devices: Vec<(u16, u16)>,
}

/// The share of one device that a member asks for; none where it asks for whole ones, or for nothing.
fn share(gpu_milli: u64) -> Option<u16> {
    u16::try_from(gpu_milli).ok().filter(|milli| (1..WHOLE_MILLI).contains(milli))
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
            let each = share(placement.each.gpu_milli).unwrap_or(WHOLE_MILLI);
            hold.devices.extend(member.devices.iter().map(|device| (*device, each)));
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

    /// Whether an attempt holds anything.
    pub fn has(&self, attempt: AttemptId) -> bool {
        self.by_attempt.contains_key(&attempt)
    }

    /// What is held on a node, by attempt.
    pub fn on(&self, node: &NodeName) -> impl Iterator<Item = (&AttemptId, &Hold)> {
        self.by_node.get(node).into_iter().flatten()
    }
}

/// What a node can still take.
#[derive(Debug, Clone)]
pub(crate) struct Room<'a> {
    pub sku: Option<&'a Sku>,
    /// How its devices are given out.
    pub sharing: Sharing,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Free devices, growing.
    pub devices: Vec<u16>,
    /// What is left of devices that shares hold a part of, each with its device.
    pub shared: BTreeSet<(u16, u16)>,
}

impl Room<'_> {
    /// Gives a member its devices; how many there are where there are too few.
    fn give(&mut self, gpu_milli: u64) -> Result<Vec<u16>, u64> {
        if let Some(share) = self.sharing.takes(gpu_milli).and_then(share) {
            let (left, device) = match self.shared.range((share, 0)..).next().copied() {
                Some(tightest) => {
                    self.shared.remove(&tightest);
                    (tightest.0 - share, tightest.1)
                }
                None if self.devices.is_empty() => return Err(0),
                None => (self.sharing.left_after_first(share), self.devices.remove(0)),
            };
            if left > 0 {
                self.shared.insert((left, device));
            }
            return Ok(vec![device]);
        }
        let whole = usize::try_from(gpu_milli.div_ceil(u64::from(WHOLE_MILLI))).unwrap_or(usize::MAX);
        if whole > self.devices.len() {
            return Err(self.devices.len() as u64);
        }
        Ok(self.devices.drain(..whole).collect())
    }
}

/// Finds devices for every member, or says with numbers what is missing. Changes nothing.
pub(crate) fn assign<'a>(
    placed: &'a [GroupPlacement],
    room: impl Fn(&NodeName) -> Option<Room<'a>>,
) -> Result<Assignment, String> {
    let asked: u64 = placed.iter().flat_map(|p| &p.nodes).map(|n| u64::from(n.members)).sum();
    if asked > u64::from(MAX_MEMBERS) {
        return Err(format!("the order has {asked} members; at most {MAX_MEMBERS} are allowed"));
    }
    let mut rooms: BTreeMap<&NodeName, Room<'a>> = BTreeMap::new();
    let mut groups: Vec<Vec<MemberAssignment>> = vec![vec![]; placed.len()];
    for g in packing_order(placed.iter().map(|p| p.each)) {
        groups[g] = assign_group(&placed[g], &mut rooms, &room)?;
    }
    Ok(Assignment { members: groups.into_iter().flatten().collect() })
}

fn assign_group<'a>(
    placement: &'a GroupPlacement,
    rooms: &mut BTreeMap<&'a NodeName, Room<'a>>,
    room: &impl Fn(&NodeName) -> Option<Room<'a>>,
) -> Result<Vec<MemberAssignment>, String> {
    let each = &placement.each;
    let mut members = vec![];
    for on in &placement.nodes {
        let node = &on.node;
        if !rooms.contains_key(node) {
            let found = room(node).ok_or_else(|| format!("node {node} is not in this cluster's table"))?;
            rooms.insert(node, found);
        }
        let left = rooms.get_mut(node).expect("it was just put in");
        if each.gpu_milli > 0 && placement.sku.is_some() && placement.sku.as_ref() != left.sku {
            let has = left.sku.map_or("no GPUs", Sku::as_str);
            let wants = placement.sku.as_ref().map_or("", Sku::as_str);
            return Err(format!("node {node} has {has}, and group {} is placed on {wants}", placement.group));
        }
        if left.sharing.takes(each.gpu_milli).is_none() {
            let (group, asked) = (&placement.group, Gpus(each.gpu_milli));
            let given = match left.sharing {
                Sharing::Parts(parts) => format!("in {parts} parts each"),
                Sharing::Any | Sharing::Whole => "whole".to_owned(),
            };
            return Err(format!("node {node} gives out its GPUs {given}, and a member of group {group} needs {asked}"));
        }
        for _ in 0..on.members {
            let short = |what: &str, needs: String, has: u64| {
                let group = &placement.group;
                format!("node {node}: a member of group {group} needs {needs} {what}, and {has} are free")
            };
            if each.cpu_milli > left.cpu_milli {
                return Err(short("thousandths of a core", each.cpu_milli.to_string(), left.cpu_milli));
            }
            if each.memory_mib > left.memory_mib {
                return Err(short("MiB of memory", each.memory_mib.to_string(), left.memory_mib));
            }
            let gpus = Gpus(each.gpu_milli).to_string();
            let devices = left.give(each.gpu_milli).map_err(|has| short("GPUs", gpus, has))?;
            left.cpu_milli -= each.cpu_milli;
            left.memory_mib -= each.memory_mib;
            let (group, rank) = (placement.group.clone(), u32::try_from(members.len()).unwrap_or(u32::MAX));
            members.push(MemberAssignment { group, rank, node: node.clone(), devices });
        }
    }
    Ok(members)
}
