//! Which nodes changed, the last change of each, so that whoever looks again judges what changed since.
//!
//! A node that changes again is moved to the front, so a reader comes by each changed node once, and none is ever forgotten. The nodes
//! are in lanes by the most GPU that one member could get there: a reader leaves out the lanes in which nobody has room for it. On a busy fleet
//! most nodes that changed are full again, and most readers ask for more than a share.

use protocol::resources::Resources;

use super::devices::{DEVICE, Free};
use super::value::Amiss;

/// Lanes of nodes that have shares but no whole device.
const SHARES: usize = 10;
/// Lanes of nodes that have whole devices: 1, 2 to 3, 4 to 7, 8 to 15, and more.
const DEVICES: usize = 5;
/// Before these is the lane of nodes without any GPU left.
const LANES: usize = 1 + SHARES + DEVICES;

/// A node of a cluster.
pub(crate) type At = (u32, u32);

/// No entry, where one is named by its place.
const NONE: u32 = u32::MAX;

/// The last change of a node.
#[derive(Debug, Clone, Copy)]
struct Entry {
    at: At,
    amiss: Amiss,
    /// How many changes came before.
    number: u64,
    /// Of the same lane.
    newer: u32,
    older: u32,
    lane: usize,
}

/// The last change of each node.
#[derive(Debug)]
pub(crate) struct Journal {
    /// By cluster and node, the place of its entry.
    places: Vec<Vec<u32>>,
    entries: Vec<Entry>,
    /// The newest entry of each lane.
    newest: [u32; LANES],
    /// The number of the next change.
    next: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { places: vec![], entries: vec![], newest: [NONE; LANES], next: 0 }
    }
}

impl Journal {
    /// The number of the next change.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// A node is as it is from here on, with so much amiss.
    pub(crate) fn note(&mut self, at: At, free: &Free, amiss: Amiss) {
        let entry = Entry { at, amiss, number: self.next, newer: NONE, older: NONE, lane: lane(free) };
        self.next += 1;
        let place = self.place(at);
        match self.entries.get(place as usize) {
            Some(_) => self.unlink(place),
            None => self.entries.push(entry),
        }
        let newest = std::mem::replace(&mut self.newest[entry.lane], place);
        if let Some(newest) = self.entries.get_mut(newest as usize) {
            newest.newer = place;
        }
        self.entries[place as usize] = Entry { older: newest, ..entry };
    }

    /// The nodes that changed with this number or later, and could have room for a member of this size: each once, and what is amiss with it.
    pub(crate) fn since(&self, number: u64, each: &Resources) -> impl Iterator<Item = (At, &Amiss)> {
        let entry = move |place: u32| self.entries.get(place as usize).filter(|entry| entry.number >= number);
        let of_lane = move |newest: &u32| std::iter::successors(entry(*newest), move |last| entry(last.older));
        self.newest[first_lane(each)..].iter().flat_map(of_lane).map(|entry| (entry.at, &entry.amiss))
    }

    /// Where the entry of a node is, or will be.
    fn place(&mut self, (cluster, node): At) -> u32 {
        let (cluster, node) = (cluster as usize, node as usize);
        if cluster >= self.places.len() {
            self.places.resize(cluster + 1, vec![]);
        }
        let places = &mut self.places[cluster];
        if node >= places.len() {
            places.resize(node + 1, NONE);
        }
        if places[node] == NONE {
            places[node] = self.entries.len() as u32;
        }
        places[node]
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, lane, .. } = self.entries[place as usize];
        match self.entries.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest[lane] = older,
        }
        if let Some(older) = self.entries.get_mut(older as usize) {
            older.newer = newer;
        }
    }
}

/// The lane of a node of which this is free.
fn lane(free: &Free) -> usize {
    match (free.devices().checked_ilog2(), free.shares.last()) {
        (Some(doublings), _) => 1 + SHARES + (doublings as usize).min(DEVICES - 1),
        (None, Some(share)) => 1 + of_share(u64::from(*share)),
        (None, None) => 0,
    }
}

/// The first lane whose nodes could have room for a member of this size: none before it has.
fn first_lane(each: &Resources) -> usize {
    match each.gpu_milli {
        0 => 0,
        share if share < DEVICE => 1 + of_share(share),
        whole => 1 + SHARES + (whole.div_ceil(DEVICE).ilog2() as usize).min(DEVICES - 1),
    }
}

fn of_share(milli: u64) -> usize {
    (milli as usize * SHARES / DEVICE as usize).min(SHARES - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use protocol::capacity::Sharing;

    use super::*;

    fn free() -> impl Strategy<Value = Free> {
        let sharing = prop_oneof![Just(Sharing::Any), Just(Sharing::Whole), (1..8u16).prop_map(Sharing::Parts)];
        let shares = prop::collection::vec(1..1000u16, 0..4);
        (0..20u64, shares, sharing).prop_map(|(devices, mut shares, sharing)| {
            shares.sort_unstable();
            let gpu_milli = devices * DEVICE + shares.iter().map(|s| u64::from(*s)).sum::<u64>();
            Free { all: Resources { cpu_milli: 1, memory_mib: 1, gpu_milli }, shares: shares.into(), sharing }
        })
    }

    fn each() -> impl Strategy<Value = Resources> {
        let milli = prop_oneof![Just(0u64), 1..1001u64, (1..20u64).prop_map(|g| g * 1000), 1001..20_000u64];
        milli.prop_map(|gpu_milli| Resources { gpu_milli, ..Resources::ZERO })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_lane_left_out_has_no_node_with_room(free in free(), each in each()) {
            prop_assert!(!free.holds(&each) || lane(&free) >= first_lane(&each), "{:?}", lane(&free));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_reader_comes_by_each_node_that_changed_once(
            changes in prop::collection::vec(((0..2u32, 0..5u32), free()), 0..40),
            since in 0..40u64,
            each in each(),
        ) {
            let mut journal = Journal::default();
            changes.iter().for_each(|(at, free)| journal.note(*at, free, Amiss::default()));
            prop_assert_eq!(journal.next(), changes.len() as u64);
            let last: BTreeMap<At, (u64, &Free)> =
                (0..).zip(&changes).map(|(number, (at, free))| (*at, (number, free))).collect();
            let expected = last.iter().filter(|(_, (number, free))| *number >= since && lane(free) >= first_lane(&each));
            let expected: Vec<At> = expected.map(|(at, _)| *at).collect();
            let mut found: Vec<At> = journal.since(since, &each).map(|(at, _)| at).collect();
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
