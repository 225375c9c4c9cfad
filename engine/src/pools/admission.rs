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
use crate::reasons::{QuotaBound, Shortfall};

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
    /// What is kept for gangs ahead in line that wait for their pool's part.
    claimed: BTreeMap<PoolName, Amounts>,
    /// What is kept for a gang of the pool that nodes are kept for, and until when who ends may use it.
    reserved: BTreeMap<PoolName, (Amounts, Option<UnixMs>)>,
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
    pub(crate) fn forbids(
        &self,
        pools: &Pools,
        pool: &PoolName,
        more: &Amounts,
        (preemptible, end): (Preemptible, Option<UnixMs>),
    ) -> Option<Shortfall> {
        if let Some(short) = over_limit(pools, &self.held_anywhere, pool, more) {
            return Some(short);
        }
        if let Some(spec) = pools.spec(pool).filter(|_| preemptible == Preemptible::No)
            && let Some(short) = over_reservation(spec, pool, of(&self.firm, pool), more)
        {
            return Some(short);
        }
        self.over_entitlement(pool, more, end)
    }

    /// Why a gang is over the pool's part of the fleet; none: it is not. A pool that is entitled to all there is of a resource is
    /// bounded by room alone. `end`: when it would end, where that is known.
    pub(crate) fn over_entitlement(&self, pool: &PoolName, more: &Amounts, end: Option<UnixMs>) -> Option<Shortfall> {
        let (entitled, held, claimed) = (self.entitled(pool), self.held(pool), of(&self.claimed, pool));
        let passes = |until: &Option<UnixMs>| end.zip(*until).is_some_and(|(end, until)| end <= until);
        let reserved = self.reserved.get(pool).filter(|(_, until)| !passes(until)).map_or(&NOTHING, |(gang, _)| gang);
        // GPUs before memory before cpu: the scarcest is told.
        let divided = more.iter().filter(|(resource, _)| self.divided.contains(resource));
        divided.collect::<Vec<_>>().into_iter().rev().find_map(|(resource, needs)| {
            let extra = if planted::is("quota-off-by-one") { entitlement::piece(resource) } else { 0 };
            let kept = claimed.of(resource).saturating_add(reserved.of(resource));
            let (most, held) = (entitled.of(resource) + extra, held.of(resource));
            let over = held.saturating_add(kept).saturating_add(needs) > most;
            let apart = most < self.fleet.of(resource);
            (over && apart)
                .then(|| Shortfall { kept, ..shortfall(pool, QuotaBound::Entitlement, resource, most, held, needs) })
        })
    }

    /// Keeps a pool's part for a gang that nodes are kept for: it must be there when they are. Those that end by then may use it.
    pub(crate) fn reserve(&mut self, pool: &PoolName, gang: &Amounts, until: Option<UnixMs>) {
        self.reserved.insert(pool.clone(), (gang.clone(), until));
    }

    /// What is kept of a pool's part for gangs that wait for it.
    pub(crate) fn claims(&self, pool: &PoolName) -> Amounts {
        of(&self.claimed, pool).clone()
    }

    /// Keeps this much of a pool's part for gangs that wait for it, and no more.
    pub(crate) fn set_claims(&mut self, pool: &PoolName, claims: Amounts) {
        self.claimed.insert(pool.clone(), claims);
    }

    /// Keeps the pool's part for a gang that waits for it, so that smaller ones behind it do not take it for ever; not where
    /// the gang would not fit even if the pool held nothing.
    pub(crate) fn claim(&mut self, pools: &Pools, short: &Shortfall, pool: &PoolName, gang: &Amounts) {
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
                self.claimed.entry(pool.clone()).or_default().add_all(gang);
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
