//! A crash at any change of the disk inside a commit leaves all of the batch or nothing of it.

use super::random::Random;
use super::*;
use crate::raft::disk::Fate;
use crate::raft::store::{Batch, Compaction};

/// A store with some history, closed.
fn used() -> SimDisk {
    let disk = formatted(ME);
    let mut store = Store::open(disk.clone(), ME).unwrap();
    store.begin_life(voters()).unwrap();
    for round in 0..8 {
        let entries: Vec<_> = (1..=5).map(|n| entry(round * 5 + n, 1, &"payload ".repeat(20))).collect();
        let hard_state = Some(HardState { term: 1, vote: 7, commit: round * 5 + 2 });
        store.persist(Batch { entries: &to_raft(&entries), hard_state, ..Batch::default() }).unwrap();
    }
    drop(store);
    disk
}

/// Replaces a suffix, compacts and votes at once.
fn big_batch(entries: &[eraftpb::Entry]) -> Batch<'_> {
    Batch {
        entries,
        hard_state: Some(HardState { term: 3, vote: 2, commit: 38 }),
        compaction: Some(Compaction { snapshot: snapshot(30, 1, &"state ".repeat(2000)), drop_to: 25 }),
        install: None,
    }
}

fn new_entries() -> Vec<eraftpb::Entry> {
    to_raft(&(38..50).map(|index| entry(index, 3, &format!("new {index}"))).collect::<Vec<_>>())
}

fn before_and_after(disk: &SimDisk) -> (Contents, Contents) {
    let mut store = Store::open(disk.copy(), ME).unwrap();
    let before = contents(&store);
    store.persist(big_batch(&new_entries())).unwrap();
    (before, contents(&store))
}

#[test]
fn a_crash_at_every_boundary_of_a_commit_leaves_all_or_nothing() {
    let original = used();
    let (before, after) = before_and_after(&original);
    assert_ne!(before, after);
    let (mut rolled_back, mut went_through, mut boundary) = (0, 0, 0);
    loop {
        let disk = original.copy();
        let mut store = Store::open(disk.clone(), ME).unwrap();
        disk.arm_crash(boundary);
        let confirmed = store.persist(big_batch(&new_entries())).is_ok();
        disk.crash();
        drop(store);
        for seed in 0..12 {
            let mut random = Random::new(seed);
            let left = disk.after_crash(|piece| match seed {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => random.fate(piece),
            });
            let found = contents(&Store::open(left, ME).unwrap());
            assert!(found == after || (!confirmed && found == before), "boundary {boundary}, seed {seed}: {found:?}");
            if found == before { rolled_back += 1 } else { went_through += 1 }
        }
        if confirmed {
            break;
        }
        boundary += 1;
    }
    assert!(boundary > 3 && rolled_back > 0 && went_through > 12, "{boundary} {rolled_back} {went_through}");
}

#[test]
fn a_crash_while_opening_or_closing_loses_nothing() {
    let original = used();
    let (_, after) = before_and_after(&original);
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let disk = original.copy();
        let mut store = Store::open(disk.clone(), ME).unwrap();
        store.persist(big_batch(&new_entries())).unwrap();
        // Half of the runs die while the store closes, half while it is opened again after a kill.
        let mut disk = if seed % 2 == 0 {
            disk.arm_crash(random.below(8));
            drop(store);
            disk.after_crash(|piece| random.fate(piece))
        } else {
            disk.crash();
            drop(store);
            disk.after_kill()
        };
        for _ in 0..3 {
            disk.arm_crash(random.below(12));
            drop(Store::open(disk.clone(), ME));
            disk = disk.after_crash(|piece| random.fate(piece));
        }
        assert_eq!(contents(&Store::open(disk, ME).unwrap()), after, "seed {seed}");
    }
}

#[test]
fn an_error_of_the_disk_fails_the_batch_and_all_after_it() {
    let original = used();
    let (before, after) = before_and_after(&original);
    for boundary in 0..4 {
        let disk = original.copy();
        let mut store = Store::open(disk.clone(), ME).unwrap();
        disk.arm_error(boundary);
        assert!(store.persist(big_batch(&new_entries())).is_err(), "boundary {boundary}");
        // An fsync that failed must not be tried again: what it did is unknown.
        assert!(store.persist(Batch::default()).is_err(), "boundary {boundary}");
        disk.crash();
        drop(store);
        let found = contents(&Store::open(disk.after_kill(), ME).unwrap());
        assert!(found == before || found == after, "boundary {boundary}");
    }
}
