//! Does a gang fit into these holes, and where?
//!
//! Members that are kept apart have a node each, which groups may share: of one group a node holds one at most.
//!
//! - One group: exact. The members that each node can hold are counted; nothing else can be said about it.
//! - Several groups: bin packing. First the groups are packed one after the other, the largest first, each where it wastes least,
//!   then each onto the fullest nodes that will do. Where that fails, every way of placing all groups but the most numerous is
//!   tried, and the most numerous is counted: exact as long as those are no more than [`MOST_SEARCHED`] members, the search looks at
//!   no more than [`EXACT_LOOKS`] classes in all, and only one group asks for shares of a GPU. A Ray head or a Spark driver beside any
//!   number of workers of one model is exact up to 900 classes. Beyond that the answer is [`Fit::NotFound`]: it may be wrong to say no, never to say yes.
//!
//! Models are tried in the order that each group gives, the first group's outermost; among models that are alike to the workload
//! the one where the gang wastes least is taken. All members of a group get one model.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use protocol::resources::Resources;
pub(crate) use protocol::resources::packing_order;
use protocol::workload::Spread;

use super::devices::{DEVICE, Free};
use super::holes::{Class, Holes, SkuId};
use super::value::Waste;

/// How many classes the exact search looks at for one gang in one cluster.
pub(crate) const EXACT_LOOKS: u64 = 1_000_000;
/// The most members that the exact search places one by one: each is a call deeper.
const MOST_SEARCHED: u64 = 512;
/// How many combinations of models are tried for one gang in one cluster.
const MAX_COMBINATIONS: usize = 64;

/// A group as a cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) count: u64,
    pub(crate) each: Resources,
    /// Models that it accepts and the cluster has, best first, those alike together; empty for a group without GPUs.
    pub(crate) skus: Vec<Vec<u16>>,
    /// Whether its members are kept apart.
    pub(crate) spread: Spread,
}

impl Shape {
    /// The accepted models, best first.
    pub(crate) fn models(&self) -> impl Iterator<Item = u16> + '_ {
        self.skus.iter().flatten().copied()
    }

    /// How many of its members a node of this class holds.
    fn members(&self, class: &Class) -> u64 {
        self.spread.most(class.members(&self.each))
    }

    fn asks_shares(&self) -> bool {
        (1..DEVICE).contains(&self.each.gpu_milli)
    }
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
    /// It fits, so: a spot a group, in the gang's order, and what that wastes.
    Fits(Vec<Spot>, Waste),
    /// There is no way.
    No,
    /// No way was found within the bounds.
    NotFound,
}

/// Which nodes may be used: others are kept for a workload that is ahead in line.
pub(crate) trait Allowed {
    /// Whether nodes of this class may be used.
    fn allows(&self, class: &Class) -> bool;
}

/// Every node may be used.
pub(crate) struct Everywhere;

impl Allowed for Everywhere {
    fn allows(&self, _: &Class) -> bool {
        true
    }
}

/// What a placing wastes. [`Fullest`] where it does not matter.
pub(crate) trait Judge {
    /// What placing members of this size on a node of this model wastes; the least is taken, and of equals the fullest.
    fn waste(&self, sku: SkuId, free: &Free, each: &Resources, members: u64) -> Waste;
}

/// The fullest nodes that will do are taken.
pub(crate) struct Fullest;

impl Judge for Fullest {
    fn waste(&self, _: SkuId, _: &Free, _: &Resources, _: u64) -> Waste {
        Waste::default()
    }
}

/// How many members of a group on this model the holes have room for, as far as all of it.
pub(crate) fn count(holes: &Holes, allowed: &dyn Allowed, group: &Shape, sku: SkuId) -> u64 {
    let mut found = 0u64;
    for (class, nodes) in usable(holes, allowed, &group.each, sku) {
        found = found.saturating_add(nodes.saturating_mul(group.members(class)));
        if found >= group.count {
            break;
        }
    }
    found
}

/// A member with GPUs needs a node of the chosen model; one without may sit on any.
fn usable<'a>(
    holes: &'a Holes,
    allowed: &'a dyn Allowed,
    each: &Resources,
    sku: SkuId,
) -> impl Iterator<Item = (&'a Class, u64)> + 'a {
    let (all, one) = if each.gpu_milli == 0 {
        (Some(holes.classes()), None)
    } else {
        (None, Some(holes.of_model(sku, each.gpu_milli)))
    };
    all.into_iter().flatten().chain(one.into_iter().flatten()).filter(|(c, _)| allowed.allows(c))
}

/// Finds room for the whole gang, where it wastes least. The holes are as before afterwards.
pub(crate) fn fit(holes: &mut Holes, allowed: &dyn Allowed, gang: &[Shape], judge: &dyn Judge) -> Fit {
    if gang.iter().any(|g| g.each.gpu_milli > 0 && g.skus.is_empty()) {
        return Fit::No;
    }
    // Most gangs, and there is nothing to choose between: with many clusters that is most of what a look at one costs.
    if let [group] = gang
        && group.models().count() < 2
    {
        return fit_models(holes, allowed, gang, &[group.models().next()], &mut 0, judge);
    }
    let alike = gang.iter().any(|g| g.skus.iter().any(|tier| tier.len() > 1));
    let mut best: Option<(Vec<usize>, Vec<Spot>, Waste)> = None;
    let mut answer = Fit::No;
    let mut looks = EXACT_LOOKS;
    for (tried, (models, tiers)) in Combinations::new(gang).enumerate() {
        if tried >= MAX_COMBINATIONS {
            answer = Fit::NotFound;
            break;
        }
        match fit_models(holes, allowed, gang, &models, &mut looks, judge) {
            Fit::Fits(spots, waste) if !alike => return Fit::Fits(spots, waste),
            Fit::Fits(spots, waste) => {
                if best.as_ref().is_none_or(|(t, _, w)| (&tiers, waste.sum()) < (t, w.sum())) {
                    best = Some((tiers, spots, waste));
                }
            }
            Fit::NotFound => answer = Fit::NotFound,
            Fit::No => {}
        }
    }
    best.map_or(answer, |(_, spots, waste)| Fit::Fits(spots, waste))
}

fn fit_models(
    holes: &mut Holes,
    allowed: &dyn Allowed,
    gang: &[Shape],
    models: &[SkuId],
    looks: &mut u64,
    judge: &dyn Judge,
) -> Fit {
    if let ([group], [sku]) = (gang, models) {
        return match fit_one(holes, allowed, group, *sku, judge) {
            Some((spot, waste)) => Fit::Fits(vec![spot], waste),
            None => Fit::No,
        };
    }
    // Each group on its own must fit: cheap, and most that do not fit fail here.
    let alone = |(g, sku): (&Shape, &SkuId)| count(holes, allowed, g, *sku) >= g.count;
    if !gang.iter().zip(models).all(alone) {
        return Fit::No;
    }
    if let Some((spots, waste)) = pack(holes, allowed, gang, models, judge) {
        return Fit::Fits(spots, waste);
    }
    if let Some((spots, _)) = pack(holes, allowed, gang, models, &Fullest)
        && let Some(waste) = judged(holes, gang, &spots, judge)
    {
        return Fit::Fits(spots, waste);
    }
    let counts = || gang.iter().map(|g| g.count);
    let searched = counts().fold(0, u64::saturating_add).saturating_sub(counts().max().unwrap_or(0));
    if searched > MOST_SEARCHED {
        return Fit::NotFound;
    }
    let mut search = Search::new(holes, allowed, gang, models, looks);
    let found = search.run();
    let spots = search.spots;
    if found && let Some(waste) = judged(holes, gang, &spots, judge) {
        return Fit::Fits(spots, waste);
    }
    // Shares of several groups could share devices in ways that are not tried.
    let sure = *looks > 0 && gang.iter().filter(|g| g.asks_shares()).count() <= 1;
    if sure { Fit::No } else { Fit::NotFound }
}

/// What a gang wastes at these spots; none where its shares do not find devices in packing order.
fn judged(holes: &mut Holes, gang: &[Shape], spots: &[Spot], judge: &dyn Judge) -> Option<Waste> {
    let mark = holes.mark();
    let (mut waste, mut fits) = (Waste::default(), true);
    for g in packing_order(gang.iter().map(|g| g.each)) {
        for (node, members) in &spots[g].nodes {
            fits &= holes.free(*node).members(&gang[g].each) >= *members;
            if fits {
                waste = waste.plus(&judge.waste(holes.sku(*node), holes.free(*node), &gang[g].each, *members));
                holes.take(*node, &gang[g].each, *members);
            }
        }
    }
    holes.undo_to(mark);
    fits.then_some(waste)
}

/// Places a gang of one group, if there is room for all of it. It takes nothing from itself.
fn fit_one(
    holes: &Holes,
    allowed: &dyn Allowed,
    group: &Shape,
    sku: SkuId,
    judge: &dyn Judge,
) -> Option<(Spot, Waste)> {
    let holding = holding(holes, allowed, group, sku);
    let room = holding.iter().map(|of| of.nodes.saturating_mul(of.hold)).fold(0, u64::saturating_add);
    if room < group.count {
        return None;
    }
    let mut spot = Spot { sku, nodes: BTreeMap::new() };
    let (placed, waste) = choose(holes, holding, group, &mut spot, judge);
    (placed == group.count).then_some((spot, waste))
}

fn pack(
    holes: &mut Holes,
    allowed: &dyn Allowed,
    gang: &[Shape],
    models: &[SkuId],
    judge: &dyn Judge,
) -> Option<(Vec<Spot>, Waste)> {
    let mark = holes.mark();
    let mut spots: Vec<Spot> = models.iter().map(|sku| Spot { sku: *sku, nodes: BTreeMap::new() }).collect();
    let mut waste = Waste::default();
    let whole = packing_order(gang.iter().map(|g| g.each)).into_iter().all(|g| {
        let (placed, more) = place_group(holes, allowed, &gang[g], &mut spots[g], judge);
        waste = waste.plus(&more);
        placed == gang[g].count
    });
    holes.undo_to(mark);
    whole.then_some((spots, waste))
}

/// Places members of one group where they waste least; returns for how many there was room, and what they waste.
pub(crate) fn place_group(
    holes: &mut Holes,
    allowed: &dyn Allowed,
    group: &Shape,
    spot: &mut Spot,
    judge: &dyn Judge,
) -> (u64, Waste) {
    let holding = holding(holes, allowed, group, spot.sku);
    let (placed, waste) = choose(holes, holding, group, spot, judge);
    for (node, members) in &spot.nodes {
        holes.take(*node, &group.each, *members);
    }
    (placed, waste)
}

/// A class with room for a group.
struct Holding<'h> {
    class: &'h Class,
    /// How many nodes it has.
    nodes: u64,
    /// How many of the group's members each of them holds.
    hold: u64,
}

/// The classes with room for a group, in packing order.
fn holding<'h>(holes: &'h Holes, allowed: &'h dyn Allowed, group: &Shape, sku: SkuId) -> Vec<Holding<'h>> {
    let of = |(class, nodes)| Holding { class, nodes, hold: group.members(class) };
    usable(holes, allowed, &group.each, sku).map(of).filter(|of| of.hold > 0).collect()
}

/// As [`place_group`], but nothing is taken: each node gets all members that it holds, so that none would be chosen a second time.
fn choose(holes: &Holes, holding: Vec<Holding<'_>>, group: &Shape, spot: &mut Spot, judge: &dyn Judge) -> (u64, Waste) {
    let (mut left, mut waste) = (group.count, Waste::default());
    for (Holding { class, hold, .. }, judged, of_judged) in best_first(holding, group, judge) {
        for node in holes.nodes(class) {
            if left == 0 {
                return (group.count, waste);
            }
            let members = hold.min(left);
            waste = waste.plus(&match members == judged {
                true => of_judged,
                false => judge.waste(class.sku, class.free(), &group.each, members),
            });
            *spot.nodes.entry(node).or_default() += members;
            left -= members;
        }
    }
    (group.count - left, waste)
}

/// The classes that a group takes, each with so many members on one of its nodes and what they waste there: those first where a member
/// wastes least, those last where the workload failed. Members without GPUs stay off GPU nodes while other room is there.
fn best_first<'h>(holding: Vec<Holding<'h>>, group: &Shape, judge: &dyn Judge) -> Vec<(Holding<'h>, u64, Waste)> {
    let judged = |of: Holding<'h>| {
        let members = of.hold.min(group.count);
        let waste = judge.waste(of.class.sku, of.class.free(), &group.each, members);
        Some((of, members, waste))
    };
    let mut judged: Vec<_> = holding.into_iter().map(judged).collect();
    let ranks = judged.iter().enumerate().filter_map(|(order, judged)| {
        let (of, members, waste) = judged.as_ref()?;
        let mean = waste.sum() / (*members).max(1) as i64;
        let on_gpus = group.each.gpu_milli == 0 && of.class.sku.is_some();
        // Of equals the first in packing order.
        Some(Reverse((of.class.failures(), on_gpus, mean, of.class.free().all.gpu_milli, order)))
    });
    // A heap, not a sort: of thousands of classes most groups take one.
    let mut ranks: BinaryHeap<_> = ranks.collect();
    let (mut taken, mut left) = (vec![], group.count);
    while left > 0
        && let Some(Reverse((.., order))) = ranks.pop()
        && let Some((of, members, waste)) = judged[order].take()
    {
        left = left.saturating_sub(of.nodes.saturating_mul(of.hold));
        taken.push((of, members, waste));
    }
    taken
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
    /// A model for each group, and which of its tiers that is in.
    type Item = (Vec<SkuId>, Vec<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next.take()?;
        let models: Vec<SkuId> = self.gang.iter().zip(&at).map(|(g, &i)| g.models().nth(i)).collect();
        let tier =
            |(g, sku): (&Shape, &SkuId)| g.skus.iter().position(|t| sku.is_some_and(|s| t.contains(&s))).unwrap_or(0);
        let tiers = self.gang.iter().zip(&models).map(tier).collect();
        let mut following = at;
        for g in (0..following.len()).rev() {
            following[g] += 1;
            if following[g] < self.gang[g].models().count() {
                self.next = Some(following);
                break;
            }
            following[g] = 0;
        }
        Some((models, tiers))
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
        if count(self.holes, self.allowed, group, self.spots[g].sku) < group.count {
            return false;
        }
        place_group(self.holes, self.allowed, group, &mut self.spots[g], &Fullest).0 == group.count
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
        let below = |c: &Class| below.as_ref().is_none_or(|b| c <= b);
        let classes: Vec<Class> = usable(self.holes, self.allowed, &each, sku)
            .filter(|(c, _)| below(c) && c.members(&each) > 0)
            .map(|(c, _)| c.clone())
            .collect();
        for class in classes {
            if *self.looks == 0 {
                return false;
            }
            let mark = self.holes.mark();
            let node = match self.gang[g].spread {
                Spread::None => self.holes.first(&class),
                Spread::Nodes => self.holes.first_but(&class, &self.spots[g].nodes),
            };
            let Some(node) = node else { continue };
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
