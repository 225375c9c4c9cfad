//! The free room of one cluster's nodes, by class: nodes with the same model and the same free devices, shares, cpu and memory
//! are alike, so that a search looks at classes and not at nodes. Taking room moves a node to another class; every taking can
//! be undone.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::Sharing;
use protocol::resources::Resources;

use super::devices::Free;

/// A model of the cluster, by its place in the cluster's sorted list; none for nodes without GPUs.
pub(crate) type SkuId = Option<u16>;

/// What makes nodes alike. The order is the packing order: nodes without GPUs first, then the fullest that will do. Taking
/// room makes a node's class smaller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) sku: SkuId,
    gpu_milli: u64,
    cpu_milli: u64,
    memory_mib: u64,
    shares: Vec<u16>,
    sharing: Sharing,
    kept: Option<KeptFor>,
}

/// A waiting gang that a node is kept for, by its number in a plan; or one of the marks below, during one workload's turn.
pub(crate) type KeptFor = u16;
/// The mark of a node on which nobody failed is none; that of one on which the workload failed so and so often is so much more than
/// this: kept for nobody, and taken last. No gang has so high a number.
const FAILED: KeptFor = 1 << 15;
/// The mark of a node that is not taken.
pub(crate) const AVOIDED: KeptFor = KeptFor::MAX;

/// The mark of a node that is taken after those with fewer failures.
pub(crate) fn taken_last(failures: u32) -> KeptFor {
    FAILED + KeptFor::try_from(failures.min(1000)).unwrap_or(0)
}

/// For whom a node with this mark is kept: a gang, or nobody at all ([`AVOIDED`]).
fn keeper(mark: Option<KeptFor>) -> Option<KeptFor> {
    mark.filter(|mark| *mark < FAILED || *mark == AVOIDED)
}

impl Class {
    fn of(sku: SkuId, free: &Free, kept: Option<KeptFor>) -> Self {
        let Resources { cpu_milli, memory_mib, gpu_milli } = free.all;
        Self { sku, gpu_milli, cpu_milli, memory_mib, shares: free.shares.clone(), sharing: free.sharing, kept }
    }

    /// The gang that its nodes are kept for, or [`AVOIDED`].
    pub(crate) fn kept(&self) -> Option<KeptFor> {
        keeper(self.kept)
    }

    /// Where in the order its nodes are taken: the more often the workload failed there, the later.
    pub(crate) fn failures(&self) -> KeptFor {
        self.kept.map_or(0, |mark| mark.saturating_sub(FAILED))
    }

    /// What is free on each of its nodes.
    pub(crate) fn free(&self) -> Free {
        let all = Resources { cpu_milli: self.cpu_milli, memory_mib: self.memory_mib, gpu_milli: self.gpu_milli };
        Free { all, shares: self.shares.clone(), sharing: self.sharing }
    }

    /// How many members of this size each of its nodes has room for.
    pub(crate) fn members(&self, each: &Resources) -> u64 {
        if self.cpu_milli < each.cpu_milli || self.memory_mib < each.memory_mib || self.gpu_milli < each.gpu_milli {
            return 0;
        }
        self.free().members(each)
    }
}

/// One taking, for undoing it.
#[derive(Debug, Clone)]
struct Taken {
    node: u32,
    before: Free,
}

/// The free room.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holes {
    sku: Vec<SkuId>,
    free: Vec<Free>,
    /// For whom each node is kept; shorter than `free` where the rest is kept for nobody.
    kept: Vec<Option<KeptFor>>,
    /// How often each node changed.
    version: Vec<u32>,
    classes: BTreeMap<Class, BTreeSet<u32>>,
    log: Vec<Taken>,
}

impl Holes {
    /// The room of these nodes; one without room in it, such as one that takes no members, is none.
    pub(crate) fn new(nodes: impl IntoIterator<Item = (SkuId, Option<Free>)>) -> Self {
        let mut holes = Self::default();
        for (node, (sku, free)) in (0u32..).zip(nodes) {
            holes.sku.push(sku);
            if let Some(free) = &free {
                holes.classes.entry(Class::of(sku, free, None)).or_default().insert(node);
            }
            holes.free.push(free.unwrap_or_default());
            holes.version.push(0);
        }
        holes
    }

    /// The classes in packing order, each with how many nodes it has.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (&Class, u64)> + '_ {
        self.classes.iter().map(|(class, nodes)| (class, nodes.len() as u64))
    }

    /// The classes of one model with at least so much GPU left.
    pub(crate) fn of_model(&self, sku: SkuId, gpu_milli: u64) -> impl Iterator<Item = (&Class, u64)> + '_ {
        let sharing = Sharing::Any;
        let first = Class { sku, gpu_milli, cpu_milli: 0, memory_mib: 0, shares: vec![], sharing, kept: None };
        self.classes.range(first..).take_while(move |(c, _)| c.sku == sku).map(|(c, nodes)| (c, nodes.len() as u64))
    }

    /// How many classes there are.
    pub(crate) fn len(&self) -> u64 {
        self.classes.len() as u64
    }

    /// The first node of a class.
    pub(crate) fn first(&self, class: &Class) -> Option<u32> {
        self.classes.get(class).and_then(|nodes| nodes.first().copied())
    }

    /// The first node of a class that is none of these.
    pub(crate) fn first_but(&self, class: &Class, taken: &BTreeMap<u32, u64>) -> Option<u32> {
        self.classes.get(class).and_then(|nodes| nodes.iter().find(|node| !taken.contains_key(node)).copied())
    }

    /// What is free on a node.
    pub(crate) fn free(&self, node: u32) -> &Free {
        &self.free[node as usize]
    }

    /// How often a node changed: what was seen of it at this number holds.
    pub(crate) fn version(&self, node: u32) -> u32 {
        self.version[node as usize]
    }

    /// The first node of those that are as a node of this model was.
    pub(crate) fn first_of(&self, node: u32, was: &Free) -> Option<u32> {
        self.first(&Class::of(self.sku(node), was, self.mark_of(node)))
    }

    /// The first node of each class of a model, with at least so much GPU left.
    pub(crate) fn firsts(&self, sku: SkuId, gpu_milli: u64) -> impl Iterator<Item = u32> + '_ {
        self.of_model(sku, gpu_milli).filter_map(|(class, _)| self.first(class))
    }

    /// A node's free room is another now; none: it takes no members.
    pub(crate) fn renew(&mut self, node: u32, free: Option<Free>) {
        self.set(node, free.clone().unwrap_or_default());
        if free.is_none() {
            self.leave(node);
        }
    }

    /// A node's model.
    pub(crate) fn sku(&self, node: u32) -> SkuId {
        self.sku[node as usize]
    }

    /// Takes room for members on a node. The caller has seen that they fit.
    pub(crate) fn take(&mut self, node: u32, each: &Resources, members: u64) {
        let before = self.free[node as usize].clone();
        debug_assert!(before.members(each) >= members, "more is taken than is free");
        let after = before.after(each, members);
        self.log.push(Taken { node, before });
        self.set(node, after);
    }

    /// Makes room of members on a node free again, as far as the caller knows that it is theirs.
    pub(crate) fn give(&mut self, node: u32, each: &Resources, members: u64) {
        let before = self.free[node as usize].clone();
        let mut after = before.clone();
        after.give(each, members);
        self.log.push(Taken { node, before });
        self.set(node, after);
    }

    /// Where undoing can come back to.
    pub(crate) fn mark(&self) -> usize {
        self.log.len()
    }

    /// Undoes every taking since the mark.
    pub(crate) fn undo_to(&mut self, mark: usize) {
        while self.log.len() > mark {
            let Some(taken) = self.log.pop() else { return };
            let version = self.version(taken.node).wrapping_sub(1);
            self.set(taken.node, taken.before);
            // It is as it was: what was seen of it then still holds.
            self.version[taken.node as usize] = version;
        }
    }

    /// Takings so far are for good: they can't be undone any more.
    pub(crate) fn keep(&mut self) {
        self.log.clear();
    }

    /// For whom a node is kept: a gang, or [`AVOIDED`].
    pub(crate) fn kept_for(&self, node: u32) -> Option<KeptFor> {
        keeper(self.mark_of(node))
    }

    fn mark_of(&self, node: u32) -> Option<KeptFor> {
        self.kept.get(node as usize).copied().flatten()
    }

    /// Takes a mark of one workload's turn off a node, which is then kept as before it. A node that was kept for a gang meanwhile
    /// stays so.
    pub(crate) fn unmark(&mut self, node: u32, before: Option<KeptFor>) {
        if self.mark_of(node).is_some_and(|mark| mark >= FAILED) {
            self.keep_for(node, before);
        }
    }

    /// A node is kept for a gang from here on, or for nobody. Not among what is undone.
    pub(crate) fn keep_for(&mut self, node: u32, gang: Option<KeptFor>) {
        let there = self.leave(node);
        self.kept.resize(self.free.len(), None);
        self.kept[node as usize] = gang;
        if there {
            let class = Class::of(self.sku(node), &self.free[node as usize], gang);
            self.classes.entry(class).or_default().insert(node);
        }
    }

    /// Takes a node out of its class; false where it is in none.
    fn leave(&mut self, node: u32) -> bool {
        let class = Class::of(self.sku(node), &self.free[node as usize], self.mark_of(node));
        let Some(nodes) = self.classes.get_mut(&class) else { return false };
        let there = nodes.remove(&node);
        if nodes.is_empty() {
            self.classes.remove(&class);
        }
        there
    }

    fn set(&mut self, node: u32, free: Free) {
        let (sku, kept) = (self.sku[node as usize], self.mark_of(node));
        self.leave(node);
        self.classes.entry(Class::of(sku, &free, kept)).or_default().insert(node);
        self.free[node as usize] = free;
        self.version[node as usize] = self.version[node as usize].wrapping_add(1);
    }
}
