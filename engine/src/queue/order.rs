//! Who is next: of the pools the one that has the least of what it is entitled to, of its workloads the first in line.

use std::collections::BTreeSet;
use std::collections::btree_map::Range;
use std::ops::Bound::{Excluded, Unbounded};

use protocol::ids::PoolName;

use crate::pools::admission::Ledger;
use crate::pools::ratio::Ratio;
use crate::state::{Line, State, Waiter};

/// A place in a pool's line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// From 1.
    pub(crate) place: u64,
    /// How many wait there.
    pub(crate) of: u64,
}

/// One pool's line, as far as it has not had its turns.
struct Rest<'a> {
    pool: &'a PoolName,
    /// How much of its part the pool has.
    ratio: Ratio,
    /// When the first of the line was submitted, among all workloads.
    first: u64,
    next: Option<(&'a Line, &'a Waiter)>,
    behind: Range<'a, Line, Waiter>,
    standing: Standing,
}

/// The order of a plan.
pub(crate) struct Order<'a> {
    state: &'a State,
    /// In the order of the pools' names.
    lines: Vec<Rest<'a>>,
    /// The least ratio goes first, then the pool whose line's first was submitted first; each with its place among the lines.
    turns: BTreeSet<(Ratio, u64, usize)>,
    /// Whose turn it is.
    current: Option<usize>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(state: &'a State, ledger: &Ledger) -> Self {
        let waiting = state.indices.usage.iter().filter(|(_, usage)| !usage.queue.is_empty());
        let lines = waiting.map(|(pool, usage)| {
            let mut behind = usage.queue.range(..);
            let standing = Standing { place: 0, of: usage.queue.len() as u64 };
            let next = behind.next();
            let first = next.map_or(u64::MAX, |(line, _)| line.order());
            Rest { pool, ratio: ledger.ratio(pool), first, next, behind, standing }
        });
        let mut order = Self { state, lines: lines.collect(), turns: BTreeSet::new(), current: None };
        (0..order.lines.len()).for_each(|at| order.enter(at));
        order
    }

    fn enter(&mut self, at: usize) {
        let Rest { ratio, first, next, .. } = &self.lines[at];
        if next.is_some() {
            self.turns.insert((*ratio, *first, at));
        }
    }

    /// The next workload, with its place in its pool's line.
    pub(crate) fn next(&mut self) -> Option<(&'a Waiter, Standing)> {
        let (.., at) = self.turns.pop_first()?;
        self.current = Some(at);
        let line = &mut self.lines[at];
        let (_, waiter) = line.next?;
        line.standing.place += 1;
        line.next = line.behind.next();
        let standing = line.standing;
        self.enter(at);
        Some((waiter, standing))
    }

    /// The pool whose turn it is has more now: its next comes when others with less have had theirs.
    pub(crate) fn has_more(&mut self, ledger: &Ledger) {
        let Some(at) = self.current else { return };
        let Rest { pool, ratio, first, .. } = &self.lines[at];
        self.turns.remove(&(*ratio, *first, at));
        let new = ledger.ratio(pool);
        self.lines[at].ratio = new;
        self.enter(at);
    }

    /// The pool whose turn it is goes on at the place in its line that `first_from` gives, which is told its next; with none it has no
    /// turns any more. Standings count no longer.
    pub(crate) fn go_on_at(&mut self, first_from: impl FnOnce(&'a PoolName, Line) -> Option<Line>) {
        let Some(at) = self.current else { return };
        let line = &mut self.lines[at];
        let Some((next, _)) = line.next else { return };
        let place = first_from(line.pool, *next);
        if place == Some(*next) {
            return;
        }
        let queue = self.state.indices.usage.get(line.pool).map(|usage| &usage.queue);
        let found = queue.zip(place).and_then(|(queue, place)| Some((queue, queue.get_key_value(&place)?)));
        match found {
            Some((queue, entry)) => {
                line.next = Some(entry);
                line.behind = queue.range((Excluded(entry.0), Unbounded));
            }
            None => {
                line.next = None;
                self.turns.remove(&(line.ratio, line.first, at));
            }
        }
    }
}
