//! What each pool is entitled to: the whole fleet, divided from the top of the tree down, one resource at a time.
//!
//! 1. A pool's demand is what its workloads hold and wait for, at most its limit; an inner pool's is its children's together.
//! 2. It is assigned its reservation if that is STATIC, else as much of it as it demands.
//! 3. A pool whose part is raised for a while (`queue::raises`) gets what it demands up to that, and no share until the others have
//!    what they demand.
//! 4. What is left goes by share, round by round, to pools with more demand (max-min water filling).
//! 5. What is still left goes by share to all of them, at most to their limits: so idle room is lent.
//!
//! Where the reservations are more than there is, they are filled by share in the same way. Integers throughout: what a round
//! can't divide goes in pool order, a piece each, so that whole devices are handed out and not thousandths.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::PoolName;
use protocol::pool::{Amounts, Lending, PoolSpec, Quota, Resource};

use super::Pools;

/// What pools are entitled to, by pool.
pub type Entitlements = BTreeMap<PoolName, Amounts>;

/// One pool's claim to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its quota.
    pub quota: Quota,
    /// What its workloads hold and wait for.
    pub demand: u64,
    /// To what its part is raised; 0 where it is not.
    pub raised: u64,
}

/// The smallest part in which a resource is handed out: a whole device, a thousandth of a core, a MiB.
pub(crate) fn piece(resource: &Resource) -> u64 {
    match resource {
        Resource::Gpu | Resource::Model(_) => 1000,
        Resource::Cpu | Resource::Memory => 1,
    }
}

/// Divides `amount` among siblings, in their order.
pub fn divide(amount: u64, claims: &[Claim], piece: u64) -> Vec<u64> {
    let demand = |claim: &Claim| claim.demand.min(claim.quota.cap());
    let shares: Vec<u64> = claims.iter().map(|claim| u64::from(claim.quota.share)).collect();
    let assigned = |claim: &Claim| match claim.quota.lending {
        Lending::Static => claim.quota.reservation,
        Lending::Elastic => demand(claim).min(claim.quota.reservation),
    };
    let mut given = vec![0; claims.len()];
    let mut left = amount;
    let raised = |claim: &Claim| demand(claim).min(claim.raised);
    let by_share = |claim: &Claim| if claim.raised > 0 { raised(claim) } else { demand(claim) };
    let bounds: [Vec<u64>; 5] = [
        claims.iter().map(assigned).collect(),
        claims.iter().map(raised).collect(),
        claims.iter().map(by_share).collect(),
        claims.iter().map(demand).collect(),
        claims.iter().map(|claim| claim.quota.cap()).collect(),
    ];
    for bound in &bounds {
        let wants: Vec<u64> = bound.iter().zip(&given).map(|(bound, given)| bound.saturating_sub(*given)).collect();
        for (sum, more) in given.iter_mut().zip(fill(left, &wants, &shares, piece)) {
            *sum += more;
            left -= more;
        }
    }
    given
}

/// Max-min water filling: each gets `left` by its share, at most what it wants; what some do not want goes to the others.
fn fill(mut left: u64, wants: &[u64], shares: &[u64], piece: u64) -> Vec<u64> {
    let mut given = vec![0; wants.len()];
    let mut open: Vec<usize> = (0..wants.len()).filter(|&i| wants[i] > 0 && shares[i] > 0).collect();
    while left > 0 && !open.is_empty() {
        let all: u128 = open.iter().map(|&i| u128::from(shares[i])).sum();
        let part = |i: usize| u128::from(left) * u128::from(shares[i]) / all;
        let full: Vec<usize> = open.iter().copied().filter(|&i| u128::from(wants[i]) <= part(i)).collect();
        if full.is_empty() {
            let parts: Vec<(usize, u64)> = open.iter().map(|&i| (i, narrow(part(i)) / piece * piece)).collect();
            for (i, part) in parts {
                given[i] = part;
                left -= part;
            }
            hand_out_rest(left, &open, wants, &mut given, piece);
            return given;
        }
        for &i in &full {
            given[i] = wants[i];
            left -= wants[i];
        }
        open.retain(|i| !full.contains(i));
    }
    given
}

/// What a round could not divide, in pool order, a piece each.
fn hand_out_rest(mut left: u64, open: &[usize], wants: &[u64], given: &mut [u64], piece: u64) {
    while left > 0 {
        let before = left;
        for &i in open {
            let more = piece.min(left).min(wants[i] - given[i]);
            given[i] += more;
            left -= more;
        }
        if left == before {
            return;
        }
    }
}

/// A part of a u64 fits in one.
fn narrow(part: u128) -> u64 {
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The resources in which pools are held to their parts: GPUs (cpu and memory in a fleet without), and whatever else some pool
/// names. What nobody names goes to whoever has the rest: a pool that reserves GPUs is not kept from them for want of cpu that
/// nobody cared to divide.
pub(crate) fn divided(pools: &Pools, fleet: &Amounts) -> BTreeSet<Resource> {
    let always = match fleet.of(&Resource::Gpu) {
        0 => vec![Resource::Cpu, Resource::Memory, Resource::Gpu],
        _ => vec![Resource::Gpu],
    };
    let named = pools.all().into_values().flat_map(|spec| spec.resources.0.keys().cloned());
    named.chain(always).collect()
}

/// What each pool is entitled to of `fleet`, for what its leaves demand.
pub fn entitlements(pools: &Pools, fleet: &Amounts, demands: &BTreeMap<PoolName, Amounts>) -> Entitlements {
    let tree = Tree::of(pools);
    let named = tree.pools.iter().flat_map(|(_, spec)| spec.resources.0.keys());
    let resources: BTreeSet<&Resource> =
        named.chain(fleet.0.keys()).chain(demands.values().flat_map(|d| d.0.keys())).collect();
    tree.divide(fleet, demands, resources.into_iter())
}

/// What each pool would be entitled to of these resources if no pool's part were raised.
pub(crate) fn unraised(
    pools: &Pools,
    fleet: &Amounts,
    demands: &BTreeMap<PoolName, Amounts>,
    resources: &BTreeSet<Resource>,
) -> Entitlements {
    let tree = Tree { raised: vec![], ..Tree::of(pools) };
    tree.divide(fleet, demands, resources.iter())
}

/// What each pool would be entitled to of these resources if one pool's part were raised, as others' are.
pub(crate) fn raised_too(
    pools: &Pools,
    fleet: &Amounts,
    demands: &BTreeMap<PoolName, Amounts>,
    resources: &BTreeSet<Resource>,
    (pool, to): (&PoolName, &Amounts),
) -> Entitlements {
    let mut tree = Tree::of(pools);
    if let Some(at) = place(&tree.pools, pool) {
        tree.raised.retain(|(other, _)| *other != at);
        tree.raised.push((at, to));
    }
    tree.divide(fleet, demands, resources.iter())
}

/// The pools by parent, made once for a division or for several. A pool is its place in the order of names.
pub(super) struct Tree<'a> {
    pools: Vec<(&'a PoolName, &'a PoolSpec)>,
    /// Those without a parent.
    roots: Vec<usize>,
    /// By pool: those below it.
    below: Vec<Vec<usize>>,
    /// Pools whose parts are raised, and to what.
    raised: Vec<(usize, &'a Amounts)>,
}

/// Where a pool is among these, which are in the order of names.
fn place(pools: &[(&PoolName, &PoolSpec)], pool: &PoolName) -> Option<usize> {
    pools.binary_search_by(|(name, _)| (*name).cmp(pool)).ok()
}

impl<'a> Tree<'a> {
    pub(super) fn of(pools: &'a Pools) -> Self {
        let raises = pools.raises();
        let pools: Vec<(&PoolName, &PoolSpec)> = pools.all().into_iter().collect();
        let (mut roots, mut below) = (vec![], vec![vec![]; pools.len()]);
        for (pool, (_, spec)) in pools.iter().enumerate() {
            let parent = spec.parent.as_ref().map(|parent| place(&pools, parent));
            match parent {
                None => roots.push(pool),
                Some(Some(parent)) => below[parent].push(pool),
                // A pool of an unknown parent, which no command makes, has nothing.
                Some(None) => {}
            }
        }
        let raised = raises.iter().filter_map(|(pool, raise)| Some((place(&pools, pool)?, &raise.to))).collect();
        Self { pools, roots, below, raised }
    }

    /// What each pool is entitled to of these resources of `fleet`, for what its leaves demand.
    pub(super) fn divide<'r>(
        &self,
        fleet: &Amounts,
        demands: &BTreeMap<PoolName, Amounts>,
        resources: impl Iterator<Item = &'r Resource>,
    ) -> Entitlements {
        let leaves: Vec<Option<&Amounts>> = self.pools.iter().map(|(name, _)| demands.get(*name)).collect();
        let mut entitled = vec![Amounts::default(); self.pools.len()];
        for resource in resources {
            let mut demand = vec![0; self.pools.len()];
            self.demand(&self.roots, resource, &leaves, &mut demand);
            let mut part = vec![0; self.pools.len()];
            let mut raised = vec![0; self.pools.len()];
            self.entitle(&self.roots, fleet.of(resource), resource, (&demand, &raised), &mut part);
            if self.raise(&self.roots, resource, (&demand, &part), &mut raised) > 0 {
                self.entitle(&self.roots, fleet.of(resource), resource, (&demand, &raised), &mut part);
            }
            entitled.iter_mut().zip(part).for_each(|(sum, part)| sum.add(resource.clone(), part));
        }
        self.pools.iter().map(|(name, _)| (*name).clone()).zip(entitled).collect()
    }

    /// Fills in the demand of these pools and of every pool below them; returns their sum.
    fn demand(&self, pools: &[usize], resource: &Resource, leaves: &[Option<&Amounts>], demand: &mut [u64]) -> u64 {
        let mut sum = 0u64;
        for &pool in pools {
            let own = match &self.below[pool][..] {
                [] => leaves[pool].map_or(0, |d| d.of(resource)),
                below => self.demand(below, resource, leaves, demand),
            };
            demand[pool] = own.min(self.pools[pool].1.quota(resource).cap());
            sum = sum.saturating_add(demand[pool]);
        }
        sum
    }

    /// Fills in to what the parts of these pools and of every pool below them are to be raised: a leaf's to what it is raised to, an
    /// inner pool's by as much as those below it together. Returns by how much these are.
    fn raise(&self, pools: &[usize], resource: &Resource, (demand, part): (&[u64], &[u64]), raised: &mut [u64]) -> u64 {
        if self.raised.is_empty() {
            return 0;
        }
        let mut sum = 0u64;
        for &pool in pools {
            let more = match &self.below[pool][..] {
                [] => {
                    let to = self.raised.iter().find(|(at, _)| *at == pool).map_or(0, |(_, to)| to.of(resource));
                    to.min(demand[pool]).saturating_sub(part[pool])
                }
                below => self.raise(below, resource, (demand, part), raised),
            };
            if more > 0 {
                raised[pool] = part[pool].saturating_add(more);
            }
            sum = sum.saturating_add(more);
        }
        sum
    }

    /// Divides an amount among these pools, and each part among those below.
    fn entitle(
        &self,
        pools: &[usize],
        amount: u64,
        resource: &Resource,
        (demand, raised): (&[u64], &[u64]),
        entitled: &mut [u64],
    ) {
        let claim = |&pool: &usize| Claim {
            quota: self.pools[pool].1.quota(resource),
            demand: demand[pool],
            raised: raised[pool],
        };
        let claims: Vec<Claim> = pools.iter().map(claim).collect();
        for (&pool, part) in pools.iter().zip(divide(amount, &claims, piece(resource))) {
            entitled[pool] = part;
            if !self.below[pool].is_empty() {
                self.entitle(&self.below[pool], part, resource, (demand, raised), entitled);
            }
        }
    }
}
