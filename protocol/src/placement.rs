//! Arithmetic of placements: members of groups on nodes, added, taken away and compared. Used by the engine, which decides what an
//! attempt is to have, and by agents, which make it so. Pure.

use crate::control::{GroupPlacement, NodeShare};
use crate::ids::{GroupName, NodeName};

/// How many members a group has in all.
pub fn members(group: &GroupPlacement) -> u32 {
    group.nodes.iter().map(|share| share.members).fold(0, u32::saturating_add)
}

/// How many members all groups have.
pub fn all_members(placement: &[GroupPlacement]) -> u32 {
    placement.iter().map(members).fold(0, u32::saturating_add)
}

/// How many members a group has on a node.
pub fn on_node(placement: &[GroupPlacement], group: &GroupName, node: &NodeName) -> u32 {
    let shares = placement.iter().filter(|g| g.group == *group).flat_map(|g| &g.nodes);
    shares.filter(|share| share.node == *node).map(|share| share.members).fold(0, u32::saturating_add)
}

/// Adds members. A group that is not there yet is added as it is.
pub fn add(placement: &mut Vec<GroupPlacement>, more: &[GroupPlacement]) {
    for group in more {
        let Some(there) = placement.iter_mut().find(|g| g.group == group.group) else {
            placement.push(group.clone());
            continue;
        };
        for share in &group.nodes {
            match there.nodes.iter_mut().find(|s| s.node == share.node) {
                Some(known) => known.members = known.members.saturating_add(share.members),
                None => there.nodes.push(share.clone()),
            }
        }
    }
}

/// Takes members away; false, and nothing is taken, where some of them are not there. Groups stay, also with no members.
pub fn take(placement: &mut [GroupPlacement], less: &[GroupPlacement]) -> bool {
    let mut left = placement.to_vec();
    for group in less {
        for share in &group.nodes {
            let known = left.iter_mut().filter(|g| g.group == group.group).flat_map(|g| &mut g.nodes);
            let Some(known) = known.into_iter().find(|s| s.node == share.node) else { return false };
            let Some(rest) = known.members.checked_sub(share.members) else { return false };
            known.members = rest;
        }
    }
    left.iter_mut().for_each(|group| group.nodes.retain(|share| share.members > 0));
    placement.clone_from_slice(&left);
    true
}

/// The members that `of` has and `without` has not; only groups of which there are any.
pub fn beyond(of: &[GroupPlacement], without: &[GroupPlacement]) -> Vec<GroupPlacement> {
    let more = |group: &GroupPlacement| {
        let nodes = group.nodes.iter().filter_map(|share| {
            let members = share.members.saturating_sub(on_node(without, &group.group, &share.node));
            (members > 0).then(|| NodeShare { node: share.node.clone(), members })
        });
        GroupPlacement { nodes: nodes.collect(), ..group.clone() }
    };
    of.iter().map(more).filter(|group| !group.nodes.is_empty()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::resources::Resources;

    fn placed(group: &str, nodes: &[(&str, u32)]) -> GroupPlacement {
        let share =
            |(node, members): &(&str, u32)| NodeShare { node: NodeName::new(*node).unwrap(), members: *members };
        let nodes = nodes.iter().map(share).collect();
        GroupPlacement { group: GroupName::new(group).unwrap(), each: Resources::ZERO, sku: None, nodes }
    }

    #[test]
    fn what_was_added_can_be_taken_again_and_is_what_there_is_beyond() {
        let floor = vec![placed("head", &[("a", 1)]), placed("w", &[("a", 2), ("b", 1)])];
        let more = vec![placed("w", &[("b", 1), ("c", 2)])];
        let mut all = floor.clone();
        add(&mut all, &more);
        assert_eq!((all_members(&all), members(&all[1])), (7, 6));
        assert_eq!(beyond(&all, &floor), more);
        assert!(beyond(&floor, &all).is_empty());
        assert!(take(&mut all, &more));
        assert_eq!(all, floor);
    }

    #[test]
    fn nothing_is_taken_where_some_of_it_is_not_there() {
        let mut all = vec![placed("w", &[("a", 2)])];
        assert!(!take(&mut all, &[placed("w", &[("a", 1), ("b", 1)])]));
        assert!(!take(&mut all, &[placed("w", &[("a", 3)])]));
        assert_eq!(all, [placed("w", &[("a", 2)])]);
    }
}
