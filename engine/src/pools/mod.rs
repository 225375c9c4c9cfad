//! Resource pools: a tree whose leaves take workloads, and what each of them is entitled to of the whole fleet.
//!
//! Owns the pools and the ownership rules of the state ([`Pools`]), the rules that a change must keep (`rules`), the division
//! of the fleet (`entitlement`) and the question whether a gang fits its pool's part (`admission`). Changed by `commands`
//! alone; asked by the planner and the API. After the elastic hierarchical pools of Uber's Peloton.
//!
//! The pool [`DEFAULT`] is always there, without reservation or limit: a fleet where no pool was made is one pool.

pub(crate) mod admission;
pub mod entitlement;
pub(crate) mod ownership;
pub(crate) mod parts;
pub(crate) mod ratio;
pub(crate) mod reclaim;
pub mod rules;
pub(crate) mod savings;
mod tree;
pub mod usage;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bincode::{Decode, Encode};
use protocol::ids::{LogIndex, Namespace, PoolName, UnixMs};
use protocol::pool::{Amounts, OwnershipSpec, PoolSpec};
use serde::Serialize;

pub use rules::PoolFault;
pub use tree::MAX_DEPTH;
pub use usage::Usage;

/// The most pools, and the most ownership rules.
pub const MOST: usize = 10_000;

/// The pool of workloads for which no other is named.
pub static DEFAULT: LazyLock<PoolName> = LazyLock::new(|| PoolName::new("default").expect("a constant name is valid"));

/// The specification of [`DEFAULT`] until somebody gives it one.
static UNBOUNDED: LazyLock<PoolSpec> = LazyLock::new(PoolSpec::default);

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// What was asked for.
    pub spec: PoolSpec,
    /// When it was made.
    pub created_at: UnixMs,
    /// The log entry that last changed it.
    pub version: LogIndex,
}

/// An owner's rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// What was asked for.
    pub spec: OwnershipSpec,
    /// When it was made.
    pub created_at: UnixMs,
    /// The log entry that last changed it.
    pub version: LogIndex,
}

/// A pool's part that is raised for a while, for what the pool missed before: so that gangs larger than its part have their turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Raise {
    /// To what, where it asks for as much: reservations of others come first, shares after.
    pub to: Amounts,
    /// When what it missed is made up for, if it has all of it from now on. It ends when the planner says so.
    pub until: UnixMs,
}

/// Every pool and every ownership rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Pools {
    pools: BTreeMap<PoolName, Pool>,
    owners: BTreeMap<Namespace, Owner>,
    raises: BTreeMap<PoolName, Raise>,
    /// The log entry that last changed any pool or rule.
    pub version: LogIndex,
}

impl Pools {
    /// A pool's specification; [`DEFAULT`] always has one.
    pub fn spec(&self, name: &PoolName) -> Option<&PoolSpec> {
        match self.pools.get(name) {
            Some(pool) => Some(&pool.spec),
            None => (*name == *DEFAULT).then(|| &*UNBOUNDED),
        }
    }

    /// A pool as it was made; none for a [`DEFAULT`] that nobody changed.
    pub fn get(&self, name: &PoolName) -> Option<&Pool> {
        self.pools.get(name)
    }

    /// Every pool with its specification, by name, [`DEFAULT`] among them.
    pub fn all(&self) -> BTreeMap<&PoolName, &PoolSpec> {
        let mut all: BTreeMap<&PoolName, &PoolSpec> = self.pools.iter().map(|(name, p)| (name, &p.spec)).collect();
        all.entry(&DEFAULT).or_insert(&UNBOUNDED);
        all
    }

    /// Whether nobody made any pool: all of the fleet is [`DEFAULT`]'s.
    pub fn is_plain(&self) -> bool {
        self.pools.is_empty()
    }

    /// Every ownership rule, by owner.
    pub fn owners(&self) -> &BTreeMap<Namespace, Owner> {
        &self.owners
    }

    pub(crate) fn set(&mut self, name: &PoolName, spec: PoolSpec, now: UnixMs, index: LogIndex) {
        self.version = index;
        let created_at = self.pools.get(name).map_or(now, |pool| pool.created_at);
        self.pools.insert(name.clone(), Pool { spec, created_at, version: index });
    }

    pub(crate) fn remove(&mut self, name: &PoolName, index: LogIndex) {
        self.version = index;
        self.pools.remove(name);
        self.raises.remove(name);
    }

    /// Pools whose parts are raised.
    pub fn raises(&self) -> &BTreeMap<PoolName, Raise> {
        &self.raises
    }

    /// A pool's part is raised; none: not any more.
    pub(crate) fn raise(&mut self, name: &PoolName, raise: Option<Raise>) {
        match raise {
            Some(raise) => self.raises.insert(name.clone(), raise),
            None => self.raises.remove(name),
        };
    }

    pub(crate) fn set_owner(&mut self, owner: &Namespace, spec: OwnershipSpec, now: UnixMs, index: LogIndex) {
        self.version = index;
        let created_at = self.owners.get(owner).map_or(now, |rule| rule.created_at);
        self.owners.insert(owner.clone(), Owner { spec, created_at, version: index });
    }

    pub(crate) fn remove_owner(&mut self, owner: &Namespace, index: LogIndex) {
        self.version = index;
        self.owners.remove(owner);
    }
}
