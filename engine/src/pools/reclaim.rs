//! Who has a right to whose room. A pool that holds more than it is entitled to has borrowed; what it borrowed goes back to a
//! gang that fits its own pool's part and finds no room. Within a pool that allows it, room goes from lower to higher priority.
//!
//! The planner asks, and a preemption asks again when it is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use protocol::control::GroupPlacement;
use protocol::ids::{ClusterName, PoolName};
use protocol::pool::{Amounts, Resource, WithinPool};

use super::admission::{give_up, held_in_tree, over_limit};
use super::entitlement::{Entitlements, divided, entitlements};
use super::usage::{holds, holds_any, needs};
use crate::planted;
use crate::state::{Ground, State, Workload};

/// A workload that waits, with what it needs.
pub(crate) struct Claim<'a> {
    by: &'a Workload,
    needs: Amounts,
}

impl<'a> Claim<'a> {
    pub(crate) fn of(by: &'a Workload) -> Self {
        Self { by, needs: needs(&by.spec.gang()) }
    }
}

/// What there is, and how it is divided: as it was, whatever room changes hands.
#[derive(Debug)]
struct Part {
    fleet: Amounts,
    divided: BTreeSet<Resource>,
    entitled: Entitlements,
}

/// What pools hold and are entitled to, while room changes hands.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    part: Rc<Part>,
    /// What leaves hold, without what is being ended already.
    held: BTreeMap<PoolName, Amounts>,
    /// What all pools hold in all clusters, without that.
    anywhere: BTreeMap<PoolName, Amounts>,
}

/// What leaves hold in these clusters, and what they hold and wait for.
pub(crate) type HeldAndDemand = (BTreeMap<PoolName, Amounts>, BTreeMap<PoolName, Amounts>);

/// What leaves hold in these clusters, and what they hold there and wait for. What waits out a backoff asks for nothing yet.
pub(crate) fn held_and_demand(
    state: &State,
    clusters: &BTreeSet<ClusterName>,
    now: protocol::ids::UnixMs,
) -> HeldAndDemand {
    let usage = &state.indices.usage;
    let mut held: BTreeMap<PoolName, Amounts> = usage.iter().map(|(p, u)| (p.clone(), u.held.clone())).collect();
    for cluster in state.indices.live.keys().filter(|name| !clusters.contains(*name)) {
        for (workload, attempt) in state.live_in(cluster) {
            if let Some(sum) = held.get_mut(&workload.pool) {
                sum.take_all(&holds(attempt.held()));
            }
        }
    }
    let mut demand: BTreeMap<PoolName, Amounts> = usage.iter().map(|(p, u)| (p.clone(), u.pending.clone())).collect();
    let resting = state.indices.backoffs.iter().rev().take_while(|(until, _)| *until > now);
    for workload in resting.filter_map(|(_, key)| state.workloads.get(key)) {
        if let Some(sum) = demand.get_mut(&workload.pool) {
            sum.take_all(&needs(&workload.spec.gang()));
        }
    }
    for (pool, held) in &held {
        demand.entry(pool.clone()).or_default().add_all(held);
    }
    (held, demand)
}

impl Rights {
    /// As state has it, over a fleet whose size only the planner knows.
    pub(crate) fn new(state: &State, fleet: Amounts, clusters: &BTreeSet<ClusterName>) -> Self {
        let (held, demand) = held_and_demand(state, clusters, state.now);
        // By the division alone: what a pool got because it asked again (`parts`) is no right against others.
        let entitled = entitlements(&state.pools, &fleet, &demand);
        let anywhere = held_in_tree(&state.pools, &state.indices.usage);
        let part = Part { divided: divided(&state.pools, &fleet), fleet, entitled };
        let mut rights = Self { part: Rc::new(part), held, anywhere };
        for (workload, attempt) in clusters.iter().flat_map(|cluster| state.going_in(cluster)) {
            let going = attempt.stop.map_or(&[][..], |_| &attempt.placement);
            rights.without(state, &workload.pool, &holds(going.iter().chain(attempt.leaving())));
        }
        rights
    }

    /// How much of a resource a pool holds beyond its part, in a fleet that it shares.
    pub(crate) fn over(&self, pool: &PoolName, resource: &Resource) -> Option<(u64, u64)> {
        let of = |books: &BTreeMap<PoolName, Amounts>| books.get(pool).map_or(0, |a| a.of(resource));
        let (held, entitled) = (of(&self.held), of(&self.part.entitled));
        let over = held > entitled && entitled < self.part.fleet.of(resource) && self.part.divided.contains(resource);
        (over || planted::is("reclaim-under-entitlement")).then_some((held, entitled))
    }

    /// Every pool and resource that is over.
    pub(crate) fn all_over(&self) -> impl Iterator<Item = (&PoolName, &Resource)> {
        let all = self.held.iter().flat_map(|(pool, held)| held.0.keys().map(move |resource| (pool, resource)));
        all.filter(|(pool, resource)| self.over(pool, resource).is_some())
    }

    /// By what right a waiting workload may have a running one's room; none: by none.
    pub(crate) fn ground(&self, state: &State, claim: &Claim<'_>, victim: &Workload) -> Option<Ground> {
        let by = claim.by;
        if victim.live_attempt().is_some_and(|a| a.ends_for(by.uid)) {
            return Some(Ground::Passed);
        }
        if by.pool == victim.pool {
            let pool = state.pools.spec(&by.pool)?;
            let (own, other) = (victim.spec.priority, by.spec.priority);
            if pool.preemption_within == WithinPool::ByPriority && own < other {
                return Some(Ground::Priority { own, other });
            }
            let served = || Ground::Served { own: victim.length(state.now), other: by.length(state.now) };
            return victim.gives_way_to(by, pool, state.now).then(served);
        }
        self.lent(claim, victim, &victim.live_attempt()?.placement)
    }

    /// By what right a waiting workload may have the room of a running one's members beyond its minimum; none: by none. Within a pool
    /// such members go before any gang waits, whatever its priority.
    pub(crate) fn ground_of_extra(
        &self,
        claim: &Claim<'_>,
        victim: &Workload,
        members: &[GroupPlacement],
    ) -> Option<Ground> {
        if claim.by.pool == victim.pool {
            return Some(Ground::Extra);
        }
        if victim.live_attempt().is_some_and(|a| a.ends_for(claim.by.uid)) {
            return Some(Ground::Passed);
        }
        self.lent(claim, victim, members)
    }

    fn lent(&self, claim: &Claim<'_>, victim: &Workload, has: &[GroupPlacement]) -> Option<Ground> {
        scarce(&claim.needs).find_map(|resource| {
            let (held, entitled) = self.over(&victim.pool, resource)?;
            holds_any(has, resource).then(|| Ground::Lent { resource: resource.clone(), held, entitled })
        })
    }

    /// A running workload gives up its room.
    pub(crate) fn gives(&mut self, state: &State, victim: &Workload) {
        if let Some(attempt) = victim.live_attempt() {
            self.gives_members(state, victim, &attempt.placement);
        }
    }

    /// A running workload gives up members.
    pub(crate) fn gives_members(&mut self, state: &State, victim: &Workload, members: &[GroupPlacement]) {
        self.without(state, &victim.pool, &holds(members));
    }

    fn without(&mut self, state: &State, pool: &PoolName, held: &Amounts) {
        give_up(&state.pools, (&mut self.held, &mut self.anywhere), pool, held);
    }

    /// Whether the gang could fit its own pool's part if that pool gave up so many GPUs, in thousandths, and all of all else. Where
    /// not, nobody's room helps it.
    pub(crate) fn could_suffice(&self, claim: &Claim<'_>, gpu_milli: u64) -> bool {
        let pool = &claim.by.pool;
        let of = |books: &BTreeMap<PoolName, Amounts>, r: &Resource| books.get(pool).map_or(0, |a| a.of(r));
        claim.needs.iter().filter(|(r, _)| self.part.divided.contains(r)).all(|(resource, more)| {
            let left = match resource {
                Resource::Gpu => of(&self.held, resource).saturating_sub(gpu_milli),
                _ => 0,
            };
            let entitled = of(&self.part.entitled, resource);
            left.saturating_add(more) <= entitled || entitled >= self.part.fleet.of(resource)
        })
    }

    /// Whether the gang fits its own pool's part, once what is being ended is gone.
    pub(crate) fn suffice(&self, state: &State, claim: &Claim<'_>) -> bool {
        let pool = &claim.by.pool;
        if over_limit(&state.pools, &self.anywhere, pool, &claim.needs).is_some() {
            return false;
        }
        let of = |books: &BTreeMap<PoolName, Amounts>, r: &Resource| books.get(pool).map_or(0, |a| a.of(r));
        claim.needs.iter().filter(|(r, _)| self.part.divided.contains(r)).all(|(resource, more)| {
            let entitled = of(&self.part.entitled, resource);
            of(&self.held, resource).saturating_add(more) <= entitled || entitled >= self.part.fleet.of(resource)
        })
    }
}

/// What a gang is short of when it finds no room: GPUs where it needs any, else cpu and memory.
pub(crate) fn scarce(needs: &Amounts) -> impl Iterator<Item = &Resource> {
    let gpus = needs.of(&Resource::Gpu) > 0;
    needs.0.keys().filter(move |r| matches!(r, Resource::Gpu | Resource::Model(_)) == gpus)
}
