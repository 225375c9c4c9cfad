//! A slow model of pools, which shares no code with the engine: how a fleet is divided, and what each pool holds. For tests.

use std::collections::{BTreeMap, BTreeSet};

use engine::State;
use engine::capacity::Capacity;
use engine::commands::Preemption;
use engine::pools::entitlement::Claim;
use engine::state::{Attempt, Workload};
use protocol::control::GroupPlacement;
use protocol::ids::*;
use protocol::pool::{Lending, LineOrder, PoolSpec, Quota, Resource, WithinPool};
use protocol::workload::Preemptible;

use super::slow_line::{counts_as, late_ms};

/// The slow model: water rises in steps. At level `n/d` each pool that still wants has its share times the level; the level at
/// which all is handed out is found among the points at which one is full.
fn slow_fill(left: u64, wants: &[u64], shares: &[u64], piece: u64) -> Vec<u64> {
    let total: u128 = wants.iter().map(|w| u128::from(*w)).sum();
    if total <= u128::from(left) {
        return wants.to_vec();
    }
    // Those are full whose level, want / share, the water reaches: found by trying one after the other, the lowest first.
    let mut by_level: Vec<usize> = (0..wants.len()).filter(|&i| wants[i] > 0).collect();
    by_level.sort_by(|&a, &b| {
        (u128::from(wants[a]) * u128::from(shares[b])).cmp(&(u128::from(wants[b]) * u128::from(shares[a])))
    });
    let mut full = vec![false; wants.len()];
    for &i in &by_level {
        // Were all others filled up to this one's level, would there be enough?
        let needed: u128 = by_level
            .iter()
            .map(|&j| {
                let at_level = u128::from(wants[i]) * u128::from(shares[j]);
                (u128::from(wants[j]) * u128::from(shares[i])).min(at_level)
            })
            .sum();
        full[i] = needed <= u128::from(left) * u128::from(shares[i]);
    }
    let mut given: Vec<u64> = (0..wants.len()).map(|i| if full[i] { wants[i] } else { 0 }).collect();
    let rest = left - given.iter().sum::<u64>();
    let open: Vec<usize> = (0..wants.len()).filter(|&i| !full[i] && wants[i] > 0).collect();
    let weight: u128 = open.iter().map(|&i| u128::from(shares[i])).sum();
    for &i in &open {
        let part = u128::from(rest) * u128::from(shares[i]) / weight;
        given[i] = (part - part % u128::from(piece)) as u64;
    }
    while given.iter().sum::<u64>() < left {
        for &i in &open {
            let so_far: u64 = given.iter().sum();
            given[i] += piece.min(left - so_far).min(wants[i] - given[i]);
        }
    }
    given
}

pub fn slow_divide(amount: u64, claims: &[Claim], piece: u64) -> Vec<u64> {
    let shares: Vec<u64> = claims.iter().map(|c| u64::from(c.quota.share)).collect();
    let limit = |c: &Claim| c.quota.limit.unwrap_or(1 << 60);
    let demand = |c: &Claim| c.demand.min(limit(c));
    let assigned = |c: &Claim| match c.quota.lending {
        Lending::Static => c.quota.reservation,
        Lending::Elastic => c.quota.reservation.min(demand(c)),
    };
    let mut given = vec![0u64; claims.len()];
    let raised = |c: &Claim| c.raised.min(demand(c));
    // Whoever is raised has no share before all others have what they ask for.
    let plain = |c: &Claim| if c.raised == 0 { demand(c) } else { 0 };
    let steps: [&dyn Fn(&Claim) -> u64; 5] = [&assigned, &raised, &plain, &demand, &limit];
    for bound in steps {
        let wants: Vec<u64> = claims.iter().zip(&given).map(|(c, g)| bound(c).saturating_sub(*g)).collect();
        let left = amount - given.iter().sum::<u64>();
        for (g, more) in given.iter_mut().zip(slow_fill(left, &wants, &shares, piece)) {
            *g += more;
        }
    }
    given
}

/// Amounts by resource's text.
pub type Sums = BTreeMap<String, u64>;

fn add(sums: &mut Sums, what: &str, amount: u64) {
    if amount > 0 {
        *sums.entry(what.to_owned()).or_default() += amount;
    }
}

/// What a workload's live attempt holds.
pub fn holds(workload: &Workload) -> Sums {
    let mut sums = Sums::new();
    for attempt in workload.attempts.iter().filter(|a| a.ended_at.is_none()) {
        let leaving = attempt.resize.iter().flat_map(|resize| &resize.leaving);
        attempt.placement.iter().chain(leaving).for_each(|group| add_group(&mut sums, group));
    }
    sums
}

fn add_group(sums: &mut Sums, group: &GroupPlacement) {
    for share in &group.nodes {
        let members = u64::from(share.members);
        add(sums, "cpu", group.each.cpu_milli * members);
        add(sums, "memory", group.each.memory_mib * members);
        add(sums, "gpu", group.each.gpu_milli * members);
        if let Some(sku) = &group.sku {
            add(sums, &format!("gpu/{sku}"), group.each.gpu_milli * members);
        }
    }
}

/// What a live attempt holds that a frame with this watermark does not include.
pub fn unseen(attempt: &Attempt, watermark: CommandNumber) -> Vec<GroupPlacement> {
    if attempt.arrivals.is_empty() {
        return if attempt.launch > watermark { attempt.placement.clone() } else { vec![] };
    }
    let later = attempt.arrivals.iter().filter(|arrival| arrival.number > watermark);
    later.flat_map(|arrival| arrival.placement.clone()).collect()
}

fn wants(workload: &Workload) -> Sums {
    let mut sums = Sums::new();
    for group in workload.spec.gang() {
        let members = u64::from(group.count);
        add(&mut sums, "cpu", group.each.cpu_milli * members);
        add(&mut sums, "memory", group.each.memory_mib * members);
        add(&mut sums, "gpu", group.each.gpu_milli * members);
        if group.skus.len() == 1 {
            add(&mut sums, &format!("gpu/{}", group.skus[0]), group.each.gpu_milli * members);
        }
    }
    sums
}

fn specs(state: &State) -> BTreeMap<PoolName, PoolSpec> {
    state.pools.all().into_iter().map(|(name, spec)| (name.clone(), spec.clone())).collect()
}

fn quota(spec: &PoolSpec, what: &str) -> Quota {
    let found = spec.resources.0.iter().find(|(resource, _)| resource.to_string() == what);
    found.map_or(Quota { reservation: 0, limit: None, share: 1, lending: Lending::Elastic }, |(_, quota)| *quota)
}

/// A pool and all above it.
fn up(specs: &BTreeMap<PoolName, PoolSpec>, pool: &PoolName) -> Vec<PoolName> {
    let mut line = vec![pool.clone()];
    while let Some(parent) = line.last().and_then(|at| specs[at].parent.clone()) {
        assert!(line.len() < 100, "the tree has a cycle");
        line.push(parent);
    }
    line
}

/// What every pool holds, with all that is below it. `counts`: which workloads do.
pub fn held(state: &State, counts: impl Fn(&Workload) -> bool) -> BTreeMap<PoolName, Sums> {
    let specs = specs(state);
    let mut held: BTreeMap<PoolName, Sums> = BTreeMap::new();
    for workload in state.workloads.values().filter(|w| !holds(w).is_empty() && counts(w)) {
        for pool in up(&specs, &workload.pool) {
            holds(workload).iter().for_each(|(what, amount)| add(held.entry(pool.clone()).or_default(), what, *amount));
        }
    }
    held
}

/// What may not be preempted: of elastic workloads the fewest members.
fn firm(state: &State) -> BTreeMap<PoolName, Sums> {
    let mut firm: BTreeMap<PoolName, Sums> = BTreeMap::new();
    for w in state.workloads.values().filter(|w| w.spec.preemptible == Preemptible::No) {
        for group in w.attempts.iter().filter(|a| a.ended_at.is_none()).flat_map(|a| &a.placement) {
            let least = w.spec.gang().into_iter().find(|need| need.name == group.group).unwrap().count;
            let mut shares = group.clone();
            shares.nodes.truncate(1);
            shares.nodes[0].members = least;
            add_group(firm.entry(w.pool.clone()).or_default(), &shares);
        }
    }
    firm
}

/// A workload was just bound: the limits of what it holds are kept, and its pool's reservation where it may not be preempted.
pub fn check_bound(state: &State, workload: &Workload, members: &[GroupPlacement]) -> Result<(), String> {
    check_limits(state, workload, members)?;
    let specs = specs(state);
    let firm = firm(state);
    for what in taken(members).keys().filter(|_| workload.spec.preemptible == Preemptible::No) {
        let has = firm[&workload.pool].get(what).copied().unwrap_or(0);
        let reserved = quota(&specs[&workload.pool], what).reservation;
        if reserved > 0 && has > reserved {
            return Err(format!(
                "pool {} holds {has} {what} firmly, over its reservation of {reserved}",
                workload.pool
            ));
        }
    }
    Ok(())
}

/// A workload just got these members: no pool above it is over a limit of anything that they take. Those that came to a running one
/// may always be preempted, so that its pool's reservation says nothing of them.
pub fn check_limits(state: &State, workload: &Workload, members: &[GroupPlacement]) -> Result<(), String> {
    let specs = specs(state);
    let all = held(state, |_| true);
    for pool in up(&specs, &workload.pool) {
        for what in taken(members).keys() {
            let has = all[&pool].get(what).copied().unwrap_or(0);
            if let Some(limit) = quota(&specs[&pool], what).limit.filter(|limit| has > *limit) {
                return Err(format!("pool {pool} holds {has} {what}, over its limit of {limit}"));
            }
        }
    }
    Ok(())
}

fn taken(members: &[GroupPlacement]) -> Sums {
    let mut sums = Sums::new();
    members.iter().for_each(|group| add_group(&mut sums, group));
    sums.retain(|_, amount| *amount > 0);
    sums
}

/// The rules of the tree.
pub fn check_tree(state: &State) -> Result<(), String> {
    let specs = specs(state);
    for (name, spec) in &specs {
        if spec.parent.as_ref().is_some_and(|parent| !specs.contains_key(parent)) {
            return Err(format!("the parent of {name} is not there"));
        }
        up(&specs, name);
        let children: Vec<&PoolSpec> = specs.values().filter(|s| s.parent.as_ref() == Some(name)).collect();
        let live = state.workloads.values().filter(|w| w.pool == *name && !w.phase.is_terminal()).count();
        if !children.is_empty() && live > 0 {
            return Err(format!("{name} has pools below it and {live} workloads"));
        }
        for what in children.iter().flat_map(|c| c.resources.0.keys()).map(ToString::to_string) {
            let own = quota(spec, &what);
            let sum: u64 = children.iter().map(|c| quota(c, &what).reservation).sum();
            let over = children.iter().any(|c| quota(c, &what).limit.is_some_and(|l| own.limit.is_some_and(|o| l > o)));
            if sum > own.reservation || over {
                return Err(format!("the pools below {name} have more {what} than it"));
            }
        }
    }
    match state.workloads.values().find(|w| !w.phase.is_terminal() && !specs.contains_key(&w.pool)) {
        Some(w) => Err(format!("{} is in pool {}, which is gone", w.key, w.pool)),
        None => Ok(()),
    }
}

/// Which clusters count, and what there is to give out.
pub fn fleet(state: &State, capacity: &Capacity) -> (BTreeSet<ClusterName>, Sums) {
    let usable: BTreeSet<ClusterName> = state
        .clusters
        .iter()
        .filter(|(name, c)| c.lost_since.is_none() && capacity.clusters.contains_key(name))
        .map(|(name, _)| name.clone())
        .collect();
    let mut fleet = Sums::new();
    for (name, cluster) in state.clusters.iter().filter(|(name, c)| usable.contains(*name) && c.cordon.is_none()) {
        let frame = &capacity.clusters[name];
        for node in frame.nodes.iter().filter(|n| n.state == protocol::capacity::NodeState::Ready) {
            let mut free = node.free;
            for attempt in state.workloads.values().filter_map(|w| w.attempts.last()) {
                if attempt.ended_at.is_some() || attempt.cluster != *name {
                    continue;
                }
                let leaving = attempt.resize.iter().flat_map(|resize| &resize.leaving);
                let all = || attempt.placement.iter().chain(leaving).cloned().collect();
                let strange = attempt.incarnation != cluster.incarnation;
                let unseen = if strange { all() } else { unseen(attempt, frame.watermark) };
                for group in &unseen {
                    for share in group.nodes.iter().filter(|s| s.node == node.name) {
                        free = free.saturating_sub(&group.each.times(u64::from(share.members)));
                    }
                }
            }
            add(&mut fleet, "cpu", free.cpu_milli);
            add(&mut fleet, "memory", free.memory_mib);
            add(&mut fleet, "gpu", free.gpu_milli);
            if let Some(sku) = &node.sku {
                add(&mut fleet, &format!("gpu/{sku}"), free.gpu_milli);
            }
        }
    }
    for workload in state.workloads.values().filter(|w| lives_in(w, &usable)) {
        holds(workload).iter().for_each(|(what, amount)| add(&mut fleet, what, *amount));
    }
    (usable, fleet)
}

fn lives_in(workload: &Workload, clusters: &BTreeSet<ClusterName>) -> bool {
    workload.attempts.last().is_some_and(|a| a.ended_at.is_none() && clusters.contains(&a.cluster))
}

/// What pools hold in these clusters, and what their queued workloads ask for there.
fn demands(state: &State, usable: &BTreeSet<ClusterName>, now: UnixMs) -> BTreeMap<PoolName, Sums> {
    let mut demands: BTreeMap<PoolName, Sums> = BTreeMap::new();
    for workload in state.workloads.values() {
        let demand = demands.entry(workload.pool.clone()).or_default();
        if lives_in(workload, usable) {
            holds(workload).iter().for_each(|(what, amount)| add(demand, what, *amount));
        }
        let resting = !workload.awaits.is_empty() || workload.not_before.is_some_and(|until| until > now);
        if workload.phase == engine::Phase::Queued && !resting {
            wants(workload).iter().for_each(|(what, amount)| add(demand, what, *amount));
        }
    }
    demands
}

/// What each pool is entitled to of a fleet in these clusters.
pub fn parts(state: &State, usable: &BTreeSet<ClusterName>, fleet: &Sums, now: UnixMs) -> BTreeMap<PoolName, Sums> {
    let mut demands = demands(state, usable, now);
    let held = held(state, |w| lives_in(w, usable));
    let by_demand = division(state, fleet, &demands);
    let leaves = |pool: &PoolName| of_pool(&held, pool);
    let fits = |pool: &PoolName, gang: &Sums, parts: &BTreeMap<PoolName, Sums>| {
        gang.iter().all(|(what, more)| {
            let part = of(parts.get(pool), what);
            !is_divided(state, fleet, what)
                || of(Some(&leaves(pool)), what) + more <= part
                || part >= of(Some(fleet), what)
        })
    };
    // Pools whose part holds none of their first 16 gangs.
    let mut stuck: Vec<(PoolName, Option<(u64, Sums)>)> = vec![];
    let mut served: Vec<(PoolName, Sums)> = vec![];
    let demanding: Vec<PoolName> = demands.keys().cloned().collect();
    for pool in &demanding {
        let mut line: Vec<&Workload> =
            state.workloads.values().filter(|w| w.pool == *pool && w.phase == engine::Phase::Queued).collect();
        line.sort_by_key(|w| (-i64::from(w.spec.priority), w.submitted_at.0 + late_ms(state, w), w.order));
        if line.is_empty() {
            continue;
        }
        let able: Vec<&Workload> = line
            .into_iter()
            .filter(|w| w.awaits.is_empty())
            .take(16)
            .filter(|w| could_start(state, fleet, w, now))
            .collect();
        match able.iter().find(|w| fits(pool, &wants(w), &by_demand)) {
            Some(w) => served.push((pool.clone(), wants(w))),
            None => stuck.push((pool.clone(), able.first().map(|w| (w.order, wants(w))))),
        }
    }
    if stuck.is_empty() || state.pools.is_plain() {
        return by_demand;
    }
    // Who has the least of its part asks first: held / part, compared as fractions.
    let ratio = |pool: &PoolName| -> (u64, u64) {
        let mut most = (0u64, 1u64);
        for (what, has) in leaves(pool).iter().filter(|(what, _)| is_divided(state, fleet, what)) {
            let part = of(by_demand.get(pool), what);
            if less(most, (*has, part)) {
                most = (*has, part);
            }
        }
        most
    };
    stuck.sort_by(|a, b| {
        let (x, y) = (ratio(&a.0), ratio(&b.0));
        let order = |s: &Option<(u64, Sums)>| s.as_ref().map_or(u64::MAX, |s| s.0);
        let by_ratio = less(y, x).cmp(&less(x, y));
        by_ratio.then(order(&a.1).cmp(&order(&b.1))).then(a.0.cmp(&b.0))
    });
    stuck.iter().for_each(|(pool, _)| drop(demands.insert(pool.clone(), leaves(pool))));
    let mut parts = division(state, fleet, &demands);
    for (pool, gang) in stuck.into_iter().take(16) {
        let Some((_, gang)) = gang else { continue };
        let mut more = demands.clone();
        gang.iter().for_each(|(what, amount)| add(more.get_mut(&pool).unwrap(), what, *amount));
        let with = division(state, fleet, &more);
        if fits(&pool, &gang, &with) && served.iter().all(|(pool, gang)| fits(pool, gang, &with)) {
            (demands, parts) = (more, with);
            served.push((pool, gang));
        }
    }
    // Nobody's part is less than the first division gave.
    for (pool, least) in &by_demand {
        let part = parts.entry(pool.clone()).or_default();
        for (what, least) in least {
            let has = part.entry(what.clone()).or_default();
            *has = (*has).max(*least);
        }
    }
    parts
}

/// Whether one fraction is less than another; something of nothing is more than anything.
fn less(a: (u64, u64), b: (u64, u64)) -> bool {
    match (a, b) {
        ((x, 0), (y, 0)) => x == 0 && y > 0,
        ((x, 0), (y, _)) => x == 0 && y > 0,
        ((x, z), (y, 0)) => y > 0 || (x > 0 && z == 0),
        ((x, z), (y, u)) => u128::from(x) * u128::from(u) < u128::from(y) * u128::from(z),
    }
}

fn of_pool(held: &BTreeMap<PoolName, Sums>, pool: &PoolName) -> Sums {
    held.get(pool).cloned().unwrap_or_default()
}

fn could_start(state: &State, fleet: &Sums, w: &Workload, now: UnixMs) -> bool {
    let (specs, gang) = (specs(state), wants(w));
    let resting = w.not_before.is_some_and(|until| until > now);
    let too_large = gang.iter().any(|(what, amount)| *amount > of(Some(fleet), what));
    let limited = up(&specs, &w.pool).iter().any(|pool| {
        gang.iter().any(|(what, amount)| quota(&specs[pool], what).limit.is_some_and(|limit| *amount > limit))
    });
    let spec = &specs[&w.pool];
    let reserves = |what: &str| quota(spec, what).reservation;
    let over = gang.iter().any(|(what, amount)| reserves(what) > 0 && *amount > reserves(what));
    let unreserved = match gang.get("gpu") {
        Some(_) => !gang.keys().any(|what| what.starts_with("gpu") && reserves(what) > 0),
        None => reserves("cpu") == 0,
    };
    let hopeless = w.spec.preemptible == Preemptible::No && (over || unreserved);
    !resting && !too_large && !limited && !hopeless
}

/// The steps, over the whole tree.
fn division(state: &State, fleet: &Sums, demands: &BTreeMap<PoolName, Sums>) -> BTreeMap<PoolName, Sums> {
    let (specs, mut all): (_, BTreeMap<PoolName, Sums>) = (specs(state), BTreeMap::new());
    let resources: BTreeSet<String> = fleet
        .keys()
        .cloned()
        .chain(demands.values().flat_map(|d| d.keys().cloned()))
        .chain(specs.values().flat_map(|s| s.resources.0.keys().map(Resource::to_string)))
        .collect();
    for what in resources {
        let amount = fleet.get(&what).copied().unwrap_or(0);
        let (mut plain, mut raised): (BTreeMap<PoolName, Sums>, BTreeMap<PoolName, u64>) = Default::default();
        split(None, amount, &what, &specs, demands, &BTreeMap::new(), &mut plain);
        // Then once more, with each pool raised by as much as the leaves below it.
        for (leaf, raise) in state.pools.raises() {
            let leads = specs.values().any(|s| s.parent.as_ref() == Some(leaf));
            let to = raise.to.iter().find(|(r, _)| r.to_string() == what).map_or(0, |(_, to)| to);
            let part = of(plain.get(leaf), &what);
            let to = to.min(demand_of(leaf, &what, &specs, demands));
            for pool in up(&specs, leaf).into_iter().filter(|_| !leads && to > part) {
                *raised.entry(pool.clone()).or_insert(of(plain.get(&pool), &what)) += to - part;
            }
        }
        split(None, amount, &what, &specs, demands, &raised, &mut all);
    }
    all
}

/// Whether pools are held to their parts of a resource.
pub fn is_divided(state: &State, fleet: &Sums, what: &str) -> bool {
    let no_gpus = of(Some(fleet), "gpu") == 0 && !what.starts_with("gpu/");
    let named = |spec: &PoolSpec| spec.resources.0.keys().any(|r| r.to_string() == what);
    what == "gpu" || no_gpus || specs(state).values().any(named)
}

/// An amount; 0 where there is none.
pub fn of(sums: Option<&Sums>, what: &str) -> u64 {
    sums.and_then(|s| s.get(what)).copied().unwrap_or(0)
}

/// A preemption that was taken: each victim in turn was in a pool that held more than its part, or of lower priority in a pool
/// that allows that, or had more of a pool that serves the least served first and stood behind for it, or was let past the gang.
pub fn check_preemption(before: &State, p: &Preemption, now: UnixMs) -> Result<(), String> {
    let fleet: Sums = p.fleet.iter().map(|(resource, amount)| (resource.to_string(), amount)).collect();
    // By the division alone: what a stuck pool got because it asked again is no right against others.
    let parts = division(before, &fleet, &demands(before, &p.clusters, now));
    let by = &before.workloads[&p.by];
    let going = |w: &Workload| w.attempts.last().is_some_and(|a| a.stop.is_some());
    // Members that go count as gone from the start.
    let mut left = before.clone();
    for w in left.workloads.values_mut() {
        if let Some(resize) = w.attempts.last_mut().and_then(|a| a.resize.as_mut()) {
            resize.leaving.clear();
        }
    }
    for shrink in &p.shrinks {
        let workload = &before.workloads[&shrink.key];
        let held = held(&left, |w| lives_in(w, &p.clusters) && !going(w));
        let mut gives = Sums::new();
        shrink.members.iter().for_each(|group| add_group(&mut gives, group));
        let over = |what: &String| {
            let (has, part) = (of(held.get(&workload.pool), what), of(parts.get(&workload.pool), what));
            has > part && part < of(Some(&fleet), what) && is_divided(before, &fleet, what)
        };
        let passed = workload.attempts.last().is_some_and(|a| a.decision.passed.iter().any(|q| q.uid == by.uid));
        if workload.pool != by.pool && !passed && !gives.keys().any(over) {
            return Err(format!("{} had to give members though its pool has no more than its part", shrink.key));
        }
        let attempt = left.workloads.get_mut(&shrink.key).unwrap().attempts.last_mut().unwrap();
        for group in &shrink.members {
            for share in &group.nodes {
                let there = attempt.placement.iter_mut().filter(|g| g.group == group.group);
                there.flat_map(|g| &mut g.nodes).find(|s| s.node == share.node).unwrap().members -= share.members;
            }
        }
    }
    let before = &left;
    let mut gone: BTreeSet<WorkloadKey> = BTreeSet::new();
    for victim in &p.victims {
        let workload = &before.workloads[&victim.key];
        if workload.spec.preemptible == Preemptible::No {
            return Err(format!("{} may not be preempted", victim.key));
        }
        let held = held(before, |w| lives_in(w, &p.clusters) && !going(w) && !gone.contains(&w.key));
        let over = |what: &String| {
            let (has, part) = (of(held.get(&workload.pool), what), of(parts.get(&workload.pool), what));
            has > part && part < of(Some(&fleet), what) && is_divided(before, &fleet, what)
        };
        let lower = workload.pool == by.pool && workload.spec.priority < by.spec.priority;
        let within = before.pools.spec(&by.pool).is_some_and(|s| s.preemption_within == WithinPool::ByPriority);
        let least = before.pools.spec(&by.pool).is_some_and(|s| s.order == LineOrder::LeastServed);
        let stands = |w: &Workload| w.submitted_at.0 + counts_as(w, now) * 36_000_000;
        let behind = (stands(workload), workload.order) > (stands(by), by.order);
        let served = least
            && workload.pool == by.pool
            && workload.spec.priority <= by.spec.priority
            && counts_as(workload, now) > counts_as(by, now)
            && workload.attempts.last().and_then(|a| a.running_at).is_none_or(|at| now.0 - at.0 >= 1_800_000)
            && behind;
        let within = (lower && within) || served;
        let rightful = if workload.pool == by.pool { within } else { holds(workload).keys().any(over) };
        let passed = workload.attempts.last().is_some_and(|a| a.decision.passed.iter().any(|q| q.uid == by.uid));
        if !rightful && !passed {
            return Err(format!(
                "{} of pool {} had to give room though its pool has no more than its part",
                victim.key, workload.pool
            ));
        }
        gone.insert(victim.key.clone());
    }
    Ok(())
}

fn demand_of(
    pool: &PoolName,
    what: &str,
    specs: &BTreeMap<PoolName, PoolSpec>,
    demands: &BTreeMap<PoolName, Sums>,
) -> u64 {
    let below: Vec<&PoolName> = specs.iter().filter(|(_, s)| s.parent.as_ref() == Some(pool)).map(|(n, _)| n).collect();
    let sum = match below.is_empty() {
        true => demands.get(pool).and_then(|d| d.get(what)).copied().unwrap_or(0),
        false => below.iter().map(|child| demand_of(child, what, specs, demands)).sum(),
    };
    sum.min(quota(&specs[pool], what).limit.unwrap_or(u64::MAX))
}

fn split(
    parent: Option<&PoolName>,
    amount: u64,
    what: &str,
    specs: &BTreeMap<PoolName, PoolSpec>,
    demands: &BTreeMap<PoolName, Sums>,
    raised: &BTreeMap<PoolName, u64>,
    all: &mut BTreeMap<PoolName, Sums>,
) {
    let below: Vec<&PoolName> = specs.iter().filter(|(_, s)| s.parent.as_ref() == parent).map(|(n, _)| n).collect();
    let claim = |pool: &&PoolName| Claim {
        quota: quota(&specs[*pool], what),
        demand: demand_of(pool, what, specs, demands),
        raised: raised.get(*pool).copied().unwrap_or(0),
    };
    let claims: Vec<Claim> = below.iter().map(claim).collect();
    let piece = if what.starts_with("gpu") { 1000 } else { 1 };
    for (pool, part) in below.iter().zip(slow_divide(amount, &claims, piece)) {
        add(all.entry((*pool).clone()).or_default(), what, part);
        split(Some(pool), part, what, specs, demands, raised, all);
    }
}
