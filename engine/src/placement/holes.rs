//! The free room of one cluster's nodes, by class: nodes with the same model and the same free devices, cpu and memory are
//! alike, so that a search looks at classes and not at nodes. Taking room moves a node to another class; every taking can be
//! undone.

use std::collections::{BTreeMap, BTreeSet};

use protocol::resources::Resources;

/// A model of the cluster, by its place in the cluster's sorted list; none for nodes without GPUs.
pub(crate) type SkuId = Option<u16>;

/// What makes nodes alike. The order is the packing order: nodes without GPUs first, then the fullest that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) sku: SkuId,
    pub(crate) gpu_milli: u64,
    pub(crate) cpu_milli: u64,
    pub(crate) memory_mib: u64,
}

impl Class {
    fn of(sku: SkuId, free: &Resources) -> Self {
        Self { sku, gpu_milli: free.gpu_milli, cpu_milli: free.cpu_milli, memory_mib: free.memory_mib }
    }

    pub(crate) fn free(&self) -> Resources {
        Resources { cpu_milli: self.cpu_milli, memory_mib: self.memory_mib, gpu_milli: self.gpu_milli }
    }
}

/// How many members of this size one node's free room holds. A member that needs whole devices gets them from one node.
pub(crate) fn members_in(free: &Resources, each: &Resources) -> u64 {
    let ratio = |have: u64, need: u64| have.checked_div(need).unwrap_or(u64::MAX);
    ratio(free.cpu_milli, each.cpu_milli)
        .min(ratio(free.memory_mib, each.memory_mib))
        .min(ratio(free.gpu_milli, each.gpu_milli))
}

/// One taking, for undoing it.
#[derive(Debug, Clone, Copy)]
struct Taken {
    node: u32,
    before: Resources,
}

/// The free room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holes {
    sku: Vec<SkuId>,
    free: Vec<Resources>,
    classes: BTreeMap<Class, BTreeSet<u32>>,
    log: Vec<Taken>,
}

impl Holes {
    /// The room of these nodes; one without room in it, such as one that takes no members, is none.
    pub(crate) fn new(nodes: impl IntoIterator<Item = (SkuId, Option<Resources>)>) -> Self {
        let mut holes = Self::default();
        for (node, (sku, free)) in (0u32..).zip(nodes) {
            holes.sku.push(sku);
            holes.free.push(free.unwrap_or(Resources::ZERO));
            if let Some(free) = free {
                holes.classes.entry(Class::of(sku, &free)).or_default().insert(node);
            }
        }
        holes
    }

    /// The classes in packing order, each with how many nodes it has.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (Class, u64)> + '_ {
        self.classes.iter().map(|(class, nodes)| (*class, nodes.len() as u64))
    }

    /// How many classes there are.
    pub(crate) fn len(&self) -> u64 {
        self.classes.len() as u64
    }

    /// The first node of a class.
    pub(crate) fn first(&self, class: &Class) -> Option<u32> {
        self.classes.get(class).and_then(|nodes| nodes.first().copied())
    }

    /// What is free on a node.
    pub(crate) fn free(&self, node: u32) -> Resources {
        self.free[node as usize]
    }

    /// Takes room for members on a node. The caller has seen that they fit.
    pub(crate) fn take(&mut self, node: u32, each: &Resources, members: u64) {
        let before = self.free[node as usize];
        debug_assert!(each.times(members).fits_in(&before), "more is taken than is free");
        self.log.push(Taken { node, before });
        self.set(node, before.saturating_sub(&each.times(members)));
    }

    /// Makes room of members on a node free again, as far as the caller knows that it is theirs.
    pub(crate) fn give(&mut self, node: u32, each: &Resources, members: u64) {
        let before = self.free[node as usize];
        self.log.push(Taken { node, before });
        self.set(node, before + each.times(members));
    }

    /// Where undoing can come back to.
    pub(crate) fn mark(&self) -> usize {
        self.log.len()
    }

    /// Undoes every taking since the mark.
    pub(crate) fn undo_to(&mut self, mark: usize) {
        while self.log.len() > mark {
            let Some(taken) = self.log.pop() else { return };
            self.set(taken.node, taken.before);
        }
    }

    fn set(&mut self, node: u32, free: Resources) {
        let sku = self.sku[node as usize];
        let old = Class::of(sku, &self.free[node as usize]);
        if let Some(nodes) = self.classes.get_mut(&old) {
            nodes.remove(&node);
            if nodes.is_empty() {
                self.classes.remove(&old);
            }
        }
        self.free[node as usize] = free;
        self.classes.entry(Class::of(sku, &free)).or_default().insert(node);
    }
}
