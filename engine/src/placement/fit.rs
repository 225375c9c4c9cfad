//! Does a gang fit into these holes, and where?
//!
//! - One group: exact. The members that each node can hold are counted; nothing else can be said about it.
//! - Several groups: bin packing. First the groups are packed one after the other, the largest first, each onto the fullest
//!   nodes that will do. Where that fails, every way of placing all groups but the most numerous is tried, and the most
//!   numerous is counted: exact as long as the search looks at no more than [`EXACT_LOOKS`] classes in all. A Ray head or a
//!   Spark driver beside any number of workers of one model is exact up to 900 classes. Beyond that the answer is
//!   [`Fit::NotFound`]: it may be wrong to say no, never to say yes.
//!
//! Models are tried in the order that each group gives, the first group's outermost; all members of a group get one model.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use protocol::resources::Resources;

use super::holes::{Class, Holes, SkuId, members_in};

/// How many classes the exact search looks at for one gang in one cluster.
pub(crate) const EXACT_LOOKS: u64 = 1_000_000;
/// How many combinations of models are tried for one gang in one cluster.
const MAX_COMBINATIONS: usize = 64;

/// A group as a cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) count: u64,
    pub(crate) each: Resources,
    /// Models that it accepts and the cluster has, best first; empty for a group without GPUs.
    pub(crate) skus: Vec<u16>,
}

/// Where the members of one group go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) sku: SkuId,
    /// Members by node.
    pub(crate) nodes: BTreeMap<u32, u64>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It fits, so: a spot a group, in the gang's order.
    Fits(Vec<Spot>),
    /// There is no way.
    No,
    /// No way was found within the bounds.
    NotFound,
}

/// Which nodes may be used: blocked ones are kept free for a workload that is ahead in line.
pub(crate) trait Allowed {
    /// Whether nodes of this model may be used.
    fn allows(&self, sku: SkuId) -> bool;
}

/// Every node may be used.
pub(crate) struct Everywhere;

impl Allowed for Everywhere {
    fn allows(&self, _: SkuId) -> bool {
        true
    }
}

/// How many members of this size on this model the holes have room for, as far as `enough`.
pub(crate) fn count(holes: &Holes, allowed: &dyn Allowed, each: &Resources, sku: SkuId, enough: u64) -> u64 {
    let mut found = 0u64;
    for (class, nodes) in holes.classes().filter(|(c, _)| usable(c, allowed, each, sku)) {
        found = found.saturating_add(nodes.saturating_mul(members_in(&class.free(), each)));
        if found >= enough {
            break;
        }
    }
    found
}

/// A member with GPUs needs a node of the chosen model; one without may sit on any.
fn usable(class: &Class, allowed: &dyn Allowed, each: &Resources, sku: SkuId) -> bool {
    allowed.allows(class.sku) && (each.gpu_milli == 0 || class.sku == sku)
}

/// Finds room for the whole gang. The holes are as before afterwards.
pub(crate) fn fit(holes: &mut Holes, allowed: &dyn Allowed, gang: &[Shape]) -> Fit {
    if gang.iter().any(|g| g.each.gpu_milli > 0 && g.skus.is_empty()) {
        return Fit::No;
    }
    let mut answer = Fit::No;
    let mut looks = EXACT_LOOKS;
    let combinations = Combinations::new(gang);
    for (tried, models) in combinations.enumerate() {
        if tried >= MAX_COMBINATIONS {
            return Fit::NotFound;
        }
        match fit_models(holes, allowed, gang, &models, &mut looks) {
            Fit::Fits(spots) => return Fit::Fits(spots),
            Fit::NotFound => answer = Fit::NotFound,
            Fit::No => {}
        }
    }
    answer
}

fn fit_models(holes: &mut Holes, allowed: &dyn Allowed, gang: &[Shape], models: &[SkuId], looks: &mut u64) -> Fit {
    // Each group on its own must fit: cheap, and most that do not fit fail here.
    let alone = |(g, sku): (&Shape, &SkuId)| count(holes, allowed, &g.each, *sku, g.count) >= g.count;
    if !gang.iter().zip(models).all(alone) {
        return Fit::No;
    }
    if let Some(spots) = pack(holes, allowed, gang, models) {
        return Fit::Fits(spots);
    }
    if gang.len() == 1 {
        return Fit::No;
    }
    let mut search = Search::new(holes, allowed, gang, models, looks);
    match search.run() {
        true => Fit::Fits(search.spots),
        false if *looks == 0 => Fit::NotFound,
        false => Fit::No,
    }
}

/// The order in which groups are packed: the hardest to place first.
pub(crate) fn packing_order(gang: &[Shape]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..gang.len()).collect();
    order.sort_by_key(|&g| {
        let each = gang[g].each;
        (Reverse(each.gpu_milli), Reverse(each.memory_mib), Reverse(each.cpu_milli), g)
    });
    order
}

fn pack(holes: &mut Holes, allowed: &dyn Allowed, gang: &[Shape], models: &[SkuId]) -> Option<Vec<Spot>> {
    let mark = holes.mark();
    let mut spots: Vec<Spot> = models.iter().map(|sku| Spot { sku: *sku, nodes: BTreeMap::new() }).collect();
    let whole =
        packing_order(gang).into_iter().all(|g| place_group(holes, allowed, &gang[g], &mut spots[g]) == gang[g].count);
    holes.undo_to(mark);
    whole.then_some(spots)
}

/// Places members of one group onto the fullest nodes that will do; returns for how many there was room.
pub(crate) fn place_group(holes: &mut Holes, allowed: &dyn Allowed, group: &Shape, spot: &mut Spot) -> u64 {
    let mut left = group.count;
    let usable: Vec<(Class, u64)> =
        holes.classes().filter(|(c, _)| usable(c, allowed, &group.each, spot.sku)).collect();
    for (class, nodes) in usable {
        let hold = members_in(&class.free(), &group.each);
        if hold == 0 {
            continue;
        }
        for _ in 0..nodes {
            if left == 0 {
                return group.count;
            }
            let members = hold.min(left);
            let node = holes.first(&class).expect("the class has this many nodes");
            holes.take(node, &group.each, members);
            *spot.nodes.entry(node).or_default() += members;
            left -= members;
        }
    }
    group.count - left
}

/// Every combination of models, the first group's changing last.
struct Combinations<'a> {
    gang: &'a [Shape],
    next: Option<Vec<usize>>,
}

impl<'a> Combinations<'a> {
    fn new(gang: &'a [Shape]) -> Self {
        Self { gang, next: Some(vec![0; gang.len()]) }
    }
}

impl Iterator for Combinations<'_> {
    type Item = Vec<SkuId>;

    fn next(&mut self) -> Option<Vec<SkuId>> {
        let at = self.next.take()?;
        let models = self.gang.iter().zip(&at).map(|(g, &i)| g.skus.get(i).copied()).collect();
        let mut following = at;
        for g in (0..following.len()).rev() {
            following[g] += 1;
            if following[g] < self.gang[g].skus.len() {
                self.next = Some(following);
                break;
            }
            following[g] = 0;
        }
        Some(models)
    }
}

/// The exact search: members of every group but the most numerous one at a time, then that one by counting.
struct Search<'a> {
    holes: &'a mut Holes,
    allowed: &'a dyn Allowed,
    gang: &'a [Shape],
    order: Vec<usize>,
    looks: &'a mut u64,
    spots: Vec<Spot>,
}

impl<'a> Search<'a> {
    fn new(
        holes: &'a mut Holes,
        allowed: &'a dyn Allowed,
        gang: &'a [Shape],
        models: &[SkuId],
        looks: &'a mut u64,
    ) -> Self {
        let spots = models.iter().map(|sku| Spot { sku: *sku, nodes: BTreeMap::new() }).collect();
        let mut order: Vec<usize> = (0..gang.len()).collect();
        order.sort_by_key(|&g| (gang[g].count, g));
        Self { holes, allowed, gang, order, looks, spots }
    }

    fn run(&mut self) -> bool {
        let mark = self.holes.mark();
        let found = self.group(0);
        self.holes.undo_to(mark);
        found
    }

    /// Pays for one look at every class; false once all looks are spent.
    fn look(&mut self) -> bool {
        *self.looks = self.looks.saturating_sub(self.holes.len());
        *self.looks > 0
    }

    fn group(&mut self, depth: usize) -> bool {
        let g = self.order[depth];
        if depth + 1 < self.order.len() {
            return self.member(depth, self.gang[g].count, None);
        }
        let group = &self.gang[g];
        if !self.look() {
            return false;
        }
        if count(self.holes, self.allowed, &group.each, self.spots[g].sku, group.count) < group.count {
            return false;
        }
        place_group(self.holes, self.allowed, group, &mut self.spots[g]) == group.count
    }

    /// Places what is left of a group. Members of one group are alike, so they are placed in falling order of the class that
    /// they find: every way of placing them has such an order, for taking room makes a node's class smaller.
    fn member(&mut self, depth: usize, left: u64, below: Option<Class>) -> bool {
        if left == 0 {
            return self.group(depth + 1);
        }
        if !self.look() {
            return false;
        }
        let g = self.order[depth];
        let (each, sku) = (self.gang[g].each, self.spots[g].sku);
        let classes: Vec<Class> = self
            .holes
            .classes()
            .map(|(class, _)| class)
            .filter(|c| below.is_none_or(|b| *c <= b) && usable(c, self.allowed, &each, sku))
            .filter(|c| members_in(&c.free(), &each) > 0)
            .collect();
        for class in classes {
            if *self.looks == 0 {
                return false;
            }
            let mark = self.holes.mark();
            let Some(node) = self.holes.first(&class) else { continue };
            self.holes.take(node, &each, 1);
            *self.spots[g].nodes.entry(node).or_default() += 1;
            if self.member(depth, left - 1, Some(class)) {
                return true;
            }
            self.holes.undo_to(mark);
            if let Some(members) = self.spots[g].nodes.get_mut(&node) {
                *members -= 1;
                if *members == 0 {
                    self.spots[g].nodes.remove(&node);
                }
            }
        }
        false
    }
}
