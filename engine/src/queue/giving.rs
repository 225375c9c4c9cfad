//! Whose room makes a hole for a gang at the least loss. In a cluster, what may be given - members of elastic attempts beyond their
//! minimum, and whole attempts - is added, the cheapest first (one by one, and then all of a node at once), until the gang fits; then
//! what turns out not to be needed is dropped again, the dearest first. Members come before whole attempts: those are looked at only
//! where all members together do not suffice. Cheap is: its GPUs are measured to be idle; then a low priority; then little GPU-time
//! since it started. Called by `reclaim` alone; changes the room and undoes it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use protocol::control::{GroupPlacement, NodeShare};
use protocol::ids::{NodeName, UnixMs};
use protocol::placement::{add, members, take};
use protocol::pool::Resource;
use protocol::resources::Resources;
use protocol::workload::GroupNeed;

use super::Starved;
use super::reservations::Passes;
use crate::commands::{Shrink, Victim};
use crate::placement::fit::{Fit, Fullest, fit, packing_order};
use crate::placement::rooms::{Order, Room};
use crate::plan::{IDLE_AFTER_MS, IDLE_PERCENT};
use crate::pools::reclaim::Rights;
use crate::pools::usage::holds;
use crate::state::{Attempt, State, Workload};

/// The most attempts that end for one gang.
const MOST_VICTIMS: usize = 256;
/// The most members that go for one gang while their attempts go on.
const MOST_MEMBERS: usize = 1024;

/// Something that might be given.
pub(super) struct Candidate<'a> {
    workload: &'a Workload,
    attempt: &'a Attempt,
    cost: Cost,
    /// One member beyond the minimum; none: all of the attempt.
    member: Option<GroupPlacement>,
}

/// How much is lost with it; the least goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    busy: Reverse<bool>,
    priority: i32,
    /// GPU-milliseconds in thousandths, or those of cores for what has no GPUs.
    work: u128,
    order: Reverse<u64>,
}

impl<'a> Candidate<'a> {
    /// All of an attempt.
    pub(super) fn whole(room: &Room<'_>, workload: &'a Workload, attempt: &'a Attempt, now: UnixMs) -> Self {
        let since = attempt.running_at.unwrap_or(now);
        let cost = cost(room, workload, &attempt.placement, now.0.saturating_sub(since.0));
        Self { workload, attempt, cost, member: None }
    }

    /// What it gives.
    pub(super) fn gives(&self) -> &[GroupPlacement] {
        self.member.as_ref().map_or(&self.attempt.placement, std::slice::from_ref)
    }

    /// Members first, then by cost.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        (self.member.is_none(), self.cost)
    }
}

/// An attempt's members beyond the minimum, each by itself. On whichever node: those that are left are as good.
pub(super) fn members_beyond<'a>(
    room: &Room<'_>,
    workload: &'a Workload,
    attempt: &'a Attempt,
    now: UnixMs,
) -> Vec<Candidate<'a>> {
    let since = attempt.resize.as_ref().map(|resize| resize.at).max(attempt.running_at).unwrap_or(now);
    let ran = now.0.saturating_sub(since.0);
    let mut all = vec![];
    for (group, beyond, _) in workload.spare(attempt).filter(|(_, beyond, _)| *beyond > 0) {
        for share in &group.nodes {
            let one = GroupPlacement { nodes: vec![NodeShare { members: 1, ..share.clone() }], ..group.clone() };
            let cost = cost(room, workload, std::slice::from_ref(&one), ran);
            for _ in 0..share.members.min(beyond) {
                all.push(Candidate { workload, attempt, cost, member: Some(one.clone()) });
            }
        }
    }
    all
}

/// Whose room makes a hole, and on which nodes.
pub(super) struct Found<'c, 'a> {
    given: Vec<&'c Candidate<'a>>,
    pub(super) hole: BTreeSet<u32>,
}

impl Found<'_, '_> {
    /// Whether attempts end, and how much work is lost.
    pub(super) fn lost(&self) -> (bool, u128) {
        let ends = self.given.iter().any(|c| c.member.is_none());
        (ends, self.given.iter().map(|c| c.cost.work).fold(0, u128::saturating_add))
    }

    /// Those that end, and those that give members and go on.
    pub(super) fn split(&self) -> (Vec<Victim>, Vec<Shrink>) {
        let (mut victims, mut shrinks): (Vec<Victim>, Vec<Shrink>) = (vec![], vec![]);
        for c in &self.given {
            let (key, uid, attempt) = (c.workload.key.clone(), c.workload.uid, c.attempt.number);
            match &c.member {
                None => victims.push(Victim { key, uid, attempt }),
                Some(member) => match shrinks.iter_mut().find(|s| s.uid == uid) {
                    Some(known) => add(&mut known.members, std::slice::from_ref(member)),
                    None => shrinks.push(Shrink { key, uid, attempt, members: vec![member.clone()] }),
                },
            }
        }
        (victims, shrinks)
    }
}

/// What is being ended in a cluster: attempts, and members of attempts that go on.
pub(super) fn going<'a>(state: &'a State, room: &Room<'a>) -> Vec<&'a GroupPlacement> {
    let all = state.live_in(&room.cluster.info.name).map(|(_, attempt)| attempt);
    all.flat_map(|a| a.placement.iter().filter(|_| a.stop.is_some()).chain(a.leaving())).collect()
}

/// Whether what is being ended already makes the hole.
pub(super) fn coming(room: &mut Room<'_>, gang: &[GroupNeed], own: &Passes, going: &[&GroupPlacement]) -> bool {
    let mark = room.holes.mark();
    let places = room.places();
    room.give(&places, going.iter().copied());
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

/// The cheapest set whose gift makes a hole: of members alone where they suffice.
pub(super) fn cheapest<'c, 'a>(
    room: &mut Room<'_>,
    asked: (&Starved<'a>, &Passes),
    candidates: &'c [Candidate<'a>],
    rights: &Rights,
    state: &State,
) -> Option<Found<'c, 'a>> {
    let members = candidates.iter().take_while(|c| c.member.is_some()).count();
    let search = Search { asked, candidates, rights, state, places: room.places() };
    let mark = room.holes.mark();
    let going = going(state, room);
    room.give(&search.places, going);
    let mut choice = if members > 0 { search.greedy(room, 0..members, &[]) } else { None };
    if choice.is_none() && members < candidates.len() {
        // All members, of which those are spared again that are not needed beside whole attempts.
        let first: Vec<Choice> = (0..members).map(|i| vec![i]).collect();
        choice = search.greedy(room, members..candidates.len(), &first);
    }
    let found = choice.and_then(|choice| {
        search.give(room, &choice);
        let hole = hole(room, &asked.0.gang, asked.1)?;
        Some(Found { given: search.without_implied(&choice).iter().map(|&i| &candidates[i]).collect(), hole })
    });
    room.holes.undo_to(mark);
    found
}

/// What a choice costs: the dearest of it, then all of its work, then how many there are.
type Price = (Option<Cost>, u128, usize);

fn price(candidates: &[Candidate<'_>], choice: &[usize]) -> Price {
    let costs = || choice.iter().map(|&i| candidates[i].cost);
    (costs().max(), costs().map(|c| c.work).fold(0, u128::saturating_add), choice.len())
}

struct Search<'s, 'c, 'a> {
    asked: (&'s Starved<'a>, &'s Passes),
    candidates: &'c [Candidate<'a>],
    rights: &'s Rights,
    state: &'s State,
    places: BTreeMap<&'s NodeName, u32>,
}

impl<'a> Search<'_, '_, 'a> {
    /// The cheaper set of two greedy searches over some of the candidates, after `first`: one adds them one by one, the other all those
    /// at once that make room for a member on one node. The first finds scattered room, the second whole nodes.
    fn greedy(&self, room: &mut Room<'_>, among: std::ops::Range<usize>, first: &[Choice]) -> Option<Choice> {
        let singles: Vec<Choice> = among.clone().map(|i| vec![i]).collect();
        let bundles = self.bundles(room, among);
        let mut best: Option<(Price, Choice)> = None;
        for steps in [bundles, singles] {
            let steps: Vec<&Choice> = first.iter().chain(&steps).collect();
            let Some(choice) = self.add_until_it_fits(room, &steps) else { continue };
            let price = price(self.candidates, &choice);
            if best.as_ref().is_none_or(|(least, _)| price < *least) {
                best = Some((price, choice));
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// A choice without members of attempts that it ends anyway.
    fn without_implied(&self, choice: &[usize]) -> Choice {
        let ends = |w: &Workload| {
            choice.iter().any(|&i| self.candidates[i].member.is_none() && self.candidates[i].workload.uid == w.uid)
        };
        let kept = choice
            .iter()
            .copied()
            .filter(|&i| self.candidates[i].member.is_none() || !ends(self.candidates[i].workload));
        kept.collect()
    }

    fn give(&self, room: &mut Room<'_>, choice: &[usize]) {
        for i in self.without_implied(choice) {
            room.give(&self.places, self.candidates[i].gives());
        }
    }

    /// Whether a choice leaves every attempt that goes on its minimum.
    fn keeps_floors(&self, choice: &[usize]) -> bool {
        let mut gone: Vec<(&Candidate<'a>, Vec<GroupPlacement>)> = vec![];
        for &i in choice {
            let c = &self.candidates[i];
            let Some(member) = &c.member else { continue };
            match gone.iter_mut().find(|(other, _)| other.workload.uid == c.workload.uid) {
                Some((_, known)) => add(known, std::slice::from_ref(member)),
                None => gone.push((c, vec![member.clone()])),
            }
        }
        gone.iter().all(|(c, gone)| {
            let beyond = |group: &GroupPlacement| c.workload.spare(c.attempt).find(|(g, ..)| g.group == group.group);
            let mut left = c.attempt.placement.clone();
            gone.iter().all(|g| beyond(g).is_some_and(|(_, beyond, _)| members(g) <= beyond)) && take(&mut left, gone)
        })
    }

    /// What is left of rights after a choice in its order, where each of it has to give, and the floors are kept.
    fn rightful(&self, choice: &[usize]) -> Option<Rights> {
        let (by, mut books) = (self.asked.0.workload, self.rights.clone());
        let mut given: BTreeMap<_, Vec<GroupPlacement>> = BTreeMap::new();
        for &i in choice {
            let c = &self.candidates[i];
            let before = given.entry(c.workload.uid).or_default();
            match &c.member {
                Some(member) => {
                    let one = std::slice::from_ref(member);
                    books.ground_of_extra(by, c.workload, one)?;
                    books.gives_members(self.state, c.workload, one);
                    add(before, one);
                }
                None => {
                    books.ground(self.state, by, c.workload)?;
                    let mut rest = c.attempt.placement.clone();
                    take(&mut rest, before);
                    books.gives_members(self.state, c.workload, &rest);
                }
            }
        }
        self.keeps_floors(choice).then_some(books)
    }

    fn fits(&self, room: &mut Room<'_>, choice: &[usize]) -> bool {
        let mark = room.holes.mark();
        self.give(room, choice);
        let fits = hole(room, &self.asked.0.gang, self.asked.1).is_some();
        room.holes.undo_to(mark);
        fits
    }

    /// Adds steps until the gang fits; then drops what turns out not to be needed, whole attempts before members, the dearest first.
    /// The holes are as before afterwards.
    fn add_until_it_fits(&self, room: &mut Room<'_>, steps: &[&Choice]) -> Option<Choice> {
        let (by, mut chosen, mut found): (_, Choice, bool) = (self.asked.0.workload, vec![], false);
        for step in steps {
            let new: Choice = step.iter().copied().filter(|i| !chosen.contains(i)).collect();
            let with: Choice = chosen.iter().copied().chain(new.iter().copied()).collect();
            let whole = with.iter().filter(|&&i| self.candidates[i].member.is_none()).count();
            if new.is_empty() || whole > MOST_VICTIMS || with.len() - whole > MOST_MEMBERS {
                continue;
            }
            // An earlier one's end may have brought a pool back to its part.
            let Some(books) = self.rightful(&with) else { continue };
            chosen = with;
            found = books.suffice(self.state, by) && self.fits(room, &chosen);
            if found {
                break;
            }
        }
        let mut dearest_first: Vec<usize> = chosen.clone();
        dearest_first.sort_by_key(|&i| (self.candidates[i].member.is_some(), Reverse(self.candidates[i].cost)));
        for dropped in dearest_first.into_iter().filter(|_| found) {
            let fewer: Choice = chosen.iter().copied().filter(|i| *i != dropped).collect();
            let rightful = || self.rightful(&fewer).is_some_and(|books| books.suffice(self.state, by));
            if !fewer.is_empty() && rightful() && self.fits(room, &fewer) {
                chosen = fewer;
            }
        }
        found.then_some(chosen)
    }

    /// For each node what makes room on it for a member of the gang's hardest group, the cheapest node first.
    fn bundles(&self, room: &Room<'_>, among: std::ops::Range<usize>) -> Vec<Choice> {
        let (gang, candidates) = (&self.asked.0.gang, self.candidates);
        let Some(&hardest) = packing_order(gang.iter().map(|g| g.each)).first() else { return vec![] };
        let each = &gang[hardest].each;
        let mut on_node: BTreeMap<u32, Vec<(usize, Resources, u64)>> = BTreeMap::new();
        for i in among {
            for group in candidates[i].gives() {
                for share in &group.nodes {
                    if let Some(node) = self.places.get(&share.node) {
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
}

/// What is lost with these members of an attempt, which have run for so long.
fn cost(room: &Room<'_>, workload: &Workload, gives: &[GroupPlacement], ran: u64) -> Cost {
    let held = holds(gives);
    let amount = match held.of(&Resource::Gpu) {
        0 => held.of(&Resource::Cpu),
        gpus => gpus,
    };
    let idle = is_idle(room, gives, ran);
    let work = if idle { 0 } else { u128::from(amount) * u128::from(ran) };
    Cost { busy: Reverse(idle), priority: workload.spec.priority, work, order: Reverse(workload.order) }
}

/// Whether every node of it on which it holds GPUs is measured to do nothing.
fn is_idle(room: &Room<'_>, gives: &[GroupPlacement], ran_ms: u64) -> bool {
    let quiet = |name: &NodeName| {
        let nodes = room.capacity.map_or(&[][..], |c| &c.nodes);
        nodes.iter().any(|n| n.name == *name && n.activity_percent.is_some_and(|p| p < IDLE_PERCENT))
    };
    let on_gpus = || gives.iter().filter(|g| g.each.gpu_milli > 0).flat_map(|g| &g.nodes);
    ran_ms >= IDLE_AFTER_MS && on_gpus().next().is_some() && on_gpus().all(|share| quiet(&share.node))
}
