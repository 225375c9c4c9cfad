//! Who is next: of the pools the one that has the least of what it is entitled to, of its workloads the first in line.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::PoolName;

use crate::pools::admission::Ledger;
use crate::pools::ratio::Ratio;
use crate::state::{Line, State, Waiter};

/// A pool's turn: the least ratio first, then whose next workload was submitted first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Turn<'a> {
    ratio: Ratio,
    submitted: u64,
    pool: &'a PoolName,
    next: Line,
}

/// A place in a pool's line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// From 1.
    pub(crate) place: u64,
    /// How many wait there.
    pub(crate) of: u64,
}

/// The order of a plan.
pub(crate) struct Order<'a> {
    state: &'a State,
    turns: BTreeSet<Turn<'a>>,
    /// The same, by pool.
    by_pool: BTreeMap<&'a PoolName, Turn<'a>>,
    standing: BTreeMap<&'a PoolName, Standing>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(state: &'a State, ledger: &Ledger) -> Self {
        let mut order = Self { state, turns: BTreeSet::new(), by_pool: BTreeMap::new(), standing: BTreeMap::new() };
        for (pool, usage) in &state.indices.usage {
            order.standing.insert(pool, Standing { place: 0, of: usage.queue.len() as u64 });
            if let Some((first, _)) = usage.queue.first_key_value() {
                order.add(pool, *first, ledger);
            }
        }
        order
    }

    fn add(&mut self, pool: &'a PoolName, next: Line, ledger: &Ledger) {
        let ratio = ledger.ratio(pool);
        let turn = Turn { ratio, submitted: next.order(), pool, next };
        if let Some(before) = self.by_pool.insert(pool, turn.clone()) {
            self.turns.remove(&before);
        }
        self.turns.insert(turn);
    }

    /// The next workload, with its place in its pool's line. `last` is the pool that had the turn before: it may have more now.
    pub(crate) fn next(&mut self, last: Option<&'a PoolName>, ledger: &Ledger) -> Option<(&'a Waiter, Standing)> {
        if let Some(pool) = last
            && let Some(next) = self.by_pool.get(pool).map(|turn| turn.next)
        {
            self.add(pool, next, ledger);
        }
        let turn = self.turns.pop_first()?;
        self.by_pool.remove(turn.pool);
        let queue = &self.state.indices.usage.get(turn.pool)?.queue;
        let behind = queue.range((std::ops::Bound::Excluded(turn.next), std::ops::Bound::Unbounded)).next();
        if let Some((next, _)) = behind {
            self.add(turn.pool, *next, ledger);
        }
        let standing = self.standing.get_mut(turn.pool)?;
        standing.place += 1;
        Some((queue.get(&turn.next)?, *standing))
    }
}
