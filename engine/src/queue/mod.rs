//! The walk along the lines: the pool that has the least of its part goes next, within it the highest priority, then the
//! earliest submission. Each workload gets the best place that is left for it, or the reason why it waits.
//!
//! Waiting is bounded by two simple rules. For the first of each pool's line that finds no room, nodes are kept where it can start
//! soonest (`reservations`): others use other nodes, end before it, or end for it (`passers`). A workload keeps no room where it would not fit even once every
//! attempt has ended (it is too large, or ghosts, sick devices or cordoned nodes are in its way), nor while it waits out a backoff
//! or for other workloads to succeed. And where one waits for its pool's part, that is kept for it (`pools::admission`).

pub(crate) mod books;
mod elastic;
pub(crate) mod estimates;
mod giving;
mod looks;
pub(crate) mod order;
mod passers;
mod raises;
mod reclaim;
pub(crate) mod reservations;
mod soonest;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::control::GroupPlacement;
use protocol::ids::{ClusterName, PoolName, UnixMs, WorkloadName};
use protocol::pool::{Amounts, PoolSpec, Resource};
use protocol::sku::Sku;
use protocol::workload::{Framework, GroupNeed, Preemptible};

use crate::capacity::Capacity;
use crate::commands::Preemption;
use crate::placement::avoid::elsewhere;
use crate::placement::candidates::{Barred, Look, Place, decision, look, obstacles, settle};
use crate::placement::holes::KeptFor;
use crate::placement::kept::Kept;
use crate::placement::locality::Wants;
use crate::placement::obstacles::is_permanent;
use crate::placement::placer::Placer;
use crate::placement::rooms::Room;
use crate::pools::admission::{Asks, Ledger};
use crate::pools::reclaim::Rights;
use crate::pools::usage::{holds, needs};
use crate::reasons::{Decision, Lent, Obstacle, Passed, QuotaBound, Reserved, Shortfall, WaitCause, Waiting};
use crate::state::{Avoids, Cluster, Likeness, State, Waiter, Workload};
use looks::Looks;
use order::{Order, Standing};
pub(crate) use reclaim::SETTLING_MS;
pub use reclaim::{LASTING_MS, Memory};
use reservations::{Passes, Reservations, is_lent};

/// What became of one workload of the line.
pub(crate) enum Turn<'a> {
    /// It gets this place.
    Placed { workload: &'a Workload, cluster: ClusterName, placement: Vec<GroupPlacement>, decision: Decision },
    /// It waits; [`Walk::waiting`] has the words.
    Waits(Rc<Verdict>),
}

/// The walk.
pub(crate) struct Walk<'a> {
    state: &'a State,
    memory: &'a Memory,
    now: UnixMs,
    placer: Placer<'a>,
    ledger: Ledger,
    /// What leaves held and waited for at the start.
    demands: BTreeMap<PoolName, Amounts>,
    order: Order<'a>,
    reservations: Reservations<'a>,
    looks: Looks,
    /// Why those of a likeness, by its address, that end in time to pass the same gangs find no room.
    found_none: BTreeMap<(usize, Option<UnixMs>), Rc<Verdict>>,
    /// Those of whom it is known that they find no room have no turn.
    hurries: bool,
    last: Option<&'a PoolName>,
    standing: Standing,
    /// What there is to divide among pools.
    fleet: Amounts,
    /// The first that found no room, or not enough of their pool's part.
    starved: Vec<Starved<'a>>,
    /// Clusters where gangs within their pool's part wait for room.
    wanted: BTreeSet<ClusterName>,
    /// Those that were let past a gang that can start now without them.
    called: Vec<Preemption>,
    /// What pools have a right to; found when first asked for.
    rights: OnceCell<Rights>,
    /// Pools that hold more than their part; found when first asked for.
    all_lent: OnceCell<Vec<Lent>>,
}

/// One whose turn it is.
struct Seeker<'a> {
    workload: &'a Workload,
    likeness: &'a Likeness,
    framework: Framework,
    wants: Wants<'a>,
    /// Beside which workload it is to be, and where that is.
    beside: Option<(WorkloadName, ClusterName)>,
    /// Where it failed lately.
    avoids: Avoids,
    asks: Asks,
    /// Which kept nodes it may use without any condition.
    strict: Passes,
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
    pub(crate) fn new(
        (state, capacity): (&'a State, &'a Capacity),
        (memory, kept): (&'a Memory, Kept),
        at: UnixMs,
    ) -> Self {
        let now = state.now.max(at);
        let mut placer = Placer::new(state, capacity, kept);
        let books = books::books(state, &placer.rooms, now);
        let fleet = books.fleet.clone();
        let (ledger, demands) = books::ledger(state, books, now);
        let order = Order::new(state, &ledger);
        let (found_none, last, standing, starved) = (BTreeMap::new(), None, Standing::default(), vec![]);
        let reservations = Reservations::new(&mut placer, (state, now), &ledger, memory.promises());
        let (rights, all_lent) = (OnceCell::new(), OnceCell::new());
        Self {
            state,
            memory,
            now,
            placer,
            fleet,
            ledger,
            demands,
            order,
            reservations,
            looks: Looks::default(),
            found_none,
            hurries: false,
            last,
            standing,
            starved,
            wanted: BTreeSet::new(),
            called: vec![],
            rights,
            all_lent,
        }
    }

    /// What the next plan may start from.
    pub(crate) fn rest(self) -> Kept {
        self.placer.rooms.rest()
    }

    /// The next workload and what becomes of it; none at the end of every line.
    pub(crate) fn step(&mut self) -> Option<(&'a Waiter, Turn<'a>)> {
        if self.hurries {
            self.skip_known();
        }
        let (waiter, standing) = self.order.next()?;
        (self.last, self.standing) = (Some(&waiter.alike.pool), standing);
        let turn = self.turn(waiter);
        if matches!(turn, Turn::Placed { .. }) {
            self.order.has_more(&self.ledger);
        }
        Some((waiter, turn))
    }

    /// From here on nobody asks why those wait that are like others that found no room: they have no turn. Nothing else is decided
    /// differently.
    pub(crate) fn hurry(&mut self) {
        self.hurries = true;
    }

    /// The pool that had its turn goes on at the first of its line of whom it is not known that there is no room.
    fn skip_known(&mut self) {
        let (found_none, reservations, state) = (&self.found_none, &self.reservations, self.state);
        self.order.go_on_at(|pool, next| {
            let likenesses = state.indices.likenesses.of_pool(pool)?;
            let unknown =
                likenesses.places.iter().filter(|(likeness, _)| !found_none.contains_key(&(address(likeness), None)));
            let open = unknown.map(|(_, places)| places).chain([&likenesses.failed]);
            let first = open.filter_map(|places| places.range(next..).next().copied());
            first.chain(reservations.waiting(state, pool).filter(|line| *line >= next)).min()
        });
    }

    fn turn(&mut self, waiter: &'a Waiter) -> Turn<'a> {
        let waits = |cause| Turn::Waits(Verdict::of(cause));
        if let Some(until) = waiter.not_before.filter(|u| *u > self.now) {
            return waits(WaitCause::Backoff { until });
        }
        let likeness: &'a Likeness = &waiter.alike;
        let passes = likeness.preemptible == Preemptible::Yes;
        let known = |end: Option<UnixMs>| (address(likeness), end);
        // Whoever passes on condition does so whenever it ends.
        let own = self.reservations.has(waiter.uid);
        if passes
            && !own
            && !waiter.dependent
            && !waiter.failed
            && let Some(verdict) = self.found_none.get(&known(None))
        {
            return Turn::Waits(Rc::clone(verdict));
        }
        let Some(workload) = self.state.workloads.get(&waiter.key) else { return waits(WaitCause::Impossible) };
        if waiter.dependent {
            return waits(WaitCause::Dependencies { awaited: self.state.awaited(workload) });
        }
        if self.placer.rooms.is_empty() {
            return waits(WaitCause::NoClusters);
        }
        let Some(framework) = likeness.framework else { return waits(WaitCause::Impossible) };
        let beside = match self.state.beside(workload) {
            Ok(beside) => beside,
            Err(cause) => return waits(cause),
        };
        let wants = match Wants::of(self.state, &workload.spec) {
            Ok(wants) => wants,
            Err(cause) => return waits(cause),
        };
        let end = self.reservations.end_of(self.state, workload, self.now);
        let strict = self.reservations.passes(workload.uid, end);
        let known = known(strict.until.filter(|_| !passes));
        let avoids = workload.avoids(self.now);
        let own = own || !avoids.is_empty();
        // What is kept for it is its alone: others that are alike found less.
        if let Some(verdict) = self.found_none.get(&known).filter(|_| !own) {
            return Turn::Waits(Rc::clone(verdict));
        }
        let asks = Asks { preemptible: likeness.preemptible, end, passes };
        let alike = avoids.is_empty();
        let seeker = Seeker { workload, likeness, framework, wants, beside, avoids, asks, strict };
        match self.find_elsewhere(&seeker) {
            Ok(turn) => {
                self.reservations.done(&mut self.placer, workload.uid);
                turn
            }
            Err(verdict) => {
                if verdict.reserved.is_none() {
                    self.reservations.done(&mut self.placer, workload.uid);
                }
                if alike {
                    self.found_none.insert(known, Rc::new(Verdict { reserved: None, ..verdict.clone() }));
                }
                Turn::Waits(Rc::new(verdict))
            }
        }
    }

    /// A place for a gang away from where it failed lately, or why there is none.
    fn find_elsewhere(&mut self, seeker: &Seeker<'a>) -> Result<Turn<'a>, Verdict> {
        if seeker.avoids.is_empty() {
            return self.find(seeker, false);
        }
        let own = self.reservations.own(seeker.workload.uid).and_then(|own| KeptFor::try_from(own).ok());
        let avoided = self.avoid(seeker);
        let found = self.find(seeker, avoided);
        self.placer.rooms.values_mut().for_each(|room| room.avoid_nothing(own));
        found
    }

    /// Marks where it failed lately, for the time of its turn. Whether that is avoided: not where it could be nowhere else.
    fn avoid(&mut self, seeker: &Seeker<'a>) -> bool {
        let Seeker { wants, likeness, framework, beside, avoids, .. } = seeker;
        let rooms = &mut self.placer.rooms;
        rooms.values_mut().for_each(|room| room.avoid(avoids));
        let beside = beside.as_ref().map(|(_, cluster)| cluster);
        let elsewhere = elsewhere(rooms, wants, *framework, &likeness.gang, beside);
        if !elsewhere {
            rooms.values_mut().for_each(Room::avoid_less);
        }
        elsewhere
    }

    /// A place for a gang, or why there is none. `avoided`: where it failed lately is avoided.
    fn find(&mut self, seeker: &Seeker<'a>, avoided: bool) -> Result<Turn<'a>, Verdict> {
        let Seeker { workload, likeness, avoids, asks, strict, .. } = seeker;
        let pool = &likeness.pool;
        let gang = match self.allowed(&self.ledger, seeker, *asks) {
            Ok(gang) => gang,
            Err(short) => return Err(self.beyond(seeker, short)),
        };
        let (mut places, mut barred) = self.look(seeker, &gang, strict);
        if places.is_empty() && asks.passes {
            let more = self.reservations.lent(strict);
            if more.is_wider_than(strict) {
                (places, barred) = self.look(seeker, &gang, &more);
            }
        }
        if places.is_empty() {
            let cause = self.cause(&barred, strict);
            self.wanted.extend(barred.iter().filter(|b| b.waits).map(|b| b.cluster.clone()));
            // One that may only start on condition that it ends again for another of its pool makes nobody wait.
            let strictly = Asks { passes: false, ..*asks };
            if self.ledger.forbids(&self.state.pools, pool, &needs(&gang), strictly).is_some() {
                return Err(Verdict { cause, barred, reserved: None });
            }
            if let Some(reserved) = self.call(seeker) {
                return Err(Verdict { cause, barred, reserved: Some(reserved) });
            }
            let reserved = self.reserve(seeker, &gang, Some(&barred));
            // For one with several models room could be made on one that it can't pay for.
            let one_model = |g: &GroupNeed| g.each.gpu_milli == 0 || g.skus.len() == 1;
            if likeness.most.is_none() || gang.iter().all(one_model) {
                // Nor where some of it would be made on nodes that it avoids.
                let of_use = |b: &&Barred| b.waits && !(avoided && avoids.concerns(&b.cluster));
                let waits = barred.iter().filter(of_use).map(|b| b.cluster.clone()).collect();
                self.starves(workload, gang, waits, From::All);
            }
            return Err(Verdict { cause, barred, reserved });
        }
        // Several groups that each may have a model may together be too many of it.
        let mut short = None;
        while let Some(best) = places.first() {
            let held = self.would_hold(best, &gang);
            match self.ledger.forbids(&self.state.pools, pool, &held, *asks) {
                None => {
                    let mut passed = self.ledger.passed(pool, &held, *asks);
                    passed.extend(self.reservations.passed(&self.placer, best, strict));
                    passed.sort();
                    passed.dedup();
                    let turn = self.place_first(seeker, &gang, places, (&barred, passed));
                    self.ledger.take(&self.state.pools, pool, &held, likeness.preemptible);
                    return Ok(turn);
                }
                Some(found) => short = Some(found),
            }
            places.remove(0);
        }
        let short = short.expect("every place was found to be beyond the pool's part");
        Err(self.beyond(seeker, short))
    }

    /// A gang is beyond its pool's part: some of that is kept for it.
    fn beyond(&mut self, seeker: &Seeker<'a>, short: Shortfall) -> Verdict {
        let Seeker { workload, likeness, avoids, .. } = seeker;
        let (pool, gang) = (&likeness.pool, &likeness.gang);
        if let Some(reserved) = self.call(seeker) {
            return Verdict { cause: WaitCause::Quota(short), barred: vec![], reserved: Some(reserved) };
        }
        // What was let past it may use its pool's part until it starts.
        let reserved = if is_lent(&short) { self.reserve(seeker, gang, None) } else { None };
        if reserved.is_none() {
            self.ledger.claim(&self.state.pools, &short, pool, &needs(gang), by(workload));
        }
        // Where workloads of the pool give way to each other, those that stand behind give up its part, and elastic ones members beyond
        // their minimum. Others give nothing: it may not start on that.
        let gives_way = self.state.pools.spec(pool).is_some_and(PoolSpec::gives_way_within);
        let anywhere = likeness.most.is_none() && likeness.beside.is_none();
        let elastic = || self.state.elastic().any(|(w, _)| w.pool == *pool);
        if short.bound != QuotaBound::Reservation && anywhere && (gives_way || elastic()) {
            let has_data = |name: &ClusterName| self.state.has_data(&workload.spec, name);
            let open = |name: &ClusterName| self.state.clusters.get(name).is_some_and(Cluster::takes_members);
            let of_use = |name: &&ClusterName| open(name) && !avoids.concerns(name) && has_data(name);
            let all = self.placer.rooms.names().filter(of_use).cloned().collect();
            self.starves(workload, gang.clone(), all, From::Own);
        }
        Verdict { cause: WaitCause::Quota(short), barred: vec![], reserved }
    }

    fn starves(&mut self, workload: &'a Workload, gang: Vec<GroupNeed>, clusters: Vec<ClusterName>, from: From) {
        if self.starved.len() < MOST_STARVED && !clusters.is_empty() {
            self.starved.push(Starved { workload, gang, clusters, from });
        }
    }

    /// The gang with only those models that its pool's part allows, or why it may not start at all.
    fn allowed(&self, ledger: &Ledger, seeker: &Seeker<'a>, asks: Asks) -> Result<Vec<GroupNeed>, Shortfall> {
        let Likeness { pool, gang, .. } = seeker.likeness;
        if let Some(short) = ledger.forbids(&self.state.pools, pool, &needs(gang), asks) {
            return Err(short);
        }
        let mut gang = gang.clone();
        for group in gang.iter_mut().filter(|g| g.each.gpu_milli > 0 && g.skus.len() != 1) {
            let accepted = if group.skus.is_empty() { self.models() } else { group.skus.clone() };
            let gpus = group.each.times(u64::from(group.count)).gpu_milli;
            let mut short = None;
            let allowed: Vec<Sku> = accepted
                .iter()
                .filter(|sku| {
                    let mut more = Amounts::default();
                    more.add(Resource::Model((*sku).clone()), gpus);
                    let forbidden = ledger.over_entitlement(pool, &more, asks);
                    let allowed = forbidden.is_none();
                    short = short.take().or(forbidden);
                    allowed
                })
                .cloned()
                .collect();
            if let Some(short) = short.filter(|_| allowed.is_empty()) {
                return Err(short);
            }
            // A group that accepts any model goes on to accept any, where none is forbidden: the cheapest first.
            if allowed.len() < accepted.len() {
                group.skus = allowed;
            }
        }
        Ok(gang)
    }

    /// Every model of the fleet that a group accepts which names none.
    fn models(&self) -> Vec<Sku> {
        let all = self.placer.rooms.values().flat_map(|room| room.models().skus());
        let mut models: Vec<Sku> = all.filter(|sku| !sku.is_slice()).cloned().collect();
        models.sort();
        models.dedup();
        models
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
    fn look(&mut self, seeker: &Seeker<'a>, gang: &[GroupNeed], passes: &Passes) -> (Vec<Place>, Vec<Barred>) {
        let (mut places, mut barred) = (vec![], vec![]);
        // Where a workload avoids nodes, it alone sees the rooms so.
        let alike = seeker.avoids.is_empty();
        let placement = &seeker.workload.spec.placement;
        let mut looks = self.looks.of((address(seeker.likeness), placement), gang, passes);
        for (at, room) in self.placer.rooms.values_mut().enumerate() {
            let cluster = room.cluster;
            let own = &cluster.info.name;
            if let Some((workload, cluster)) = seeker.beside.as_ref().filter(|(_, cluster)| cluster != own) {
                let obstacle = Obstacle::ElsewhereThan { workload: workload.clone(), cluster: cluster.clone() };
                barred.push(Barred { cluster: own.clone(), obstacle, waits: false });
                continue;
            }
            let stamp = room.holes.stamp();
            let mut anew = || {
                let ahead = (&self.reservations, passes);
                look(room, &self.placer.value, &seeker.wants, seeker.framework, gang, ahead)
            };
            let found = match looks.get(at, stamp).filter(|_| alike) {
                Some(known) => {
                    debug_assert_eq!(*known, anew(), "what was seen of {own} still holds");
                    known.clone()
                }
                None => {
                    let found = anew();
                    if alike {
                        looks.keep(at, stamp, found.clone());
                    }
                    found
                }
            };
            match found {
                Look::Open(place) => places.push(place),
                Look::Barred(b) => barred.push(b),
            }
        }
        places.sort_by(|a, b| a.score.cmp(&b.score));
        (places, barred)
    }

    fn place_first(
        &mut self,
        seeker: &Seeker<'a>,
        gang: &[GroupNeed],
        places: Vec<Place>,
        (barred, passed): (&[Barred], Vec<Passed>),
    ) -> Turn<'a> {
        let mut decision = Decision { passed, ..decision(&self.placer.rooms, &places, barred) };
        let best = places.into_iter().next().expect("the caller saw a place");
        let room = self.placer.rooms.get_mut(&best.cluster).expect("the place is in a joined cluster");
        let placement = settle(room, gang, &best.spots);
        debug_assert!(!holds(&placement).is_empty() || gang.is_empty(), "a placed gang holds something");
        decision.despite = seeker.avoids.first_of(&best.cluster, &placement).map(|(_, avoided)| avoided);
        Turn::Placed { workload: seeker.workload, cluster: best.cluster, placement, decision }
    }

    /// Keeps nodes for a gang that finds no room, and as much of its pool's part.
    fn reserve(&mut self, seeker: &Seeker<'a>, gang: &[GroupNeed], barred: Option<&[Barred]>) -> Option<Box<Reserved>> {
        let workload = seeker.workload;
        let (at, promises) = ((self.state, self.now), self.memory.promises());
        let beside = seeker.beside.as_ref().map(|(_, cluster)| cluster);
        let where_to = (barred, beside);
        let (reserved, until) =
            self.reservations.reserve(&mut self.placer, at, promises, (workload, gang), where_to)?;
        self.ledger.reserve(&workload.pool, &needs(gang), by(workload), (until, false));
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

/// What tells likenesses apart: each is there once.
fn address(likeness: &Likeness) -> usize {
    std::ptr::from_ref(likeness) as usize
}

fn by(workload: &Workload) -> Passed {
    Passed { workload: workload.key.clone(), uid: workload.uid }
}
