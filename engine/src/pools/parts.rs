//! What each pool is entitled to in a fleet where work comes in gangs. The division by demand alone (`entitlement`) can give
//! every pool a part that holds no gang of its line: then all would wait while the fleet is idle. So what a pool asks for and
//! could not use is not asked for, and goes to the others:
//!
//! 1. The fleet is divided by what all pools hold and wait for.
//! 2. A pool whose part holds none of the first gangs of its line asks only for what it holds, and the fleet is divided again.
//! 3. Such pools then ask again, one after the other, the one that has the least of its part first, each for its first gang.
//!    Whoever's part then holds that gang goes on asking for it, unless that takes away what an earlier one, or one that was
//!    never stuck, needs for its own; for the others it stays as before.
//! 4. Nobody's part is less than the first division gave: else one could have a right to room (`reclaim`) that it may not use, and
//!    those that had to give it would take it again, for ever.
//!
//! Room is not taken back on these grounds (`reclaim`): who asks again depends on who holds what, so that two pools could
//! take one room from each other for ever.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{PoolName, UnixMs};
use protocol::pool::{Amounts, Resource};
use protocol::workload::Preemptible;

use super::admission::{over_limit, over_reservation};
use super::entitlement::{Entitlements, Tree, divided, entitlements};
use super::ratio::Ratio;
use super::usage::needs;
use crate::state::{State, Workload};

/// How many gangs of a line are looked at.
const FIRST: usize = 16;
/// How many pools ask again.
const MOST_ASK_AGAIN: usize = 16;

type Books = BTreeMap<PoolName, Amounts>;

/// What each pool is entitled to of a fleet, of which leaves hold `held` and demand `demand` in all.
pub(crate) fn parts(state: &State, fleet: &Amounts, held: &Books, demand: &Books, now: UnixMs) -> Entitlements {
    let by_demand = entitlements(&state.pools, fleet, demand);
    if state.pools.is_plain() {
        return by_demand;
    }
    let division = Division { state, fleet, held, divided: divided(&state.pools, fleet), now };
    let (stuck, mut served) = division.stuck(&by_demand);
    if stuck.is_empty() {
        return by_demand;
    }
    let mut demand = demand.clone();
    for (_, _, pool, _) in &stuck {
        demand.insert(pool.clone(), division.held(pool));
    }
    // Who holds which gang is asked of divided resources alone: the others are divided once, at the end.
    let tree = Tree::of(&state.pools);
    let divide = |demand: &Books| tree.divide(fleet, demand, division.divided.iter());
    for (_, _, pool, gang) in stuck.into_iter().take(MOST_ASK_AGAIN) {
        let Some(gang) = gang else { continue };
        let mut asked = division.held(&pool);
        asked.add_all(&gang);
        let before = demand.insert(pool.clone(), asked);
        let parts = divide(&demand);
        served.push((pool, gang));
        if let Some(before) = before.filter(|_| !served.iter().all(|(pool, gang)| division.holds(pool, gang, &parts)))
            && let Some((pool, _)) = served.pop()
        {
            demand.insert(pool, before);
        }
    }
    at_least(entitlements(&state.pools, fleet, &demand), &by_demand)
}

/// The greater of both, resource by resource.
fn at_least(mut parts: Entitlements, least: &Entitlements) -> Entitlements {
    for (pool, least) in least {
        let part = parts.entry(pool.clone()).or_default();
        for (resource, least) in least.iter() {
            let more = least.saturating_sub(part.of(resource));
            part.add(resource.clone(), more);
        }
    }
    parts
}

struct Division<'a> {
    state: &'a State,
    fleet: &'a Amounts,
    held: &'a Books,
    divided: BTreeSet<Resource>,
    now: UnixMs,
}

/// A pool whose part holds none of its first gangs: how much of its part it has, when its first gang was submitted, and that.
type Stuck = (Ratio, u64, PoolName, Option<Amounts>);

impl Division<'_> {
    fn held(&self, pool: &PoolName) -> Amounts {
        self.held.get(pool).cloned().unwrap_or_default()
    }

    /// Whether a pool's part holds one more gang.
    fn holds(&self, pool: &PoolName, gang: &Amounts, parts: &Entitlements) -> bool {
        let of = |books: &Books, r: &Resource| books.get(pool).map_or(0, |a| a.of(r));
        gang.iter().filter(|(r, _)| self.divided.contains(r)).all(|(resource, more)| {
            let most = of(parts, resource);
            of(self.held, resource).saturating_add(more) <= most || most >= self.fleet.of(resource)
        })
    }

    /// Pools that wait and are stuck, the one that has the least of its part first; and those that are not, each with a gang
    /// that its part holds.
    fn stuck(&self, parts: &Entitlements) -> (Vec<Stuck>, Vec<(PoolName, Amounts)>) {
        let (mut stuck, mut served): (Vec<Stuck>, Vec<(PoolName, Amounts)>) = (vec![], vec![]);
        for (pool, usage) in &self.state.indices.usage {
            if usage.queue.is_empty() {
                continue;
            }
            let first = first_gangs(self.state, self.fleet, self.now, pool).map(|(w, gang)| (w.order, gang));
            let first: Vec<(u64, Amounts)> = first.collect();
            if let Some((_, gang)) = first.iter().find(|(_, gang)| self.holds(pool, gang, parts)) {
                served.push((pool.clone(), gang.clone()));
                continue;
            }
            let (order, gang) = first.into_iter().next().map_or((u64::MAX, None), |(order, gang)| (order, Some(gang)));
            stuck.push((self.ratio(pool, parts), order, pool.clone(), gang));
        }
        stuck.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
        (stuck, served)
    }

    fn ratio(&self, pool: &PoolName, parts: &Entitlements) -> Ratio {
        let held = self.held(pool);
        let part = |r: &Resource| parts.get(pool).map_or(0, |a| a.of(r));
        let divided = held.iter().filter(|(resource, _)| self.divided.contains(resource));
        divided.map(|(resource, held)| Ratio::new(held, part(resource))).max().unwrap_or(Ratio::new(0, 1))
    }
}

/// The first gangs of a pool's line that could ever start, with what each needs.
pub(crate) fn first_gangs<'a>(
    state: &'a State,
    fleet: &Amounts,
    now: UnixMs,
    pool: &PoolName,
) -> impl Iterator<Item = (&'a Workload, Amounts)> {
    let usage = state.indices.usage.get(pool);
    // However many wait for others, they hide nobody behind them.
    let waiters = usage.into_iter().flat_map(|u| u.queue.values()).filter(|waiter| !waiter.dependent);
    let workloads = waiters.take(FIRST).filter_map(|waiter| state.workloads.get(&waiter.key));
    workloads.filter_map(move |w| Some((w, could_start(state, fleet, now, w)?)))
}

fn could_start(state: &State, fleet: &Amounts, now: UnixMs, workload: &Workload) -> Option<Amounts> {
    let (pools, pool) = (&state.pools, &workload.pool);
    let resting = workload.not_before.is_some_and(|until| until > now);
    let gang = needs(&workload.spec.gang());
    let too_large = gang.iter().any(|(resource, needs)| needs > fleet.of(resource));
    let nothing = Amounts::default();
    let firm = workload.spec.preemptible == Preemptible::No;
    let hopeless = over_limit(pools, &BTreeMap::new(), pool, &gang).is_some()
        || (firm && pools.spec(pool).is_some_and(|s| over_reservation(s, pool, &nothing, &gang).is_some()));
    (!resting && !too_large && !hopeless).then_some(gang)
}
