//! Taking room back, after the walk: only for a gang that fits its pool's part and finds no hole, only from pools that have held
//! more than theirs for a while (or from lower priority in its own pool, where the pool allows that), and only whole attempts
//! whose end makes an actual hole for that gang.
//!
//! In each cluster attempts are added, the cheapest first (one by one, and then all of a node at once), until the gang fits; then
//! those that turn out not to be needed are dropped again, the dearest first. Cheap is: its GPUs are measured to be idle; then a low priority; then little GPU-time since
//! it started. The cluster where least is lost gives the room. One gang at a time takes room back in a cluster, and the nodes on which
//! room is made for it are kept for it (`reservations`): else those that gave it, first in line again, would take it back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ClusterName, NodeName, PoolName, Uid, UnixMs};
use protocol::pool::{LineOrder, PoolSpec, Resource};
use protocol::resources::Resources;
use protocol::workload::{GroupNeed, Preemptible};

use super::reservations::{Passes, Promise, Promises};
use super::{From, Starved, Walk};
use crate::commands::{Preemption, Victim};
use crate::lifecycle::Event;
use crate::placement::fit::{Fit, Fullest, fit, packing_order};
use crate::placement::rooms::{Order, Room};
use crate::plan::idle::Since;
use crate::plan::{IDLE_AFTER_MS, IDLE_PERCENT};
use crate::pools::reclaim::Rights;
use crate::pools::usage::holds;
use crate::reasons::Lent;
use crate::state::service::{size, step};
use crate::state::{Attempt, Ground, State, Workload};

/// How long a pool must have held more than its part, and a gang must have waited for lower priorities, before room is taken
/// back, in ms.
pub const LASTING_MS: u64 = 30_000;
/// How long after an attempt's end nothing more is taken back in its cluster, in ms: capacity comes every second or so.
const SETTLING_MS: u64 = 2_000;
/// The most attempts that end for one gang.
const MOST_VICTIMS: usize = 256;

/// What a planner remembers from plan to plan: since when things are as they are. A new leader begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// How long things must have been so, in ms.
    lasting_ms: u64,
    over: BTreeMap<(PoolName, Resource), UnixMs>,
    starved: BTreeMap<Uid, UnixMs>,
    /// What was kept for gangs that wait.
    promises: Promises,
    /// Since when attempts are idle that may not be for ever.
    pub(crate) idle: Since,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(LASTING_MS)
    }
}

impl Memory {
    /// Nothing yet; room is taken back once it has been lent for this long.
    pub fn new(lasting_ms: u64) -> Self {
        Self {
            lasting_ms,
            over: BTreeMap::new(),
            starved: BTreeMap::new(),
            promises: Promises::new(),
            idle: Since::new(),
        }
    }

    /// What was kept for gangs that wait.
    pub(super) fn promises(&self) -> &Promises {
        &self.promises
    }
}

/// An attempt that might end.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    workload: &'a Workload,
    attempt: &'a Attempt,
    cost: Cost,
}

/// What lives in a cluster.
#[derive(Default)]
struct Live<'a> {
    /// What is being ended.
    going: Vec<&'a Attempt>,
    /// What might be, the cheapest first.
    candidates: Vec<Candidate<'a>>,
}

/// How much is lost with an attempt; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    busy: Reverse<bool>,
    priority: i32,
    /// The step of what it has had, where its pool serves the least served first.
    served: Reverse<u64>,
    /// GPU-milliseconds in thousandths, or those of cores for an attempt without GPUs.
    work: u128,
    order: Reverse<u64>,
}

impl<'a> Walk<'a> {
    /// What is to be taken back now, and what is to be remembered.
    pub(crate) fn reclaim(&mut self, before: &Memory) -> (Vec<Preemption>, Memory) {
        let usable = self.usable();
        let promises = self.reservations.promises();
        let mut preemptions = std::mem::take(&mut self.called);
        if self.state.pools.is_plain() {
            return (preemptions, Memory { promises, ..Memory::new(before.lasting_ms) });
        }
        let rights = self.rights.take().unwrap_or_else(|| self.new_rights());
        let mut memory = Memory { promises, ..self.remember(before, &rights) };
        let now = self.now;
        let lasted = |since: &UnixMs| since.0.saturating_add(before.lasting_ms) <= now.0;
        let over: BTreeSet<&PoolName> =
            memory.over.iter().filter(|(_, since)| lasted(since)).map(|((pool, _), _)| pool).collect();
        let starved: Vec<Starved<'a>> = std::mem::take(&mut self.starved);
        let mut promised = BTreeSet::new();
        let mut live: BTreeMap<ClusterName, Live<'a>> = BTreeMap::new();
        for gang in &starved {
            let within = memory.starved.get(&gang.workload.uid).is_some_and(lasted);
            if over.is_empty() && !within {
                continue;
            }
            if live.is_empty() {
                live = self.live(&usable);
            }
            let lent = |w: &Workload| gang.from == From::All && over.contains(&w.pool);
            let allowed = |w: &Workload| (w.pool == gang.workload.pool && within) || lent(w);
            let found = self.victims(gang, &rights, &allowed, &live, &mut promised);
            if let Some((victims, hole)) = found {
                memory.promises.insert(gang.workload.uid, hole);
                preemptions.push(Preemption {
                    epoch: self.state.epoch,
                    by: gang.workload.key.clone(),
                    by_uid: gang.workload.uid,
                    victims,
                    fleet: self.fleet.clone(),
                    clusters: usable.clone(),
                });
                // The next gang's case rests on what this one leaves: the next plan sees that.
                break;
            }
        }
        (preemptions, memory)
    }

    /// What lives in the clusters whose capacity is fresh.
    fn live(&self, usable: &BTreeSet<ClusterName>) -> BTreeMap<ClusterName, Live<'a>> {
        let (state, now) = (self.state, self.now);
        let fresh = |room: &&Room<'_>| room.capacity.is_some_and(|c| c.fresh);
        let rooms = self.placer.rooms.iter().filter(|(name, _)| usable.contains(**name));
        let live = rooms.filter(|(_, room)| fresh(room)).map(|(name, room)| {
            let mut live = Live::default();
            for (workload, attempt) in state.live_in(name) {
                if attempt.stop.is_some() {
                    live.going.push(attempt);
                } else if may_end(workload) {
                    let cost = cost(state, room, (workload, attempt), now);
                    live.candidates.push(Candidate { workload, attempt, cost });
                }
            }
            live.candidates.sort_by_key(|c| c.cost);
            ((*name).clone(), live)
        });
        live.collect()
    }

    /// Whether some attempt ended in a cluster so short a time ago that its capacity may not show it yet: then its room may be
    /// what the gang waits for.
    fn ended_lately(&self, cluster: &ClusterName) -> bool {
        let lately = |at: UnixMs| at.0.saturating_add(SETTLING_MS) > self.now.0;
        let last = self.state.workloads.values().filter_map(|w| w.attempts.last());
        last.into_iter().any(|a| a.cluster == *cluster && a.ended_at.is_some_and(lately))
    }

    /// The clusters that count.
    pub(super) fn usable(&self) -> BTreeSet<ClusterName> {
        self.placer.rooms.values().filter(|r| super::books::usable(r)).map(|r| r.cluster.info.name.clone()).collect()
    }

    /// What pools have a right to before this plan's bindings.
    pub(super) fn new_rights(&self) -> Rights {
        Rights::new(self.state, self.fleet.clone(), &self.usable())
    }

    fn remember(&self, before: &Memory, rights: &Rights) -> Memory {
        let over = rights.all_over().map(|(pool, resource)| {
            let key = (pool.clone(), resource.clone());
            let since = before.over.get(&key).copied().unwrap_or(self.now);
            (key, since)
        });
        let gives_way = |w: &Workload| self.state.pools.spec(&w.pool).is_some_and(PoolSpec::gives_way_within);
        let starved = self.starved.iter().filter(|s| gives_way(s.workload)).map(|s| {
            let uid = s.workload.uid;
            (uid, before.starved.get(&uid).copied().unwrap_or(self.now))
        });
        Memory { over: over.collect(), starved: starved.collect(), ..Memory::new(before.lasting_ms) }
    }

    /// The attempts whose end makes a hole for the gang; none where there are no such, or a hole is coming already.
    fn victims(
        &mut self,
        gang: &Starved<'a>,
        rights: &Rights,
        allowed: &dyn Fn(&Workload) -> bool,
        live: &BTreeMap<ClusterName, Live<'a>>,
        promised: &mut BTreeSet<ClusterName>,
    ) -> Option<(Vec<Victim>, Promise)> {
        let mut best: Option<(u128, ClusterName, Found<'a>)> = None;
        let (state, now) = (self.state, self.now);
        let own = self.reservations.passes(gang.workload.uid, None);
        let suffice = rights.suffice(state, gang.workload);
        let mut candidates: Vec<(&ClusterName, &[&'a Attempt], Vec<Candidate<'a>>)> = vec![];
        for name in gang.clusters.iter().filter(|c| !promised.contains(*c)) {
            let Some((room, live)) = self.placer.rooms.get_mut(name).zip(live.get(name)) else { continue };
            if suffice && coming(room, &gang.gang, &own, &live.going) {
                promised.insert(name.clone());
                return None;
            }
            let rightful =
                |c: &&Candidate<'a>| allowed(c.workload) && rights.ground(state, gang.workload, c.workload).is_some();
            let found: Vec<Candidate<'a>> = live.candidates.iter().filter(rightful).copied().collect();
            if !found.is_empty() {
                candidates.push((name, &live.going, found));
            }
        }
        for (name, going, found) in candidates {
            let Some(room) = self.placer.rooms.get_mut(name) else { continue };
            let Some(chosen) = cheapest(room, (gang, &own), (&found, going), rights, state) else { continue };
            let lost: u128 = chosen.victims.iter().map(|c| c.cost.work).fold(0, u128::saturating_add);
            if best.as_ref().is_none_or(|(least, ..)| lost < *least) {
                best = Some((lost, name.clone(), chosen));
            }
        }
        let (_, cluster, chosen) = best?;
        if self.ended_lately(&cluster) {
            return None;
        }
        let victim =
            |c: &Candidate<'a>| Victim { key: c.workload.key.clone(), uid: c.workload.uid, attempt: c.attempt.number };
        let nodes =
            chosen.hole.iter().filter_map(|node| Some(self.placer.rooms.get(&cluster)?.node(*node)?.name.clone()));
        let hole = Promise::of_hole(cluster.clone(), nodes.collect(), now);
        promised.insert(cluster);
        Some((chosen.victims.iter().map(victim).collect(), hole))
    }
}

/// Whose end makes a hole, and on which nodes.
struct Found<'a> {
    victims: Vec<Candidate<'a>>,
    hole: BTreeSet<u32>,
}

/// Pools that hold more than their part, each with the first resource in which it does.
pub(super) fn lent(walk: &Walk<'_>) -> Vec<Lent> {
    let rights = walk.rights.get_or_init(|| walk.new_rights());
    let mut all: Vec<Lent> = vec![];
    for (pool, resource) in rights.all_over() {
        let Some((held, entitled)) = rights.over(pool, resource) else { continue };
        if all.iter().all(|lent| lent.pool != *pool) {
            all.push(Lent { pool: pool.clone(), resource: resource.clone(), held, entitled });
        }
    }
    all
}

pub(super) fn may_end(workload: &Workload) -> bool {
    workload.spec.preemptible == Preemptible::Yes && workload.phase.after(Event::Preempt).is_some()
}

/// Whether what is being ended already makes the hole.
fn coming(room: &mut Room<'_>, gang: &[GroupNeed], own: &Passes, going: &[&Attempt]) -> bool {
    let mark = room.holes.mark();
    let places = room.places();
    going.iter().for_each(|attempt| room.give(&places, attempt));
    let fits = hole(room, gang, own).is_some();
    room.holes.undo_to(mark);
    fits
}

/// The nodes on which the gang fits now; what is kept for others is not its.
fn hole(room: &mut Room<'_>, gang: &[GroupNeed], own: &Passes) -> Option<BTreeSet<u32>> {
    let shapes = room.shapes(gang, Order::BestFirst);
    match fit(&mut room.holes, own, &shapes, &Fullest) {
        Fit::Fits(spots, _) => Some(spots.iter().flat_map(|spot| spot.nodes.keys().copied()).collect()),
        Fit::No | Fit::NotFound => None,
    }
}

/// A choice of attempts, as places in the list of candidates.
type Choice = Vec<usize>;

/// The cheapest set, as far as two greedy searches find it, whose end makes a hole: one adds attempts one by one, the other all
/// those at once that make room for a member on one node. The first finds scattered room, the second whole nodes.
fn cheapest<'a>(
    room: &mut Room<'_>,
    (gang, own): (&Starved<'a>, &Passes),
    (candidates, going): (&[Candidate<'a>], &[&Attempt]),
    rights: &Rights,
    state: &State,
) -> Option<Found<'a>> {
    let places = room.places();
    let mark = room.holes.mark();
    going.iter().for_each(|attempt| room.give(&places, attempt));
    let singles: Vec<Choice> = (0..candidates.len()).map(|i| vec![i]).collect();
    let bundles = bundles(room, &gang.gang, candidates, &places);
    let mut best: Option<(Price, Choice)> = None;
    for steps in [bundles, singles] {
        let Some(choice) = add_until_it_fits(room, (gang, own), candidates, &steps, rights, state, &places) else {
            continue;
        };
        let price = price(candidates, &choice);
        if best.as_ref().is_none_or(|(least, _)| price < *least) {
            best = Some((price, choice));
        }
    }
    let found = best.and_then(|(_, choice)| {
        choice.iter().for_each(|&i| room.give(&places, candidates[i].attempt));
        let hole = hole(room, &gang.gang, own)?;
        Some(Found { victims: choice.into_iter().map(|i| candidates[i]).collect(), hole })
    });
    room.holes.undo_to(mark);
    found
}

/// What a choice costs: the dearest of it, then all of its work, then how many there are.
type Price = (Option<Cost>, u128, usize);

fn price(candidates: &[Candidate<'_>], choice: &Choice) -> Price {
    let costs = || choice.iter().map(|&i| candidates[i].cost);
    (costs().max(), costs().map(|c| c.work).fold(0, u128::saturating_add), choice.len())
}

/// Adds steps until the gang fits; then drops what turns out not to be needed, the dearest first. The holes are as before
/// afterwards.
fn add_until_it_fits(
    room: &mut Room<'_>,
    (gang, own): (&Starved<'_>, &Passes),
    candidates: &[Candidate<'_>],
    steps: &[Choice],
    rights: &Rights,
    state: &State,
    places: &BTreeMap<&NodeName, u32>,
) -> Option<Choice> {
    let mark = room.holes.mark();
    let (mut chosen, mut books, mut found): (Choice, Rights, bool) = (vec![], rights.clone(), false);
    for step in steps {
        let new: Choice = step.iter().copied().filter(|i| !chosen.contains(i)).collect();
        if new.is_empty() || chosen.len() + new.len() > MOST_VICTIMS {
            continue;
        }
        // An earlier one's end may have brought a pool back to its part.
        let ground = |books: &Rights, i: usize| books.ground(state, gang.workload, candidates[i].workload);
        match new[..] {
            [one] if ground(&books, one).is_none() => continue,
            [one] => books.gives(state, candidates[one].workload),
            _ => {
                let mut after = books.clone();
                let rightful = new.iter().all(|&i| {
                    let ground = ground(&after, i);
                    after.gives(state, candidates[i].workload);
                    ground.is_some()
                });
                if !rightful {
                    continue;
                }
                books = after;
            }
        }
        new.iter().for_each(|&i| room.give(places, candidates[i].attempt));
        chosen.extend(new);
        found = books.suffice(state, gang.workload) && hole(room, &gang.gang, own).is_some();
        if found {
            break;
        }
    }
    let mut dearest_first: Vec<usize> = chosen.clone();
    dearest_first.sort_by_key(|&i| Reverse(candidates[i].cost));
    for dropped in dearest_first.into_iter().filter(|_| found) {
        let fewer: Choice = chosen.iter().copied().filter(|i| *i != dropped).collect();
        room.holes.undo_to(mark);
        fewer.iter().for_each(|&i| room.give(places, candidates[i].attempt));
        let all: Vec<&Candidate<'_>> = fewer.iter().map(|&i| &candidates[i]).collect();
        if !fewer.is_empty() && rightful(&all, gang, rights.clone(), state) && hole(room, &gang.gang, own).is_some() {
            chosen = fewer;
        }
    }
    room.holes.undo_to(mark);
    found.then_some(chosen)
}

/// For each node the attempts whose end makes room on it for a member of the gang's hardest group, the cheapest node first.
fn bundles(
    room: &Room<'_>,
    gang: &[GroupNeed],
    candidates: &[Candidate<'_>],
    places: &BTreeMap<&NodeName, u32>,
) -> Vec<Choice> {
    let Some(&hardest) = packing_order(gang.iter().map(|g| g.each)).first() else { return vec![] };
    let each = &gang[hardest].each;
    let mut on_node: BTreeMap<u32, Vec<(usize, Resources, u64)>> = BTreeMap::new();
    for (i, candidate) in candidates.iter().enumerate() {
        for group in &candidate.attempt.placement {
            for share in &group.nodes {
                if let Some(node) = places.get(&share.node) {
                    on_node.entry(*node).or_default().push((i, group.each, u64::from(share.members)));
                }
            }
        }
    }
    let mut bundles: Vec<(Price, Choice)> = vec![];
    for (node, held) in on_node {
        let free = room.holes.free(node);
        let with = |choice: &Choice| {
            let given = held.iter().filter(|(i, ..)| choice.contains(i));
            given.fold(free.clone(), |mut sum, (_, each, members)| {
                sum.give(each, *members);
                sum
            })
        };
        let enough = |choice: &Choice| with(choice).members(each) > free.members(each);
        let mut choice: Choice = held.iter().map(|(i, ..)| *i).collect();
        choice.sort_unstable();
        choice.dedup();
        if !enough(&choice) {
            continue;
        }
        // The dearest are spared first.
        for i in choice.clone().into_iter().rev() {
            let fewer: Choice = choice.iter().copied().filter(|other| *other != i).collect();
            if enough(&fewer) {
                choice = fewer;
            }
        }
        bundles.push((price(candidates, &choice), choice));
    }
    bundles.sort();
    bundles.into_iter().map(|(_, choice)| choice).collect()
}

/// Whether each in turn has to give its room, and the gang then fits its pool's part.
fn rightful(chosen: &[&Candidate<'_>], gang: &Starved<'_>, mut books: Rights, state: &State) -> bool {
    let each = chosen.iter().all(|c| {
        let ground: Option<Ground> = books.ground(state, gang.workload, c.workload);
        books.gives(state, c.workload);
        ground.is_some()
    });
    each && books.suffice(state, gang.workload)
}

fn cost(state: &State, room: &Room<'_>, (workload, attempt): (&Workload, &Attempt), now: UnixMs) -> Cost {
    let since = attempt.running_at.unwrap_or(now);
    let ran = now.0.saturating_sub(since.0);
    let idle = is_idle(room, attempt, ran);
    let work = if idle { 0 } else { u128::from(size(&holds(&attempt.placement))) * u128::from(ran) };
    let by_service = state.pools.spec(&workload.pool).is_some_and(|s| s.order == LineOrder::LeastServed);
    let served = Reverse(if by_service { step(workload.length(now)) } else { 0 });
    Cost { busy: Reverse(idle), priority: workload.spec.priority, served, work, order: Reverse(workload.order) }
}

/// Whether every node of it on which it holds GPUs is measured to do nothing.
fn is_idle(room: &Room<'_>, attempt: &Attempt, ran_ms: u64) -> bool {
    let quiet = |name: &NodeName| {
        let nodes = room.capacity.map_or(&[][..], |c| &c.nodes);
        nodes.iter().any(|n| n.name == *name && n.activity_percent.is_some_and(|p| p < IDLE_PERCENT))
    };
    let on_gpus = || attempt.placement.iter().filter(|g| g.each.gpu_milli > 0).flat_map(|g| &g.nodes);
    ran_ms >= IDLE_AFTER_MS && on_gpus().next().is_some() && on_gpus().all(|share| quiet(&share.node))
}
