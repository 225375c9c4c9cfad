//! The store does what a vector does, through truncation, compaction, snapshots and reopening.

use ::raft::{GetEntriesContext, Storage};
use proptest::prelude::*;

use super::*;
use crate::raft::store::{Batch, Compaction};

/// What the store should be.
#[derive(Default)]
struct Model {
    truncated: (u64, u64),
    log: Vec<Entry>,
    hard_state: HardState,
    snapshot: Option<Snapshot>,
}

impl Model {
    fn last(&self) -> u64 {
        self.truncated.0 + self.log.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        self.log.iter().find(|entry| entry.index == index).map(|entry| entry.term)
    }

    fn contents(&self) -> Contents {
        let first = self.truncated.0 + 1;
        Contents {
            first,
            log: self.log.clone(),
            terms: (first.saturating_sub(2)..self.last() + 2).map(|index| self.term(index)).collect(),
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            bytes: self.log.iter().map(|entry| entry.data.len() as u64).sum(),
        }
    }
}

/// One batch, its numbers taken modulo what is possible when it comes.
#[derive(Debug, Clone)]
struct Move {
    install: bool,
    from: u64,
    count: u64,
    new_term: bool,
    commit: u64,
    compact: Option<(u64, u64)>,
    reopen: Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Reopen {
    No,
    Closed,
    Killed,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let reopen = prop_oneof![6 => Just(Reopen::No), 1 => Just(Reopen::Closed), 1 => Just(Reopen::Killed)];
    let compact = proptest::option::weighted(0.2, (any::<u64>(), any::<u64>()));
    let one = (proptest::bool::weighted(0.08), any::<u64>(), 0u64..6, any::<bool>(), any::<u64>(), compact, reopen);
    let one = one.prop_map(|(install, from, count, new_term, commit, compact, reopen)| Move {
        install,
        from,
        count,
        new_term,
        commit,
        compact,
        reopen,
    });
    proptest::collection::vec(one, 1..25)
}

fn play(moves: Vec<Move>) {
    let mut disk = formatted(ME);
    let mut store = Store::open(disk.clone(), ME).unwrap();
    let mut model = Model::default();
    for (number, a_move) in moves.into_iter().enumerate() {
        let install = a_move.install.then(|| snapshot(model.last() + 3, model.hard_state.term.max(1), "installed"));
        if let Some(snapshot) = &install {
            model.truncated = (snapshot.index, snapshot.term);
            model.log.clear();
            model.hard_state.commit = snapshot.index;
            model.snapshot = Some(snapshot.clone());
        }
        // What is committed is never replaced; everything after it may be.
        let committed = model.hard_state.commit;
        let from = committed + 1 + a_move.from % (model.last() + 1 - committed);
        let term = model.hard_state.term.max(1) + u64::from(a_move.new_term);
        let entries: Vec<_> =
            (from..from + a_move.count).map(|index| entry(index, term, &format!("{number}"))).collect();
        if !entries.is_empty() {
            model.log.truncate((from - 1 - model.truncated.0) as usize);
            model.log.extend(entries.clone());
        }
        model.hard_state.term = term;
        model.hard_state.commit += a_move.commit % (model.last() - committed + 1);
        let latest = model.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        let room = model.hard_state.commit - latest;
        let compaction = a_move.compact.filter(|_| room > 0).map(|(at, keep)| {
            let index = latest + 1 + at % room;
            let first = model.truncated.0;
            let drop_to = first + keep % (index - first + 1);
            Compaction { snapshot: snapshot(index, model.term(index).unwrap(), "compacted"), drop_to }
        });
        if let Some(Compaction { snapshot, drop_to }) = &compaction {
            let position = (*drop_to, model.term(*drop_to).unwrap());
            model.log.retain(|entry| entry.index > *drop_to);
            model.truncated = position;
            model.snapshot = Some(snapshot.clone());
        }
        let entries = to_raft(&entries);
        store.persist(Batch { install, entries: &entries, hard_state: Some(model.hard_state), compaction }).unwrap();
        match a_move.reopen {
            Reopen::No => {}
            Reopen::Closed => {
                drop(store);
                store = Store::open(disk.clone(), ME).unwrap();
            }
            Reopen::Killed => {
                let after = disk.after_crash(|_| crate::raft::disk::Fate::Lost);
                drop(store);
                disk = after;
                store = Store::open(disk.clone(), ME).unwrap();
            }
        }
        assert_eq!(contents(&store), model.contents());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_a_vector_does(moves in moves()) {
        play(moves);
    }
}

#[test]
fn one_batch_is_one_sync_whatever_is_in_it() {
    let disk = formatted(ME);
    let mut store = Store::open(disk.clone(), ME).unwrap();
    let entries: Vec<_> = (1..=100).map(|index| entry(index, 1, "x")).collect();
    let hard_state = Some(HardState { term: 1, vote: 7, commit: 100 });
    // Twice: when the file must grow, redb syncs its new length first. It doubles, so that is rare.
    store.persist(Batch { entries: &to_raft(&entries), hard_state, ..Batch::default() }).unwrap();
    let before = disk.syncs();
    store.persist(Batch { entries: &to_raft(&entries), hard_state, ..Batch::default() }).unwrap();
    assert_eq!(disk.syncs() - before, 1);
    let compaction = Some(Compaction { snapshot: snapshot(90, 1, "state"), drop_to: 80 });
    let more = to_raft(&[entry(101, 1, "y")]);
    store.persist(Batch { entries: &more, hard_state, compaction, install: None }).unwrap();
    assert_eq!(disk.syncs() - before, 2);
}

#[test]
fn raft_gets_at_least_one_entry_and_then_as_many_as_fit() {
    let mut store = Store::open(formatted(ME), ME).unwrap();
    let entries = to_raft(&[entry(1, 1, "aaaa"), entry(2, 1, "bbbb"), entry(3, 1, "cccc")]);
    store.persist(Batch { entries: &entries, ..Batch::default() }).unwrap();
    let read = |low, high, most: u64| Storage::entries(&store, low, high, most, GetEntriesContext::empty(false));
    assert_eq!(read(1, 4, 0).unwrap().len(), 1);
    assert_eq!(read(1, 4, 45).unwrap().len(), 2);
    assert_eq!(read(2, 3, u64::MAX).unwrap(), entries[1..2]);
    assert!(matches!(read(0, 2, 9), Err(::raft::Error::Store(::raft::StorageError::Compacted))));
    assert!(matches!(read(3, 5, 9), Err(::raft::Error::Store(::raft::StorageError::Unavailable))));
}

#[test]
fn a_batch_that_leaves_a_hole_is_refused_and_changes_nothing() {
    let mut store = Store::open(formatted(ME), ME).unwrap();
    store.persist(Batch { entries: &to_raft(&[entry(1, 1, "a"), entry(2, 1, "b")]), ..Batch::default() }).unwrap();
    let before = contents(&store);
    let compact = |index, drop_to| Some(Compaction { snapshot: snapshot(index, 1, "s"), drop_to });
    let hole = to_raft(&[entry(4, 1, "d")]);
    let jump = to_raft(&[entry(3, 1, "c"), entry(5, 1, "e")]);
    for (what, batch) in [
        ("after the end", Batch { entries: &hole, ..Batch::default() }),
        ("in the middle", Batch { entries: &jump, ..Batch::default() }),
        ("beyond the snapshot", Batch { compaction: compact(1, 2), ..Batch::default() }),
        ("beyond the log", Batch { compaction: compact(9, 3), ..Batch::default() }),
    ] {
        assert!(store.persist(batch).is_err(), "{what}");
        assert_eq!(contents(&store), before, "{what}");
    }
}
