//! Parts that are raised for a while, after the walk. A gang that is larger than its pool's part would never start while all others
//! use theirs, however long it waits. So what a pool misses is remembered (`pools::savings`): once it has missed, for the gang that is
//! first in its line, as much as [`LEAST_MS`] of what that gang is short of, its part is raised by just that, until what it missed is
//! made up for. Reservations of others are not touched by it; the rest of the fleet is divided as ever.
//!
//! One part a plan, of the pool that has missed most by that measure. Nothing is raised that would not let the gang fit.

use std::collections::BTreeSet;

use protocol::ids::{PoolName, UnixMs};
use protocol::pool::{Amounts, Resource};
use protocol::workload::Preemptible;

use super::{Memory, Walk};
use crate::commands::Raising;
use crate::pools::Raise;
use crate::pools::entitlement::{Entitlements, divided, raised_too, unraised};
use crate::pools::parts::first_gangs;
use crate::pools::savings::Savings;

/// For how long a pool must be able to hold what it is short of, by what it missed, before its part is raised, in ms.
const LEAST_MS: u64 = 2 * 3_600_000;
/// For how long a part is raised at most before it is asked again, in ms.
const MOST_MS: u64 = 24 * 3_600_000;
/// For how long at least a raise goes on that is used, in ms: else it ends.
const ON_MS: u64 = 10 * 60_000;

impl Walk<'_> {
    /// Whose parts are to be raised and whose not any more, and what is to be remembered.
    pub(crate) fn raises(&self, before: &Memory) -> (Vec<Raising>, Savings) {
        let pools = &self.state.pools;
        if pools.is_plain() {
            return (vec![], Savings::default());
        }
        let divided = divided(pools, &self.fleet);
        let parts = unraised(pools, &self.fleet, &self.demands, &divided);
        let savings = self.savings(&before.savings, &divided, &parts);
        let look = Look { walk: self, divided: &divided, parts: &parts, savings: &savings };
        let changed = pools.raises().iter().filter_map(|(pool, raise)| Some((pool.clone(), look.again(pool, raise)?)));
        let mut raises: Vec<(PoolName, Option<Raise>)> = changed.collect();
        if raises.is_empty() {
            raises.extend(look.best().map(|(pool, raise)| (pool.clone(), Some(raise))));
        }
        let epoch = self.state.epoch;
        (raises.into_iter().map(|(pool, raise)| Raising { epoch, pool, raise }).collect(), savings)
    }

    fn savings(&self, before: &Savings, divided: &BTreeSet<Resource>, parts: &Entitlements) -> Savings {
        let usage = &self.state.indices.usage;
        let mut savings = before.at(self.now);
        savings.keep(|pool| usage.contains_key(pool));
        for pool in usage.keys() {
            for resource in divided {
                let entitled = parts.get(pool).map_or(0, |part| part.of(resource));
                let demand = self.demands.get(pool).map_or(0, |demand| demand.of(resource));
                savings.goes_on(pool, resource, (entitled, self.ledger.held(pool).of(resource), demand));
            }
        }
        savings
    }
}

/// What is looked at to raise a part.
struct Look<'w> {
    walk: &'w Walk<'w>,
    divided: &'w BTreeSet<Resource>,
    /// The parts as they are without any raise.
    parts: &'w Entitlements,
    savings: &'w Savings,
}

impl<'w> Look<'w> {
    fn part(&self, pool: &PoolName, resource: &Resource) -> u64 {
        self.parts.get(pool).map_or(0, |part| part.of(resource))
    }

    fn held(&self, pool: &PoolName, resource: &Resource) -> u64 {
        self.walk.ledger.held(pool).of(resource)
    }

    /// To what a pool's part would have to be raised for the first gang of its line; nothing where that fits, or a raise is of no use.
    fn short(&self, pool: &PoolName) -> Amounts {
        let Walk { state, fleet, now, .. } = self.walk;
        let mut to = Amounts::default();
        let Some((first, gang)) = first_gangs(state, fleet, *now, pool).next() else { return to };
        if first.spec.preemptible == Preemptible::No {
            return to;
        }
        for (resource, more) in gang.iter().filter(|(resource, _)| self.divided.contains(resource)) {
            let (wants, part) = (self.held(pool, resource).saturating_add(more), self.part(pool, resource));
            if wants > part && part < fleet.of(resource) {
                to.add(resource.clone(), wants);
            }
        }
        to
    }

    /// For how long a pool could hold so much by what it missed, in ms; none where that is no more than its part.
    fn lasts(&self, pool: &PoolName, to: &Amounts) -> Option<u64> {
        let lasts = |(resource, to): (&Resource, u64)| {
            let beyond = to.saturating_sub(self.part(pool, resource));
            (beyond > 0).then(|| self.savings.of(pool, resource) / u128::from(beyond))
        };
        let least = to.iter().filter_map(lasts).min()?;
        Some(u64::try_from(least).unwrap_or(u64::MAX).min(MOST_MS))
    }

    fn raise(&self, to: Amounts, lasts: u64) -> Raise {
        Raise { to, until: UnixMs(self.walk.now.0.saturating_add(lasts)) }
    }

    /// What becomes of a part that is raised: it goes on, goes on for longer, or ends.
    fn again(&self, pool: &PoolName, raise: &Raise) -> Option<Option<Raise>> {
        let used = |(resource, _): (&Resource, u64)| {
            let held = self.held(pool, resource);
            (held > self.part(pool, resource)).then(|| (resource.clone(), held))
        };
        let used = Amounts(raise.to.iter().filter_map(used).collect());
        if !self.walk.state.pools.is_leaf(pool) {
            return Some(None);
        }
        if raise.until > self.walk.now {
            return (used.is_empty() && self.short(pool).is_empty()).then_some(None);
        }
        let lasts = self.lasts(pool, &used).filter(|lasts| *lasts >= ON_MS);
        Some(lasts.map(|lasts| self.raise(used, lasts)))
    }

    /// The pool whose part is to be raised, and how.
    fn best(&self) -> Option<(&'w PoolName, Raise)> {
        let waits = self.walk.state.indices.usage.iter().filter(|(_, usage)| !usage.queue.is_empty());
        let able = waits.filter_map(|(pool, _)| {
            let to = self.short(pool);
            let lasts = self.lasts(pool, &to).filter(|lasts| *lasts >= LEAST_MS)?;
            Some((lasts, pool, to))
        });
        let mut able: Vec<(u64, &PoolName, Amounts)> = able.collect();
        able.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
        able.into_iter()
            .find(|(_, pool, to)| self.is_of_use(pool, to))
            .map(|(lasts, pool, to)| (pool, self.raise(to, lasts)))
    }

    /// Whether it is not raised so far, and its part would then be what it is raised to: others' reservations may be in its way, or limits.
    fn is_of_use(&self, pool: &PoolName, to: &Amounts) -> bool {
        let Walk { state, fleet, demands, .. } = self.walk;
        let is_so = state.pools.raises().get(pool).is_some_and(|raise| to.iter().all(|(r, to)| raise.to.of(r) >= to));
        if is_so {
            return false;
        }
        let parts = raised_too(&state.pools, fleet, demands, self.divided, (pool, to));
        to.iter().all(|(resource, to)| parts.get(pool).is_some_and(|part| part.of(resource) >= to))
    }
}
