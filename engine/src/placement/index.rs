//! The best places of each ask, kept from one decision to the next, so that a decision looks at what changed and not at the fleet.
//!
//! For each ask (a gang of one member) the index keeps the best places in order, the first node of each class standing for it. A
//! node that changes is written into a journal ([`super::journal`]); an ask that comes again judges what the journal has since it last came. Beyond
//! [`KEPT`] places an ask forgets the worst; when it has used up those it kept, it looks at the whole fleet again.
//!
//! What is found is what a look at every class would find: a property test holds it to that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::devices::Free;
use super::journal::{At, Journal};
use super::mix::Ask;
use super::value::Amiss;

/// Places kept for an ask at most; half of them stay when there are more.
const KEPT: usize = 4096;
/// Asks that are remembered.
const ASKS: usize = 1024;

/// A place, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    /// The model's place in the ask's order.
    pub(crate) rank: u64,
    /// A member without GPUs on a node with some.
    pub(crate) on_gpus: bool,
    /// Waste in steps.
    pub(crate) wasted: i64,
    /// Price an hour.
    pub(crate) cost: u64,
    /// Waste in millionths of a GPU.
    pub(crate) exactly: i64,
    /// The cluster, by its place among the rooms.
    pub(crate) cluster: u32,
    /// GPU left on the node: of equals the fullest.
    pub(crate) gpu_milli: u64,
    /// The node.
    pub(crate) node: u32,
    /// As the node was after this many changes; judged of another state, it means nothing any more.
    pub(crate) version: u32,
}

#[derive(Debug, Default)]
struct Best {
    spots: BinaryHeap<Reverse<Spot>>,
    /// Spots from here on are not all known; none: all are.
    forgot: Option<Spot>,
    /// The journal was read so far.
    read: u64,
}

impl Best {
    fn add(&mut self, spot: Spot, holds: &impl Fn(&Spot) -> bool) {
        if self.forgot.is_some_and(|forgot| spot >= forgot) {
            return;
        }
        self.spots.push(Reverse(spot));
        if self.spots.len() <= KEPT {
            return;
        }
        let mut spots = std::mem::take(&mut self.spots).into_vec();
        spots.retain(|Reverse(spot)| holds(spot));
        if spots.len() > KEPT / 2 {
            // Those before the middle are the better ones.
            let (_, middle, _) = spots.select_nth_unstable_by_key(KEPT / 2, |Reverse(spot)| *spot);
            self.forgot = Some(middle.0);
            spots.truncate(KEPT / 2);
        }
        self.spots = spots.into();
    }

    /// The best that holds. Drops those before it, which hold no more.
    fn first(&mut self, holds: &impl Fn(&Spot) -> bool) -> Option<Spot> {
        while let Some(Reverse(spot)) = self.spots.peek() {
            if holds(spot) {
                return Some(*spot);
            }
            self.spots.pop();
        }
        None
    }
}

/// The best places of each ask.
#[derive(Debug, Default)]
pub(crate) struct Index {
    asks: BTreeMap<Ask, Best>,
    journal: Journal,
}

impl Index {
    /// A node is another now, or is the first of its class.
    pub(crate) fn changed(&mut self, at: At, free: &Free, amiss: Amiss) {
        self.journal.note(at, free, amiss);
    }

    /// Nothing that was judged holds any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The best place for an ask. `all` names every first node of a class that could do, `judge` says how good a node is, if it
    /// will do, and `version` what a node's version is now: what was judged of another does not hold any more.
    pub(crate) fn best(
        &mut self,
        ask: &Ask,
        all: impl Fn() -> Vec<At>,
        judge: impl Fn(At, Option<&Amiss>) -> Option<Spot>,
        version: impl Fn(At) -> u32,
    ) -> Option<Spot> {
        let holds = |spot: &Spot| version((spot.cluster, spot.node)) == spot.version;
        let known = self.asks.contains_key(ask);
        if !known {
            if self.asks.len() >= ASKS {
                self.asks.clear();
            }
            self.asks.insert(ask.clone(), Best::default());
        }
        let best = self.asks.get_mut(ask)?;
        if known {
            let changed = self.journal.since(best.read, &ask.each);
            changed.filter_map(|(at, amiss)| judge(at, Some(amiss))).for_each(|spot| best.add(spot, &holds));
        }
        if !known || best.first(&holds).is_none() && best.forgot.is_some() {
            *best = Best::default();
            all().into_iter().filter_map(|at| judge(at, None)).for_each(|spot| best.add(spot, &holds));
        }
        best.read = self.journal.next();
        best.first(&holds)
    }
}
