//! Capacity as the planner reads it: soft state that the coordinator keeps from the agents' frames, never in the log.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use protocol::capacity::{NodeState, Sharing, Source};
use protocol::ids::{ClusterName, CommandNumber, NodeName};
use protocol::resources::Resources;
use protocol::sku::Sku;

/// All clusters' capacity at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// By cluster. A cluster that has joined but is not here has sent no frame yet.
    pub clusters: BTreeMap<ClusterName, ClusterCapacity>,
}

/// One cluster's capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCapacity {
    /// The last frame's number.
    pub sequence: u64,
    /// The highest command whose effect the nodes' free figures include. Live attempts with a launch above it are not in
    /// them and are subtracted by the planner.
    pub watermark: CommandNumber,
    /// Time since the last frame, in ms.
    pub age_ms: u64,
    /// Whether the last frame is recent enough to place on.
    pub fresh: bool,
    /// The nodes, by row.
    pub nodes: Nodes,
}

/// A cluster's nodes, by row. Read and changed as a vector; what reads them again ([`Nodes::as_now`]) can tell whether anybody did
/// change them, for no change goes unseen: it gives them another address.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Nodes(Arc<Vec<NodeCapacity>>);

/// Stands for nodes as they were at one time.
#[derive(Debug, Clone)]
pub(crate) struct AsThen(Weak<Vec<NodeCapacity>>);

impl Nodes {
    /// What tells later whether these are the nodes as they are now.
    pub(crate) fn as_now(&self) -> AsThen {
        AsThen(Arc::downgrade(&self.0))
    }
}

impl AsThen {
    /// Whether nothing changed these nodes since: surely, if it says so.
    ///
    /// While this is there, `Arc::make_mut` moves the nodes to another address before it lets them be changed, and no other nodes can
    /// come to the address that they had.
    pub(crate) fn are(&self, nodes: &Nodes) -> bool {
        self.0.as_ptr() == Arc::as_ptr(&nodes.0)
    }
}

impl Deref for Nodes {
    type Target = Vec<NodeCapacity>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Vec<NodeCapacity>> for Nodes {
    fn from(nodes: Vec<NodeCapacity>) -> Self {
        Self(Arc::new(nodes))
    }
}

impl FromIterator<NodeCapacity> for Nodes {
    fn from_iter<I: IntoIterator<Item = NodeCapacity>>(nodes: I) -> Self {
        Vec::from_iter(nodes).into()
    }
}

impl<'n> IntoIterator for &'n Nodes {
    type Item = &'n NodeCapacity;
    type IntoIter = std::slice::Iter<'n, NodeCapacity>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'n> IntoIterator for &'n mut Nodes {
    type Item = &'n mut NodeCapacity;
    type IntoIter = std::slice::IterMut<'n, NodeCapacity>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// One node's capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCapacity {
    /// Its name.
    pub name: NodeName,
    /// Its GPU model.
    pub sku: Option<Sku>,
    /// Whether it takes members.
    pub state: NodeState,
    /// Where its devices come from.
    pub source: Source,
    /// How they are given out.
    pub sharing: Sharing,
    /// What can be given out in all.
    pub total: Resources,
    /// What is not given out; devices that are held, ghosts, sick or foreign are not in it.
    pub free: Resources,
    /// What is left of each device that is partly given out, in thousandths; all of them are counted in `free` too.
    pub shares: Vec<u16>,
    /// Devices on which something unaccounted for holds memory.
    pub ghosts: u16,
    /// Devices with a fault.
    pub sick: u16,
    /// Devices that Kubernetes gave to pods of no attempt here.
    pub foreign: u16,
    /// Mean activity of its devices in percent, where any is known.
    pub activity_percent: Option<u8>,
    /// The activity in percent of all devices that attempts hold, added up; none unless there are such and that of
    /// each of them is measured.
    pub held_activity: Option<u32>,
}

impl NodeCapacity {
    /// Devices of which nothing is given out.
    pub fn whole_devices(&self) -> u64 {
        let shared: u64 = self.shares.iter().map(|left| u64::from(*left)).sum();
        self.free.gpu_milli.saturating_sub(shared) / 1000
    }

    /// A node on which nothing runs and nothing is wrong, and whose devices are given out whole or in any shares.
    pub fn untouched(name: NodeName, sku: Option<Sku>, source: Source, total: Resources) -> Self {
        Self {
            name,
            sku,
            state: NodeState::Ready,
            source,
            sharing: Sharing::Any,
            total,
            free: total,
            shares: vec![],
            ghosts: 0,
            sick: 0,
            foreign: 0,
            activity_percent: None,
            held_activity: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeCapacity {
        NodeCapacity::untouched(NodeName::new(name).unwrap(), None, Source::Declared, Resources::ZERO)
    }

    #[test]
    fn a_change_of_nodes_never_goes_unseen() {
        let mut nodes = Nodes::from(vec![node("a"), node("b")]);
        let first = nodes.as_now();
        assert!(first.are(&nodes) && first.are(&nodes.clone()));
        assert!(!first.are(&nodes.iter().cloned().collect()), "others that are equal are not known to be");
        let mut other = nodes.clone();
        other[0].ghosts = 1;
        assert!(first.are(&nodes) && !first.are(&other), "only the copy was changed");
        nodes[0].ghosts = 1;
        assert!(!first.are(&nodes));
        let second = nodes.as_now();
        nodes[0].ghosts = 0;
        assert!(!second.are(&nodes) && !first.are(&nodes), "nor is one that was changed back known");
        // Others may come to an address that is free: not while somebody remembers it.
        let last = nodes.as_now();
        drop(nodes);
        assert!((0..1000).all(|_| !last.are(&Nodes::from(vec![node("a"), node("b")]))));
    }
}
