//! Reservations in time, and who may pass them (EASY backfill; Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995, here for many
//! clusters and pools).
//!
//! The first of a pool's line that fits its pool's part and finds no room gets the nodes where the ends of running attempts make room
//! for it soonest (`soonest`). Nobody else gets a place on them, but for those that end before it could start. Others use other nodes.
//!
//! So waiting is bounded. Who passes is let in on an estimate, which may be wrong: so only until the time at which the gang was first
//! expected to start, and nobody passes where that is not known. From then on the nodes are changed only for others with fewer attempts
//! to wait for. What has to end becomes less with every end, then, and never more. [`Promise`]s keep this from plan to plan; a new
//! leader begins anew, and keeps them from the start of a plan on. The first in line behind the gang is next.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{ClusterName, NodeName, PoolName, Uid, UnixMs, WorkloadKey};
use protocol::workload::GroupNeed;

use super::estimates::lasts;
use super::passers::ledger_without;
use super::soonest::{AllEnds, Soonest, on_nodes, soonest};
use crate::lifecycle::Phase;
use crate::placement::candidates::{Barred, Place};
use crate::placement::fit::Allowed;
use crate::placement::holes::{AVOIDED, Class, KeptFor};
use crate::placement::placer::Placer;
use crate::placement::price::payable;
use crate::placement::rooms::{Order, Room};
use crate::pools::admission::{Asks, Ledger};
use crate::pools::usage::needs;
use crate::reasons::{Obstacle, Passed, QuotaBound, Reserved, Shortfall};
use crate::state::{Line, State, Workload};

/// The most gangs of a plan that nodes are kept for.
const MOST_RESERVATIONS: usize = 32;
/// The most attempts whose ends a plan looks at, though always those of one cluster: about a millisecond a thousand.
const MOST_ENDS: usize = 20_000;

/// What was last kept for a gang, and when it was first expected to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    at: Option<UnixMs>,
    cluster: ClusterName,
    nodes: Vec<NodeName>,
}

impl Promise {
    /// Nodes on which room is being made for a gang: nobody else may use them.
    pub(super) fn of_hole(cluster: ClusterName, nodes: Vec<NodeName>, now: UnixMs) -> Self {
        Self { at: Some(now), cluster, nodes }
    }

    /// Whether the gang was to start by now, or it is not known when.
    fn is_late(&self, now: UnixMs) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// Where it is.
    pub(super) fn place(&self) -> (&ClusterName, &[NodeName]) {
        (&self.cluster, &self.nodes)
    }

    /// Those of its nodes that take members now, as the room numbers them.
    fn nodes(&self, room: &mut Room<'_>) -> Vec<u32> {
        let places = room.places();
        self.nodes.iter().filter_map(|name| places.get(name).copied()).collect()
    }
}

/// The promises of a leader, by workload.
pub(crate) type Promises = BTreeMap<Uid, Promise>;

/// Nodes that are kept for a waiting gang.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) key: WorkloadKey,
    uid: Uid,
    /// Those that end by then may use its nodes; none: nobody may.
    pub(crate) pass_until: Option<UnixMs>,
    /// None: it has its place, or nothing is kept for it any more.
    promise: Option<Promise>,
    /// It can start once those are gone that were let past it, or are ending: nobody passes it any more.
    due: bool,
}

/// The reservations of a plan.
#[derive(Default)]
pub(crate) struct Reservations<'a> {
    all: Vec<Reservation>,
    pools: BTreeSet<PoolName>,
    looked: usize,
    ends: AllEnds<'a>,
}

/// Which kept nodes a workload may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Passes {
    gangs: BTreeSet<KeptFor>,
    /// The earliest start among those gangs: others that may pass the same gangs are alike.
    pub(crate) until: Option<UnixMs>,
}

impl Passes {
    /// Whether a node may be used that is kept for this gang, if for any.
    pub(super) fn may_use(&self, kept: Option<KeptFor>) -> bool {
        kept.is_none_or(|gang| self.gangs.contains(&gang))
    }

    /// Whether more may be used than with others.
    pub(crate) fn is_wider_than(&self, other: &Passes) -> bool {
        self.gangs.len() > other.gangs.len()
    }
}

impl Allowed for Passes {
    fn allows(&self, class: &Class) -> bool {
        self.may_use(class.kept())
    }
}

impl<'a> Reservations<'a> {
    /// What was promised before is kept from the start of a plan on: room that was made for a gang must not go to whoever's turn
    /// comes first, least of all to those that gave it. Not for a gang that has others ahead of it in its line that came later, nor for one
    /// for which nothing will be kept at its turn, as its pool's part would not hold it.
    pub(crate) fn new(
        placer: &mut Placer<'a>,
        (state, now): (&State, UnixMs),
        ledger: &Ledger,
        promises: &Promises,
    ) -> Self {
        let mut kept = Self::default();
        for (uid, promise) in promises {
            let workload = state.by_uid.get(uid).and_then(|key| state.workloads.get(key));
            let waits = |w: &&Workload| w.phase == Phase::Queued && w.not_before.is_none_or(|until| until <= now);
            let Some(workload) = workload.filter(waits) else { continue };
            let line = state.indices.usage.get(&workload.pool).and_then(|usage| usage.queue.values().next());
            let first = line.and_then(|waiter| state.workloads.get(&waiter.key));
            // Whoever is first though it came later has a higher priority, or has had less of its pool.
            let before =
                |first: &Workload| first.spec.priority > workload.spec.priority || first.order > workload.order;
            let outranked = first.is_some_and(before);
            // The data that it requires may have been moved meanwhile.
            let has_data = state.has_data(&workload.spec, &promise.cluster);
            let beyond =
                beyond_part(state, ledger, workload).is_some_and(|short| promise.is_late(now) || !is_lent(&short));
            if outranked || !has_data || beyond {
                continue;
            }
            let Some(room) = placer.rooms.get_mut(&promise.cluster) else { continue };
            let nodes = promise.nodes(room);
            let taken = nodes.iter().any(|node| room.holes.kept_for(*node).is_some());
            if taken || nodes.len() < promise.nodes.len() || kept.all.len() >= MOST_RESERVATIONS {
                continue;
            }
            let id = kept.all.len() as KeptFor;
            nodes.iter().for_each(|node| room.holes.keep_for(*node, Some(id)));
            let live = state.indices.live.get(&promise.cluster).map_or(0, BTreeMap::len);
            kept.looked += live;
            let found = if kept.looked > MOST_ENDS {
                None
            } else {
                on_kept(room, &mut kept.ends, (state, now), (workload, &workload.spec.gang()), (&nodes, id))
            };
            let due = found.is_some_and(|found| found.waits_for == 0);
            kept.pools.insert(workload.pool.clone());
            kept.all.push(Reservation {
                key: workload.key.clone(),
                uid: *uid,
                pass_until: promise.at.filter(|at| *at > now),
                promise: Some(promise.clone()),
                due,
            });
        }
        kept.looked = 0;
        kept
    }

    /// The number of what is kept for a workload.
    pub(super) fn own(&self, uid: Uid) -> Option<usize> {
        self.all.iter().position(|r| r.uid == uid && r.promise.is_some())
    }

    /// The places in a pool's line of those that nodes are kept for.
    pub(super) fn waiting<'s>(&'s self, state: &'s State, pool: &'s PoolName) -> impl Iterator<Item = Line> + 's {
        let keys = self.all.iter().filter(|r| r.promise.is_some()).map(|r| &r.key);
        let queued = |w: &&Workload| w.phase == Phase::Queued && w.pool == *pool;
        keys.filter_map(|key| state.workloads.get(key)).filter(queued).map(Line::of)
    }

    /// Whether nodes are kept for a workload.
    pub(crate) fn has(&self, uid: Uid) -> bool {
        self.own(uid).is_some()
    }

    /// A workload has its place: nothing is kept for it any more.
    pub(crate) fn done(&mut self, placer: &mut Placer<'_>, uid: Uid) {
        if let Some(own) = self.own(uid) {
            self.release(placer, own);
        }
    }

    /// Nothing is kept any more.
    fn release(&mut self, placer: &mut Placer<'_>, own: usize) {
        let Some(promise) = self.all.get_mut(own).and_then(|r| r.promise.take()) else { return };
        let Some(room) = placer.rooms.get_mut(&promise.cluster) else { return };
        for node in promise.nodes(room) {
            if room.holes.kept_for(node) == Some(own as KeptFor) {
                room.holes.keep_for(node, None);
            }
        }
    }

    /// When a workload that started now would end, where that is known and of use.
    pub(crate) fn end_of(&self, state: &State, workload: &Workload, now: UnixMs) -> Option<UnixMs> {
        if self.all.iter().all(|r| r.pass_until.is_none()) {
            return None;
        }
        lasts(state, workload).map(|(ms, _)| UnixMs(now.0.saturating_add(ms)))
    }

    /// Which kept nodes a workload that ends then may use: its own, and those of gangs that start later.
    pub(crate) fn passes(&self, uid: Uid, end: Option<UnixMs>) -> Passes {
        let passed = |r: &Reservation| end.zip(r.pass_until).is_some_and(|(end, until)| end <= until);
        let all = || (0..).zip(&self.all);
        let gangs = all().filter(|(_, r)| r.uid == uid || passed(r)).map(|(gang, _)| gang).collect();
        Passes { gangs, until: all().filter(|(_, r)| passed(r)).filter_map(|(_, r)| r.pass_until).min() }
    }

    /// Those, and what is lent on condition: all that is kept for gangs that can't start yet.
    pub(crate) fn lent(&self, strict: &Passes) -> Passes {
        let all = (0..).zip(&self.all);
        let lent = all.filter(|(_, r)| r.promise.is_some() && !r.due).map(|(gang, _)| gang);
        Passes { gangs: lent.chain(strict.gangs.iter().copied()).collect(), until: strict.until }
    }

    /// For whom the nodes of a place are kept, where it may use them only on condition.
    pub(crate) fn passed(&self, placer: &Placer<'_>, place: &Place, strict: &Passes) -> Vec<Passed> {
        let Some(room) = placer.rooms.get(&place.cluster) else { return vec![] };
        let nodes = place.spots.iter().flat_map(|spot| spot.nodes.keys());
        let kept: BTreeSet<KeptFor> = nodes.filter_map(|node| room.holes.kept_for(*node)).collect();
        let on_condition = kept.iter().filter(|gang| !strict.gangs.contains(gang));
        let of = |gang: &KeptFor| self.all.get(usize::from(*gang));
        on_condition.filter_map(of).map(|r| Passed { workload: r.key.clone(), uid: r.uid }).collect()
    }

    /// Keeps these nodes for a gang that starts there once what is ending is gone.
    pub(crate) fn hold(&mut self, placer: &mut Placer<'_>, workload: &Workload, hole: Promise) {
        let own = self.own(workload.uid);
        if let Some(own) = own {
            self.release(placer, own);
        }
        let Some(room) = placer.rooms.get_mut(&hole.cluster) else { return };
        let nodes = hole.nodes(room);
        self.enter(room, (workload, own), &nodes, (hole, None, true));
    }

    /// Keeps nodes for a workload, in the place of what was kept for it before, `own`, if that was anything.
    fn enter(
        &mut self,
        room: &mut Room<'_>,
        (workload, own): (&Workload, Option<usize>),
        nodes: &[u32],
        (promise, pass_until, due): (Promise, Option<UnixMs>, bool),
    ) {
        let id = own.unwrap_or(self.all.len());
        nodes.iter().for_each(|node| room.holes.keep_for(*node, Some(id as KeptFor)));
        self.pools.insert(workload.pool.clone());
        let (key, uid) = (workload.key.clone(), workload.uid);
        let made = Reservation { key, uid, pass_until, promise: Some(promise), due };
        match own {
            Some(own) => self.all[own] = made,
            None => self.all.push(made),
        }
    }

    /// The first gang for which nodes of a cluster are kept that this one may not use.
    pub(crate) fn ahead<'r>(&'r self, room: &Room<'_>, passes: &Passes) -> Option<&'r Reservation> {
        self.all.get(usize::from(*ahead(room, passes).first()?))
    }

    /// For how many gangs nodes of these clusters are kept that this one may not use, and the first of them.
    pub(crate) fn all_ahead<'r>(
        &self,
        rooms: impl Iterator<Item = &'r Room<'r>>,
        passes: &Passes,
    ) -> (u64, Option<String>) {
        let all: BTreeSet<KeptFor> = rooms.flat_map(|room| ahead(room, passes)).collect();
        let first = all.first().and_then(|gang| self.all.get(usize::from(*gang)));
        (all.len() as u64, first.map(|r| r.key.to_string()))
    }

    /// Keeps nodes for a gang, where it is the first of its pool's line and could start once attempts end. Without `barred` only
    /// those that were promised to it before its time. Also returns until when those behind it must end to use them.
    pub(crate) fn reserve(
        &mut self,
        placer: &mut Placer<'a>,
        (state, now): (&State, UnixMs),
        promises: &Promises,
        (workload, gang): (&Workload, &[GroupNeed]),
        (barred, beside): (Option<&[Barred]>, Option<&ClusterName>),
    ) -> Option<(Reserved, Option<UnixMs>)> {
        let own = self.own(workload.uid);
        if own.is_none() && (self.all.len() >= MOST_RESERVATIONS || self.pools.contains(&workload.pool)) {
            return None;
        }
        if let Some(own) = own {
            self.release(placer, own);
        }
        let id = own.unwrap_or(self.all.len()) as KeptFor;
        let before = promises.get(&workload.uid);
        // It may be that it has to be elsewhere now: beside another, where its data is, or away from where it failed.
        let avoided = |b: &Barred| matches!(b.obstacle, Obstacle::Avoided(_));
        let still = |promise: &&Promise| {
            beside.is_none_or(|cluster| promise.cluster == *cluster)
                && state.has_data(&workload.spec, &promise.cluster)
                && barred.into_iter().flatten().all(|b| b.cluster != promise.cluster || !avoided(b))
        };
        let kept = before
            .filter(still)
            .and_then(|p| kept_before(placer, &mut self.ends, (state, now), p, (workload, gang), id));
        let late = before.is_none_or(|promise| promise.is_late(now));
        let fresh = match barred {
            Some(barred) => self.soonest(placer, (state, now), (workload, gang), barred),
            None if late => return None,
            None => None,
        };
        let (cluster, found) = match (kept, fresh) {
            (Some(kept), Some(fresh)) => {
                let hops = if late { fresh.1.waits_for < kept.1.waits_for } else { fresh.1.rank() < kept.1.rank() };
                if hops { fresh } else { kept }
            }
            (kept, fresh) => kept.or(fresh)?,
        };
        let room = placer.rooms.get_mut(&cluster)?;
        let first = match before {
            Some(promise) => promise.at,
            None => found.at,
        };
        let names = found.nodes.iter().filter_map(|node| Some(room.node(*node)?.name.clone())).collect();
        let pass_until = first.zip(found.at).map(|(first, at)| first.min(at)).filter(|until| *until > now);
        let promise = Promise { at: first, cluster: cluster.clone(), nodes: names };
        self.enter(room, (workload, own), &found.nodes, (promise, pass_until, found.waits_for == 0));
        let nodes = u32::try_from(found.nodes.len()).unwrap_or(u32::MAX);
        Some((Reserved { cluster, nodes, at: found.at, last: found.last }, pass_until))
    }

    /// Of all clusters the one where it can start soonest.
    fn soonest(
        &mut self,
        placer: &mut Placer<'a>,
        (state, now): (&State, UnixMs),
        (workload, gang): (&Workload, &[GroupNeed]),
        barred: &[Barred],
    ) -> Option<(ClusterName, Soonest)> {
        let mut waits: Vec<&Barred> = barred.iter().filter(|b| b.waits).collect();
        // Where least is missing first: a plan has no time to look at all of a large fleet.
        waits.sort_by_key(|b| match &b.obstacle {
            Obstacle::NoRoom { needs, fits, .. } => needs.saturating_sub(*fits),
            _ => 0,
        });
        let mut best: Option<(ClusterName, Soonest)> = None;
        for b in waits {
            let live = state.indices.live.get(&b.cluster).map_or(0, BTreeMap::len);
            if self.looked > 0 && self.looked + live > MOST_ENDS {
                break;
            }
            self.looked += live;
            let Some(room) = placer.rooms.get_mut(&b.cluster) else { continue };
            for gang in payable(room, &workload.spec, gang) {
                let shapes = room.shapes(&gang, Order::BestFirst);
                let Some(found) = soonest(room, &mut self.ends, &shapes, (state, now, workload.uid)) else { continue };
                if best.as_ref().is_none_or(|(_, least)| found.rank() < least.rank()) {
                    best = Some((b.cluster.clone(), found));
                }
            }
        }
        best
    }

    /// What the next plan is to remember.
    pub(crate) fn promises(&self) -> Promises {
        self.all.iter().filter_map(|r| Some((r.uid, r.promise.clone()?))).collect()
    }
}

/// Whether a gang is beyond its pool's part only for what others have of it: its nodes stay kept until its time. But not where the part
/// would not hold it even then: whoever has that part instead may need these very nodes, and both would wait for ever.
pub(super) fn is_lent(short: &Shortfall) -> bool {
    short.bound == QuotaBound::Entitlement && short.needs <= short.most
}

/// What keeps a gang from its pool's part, once those are gone that were let past it.
fn beyond_part(state: &State, ledger: &Ledger, workload: &Workload) -> Option<Shortfall> {
    let (pools, pool) = (&state.pools, &workload.pool);
    let asks = Asks { preemptible: workload.spec.preemptible, end: None, passes: false };
    let gang = needs(&workload.spec.gang());
    ledger.forbids(pools, pool, &gang, asks)?;
    ledger_without(state, ledger, workload).forbids(pools, pool, &gang, asks)
}

/// The nodes that were kept for a gang before, where it still fits on them once attempts end. They are kept for nobody afterwards.
fn kept_before<'a>(
    placer: &mut Placer<'a>,
    ends: &mut AllEnds<'a>,
    (state, now): (&State, UnixMs),
    promise: &Promise,
    (workload, gang): (&Workload, &[GroupNeed]),
    id: KeptFor,
) -> Option<(ClusterName, Soonest)> {
    let room = placer.rooms.get_mut(&promise.cluster)?;
    let nodes = promise.nodes(room);
    if nodes.iter().any(|node| room.holes.kept_for(*node).is_some()) {
        return None;
    }
    nodes.iter().for_each(|node| room.holes.keep_for(*node, Some(id)));
    let found = on_kept(room, ends, (state, now), (workload, gang), (&nodes, id));
    nodes.iter().for_each(|node| room.holes.keep_for(*node, None));
    found.map(|found| (promise.cluster.clone(), found))
}

/// The soonest that a gang can start on nodes that are kept for it, with models that it can pay for.
fn on_kept<'a>(
    room: &mut Room<'a>,
    ends: &mut AllEnds<'a>,
    (state, now): (&State, UnixMs),
    (workload, gang): (&Workload, &[GroupNeed]),
    kept: (&[u32], KeptFor),
) -> Option<Soonest> {
    payable(room, &workload.spec, gang).into_iter().find_map(|gang| {
        let shapes = room.shapes(&gang, Order::BestFirst);
        on_nodes(room, ends, &shapes, (state, now, workload.uid), kept)
    })
}

fn ahead(room: &Room<'_>, passes: &Passes) -> BTreeSet<KeptFor> {
    let kept = room.holes.classes().filter_map(|(class, _)| class.kept());
    kept.filter(|gang| *gang != AVOIDED && !passes.gangs.contains(gang)).collect()
}
