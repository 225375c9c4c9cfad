//! May a gang start, as far as its pool goes? What it would hold together with what the pool holds must be
//!
//! - at most what the pool is entitled to, in every resource that the gang touches. That rests on the fleet's capacity, so it
//!   is the planner's to ask;
//! - at most the limit of the pool and of every pool above it, whatever clusters are lost. State alone can tell, so a binding
//!   is held to it again when it is applied;
//! - for a workload that may not be preempted: at most the reservation, together with the others that may not, in every
//!   resource of which the pool reserves something; and it must reserve GPUs for a gang with GPUs, cpu for one without. Also
//!   checked when applied.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{PoolName, UnixMs};
use protocol::pool::{Amounts, PoolSpec, Resource};
use protocol::workload::Preemptible;

use super::Pools;
use super::entitlement::{self, Entitlements, divided};
use super::ratio::Ratio;
use super::usage::UsageByPool;
use crate::planted;
use crate::reasons::{Passed, QuotaBound, Shortfall};

/// What pools hold, by pool: of an inner pool, what all below it hold.
pub(crate) fn held_in_tree(pools: &Pools, usage: &UsageByPool) -> BTreeMap<PoolName, Amounts> {
    let mut held: BTreeMap<PoolName, Amounts> = BTreeMap::new();
    for (pool, usage) in usage {
        for at in pools.line_up(pool) {
            held.entry(at.clone()).or_default().add_all(&usage.held);
        }
    }
    held
}

/// What a pool no longer holds, taken off what leaves hold and what pools with all below them hold.
pub(super) fn give_up(
    pools: &Pools,
    (leaves, tree): (&mut BTreeMap<PoolName, Amounts>, &mut BTreeMap<PoolName, Amounts>),
    pool: &PoolName,
    held: &Amounts,
) {
    if let Some(sum) = leaves.get_mut(pool) {
        sum.take_all(held);
    }
    for at in pools.line_up(pool) {
        if let Some(sum) = tree.get_mut(at) {
            sum.take_all(held);
        }
    }
}

/// Whether more would be over a limit of the pool or of one above it.
pub(crate) fn over_limit(
    pools: &Pools,
    held: &BTreeMap<PoolName, Amounts>,
    pool: &PoolName,
    more: &Amounts,
) -> Option<Shortfall> {
    for at in pools.line_up(pool) {
        let Some(spec) = pools.spec(at) else { continue };
        for (resource, needs) in more.iter() {
            let Some(limit) = spec.quota(resource).limit else { continue };
            let limit = if planted::is("quota-off-by-one") { limit + entitlement::piece(resource) } else { limit };
            let holds = held.get(at).map_or(0, |h| h.of(resource));
            if holds.saturating_add(needs) > limit {
                return Some(shortfall(at, QuotaBound::Limit, resource, limit, holds, needs));
            }
        }
    }
    None
}

/// Whether more of what may not be preempted would be over the pool's reservation.
pub(crate) fn over_reservation(spec: &PoolSpec, pool: &PoolName, firm: &Amounts, more: &Amounts) -> Option<Shortfall> {
    let short = |resource: &Resource, needs| {
        let reserved = spec.quota(resource).reservation;
        shortfall(pool, QuotaBound::Reservation, resource, reserved, firm.of(resource), needs)
    };
    let reserved = |resource: &Resource| spec.quota(resource).reservation > 0;
    for (resource, needs) in more.iter().filter(|(resource, _)| reserved(resource)) {
        if firm.of(resource).saturating_add(needs) > spec.quota(resource).reservation {
            return Some(short(resource, needs));
        }
    }
    let gpus = more.of(&Resource::Gpu);
    let gpus_reserved = || more.iter().any(|(r, _)| matches!(r, Resource::Gpu | Resource::Model(_)) && reserved(r));
    match gpus {
        0 if !reserved(&Resource::Cpu) => Some(short(&Resource::Cpu, more.of(&Resource::Cpu))),
        0 => None,
        _ if !gpus_reserved() => Some(short(&Resource::Gpu, gpus)),
        _ => None,
    }
}

fn shortfall(pool: &PoolName, bound: QuotaBound, resource: &Resource, most: u64, held: u64, needs: u64) -> Shortfall {
    Shortfall { pool: pool.clone(), bound, resource: resource.clone(), most, held, kept: 0, needs }
}

/// The pools' books during a plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    /// What there is to give out.
    fleet: Amounts,
    /// In what pools are held to their parts.
    divided: BTreeSet<Resource>,
    entitled: Entitlements,
    /// What leaves hold in clusters that can be used.
    held: BTreeMap<PoolName, Amounts>,
    /// What all pools hold in all clusters.
    held_anywhere: BTreeMap<PoolName, Amounts>,
    firm: BTreeMap<PoolName, Amounts>,
    /// What is kept for the first in line that waits for its pool's part.
    claimed: BTreeMap<PoolName, Kept>,
    /// What is kept for a gang of the pool that nodes are kept for.
    reserved: BTreeMap<PoolName, Kept>,
}

/// What is kept of a pool's part for one that waits.
#[derive(Debug, Clone)]
struct Kept {
    gang: Amounts,
    by: Passed,
    /// Those that end by then may use it.
    until: Option<UnixMs>,
    /// It can start once what is ending is gone: nobody passes it any more.
    due: bool,
}

/// Who asks for more of a pool's part, as far as it matters for what is kept for others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks {
    pub(crate) preemptible: Preemptible,
    /// When it would end, where that is known.
    pub(crate) end: Option<UnixMs>,
    /// It may use what is kept for others, on condition that it ends for them.
    pub(crate) passes: bool,
}

static NOTHING: Amounts = Amounts(BTreeMap::new());

fn of<'a>(books: &'a BTreeMap<PoolName, Amounts>, pool: &PoolName) -> &'a Amounts {
    books.get(pool).unwrap_or(&NOTHING)
}

impl Ledger {
    pub(crate) fn new(
        pools: &Pools,
        usage: &UsageByPool,
        fleet: Amounts,
        entitled: Entitlements,
        held: BTreeMap<PoolName, Amounts>,
    ) -> Self {
        let firm = usage.iter().map(|(pool, u)| (pool.clone(), u.firm.clone())).collect();
        let (divided, held_anywhere) = (divided(pools, &fleet), held_in_tree(pools, usage));
        Self {
            fleet,
            divided,
            entitled,
            held,
            held_anywhere,
            firm,
            claimed: BTreeMap::new(),
            reserved: BTreeMap::new(),
        }
    }

    /// What a pool is entitled to.
    pub(crate) fn entitled(&self, pool: &PoolName) -> &Amounts {
        of(&self.entitled, pool)
    }

    /// How much of its part a pool has, by the resource of which it has the most: `held / entitled`.
    pub(crate) fn ratio(&self, pool: &PoolName) -> Ratio {
        let (held, entitled) = (self.held(pool), self.entitled(pool));
        let divided = held.iter().filter(|(resource, _)| self.divided.contains(resource));
        divided.map(|(resource, held)| Ratio::new(held, entitled.of(resource))).max().unwrap_or(Ratio::new(0, 1))
    }

    /// What a pool holds in clusters that can be used.
    pub(crate) fn held(&self, pool: &PoolName) -> &Amounts {
        of(&self.held, pool)
    }

    /// Why a gang that would hold `more` may not start; none: it may.
    pub(crate) fn forbids(&self, pools: &Pools, pool: &PoolName, more: &Amounts, asks: Asks) -> Option<Shortfall> {
        if let Some(short) = over_limit(pools, &self.held_anywhere, pool, more) {
            return Some(short);
        }
        if let Some(spec) = pools.spec(pool).filter(|_| asks.preemptible == Preemptible::No)
            && let Some(short) = over_reservation(spec, pool, of(&self.firm, pool), more)
        {
            return Some(short);
        }
        self.over_entitlement(pool, more, asks)
    }

    /// What is kept of a pool's part that this one may not use.
    fn kept(&self, pool: &PoolName, asks: Asks) -> impl Iterator<Item = &Kept> {
        let ends_before = move |kept: &Kept| asks.end.zip(kept.until).is_some_and(|(end, until)| end <= until);
        let all = self.claimed.get(pool).into_iter().chain(self.reserved.get(pool));
        all.filter(move |kept| !ends_before(kept) && (kept.due || !asks.passes))
    }

    /// For whom a pool's part is kept that this one uses.
    pub(crate) fn passed(&self, pool: &PoolName, more: &Amounts, asks: Asks) -> Vec<Passed> {
        let strict = Asks { passes: false, ..asks };
        if !asks.passes || self.over_entitlement(pool, more, strict).is_none() {
            return vec![];
        }
        self.kept(pool, strict).filter(|kept| !kept.due).map(|kept| kept.by.clone()).collect()
    }

    /// Why a gang is over the pool's part of the fleet; none: it is not. A pool that is entitled to all there is of a resource is
    /// bounded by room alone.
    pub(crate) fn over_entitlement(&self, pool: &PoolName, more: &Amounts, asks: Asks) -> Option<Shortfall> {
        let (entitled, held) = (self.entitled(pool), self.held(pool));
        // GPUs before memory before cpu: the scarcest is told.
        let divided = more.iter().filter(|(resource, _)| self.divided.contains(resource));
        divided.collect::<Vec<_>>().into_iter().rev().find_map(|(resource, needs)| {
            let extra = if planted::is("quota-off-by-one") { entitlement::piece(resource) } else { 0 };
            let kept = self.kept(pool, asks).map(|kept| kept.gang.of(resource)).fold(0, u64::saturating_add);
            let (most, held) = (entitled.of(resource) + extra, held.of(resource));
            let over = held.saturating_add(kept).saturating_add(needs) > most;
            let apart = most < self.fleet.of(resource);
            (over && apart)
                .then(|| Shortfall { kept, ..shortfall(pool, QuotaBound::Entitlement, resource, most, held, needs) })
        })
    }

    /// Keeps a pool's part for a gang that nodes are kept for: it must be there when they are.
    pub(crate) fn reserve(
        &mut self,
        pool: &PoolName,
        gang: &Amounts,
        by: Passed,
        (until, due): (Option<UnixMs>, bool),
    ) {
        if self.claimed.get(pool).is_some_and(|kept| kept.by.uid == by.uid) {
            self.claimed.remove(pool);
        }
        self.reserved.insert(pool.clone(), Kept { gang: gang.clone(), by, until, due });
    }

    /// Keeps the pool's part for the first gang that waits for it, so that smaller ones behind it do not take it for ever; not where
    /// the gang would not fit even if the pool held nothing.
    pub(crate) fn claim(&mut self, pools: &Pools, short: &Shortfall, pool: &PoolName, gang: &Amounts, by: Passed) {
        let nothing = BTreeMap::new();
        let fits = |(resource, needs): (&Resource, u64)| {
            let (most, fleet) = (self.entitled(pool).of(resource), self.fleet.of(resource));
            needs <= most || most >= fleet || !self.divided.contains(resource)
        };
        if !gang.iter().all(fits) || over_limit(pools, &nothing, pool, gang).is_some() {
            return;
        }
        match short.bound {
            QuotaBound::Entitlement | QuotaBound::Limit => {
                let kept = || Kept { gang: gang.clone(), by, until: None, due: false };
                self.claimed.entry(pool.clone()).or_insert_with(kept);
            }
            QuotaBound::Reservation => {
                let hopeless =
                    pools.spec(pool).is_none_or(|spec| over_reservation(spec, pool, &NOTHING, gang).is_some());
                if !hopeless {
                    self.firm.entry(pool.clone()).or_default().add_all(gang);
                }
            }
        }
    }

    /// An attempt of a pool is gone.
    pub(crate) fn give(&mut self, pools: &Pools, pool: &PoolName, held: &Amounts) {
        give_up(pools, (&mut self.held, &mut self.held_anywhere), pool, held);
    }

    /// A gang got its place.
    pub(crate) fn take(&mut self, pools: &Pools, pool: &PoolName, more: &Amounts, preemptible: Preemptible) {
        self.held.entry(pool.clone()).or_default().add_all(more);
        for at in pools.line_up(pool) {
            self.held_anywhere.entry(at.clone()).or_default().add_all(more);
        }
        if preemptible == Preemptible::No {
            self.firm.entry(pool.clone()).or_default().add_all(more);
        }
    }
}
