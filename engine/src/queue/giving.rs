//! Whose room makes a hole for a gang at the least loss. In a cluster, what may be given - members of elastic attempts beyond their
//! minimum, and whole attempts - is added, the cheapest first (one by one, and then all of a node at once), until the gang fits; then
//! what turns out not to be needed is dropped again, the dearest first. Members come before whole attempts: those are looked at only
//! where all members together do not suffice. Cheap is: its GPUs are measured to be idle; then a low priority; then little GPU-time
//! since it started. Called by `reclaim` alone; changes the room and undoes it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::control::{GroupPlacement, NodeShare};
use protocol::ids::{NodeName, Uid, UnixMs};
use protocol::placement::{add, members, take};
use protocol::pool::LineOrder;
use protocol::resources::Resources;
use protocol::workload::GroupNeed;

use super::Starved;
use super::reclaim::may_end;
use super::reservations::Passes;
use crate::commands::{Shrink, Victim};
use crate::lifecycle::Phase;
use crate::placement::devices::Free;
use crate::placement::fit::{Fit, Fullest, fit, packing_order};
use crate::placement::rooms::{Order, Room};
use crate::plan::{IDLE_AFTER_MS, IDLE_PERCENT};
use crate::pools::reclaim::{Claim, Rights};
use crate::state::service::{size, step};
use crate::state::{Attempt, Ground, State, Workload};

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
    /// The step of what its workload has had, where its pool serves the least served first.
    served: Reverse<u64>,
    /// GPU-milliseconds in thousandths, or those of cores for what has no GPUs.
    work: u128,
    order: Reverse<u64>,
}

impl<'a> Candidate<'a> {
    /// All of an attempt.
    fn whole(state: &State, room: &Room<'_>, (workload, attempt): (&'a Workload, &'a Attempt), now: UnixMs) -> Self {
        let since = attempt.running_at.unwrap_or(now);
        let cost = cost(state, room, (workload, &attempt.placement), (since, now));
        Self { workload, attempt, cost, member: None }
    }

    /// Whose it is.
    pub(super) fn workload(&self) -> &'a Workload {
        self.workload
    }

    /// Whether it is all of an attempt.
    pub(super) fn is_whole(&self) -> bool {
        self.member.is_none()
    }

    /// What it gives.
    fn gives(&self) -> &[GroupPlacement] {
        self.member.as_ref().map_or(&self.attempt.placement, std::slice::from_ref)
    }

    /// By what right a waiting workload may have it; none: by none.
    pub(super) fn ground(&self, rights: &Rights, state: &State, claim: &Claim<'_>) -> Option<Ground> {
        match &self.member {
            Some(member) => rights.ground_of_extra(claim, self.workload, std::slice::from_ref(member)),
            None => rights.ground(state, claim, self.workload),
        }
    }
}

/// An attempt's members beyond the minimum, each by itself. On whichever node: those that are left are as good.
fn members_beyond<'a>(
    state: &State,
    room: &Room<'_>,
    (workload, attempt): (&'a Workload, &'a Attempt),
    now: UnixMs,
) -> Vec<Candidate<'a>> {
    let since = attempt.sized_at().unwrap_or(now);
    let mut all = vec![];
    for (group, beyond, _) in workload.spare(attempt).filter(|(_, beyond, _)| *beyond > 0) {
        for share in &group.nodes {
            let one = GroupPlacement { nodes: vec![NodeShare { members: 1, ..share.clone() }], ..group.clone() };
            let cost = cost(state, room, (workload, std::slice::from_ref(&one)), (since, now));
            for _ in 0..share.members.min(beyond) {
                all.push(Candidate { workload, attempt, cost, member: Some(one.clone()) });
            }
        }
    }
    all
}

/// What lives in a cluster.
#[derive(Default)]
pub(super) struct Live<'a> {
    /// What is being ended: attempts, and members of attempts that go on.
    pub(super) going: Vec<&'a GroupPlacement>,
    /// What might be given: members first, then whole attempts, the cheapest first.
    pub(super) candidates: Vec<Candidate<'a>>,
}

impl<'a> Live<'a> {
    pub(super) fn in_room(state: &'a State, room: &Room<'a>, now: UnixMs) -> Self {
        let mut live = Self::default();
        for (workload, attempt) in room.live() {
            live.going.extend(attempt.leaving());
            if attempt.stop.is_some() {
                live.going.extend(&attempt.placement);
                continue;
            }
            if workload.phase == Phase::Running {
                live.candidates.extend(members_beyond(state, room, (workload, attempt), now));
            }
            if may_end(workload) {
                live.candidates.push(Candidate::whole(state, room, (workload, attempt), now));
            }
        }
        live.candidates.sort_by_key(|c| (c.is_whole(), c.cost));
        live
    }
}

/// Whose room makes a hole, and on which nodes.
pub(super) struct Found<'c, 'a> {
    given: Vec<&'c Candidate<'a>>,
    pub(super) hole: BTreeSet<u32>,
}

impl Found<'_, '_> {
    /// Whether attempts end, and how much work is lost.
    pub(super) fn lost(&self) -> (bool, u128) {
        let ends = self.given.iter().any(|c| c.is_whole());
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
    asked: (&Starved<'a>, &Claim<'a>, &Passes),
    (candidates, going): (&[&'c Candidate<'a>], &[&GroupPlacement]),
    rights: &Rights,
    state: &State,
) -> Option<Found<'c, 'a>> {
    let members = candidates.iter().take_while(|c| !c.is_whole()).count();
    let search = Search { asked, candidates, rights, state, places: room.places() };
    let mark = room.holes.mark();
    room.give(&search.places, going.iter().copied());
    let could = search.could(room);
    let mut choice = if members > 0 && could { search.greedy(room, 0..members, &[]) } else { None };
    if could && choice.is_none() && members < candidates.len() {
        // All members, of which those are spared again that are not needed beside whole attempts.
        let first: Vec<Choice> = (0..members).map(|i| vec![i]).collect();
        choice = search.greedy(room, members..candidates.len(), &first);
    }
    let found = choice.and_then(|choice| {
        search.give(room, &choice)?;
        let hole = hole(room, &asked.0.gang, asked.2)?;
        Some(Found { given: search.without_implied(&choice).iter().map(|&i| candidates[i]).collect(), hole })
    });
    room.holes.undo_to(mark);
    found
}

/// What a choice costs: the dearest of it, then all of its work, then how many there are.
type Price = (Option<Cost>, u128, usize);

fn price(candidates: &[&Candidate<'_>], choice: &[usize]) -> Price {
    let costs = || choice.iter().map(|&i| candidates[i].cost);
    (costs().max(), costs().map(|c| c.work).fold(0, u128::saturating_add), choice.len())
}

/// A choice as it grows: what each in turn has to give, and what is left of the pools' rights then.
#[derive(Clone)]
struct Given {
    books: Rights,
    /// Members beyond the minimum, by whose they are.
    members: BTreeMap<Uid, Vec<GroupPlacement>>,
}

impl Given {
    /// One more of the choice: what becomes free with it. None, and nothing is changed, where it has not to give, or not that much.
    fn add<'c>(&mut self, state: &State, claim: &Claim<'_>, c: &'c Candidate<'_>) -> Option<Cow<'c, [GroupPlacement]>> {
        c.ground(&self.books, state, claim)?;
        let before = self.members.get(&c.workload.uid);
        let gives = match (&c.member, before) {
            (Some(member), _) => {
                let one = std::slice::from_ref(member);
                let mut gone = before.cloned().unwrap_or_default();
                add(&mut gone, one);
                c.attempt.without(&gone, &c.workload.spec).ok()?;
                self.members.insert(c.workload.uid, gone);
                Cow::Borrowed(one)
            }
            (None, None) => Cow::Borrowed(&c.attempt.placement[..]),
            (None, Some(before)) => {
                let mut rest = c.attempt.placement.clone();
                take(&mut rest, before);
                Cow::Owned(rest)
            }
        };
        self.books.gives_members(state, c.workload, &gives);
        Some(gives)
    }
}

/// A choice as it grows step by step.
#[derive(Clone)]
struct Grown {
    chosen: Choice,
    /// By candidate: whether it is chosen.
    has: Vec<bool>,
    /// How many of the chosen are whole attempts.
    whole: usize,
    given: Given,
    /// The step that is next.
    next: usize,
    /// How many steps added something.
    steps: usize,
    /// The holes with all of it given.
    mark: usize,
}

struct Search<'s, 'c, 'a> {
    asked: (&'s Starved<'a>, &'s Claim<'a>, &'s Passes),
    candidates: &'s [&'c Candidate<'a>],
    rights: &'s Rights,
    state: &'s State,
    places: Rc<BTreeMap<&'a NodeName, u32>>,
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

    /// Whether the gang could fit if all candidates gave all that they have, and each of its groups were alone: where not, no choice
    /// of them makes a hole. Most searches end here.
    fn could(&self, room: &Room<'_>) -> bool {
        let (starved, claim, own) = self.asked;
        let of_own = |c: &&&Candidate<'_>| c.workload.pool == starved.workload.pool;
        let gpus = |c: &Candidate<'_>| {
            let all = c.gives().iter().map(|g| g.each.times(u64::from(members(g))).gpu_milli);
            all.fold(0, u64::saturating_add)
        };
        let given = self.candidates.iter().filter(of_own).map(|c| gpus(c)).fold(0, u64::saturating_add);
        if !self.rights.could_suffice(claim, given) {
            return false;
        }
        let mut free: BTreeMap<u32, Free> = BTreeMap::new();
        for group in self.candidates.iter().flat_map(|c| c.gives()) {
            for share in &group.nodes {
                let Some(node) = self.places.get(&share.node) else { continue };
                let known = free.entry(*node).or_insert_with(|| room.holes.free(*node).clone());
                known.give(&group.each, u64::from(share.members));
            }
        }
        let open: Vec<u32> =
            self.places.values().copied().filter(|node| own.may_use(room.holes.kept_for(*node))).collect();
        room.shapes(&starved.gang, Order::BestFirst).iter().all(|shape| {
            let models: BTreeSet<u16> = shape.models().collect();
            let accepts =
                |node: u32| shape.each.gpu_milli == 0 || room.holes.sku(node).is_some_and(|sku| models.contains(&sku));
            let on = |node: u32| {
                let free = free.get(&node).unwrap_or(room.holes.free(node));
                shape.spread.most(free.members(&shape.each))
            };
            let fit = open.iter().filter(|node| accepts(**node)).map(|node| on(*node));
            fit.fold(0, u64::saturating_add) >= shape.count
        })
    }

    fn nothing(&self) -> Given {
        Given { books: self.rights.clone(), members: BTreeMap::new() }
    }

    /// Makes the room of a choice free, in its order; none, and the room is half given, where not each of it has to give.
    fn give(&self, room: &mut Room<'_>, choice: &[usize]) -> Option<Given> {
        let mut given = self.nothing();
        for &i in choice {
            let gives = given.add(self.state, self.asked.1, self.candidates[i])?;
            room.give(&self.places, gives.iter());
        }
        Some(given)
    }

    fn suffices(&self, room: &mut Room<'_>, given: &Given) -> bool {
        let (gang, claim, own) = self.asked;
        given.books.suffice(self.state, claim) && hole(room, &gang.gang, own).is_some()
    }

    /// Adds steps until the gang fits; then drops what turns out not to be needed, whole attempts before members, the dearest first.
    /// The holes are as before afterwards.
    fn add_until_it_fits(&self, room: &mut Room<'_>, steps: &[&Choice]) -> Option<Choice> {
        let mark = room.holes.mark();
        let found = self.fewest(room, steps);
        room.holes.undo_to(mark);
        let mut chosen = found?;
        let mut dearest_first: Vec<usize> = chosen.clone();
        dearest_first.sort_by_key(|&i| (!self.candidates[i].is_whole(), Reverse(self.candidates[i].cost)));
        for dropped in dearest_first {
            let fewer: Choice = chosen.iter().copied().filter(|i| *i != dropped).collect();
            room.holes.undo_to(mark);
            let given = self.give(room, &fewer).filter(|_| !fewer.is_empty());
            if given.is_some_and(|given| self.suffices(room, &given)) {
                chosen = fewer;
            }
        }
        room.holes.undo_to(mark);
        Some(chosen)
    }

    /// The first steps with which the gang fits. More room never hurts: so twice as many are taken at a time until it fits, and the
    /// fewest that do are found by halving. Leaves the holes changed.
    fn fewest(&self, room: &mut Room<'_>, steps: &[&Choice]) -> Option<Choice> {
        let mut few = Grown {
            chosen: vec![],
            has: vec![false; self.candidates.len()],
            given: self.nothing(),
            whole: 0,
            next: 0,
            steps: 0,
            mark: room.holes.mark(),
        };
        let mut enough = loop {
            let mut more = few.clone();
            self.grow(room, steps, &mut more, few.steps.max(1));
            if more.steps == few.steps {
                return None;
            }
            if self.suffices(room, &more.given) {
                break more;
            }
            few = more;
        };
        while few.steps + 1 < enough.steps {
            room.holes.undo_to(few.mark);
            let mut more = few.clone();
            self.grow(room, steps, &mut more, (enough.steps - few.steps) / 2);
            if self.suffices(room, &more.given) {
                enough = more;
            } else {
                few = more;
            }
        }
        Some(enough.chosen)
    }

    /// Adds so many more steps, as far as there are any that have something to give.
    fn grow(&self, room: &mut Room<'_>, steps: &[&Choice], grown: &mut Grown, by: usize) {
        let until = grown.steps + by;
        while grown.steps < until
            && let Some(step) = steps.get(grown.next)
        {
            grown.next += 1;
            let new: Choice = step.iter().copied().filter(|i| !grown.has[*i]).collect();
            let whole = grown.whole + new.iter().filter(|&&i| self.candidates[i].is_whole()).count();
            let few = whole <= MOST_VICTIMS && grown.chosen.len() + new.len() - whole <= MOST_MEMBERS;
            // An earlier one's end may have brought a pool back to its part.
            if new.is_empty() || !few || !self.add_all(room, &mut grown.given, &new) {
                continue;
            }
            new.iter().for_each(|&i| grown.has[i] = true);
            grown.chosen.extend(new);
            grown.whole = whole;
            grown.steps += 1;
        }
        grown.mark = room.holes.mark();
    }

    /// Adds all of a step, or nothing of it.
    fn add_all(&self, room: &mut Room<'_>, given: &mut Given, step: &[usize]) -> bool {
        let by = self.asked.1;
        if let [one] = step {
            let Some(gives) = given.add(self.state, by, self.candidates[*one]) else { return false };
            room.give(&self.places, gives.iter());
            return true;
        }
        let mut after = given.clone();
        let all: Option<Vec<_>> = step.iter().map(|&i| after.add(self.state, by, self.candidates[i])).collect();
        let Some(all) = all else { return false };
        all.iter().for_each(|gives| room.give(&self.places, gives.iter()));
        *given = after;
        true
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

/// What is lost with these members of an attempt, which have been as they are since then.
fn cost(
    state: &State,
    room: &Room<'_>,
    (workload, gives): (&Workload, &[GroupPlacement]),
    (since, now): (UnixMs, UnixMs),
) -> Cost {
    let ran = now.0.saturating_sub(since.0);
    let idle = is_idle(room, gives, ran);
    let work = if idle { 0 } else { u128::from(size(gives)) * u128::from(ran) };
    let by_service = state.pools.spec(&workload.pool).is_some_and(|s| s.order == LineOrder::LeastServed);
    let served = Reverse(if by_service { step(workload.length(now)) } else { 0 });
    Cost { busy: Reverse(idle), priority: workload.spec.priority, served, work, order: Reverse(workload.order) }
}

/// Whether every node of it on which it holds GPUs is measured to do nothing.
fn is_idle(room: &Room<'_>, gives: &[GroupPlacement], ran_ms: u64) -> bool {
    let quiet = |name: &NodeName| {
        room.nodes().iter().any(|n| n.name == *name && n.activity_percent.is_some_and(|p| p < IDLE_PERCENT))
    };
    let on_gpus = || gives.iter().filter(|g| g.each.gpu_milli > 0).flat_map(|g| &g.nodes);
    ran_ms >= IDLE_AFTER_MS && on_gpus().next().is_some() && on_gpus().all(|share| quiet(&share.node))
}
