//! A placement laid out member by member: who has which rank, node and GPUs. Pure.

use std::collections::BTreeMap;

use protocol::control::LaunchOrder;
use protocol::ids::{GroupName, NodeName};
use protocol::resources::{Gpus, Resources};
use protocol::workload::is_fixed;

use super::Devices;

/// One member of a gang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its group.
    pub group: GroupName,
    /// Its index in its group, from 0.
    pub index: u32,
    /// Its index in the gang, from 0, in the placement's order.
    pub rank: u32,
    /// Its index among the gang's members on its node, from 0.
    pub local_rank: u32,
    /// Its node.
    pub node: NodeName,
    /// What it takes.
    pub each: Resources,
    /// Its GPUs' indices on the node.
    pub devices: Vec<u32>,
}

impl Member {
    /// Its name within the attempt, such as `workers-0`; a group of one fixed member, such as Ray's head, goes by its
    /// group's name alone.
    pub fn name(&self) -> String {
        match is_fixed(&self.group) {
            true => self.group.to_string(),
            false => format!("{}-{}", self.group, self.index),
        }
    }

    /// The share of its GPU that is its own, as people write it; none where it has whole ones.
    pub fn share(&self) -> Option<String> {
        (1..1000).contains(&self.each.gpu_milli).then(|| Gpus(self.each.gpu_milli).to_string())
    }

    /// Its GPUs as `CUDA_VISIBLE_DEVICES` has them; empty hides all.
    pub fn visible_devices(&self) -> String {
        visible_devices(&self.devices)
    }
}

/// Devices as `CUDA_VISIBLE_DEVICES` has them.
pub fn visible_devices<'a>(devices: impl IntoIterator<Item = &'a u32>) -> String {
    devices.into_iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// The group and the index of a worker: a member beside Ray's head and Spark's driver, counted from 0 in rank order. Members that came
/// after the order are the last group's.
pub fn worker(order: &LaunchOrder, number: u32) -> Option<(&GroupName, u32)> {
    let groups = order.placement.iter().filter(|placement| !is_fixed(&placement.group));
    let (mut index, mut found) = (number, None);
    for placement in groups {
        found = Some((&placement.group, index));
        match index.checked_sub(placement.members()) {
            Some(beyond) => index = beyond,
            None => break,
        }
    }
    found
}

/// The group and the index of a member that has a name such as `workers-0`.
pub fn of_name(name: &str) -> Option<(GroupName, u32)> {
    let (group, index) = name.rsplit_once('-')?;
    Some((GroupName::new(group).ok()?, index.parse().ok()?))
}

/// Every member, in rank order.
pub fn members(order: &LaunchOrder, devices: &Devices) -> Vec<Member> {
    let mut found: Vec<Member> = Vec::new();
    let mut on_node: BTreeMap<NodeName, u32> = BTreeMap::new();
    for placement in &order.placement {
        let mut index = 0;
        for share in &placement.nodes {
            for _ in 0..share.members {
                let local = on_node.entry(share.node.clone()).or_default();
                found.push(Member {
                    group: placement.group.clone(),
                    index,
                    rank: found.len() as u32,
                    local_rank: *local,
                    node: share.node.clone(),
                    each: placement.each,
                    devices: devices.of(&placement.group, index).to_vec(),
                });
                *local += 1;
                index += 1;
            }
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use protocol::control::{GroupPlacement, NodeShare};
    use protocol::ids::{AttemptId, AttemptNumber, Uid};

    #[test]
    fn ranks_run_through_the_gang_and_local_ranks_through_each_node() {
        let order = order(vec![group("head", &[("n1", 1)]), group("train", &[("n1", 1), ("n2", 2)])]);
        let by_group = BTreeMap::from([(GroupName::new("train").unwrap(), vec![vec![0], vec![4, 5]])]);
        let all = members(&order, &Devices { by_group });
        let seen: Vec<_> = all.iter().map(|m| (m.name(), m.rank, m.local_rank, m.visible_devices())).collect();
        let want = [("head", 0, 0, ""), ("train-0", 1, 1, "0"), ("train-1", 2, 0, "4,5"), ("train-2", 3, 1, "")];
        assert_eq!(seen, want.map(|(n, r, l, d)| (n.to_owned(), r, l, d.to_owned())));
    }

    #[test]
    fn workers_are_counted_without_the_head_and_through_all_groups() {
        let order =
            order(vec![group("head", &[("n1", 1)]), group("a", &[("n1", 1), ("n2", 1)]), group("b", &[("n1", 2)])]);
        let found = |number| worker(&order, number).map(|(group, index)| (group.to_string(), index)).unwrap();
        assert_eq!((found(0), found(1)), (("a".to_owned(), 0), ("a".to_owned(), 1)));
        assert_eq!((found(2), found(3)), (("b".to_owned(), 0), ("b".to_owned(), 1)));
        assert_eq!(found(7), ("b".to_owned(), 5), "it came later");
        assert_eq!(worker(&self::order(vec![group("head", &[("n1", 1)])]), 0), None);
    }

    fn group(name: &str, nodes: &[(&str, u32)]) -> GroupPlacement {
        let share = |(node, members): &(&str, u32)| NodeShare { node: NodeName::new(node).unwrap(), members: *members };
        let nodes = nodes.iter().map(share).collect();
        GroupPlacement { group: GroupName::new(name).unwrap(), each: Resources::ZERO, sku: None, nodes }
    }

    fn order(placement: Vec<GroupPlacement>) -> LaunchOrder {
        LaunchOrder {
            attempt: AttemptId { workload: Uid(1), number: AttemptNumber(1) },
            key: protocol::ids::WorkloadKey { namespace: "a".parse().unwrap(), name: "b".parse().unwrap() },
            spec: Default::default(),
            placement,
        }
    }
}
