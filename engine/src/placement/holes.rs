//! The free room of one cluster's nodes, by class: nodes with the same model and the same free devices, shares, cpu and memory
//! are alike, so that a search looks at classes and not at nodes. Taking room moves a node to another class; every taking can
//! be undone.

use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::Sharing;
use protocol::resources::Resources;

use super::devices::Free;

/// A model of the cluster, by its place in the cluster's sorted list; none for nodes without GPUs.
pub(crate) type SkuId = Option<u16>;

/// What makes nodes alike. The order is the packing order: nodes without GPUs first, then the fullest that will do. Taking
/// room makes a node's class smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) sku: SkuId,
    free: Free,
    kept: Option<KeptFor>,
}

impl Ord for Class {
    fn cmp(&self, other: &Self) -> Ordering {
        let amounts =
            |class: &Self| (class.sku, class.free.all.gpu_milli, class.free.all.cpu_milli, class.free.all.memory_mib);
        let rest = |class: &Self| (class.free.sharing, class.kept);
        let shares = || self.free.shares.cmp(&other.free.shares);
        amounts(self).cmp(&amounts(other)).then_with(shares).then_with(|| rest(self).cmp(&rest(other)))
    }
}

impl PartialOrd for Class {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
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
        Self { sku, free: free.clone(), kept }
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
    pub(crate) fn free(&self) -> &Free {
        &self.free
    }

    /// How many members of this size each of its nodes has room for.
    pub(crate) fn members(&self, each: &Resources) -> u64 {
        self.free.members(each)
    }
}

/// Stands for what is free and kept at one time: equal stamps of one cluster's holes, equal holes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

/// One taking, for undoing it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    node: u32,
    before: Free,
    /// Before it and after it.
    stamps: [Stamp; 2],
}

/// The free room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holes {
    sku: Vec<SkuId>,
    free: Vec<Free>,
    /// For whom each node is kept; shorter than `free` where the rest is kept for nobody.
    kept: Vec<Option<KeptFor>>,
    /// How often each node changed.
    version: Vec<u32>,
    classes: BTreeMap<Class, BTreeSet<u32>>,
    log: Vec<Taken>,
    /// Something was changed for good: undoing does not lead back to the beginning.
    lasting: bool,
    stamp: Stamp,
    /// The last that was given out.
    last_stamp: u64,
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
        let least = Resources { gpu_milli, ..Resources::default() };
        let first = Class { sku, free: Free::whole(least, Sharing::Any), kept: None };
        self.classes.range(first..).take_while(move |(c, _)| c.sku == sku).map(|(c, nodes)| (c, nodes.len() as u64))
    }

    /// How many classes there are.
    pub(crate) fn len(&self) -> u64 {
        self.classes.len() as u64
    }

    /// The nodes of a class.
    pub(crate) fn nodes(&self, class: &Class) -> impl Iterator<Item = u32> + '_ {
        self.classes.get(class).into_iter().flatten().copied()
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
        self.lasting = true;
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
        self.set_for_now(node, before, after);
    }

    /// Makes room of members on a node free again, as far as the caller knows that it is theirs.
    pub(crate) fn give(&mut self, node: u32, each: &Resources, members: u64) {
        let before = self.free[node as usize].clone();
        let mut after = before.clone();
        after.give(each, members);
        self.set_for_now(node, before, after);
    }

    /// Changes what is free on a node until that is undone.
    fn set_for_now(&mut self, node: u32, before: Free, after: Free) {
        let stamp = self.stamp;
        self.set(node, after);
        self.log.push(Taken { node, before, stamps: [stamp, self.stamp] });
    }

    /// What stands for the holes as they are.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn change(&mut self) {
        self.last_stamp += 1;
        self.stamp = Stamp(self.last_stamp);
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
            let [before, after] = taken.stamps;
            let nothing_else = self.stamp == after;
            self.set(taken.node, taken.before);
            // It is as it was: what was seen of it then still holds.
            self.version[taken.node as usize] = version;
            if nothing_else {
                self.stamp = before;
            }
        }
    }

    /// Takings so far are for good: they can't be undone any more.
    pub(crate) fn keep(&mut self) {
        self.lasting |= !self.log.is_empty();
        self.log.clear();
    }

    /// Makes them what they were when they were made: whatever was taken is free, and no node is kept for anybody. False where that
    /// can't be done.
    pub(crate) fn rest(&mut self) -> bool {
        self.undo_to(0);
        for node in (0u32..).take(self.kept.len()) {
            if self.mark_of(node).is_some() {
                self.keep_for(node, None);
            }
        }
        self.kept.clear();
        (self.stamp, self.last_stamp) = (Stamp::default(), 0);
        !self.lasting
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
        self.change();
        if there {
            let class = Class::of(self.sku(node), &self.free[node as usize], gang);
            self.classes.entry(class).or_default().insert(node);
        }
    }

    /// Takes a node out of its class; false where it is in none.
    fn leave(&mut self, node: u32) -> bool {
        let class = Class::of(self.sku(node), &self.free[node as usize], self.mark_of(node));
        let Entry::Occupied(mut nodes) = self.classes.entry(class) else { return false };
        let there = nodes.get_mut().remove(&node);
        if nodes.get().is_empty() {
            nodes.remove();
        }
        self.change();
        there
    }

    fn set(&mut self, node: u32, free: Free) {
        let (sku, kept) = (self.sku[node as usize], self.mark_of(node));
        self.leave(node);
        self.classes.entry(Class::of(sku, &free, kept)).or_default().insert(node);
        self.free[node as usize] = free;
        self.version[node as usize] = self.version[node as usize].wrapping_add(1);
        self.change();
    }
}
