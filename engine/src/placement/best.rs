//! The best places of one ask. Those that are next are in order; of the others, which are many and change before their turn comes, it is
//! only known that they are no better, and many of them have not even been judged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::journal::At;
use super::value::Amiss;

/// So many of the best are put in order at a time. Few under test, so that small fleets come to what large ones come to.
const NEXT: usize = if cfg!(test) { 2 } else { 64 };
/// Other places kept for an ask at most; half of them stay when there are more.
const KEPT: usize = if cfg!(test) { 4 } else { 2048 };

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

/// How an ask looks at nodes.
pub(crate) trait Looks {
    /// A node that was seen and will do.
    type Seen;

    /// How good a place is at best, if it will do; cheaper than to judge it. What is amiss with it may be known.
    fn see(&self, at: At, amiss: Option<&Amiss>) -> Option<(Spot, Self::Seen)>;
    /// How good a place is: no better than it is at best.
    fn judge(&self, at_best: Spot, seen: Self::Seen) -> Spot;
    /// What a node's version is now.
    fn version(&self, at: At) -> u32;

    /// Whether a spot still means something.
    fn holds(&self, spot: &Spot) -> bool {
        self.version((spot.cluster, spot.node)) == spot.version
    }
}

/// A place that has not been judged.
#[derive(Debug, Clone, Copy)]
struct Unjudged {
    at: At,
    version: u32,
}

/// The best places of one ask.
#[derive(Debug, Default)]
pub(crate) struct Best {
    next: BinaryHeap<Reverse<Spot>>,
    /// Those in `next` are before this; all others known are not. None: all known are in `next`.
    beyond: Option<Spot>,
    judged: Vec<Spot>,
    unjudged: Vec<Unjudged>,
    /// Spots from here on are not all known; none: all are.
    forgot: Option<Spot>,
}

impl Best {
    /// Whether there are places that are not known.
    pub(crate) fn forgot(&self) -> bool {
        self.forgot.is_some()
    }

    /// A node is as it is from here on. What is amiss with it may be known.
    pub(crate) fn changed(&mut self, at: At, amiss: Option<&Amiss>, looks: &impl Looks) {
        let Some((at_best, seen)) = looks.see(at, amiss) else { return };
        if self.forgot.is_some_and(|forgot| at_best >= forgot) {
            return;
        }
        if self.beyond.is_some_and(|beyond| at_best >= beyond) {
            self.unjudged.push(Unjudged { at, version: at_best.version });
            return self.trim(looks);
        }
        let spot = looks.judge(at_best, seen);
        debug_assert!(at_best <= spot, "{at_best:?} is no bound of {spot:?}");
        if self.forgot.is_some_and(|forgot| spot >= forgot) {
            return;
        }
        if self.beyond.is_some_and(|beyond| spot >= beyond) {
            self.judged.push(spot);
            return self.trim(looks);
        }
        self.next.push(Reverse(spot));
        if self.next.len() > 2 * NEXT {
            let next = std::mem::take(&mut self.next).into_iter().map(|Reverse(spot)| spot);
            self.order(next.filter(|spot| looks.holds(spot)).collect());
        }
    }

    /// The best that holds. Drops those before it, which hold no more.
    pub(crate) fn first(&mut self, looks: &impl Looks) -> Option<Spot> {
        loop {
            while let Some(Reverse(spot)) = self.next.peek() {
                if looks.holds(spot) {
                    return Some(*spot);
                }
                self.next.pop();
            }
            self.beyond?;
            self.beyond = None;
            let others = self.others(looks);
            self.order(others);
        }
    }

    /// The first of these are next, the others are beyond them. All of these are before what is beyond now.
    fn order(&mut self, mut spots: Vec<Spot>) {
        if spots.len() > NEXT {
            // Those before the middle are the better ones.
            let (_, middle, _) = spots.select_nth_unstable(NEXT);
            self.beyond = Some(*middle);
            self.judged.extend(spots.drain(NEXT..));
        }
        self.next = spots.into_iter().map(Reverse).collect();
    }

    /// Takes out those beyond what is next that hold, judged.
    fn others(&mut self, looks: &impl Looks) -> Vec<Spot> {
        let mut spots = std::mem::take(&mut self.judged);
        spots.retain(|spot| looks.holds(spot));
        let unjudged = std::mem::take(&mut self.unjudged).into_iter();
        let unjudged = unjudged.filter(|place| looks.version(place.at) == place.version);
        let forgot = self.forgot;
        let judged =
            unjudged.filter_map(|place| looks.see(place.at, None).map(|(at_best, seen)| looks.judge(at_best, seen)));
        spots.extend(judged.filter(|spot| forgot.is_none_or(|forgot| *spot < forgot)));
        spots
    }

    /// Forgets the worst where there are too many.
    fn trim(&mut self, looks: &impl Looks) {
        if self.judged.len() + self.unjudged.len() <= KEPT {
            return;
        }
        let mut spots = self.others(looks);
        if spots.len() > KEPT / 2 {
            let (_, middle, _) = spots.select_nth_unstable(KEPT / 2);
            self.forgot = Some(*middle);
            spots.truncate(KEPT / 2);
        }
        self.judged = spots;
    }
}
