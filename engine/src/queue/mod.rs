//! The walk along the lines: the pool that has the least of its part goes next, within it the highest priority, then the
//! earliest submission. Each workload gets the best place that is left for it, or the reason why it waits.
//!
//! Waiting is bounded by two simple rules. For the first of each pool's line that finds no room, nodes are kept where it can start
//! soonest (`reservations`): others use other nodes, or end before it. A workload keeps no room where it would not fit even once every
//! attempt has ended (it is too large, or ghosts, sick devices or cordoned nodes are in its way), nor while it waits out a backoff
//! or for other workloads to succeed. And where one waits for its pool's part, that is kept for it (`pools::admission`).

pub(crate) mod books;
pub(crate) mod estimates;
pub(crate) mod order;
mod reclaim;
pub(crate) mod reservations;
mod soonest;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use protocol::control::GroupPlacement;
use protocol::ids::{ClusterName, PoolName, Region, UnixMs, WorkloadName};
use protocol::pool::{Amounts, Resource, WithinPool};
use protocol::resources::Money;
use protocol::sku::Sku;
use protocol::workload::{Framework, GroupNeed, Preemptible, WorkloadSpec};

use crate::capacity::Capacity;
use crate::placement::avoid::elsewhere;
use crate::placement::candidates::{Barred, Look, Place, decision, look, obstacles, settle};
use crate::placement::holes::KeptFor;
use crate::placement::obstacles::is_permanent;
use crate::placement::placer::Placer;
use crate::placement::rooms::Room;
use crate::pools::admission::Ledger;
use crate::pools::usage::{holds, needs};
use crate::reasons::{Decision, Lent, Obstacle, QuotaBound, Reserved, Shortfall, WaitCause, Waiting};
use crate::state::{Avoids, State, Workload};
use order::{Order, Standing};
pub use reclaim::{LASTING_MS, Memory};
use reservations::{Passes, Reservations};

/// What became of one workload of the line.
pub(crate) enum Turn {
    /// It gets this place.
    Placed { cluster: ClusterName, placement: Vec<GroupPlacement>, decision: Decision },
    /// It waits; [`Walk::waiting`] has the words.
    Waits(Rc<Verdict>),
}

/// What makes waiting workloads alike: one that found no room tells of all of them, for room and the pool's part only get
/// less in a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Likeness {
    pool: PoolName,
    preemptible: Preemptible,
    framework: Framework,
    regions: Vec<Region>,
    gang: Vec<GroupNeed>,
    /// What it pays at most.
    most: Option<Money>,
    /// Beside which workload it is to be, and where that is.
    beside: Option<(WorkloadName, ClusterName)>,
    /// Where it failed lately.
    avoids: Avoids,
    /// Which gangs it may pass.
    passes_until: Option<UnixMs>,
}

/// The walk.
pub(crate) struct Walk<'a> {
    state: &'a State,
    memory: &'a Memory,
    now: UnixMs,
    placer: Placer<'a>,
    ledger: Ledger,
    order: Order<'a>,
    reservations: Reservations,
    found_none: BTreeMap<Likeness, Rc<Verdict>>,
    last: Option<&'a PoolName>,
    standing: Standing,
    /// What there is to divide among pools.
    fleet: Amounts,
    /// The first that found no room, or not enough of their pool's part.
    starved: Vec<Starved<'a>>,
    /// Pools that hold more than their part; found when first asked for.
    all_lent: OnceCell<Vec<Lent>>,
}

/// How many gangs of a plan may have room taken back for them.
const MOST_STARVED: usize = 32;

/// A gang that waits for room that others hold.
pub(crate) struct Starved<'a> {
    workload: &'a Workload,
    /// What it needs, with the models that its pool's part allows.
    gang: Vec<GroupNeed>,
    /// Where it could be once attempts end.
    clusters: Vec<ClusterName>,
    from: From,
}

/// Whose attempts may end for a gang that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    /// Those of its own pool alone: it waits for its pool's part.
    Own,
    /// Those of any that has no right to their room: it waits for room.
    All,
}

/// Why a kind of workload waits.
#[derive(Clone)]
pub(crate) struct Verdict {
    cause: WaitCause,
    barred: Vec<Barred>,
    /// What is kept for the one that has it first.
    reserved: Option<Box<Reserved>>,
}

impl Verdict {
    fn of(cause: WaitCause) -> Rc<Self> {
        Rc::new(Self { cause, barred: vec![], reserved: None })
    }
}

impl<'a> Walk<'a> {
    pub(crate) fn new(state: &'a State, capacity: &'a Capacity, memory: &'a Memory, at: UnixMs) -> Self {
        let now = state.now.max(at);
        let mut placer = Placer::new(state, capacity);
        let books = books::books(state, &placer.rooms, now);
        let fleet = books.fleet.clone();
        let ledger = books::ledger(state, books, now);
        let order = Order::new(state, &ledger);
        let (found_none, last, standing, starved) = (BTreeMap::new(), None, Standing::default(), vec![]);
        let reservations = Reservations::new(&mut placer, (state, now), memory.promises());
        let all_lent = OnceCell::new();
        Self {
            state,
            memory,
            now,
            placer,
            fleet,
            ledger,
            order,
            reservations,
            found_none,
            last,
            standing,
            starved,
            all_lent,
        }
    }

    /// The next workload and what becomes of it; none at the end of every line.
    pub(crate) fn step(&mut self) -> Option<(&'a Workload, Turn)> {
        let (workload, standing) = self.order.next(self.last, &self.ledger)?;
        (self.last, self.standing) = (Some(&workload.pool), standing);
        Some((workload, self.turn(workload)))
    }

    fn turn(&mut self, workload: &'a Workload) -> Turn {
        let waits = |cause| Turn::Waits(Verdict::of(cause));
        if let Some(until) = workload.not_before.filter(|u| *u > self.now) {
            return waits(WaitCause::Backoff { until });
        }
        if workload.is_dependent() {
            return waits(WaitCause::Dependencies { awaited: self.state.awaited(workload) });
        }
        let beside = match self.state.beside(workload) {
            Ok(beside) => beside,
            Err(cause) => return waits(cause),
        };
        if self.placer.rooms.is_empty() {
            return waits(WaitCause::NoClusters);
        }
        let spec = &workload.spec;
        let Ok(framework) = spec.framework() else { return waits(WaitCause::Impossible) };
        let end = self.reservations.end_of(self.state, workload, self.now);
        let passes = self.reservations.passes(workload.uid, end);
        let likeness = Likeness {
            pool: workload.pool.clone(),
            preemptible: spec.preemptible,
            framework,
            regions: spec.placement.regions.require.clone(),
            gang: spec.gang(),
            most: spec.placement.max_cost_per_hour,
            beside,
            avoids: workload.avoids(self.now),
            passes_until: passes.until,
        };
        // What is kept for it is its alone: others that are alike found less.
        if let Some(verdict) = self.found_none.get(&likeness).filter(|_| !self.reservations.has(workload.uid)) {
            return Turn::Waits(Rc::clone(verdict));
        }
        match self.find(workload, &likeness, (&passes, end)) {
            Ok(turn) => {
                self.reservations.done(&mut self.placer, workload.uid);
                turn
            }
            Err(verdict) => {
                if verdict.reserved.is_none() {
                    self.reservations.done(&mut self.placer, workload.uid);
                }
                self.found_none.insert(likeness, Rc::new(Verdict { reserved: None, ..verdict.clone() }));
                Turn::Waits(Rc::new(verdict))
            }
        }
    }

    /// A place for a gang, or why there is none.
    fn find(
        &mut self,
        workload: &'a Workload,
        likeness: &Likeness,
        (passes, end): (&Passes, Option<UnixMs>),
    ) -> Result<Turn, Verdict> {
        let Likeness { pool, preemptible, gang, .. } = likeness;
        let firm = (*preemptible, end);
        let claims = self.ledger.claims(pool);
        let gang = match self.within_quota(pool, firm, gang) {
            Ok(gang) => gang,
            Err(mut verdict) => {
                // What was let past it may use its pool's part until it starts: its nodes stay kept. But not where the part would not
                // hold it even then: whoever has that part instead may need these very nodes, and both would wait for ever.
                let lent_to_passers =
                    |short: &Shortfall| short.bound == QuotaBound::Entitlement && short.needs <= short.most;
                if matches!(&verdict.cause, WaitCause::Quota(short) if lent_to_passers(short)) {
                    verdict.reserved = self.reserve((workload, likeness), gang, None);
                    if verdict.reserved.is_some() {
                        self.ledger.set_claims(pool, claims);
                    }
                }
                // Where priority decides within the pool, lower ones give up its part. Others give nothing: it may not start on that.
                let by_priority =
                    self.state.pools.spec(pool).is_some_and(|s| s.preemption_within == WithinPool::ByPriority);
                let anywhere = likeness.most.is_none() && likeness.beside.is_none();
                if matches!(&verdict.cause, WaitCause::Quota(short) if short.bound != QuotaBound::Reservation)
                    && by_priority
                    && anywhere
                {
                    let of_use = |name: &&&ClusterName| !likeness.avoids.concerns(name);
                    let all = self.placer.rooms.keys().filter(of_use).map(|name| (*name).clone()).collect();
                    self.starves(workload, gang.clone(), all, From::Own);
                }
                return Err(verdict);
            }
        };
        if likeness.avoids.is_empty() {
            return self.within_room(workload, likeness, gang, (passes, firm), false);
        }
        let own = self.reservations.own(workload.uid).and_then(|own| KeptFor::try_from(own).ok());
        let avoided = self.avoid(workload, likeness, &gang);
        let found = self.within_room(workload, likeness, gang, (passes, firm), avoided);
        self.placer.rooms.values_mut().for_each(|room| room.avoid_nothing(own));
        found
    }

    /// Marks where it failed lately, for the time of its turn. Whether that is avoided: not where it could be nowhere else.
    fn avoid(&mut self, workload: &Workload, likeness: &Likeness, gang: &[GroupNeed]) -> bool {
        let rooms = &mut self.placer.rooms;
        rooms.values_mut().for_each(|room| room.avoid(&likeness.avoids));
        let beside = likeness.beside.as_ref().map(|(_, cluster)| cluster);
        let elsewhere = elsewhere(rooms, &workload.spec, likeness.framework, gang, beside);
        if !elsewhere {
            rooms.values_mut().for_each(Room::avoid_less);
        }
        elsewhere
    }

    /// A place for a gang that fits its pool's part, or why there is none.
    fn within_room(
        &mut self,
        workload: &'a Workload,
        likeness: &Likeness,
        gang: Vec<GroupNeed>,
        (passes, firm): (&Passes, (Preemptible, Option<UnixMs>)),
        avoided: bool,
    ) -> Result<Turn, Verdict> {
        let Likeness { pool, preemptible, .. } = likeness;
        let (mut places, barred) = self.look(&workload.spec, likeness, &gang, passes);
        if places.is_empty() {
            let cause = self.cause(&barred, passes);
            let reserved = self.reserve((workload, likeness), &gang, Some(&barred));
            // For one with several models room could be made on one that it can't pay for.
            let one_model = |g: &GroupNeed| g.each.gpu_milli == 0 || g.skus.len() == 1;
            if likeness.most.is_none() || gang.iter().all(one_model) {
                // Nor where some of it would be made on nodes that it avoids.
                let of_use = |b: &&Barred| b.waits && !(avoided && likeness.avoids.concerns(&b.cluster));
                let waits = barred.iter().filter(of_use).map(|b| b.cluster.clone()).collect();
                self.starves(workload, gang, waits, From::All);
            }
            return Err(Verdict { cause, barred, reserved });
        }
        // Several groups that each may have a model may together be too many of it.
        let mut short = None;
        while let Some(best) = places.first() {
            let held = self.would_hold(best, &gang);
            match self.ledger.forbids(&self.state.pools, pool, &held, firm) {
                None => {
                    let turn = self.place_first(&gang, places, &barred, &likeness.avoids);
                    self.ledger.take(&self.state.pools, pool, &held, *preemptible);
                    return Ok(turn);
                }
                Some(found) => short = Some(found),
            }
            places.remove(0);
        }
        let short = short.expect("every place was found to be beyond the pool's part");
        Err(self.beyond(pool, &needs(&gang), short))
    }

    fn starves(&mut self, workload: &'a Workload, gang: Vec<GroupNeed>, clusters: Vec<ClusterName>, from: From) {
        if self.starved.len() < MOST_STARVED && !clusters.is_empty() {
            self.starved.push(Starved { workload, gang, clusters, from });
        }
    }

    /// The gang with only those models that its pool's part allows, or why it may not start at all.
    fn within_quota(
        &mut self,
        pool: &PoolName,
        (preemptible, end): (Preemptible, Option<UnixMs>),
        gang: &[GroupNeed],
    ) -> Result<Vec<GroupNeed>, Verdict> {
        let all = needs(gang);
        if let Some(short) = self.ledger.forbids(&self.state.pools, pool, &all, (preemptible, end)) {
            return Err(self.beyond(pool, &all, short));
        }
        let mut gang = gang.to_vec();
        for group in gang.iter_mut().filter(|g| g.each.gpu_milli > 0 && g.skus.len() != 1) {
            let accepted = if group.skus.is_empty() { self.models() } else { group.skus.clone() };
            let gpus = group.each.times(u64::from(group.count)).gpu_milli;
            let mut short = None;
            let allowed: Vec<Sku> = accepted
                .iter()
                .filter(|sku| {
                    let mut more = Amounts::default();
                    more.add(Resource::Model((*sku).clone()), gpus);
                    let forbidden = self.ledger.over_entitlement(pool, &more, end);
                    let allowed = forbidden.is_none();
                    short = short.take().or(forbidden);
                    allowed
                })
                .cloned()
                .collect();
            if let Some(short) = short.filter(|_| allowed.is_empty()) {
                return Err(self.beyond(pool, &Amounts::default(), short));
            }
            // A group that accepts any model goes on to accept any, where none is forbidden: the cheapest first.
            if allowed.len() < accepted.len() {
                group.skus = allowed;
            }
        }
        Ok(gang)
    }

    /// Every model of the fleet.
    fn models(&self) -> Vec<Sku> {
        let mut models: Vec<Sku> = self.placer.rooms.values().flat_map(|room| room.skus.iter().cloned()).collect();
        models.sort();
        models.dedup();
        models
    }

    /// A gang is beyond its pool's part: some of that is kept for it.
    fn beyond(&mut self, pool: &PoolName, gang: &Amounts, short: Shortfall) -> Verdict {
        self.ledger.claim(&self.state.pools, &short, pool, gang);
        Verdict { cause: WaitCause::Quota(short), barred: vec![], reserved: None }
    }

    fn would_hold(&self, place: &Place, gang: &[GroupNeed]) -> Amounts {
        let Some(room) = self.placer.rooms.get(&place.cluster) else { return Amounts::default() };
        let mut held = Amounts::default();
        for (need, spot) in gang.iter().zip(&place.spots) {
            let group = GroupNeed { skus: room.sku(spot.sku).cloned().into_iter().collect(), ..need.clone() };
            held.add_all(&needs(std::slice::from_ref(&group)));
        }
        held
    }

    /// Why the one that just had its turn waits. Apart from the turn, for most of a long line is never asked about.
    pub(crate) fn waiting(&self, verdict: &Verdict) -> Waiting {
        let pool = self.last.cloned().unwrap_or_else(|| crate::pools::DEFAULT.clone());
        let candidates = obstacles(&verdict.barred).collect();
        let Standing { place, of } = self.standing;
        let for_room = matches!(verdict.cause, WaitCause::NoRoom | WaitCause::BehindOthers { .. });
        let lent = if for_room { self.lent(&pool) } else { vec![] };
        let (cause, reserved) = (verdict.cause.clone(), verdict.reserved.as_deref().cloned());
        Waiting { place, of, pool, cause, candidates, lent, reserved }
    }

    /// Other pools that hold more than their part.
    fn lent(&self, own: &PoolName) -> Vec<Lent> {
        if self.state.pools.is_plain() {
            return vec![];
        }
        let all = self.all_lent.get_or_init(|| reclaim::lent(self));
        all.iter().filter(|lent| lent.pool != *own).cloned().collect()
    }

    /// The place in its pool's line of the one that just had its turn.
    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Every cluster: those with room, the best first, and those without.
    fn look(
        &mut self,
        spec: &WorkloadSpec,
        likeness: &Likeness,
        gang: &[GroupNeed],
        passes: &Passes,
    ) -> (Vec<Place>, Vec<Barred>) {
        let (mut places, mut barred) = (vec![], vec![]);
        for room in self.placer.rooms.values_mut() {
            let own = &room.cluster.info.name;
            if let Some((workload, cluster)) = likeness.beside.as_ref().filter(|(_, cluster)| cluster != own) {
                let obstacle = Obstacle::ElsewhereThan { workload: workload.clone(), cluster: cluster.clone() };
                barred.push(Barred { cluster: own.clone(), obstacle, waits: false });
                continue;
            }
            let ahead = (&self.reservations, passes);
            match look(room, &self.placer.value, spec, likeness.framework, gang, ahead) {
                Look::Open(place) => places.push(place),
                Look::Barred(b) => barred.push(b),
            }
        }
        places.sort_by(|a, b| a.score.cmp(&b.score));
        (places, barred)
    }

    fn place_first(&mut self, gang: &[GroupNeed], places: Vec<Place>, barred: &[Barred], avoids: &Avoids) -> Turn {
        let mut decision = decision(&self.placer.rooms, &places, barred);
        let best = places.into_iter().next().expect("the caller saw a place");
        let room = self.placer.rooms.get_mut(&best.cluster).expect("the place is in a joined cluster");
        let placement = settle(room, gang, &best.spots);
        debug_assert!(!holds(&placement).is_empty() || gang.is_empty(), "a placed gang holds something");
        decision.despite = avoids.first_of(&best.cluster, &placement).map(|(_, avoided)| avoided);
        Turn::Placed { cluster: best.cluster, placement, decision }
    }

    /// Keeps nodes for a gang that finds no room, and as much of its pool's part.
    fn reserve(
        &mut self,
        (workload, likeness): (&Workload, &Likeness),
        gang: &[GroupNeed],
        barred: Option<&[Barred]>,
    ) -> Option<Box<Reserved>> {
        let (at, promises) = ((self.state, self.now), self.memory.promises());
        let beside = likeness.beside.as_ref().map(|(_, cluster)| cluster);
        let where_to = (barred, beside);
        let (reserved, until) =
            self.reservations.reserve(&mut self.placer, at, promises, (workload, gang), where_to)?;
        self.ledger.reserve(&workload.pool, &needs(gang), until);
        Some(Box::new(reserved))
    }

    fn cause(&self, barred: &[Barred], passes: &Passes) -> WaitCause {
        if barred.iter().all(|b| is_permanent(&b.obstacle)) {
            return WaitCause::Impossible;
        }
        let behind = barred.iter().filter(|b| matches!(b.obstacle, Obstacle::BehindOthers { .. }));
        let rooms = behind.filter_map(|b| self.placer.rooms.get(&b.cluster));
        let (ahead, first) = self.reservations.all_ahead(rooms, passes);
        first.map_or(WaitCause::NoRoom, |first| WaitCause::BehindOthers { ahead, first })
    }
}
