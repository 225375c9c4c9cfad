//! Damage is found when the store is opened, and named.

use redb::ReadableTable;

use super::random::Random;
use super::*;
use crate::raft::store::{Batch, Compaction, FORMAT, OpenError};

/// A store with entries, a hard state and a snapshot, before and after its last batch.
fn used() -> (SimDisk, Store, Contents, Contents) {
    let disk = formatted(ME);
    let mut store = Store::open(disk.clone(), ME).unwrap();
    store.begin_life(voters()).unwrap();
    let entries: Vec<_> = (1..=40).map(|n| entry(n, 1, &"payload ".repeat(40))).collect();
    // Runs of four: 1..=4, 5..=8 and so on.
    for run in entries.chunks(4) {
        store.persist(Batch { entries: &to_raft(run), ..Batch::default() }).unwrap();
    }
    let hard_state = Some(HardState { term: 1, vote: 7, commit: 30 });
    // In the middle of a run.
    let compaction = Some(Compaction { snapshot: snapshot(10, 1, &"state ".repeat(500)), drop_to: 6 });
    store.persist(Batch { hard_state, compaction, ..Batch::default() }).unwrap();
    let before = contents(&store);
    let hard_state = Some(HardState { term: 2, vote: 3, commit: 30 });
    store.persist(Batch { entries: &to_raft(&[entry(41, 2, "last")]), hard_state, ..Batch::default() }).unwrap();
    let after = contents(&store);
    (disk, store, before, after)
}

/// Flips one bit after another, near what is written, and counts how often each outcome came.
fn flip(disk: &SimDisk, flips: usize, mut outcome: impl FnMut(Result<Contents, OpenError>)) {
    let bytes = disk.bytes();
    let written: Vec<u64> = (0..bytes.len()).filter(|at| bytes[*at] != 0).map(|at| at as u64).collect();
    let mut random = Random::new(1);
    for _ in 0..flips {
        let copy = disk.copy();
        copy.flip_bit(written[random.below(written.len() as u64) as usize], random.below(8) as u8);
        outcome(Store::open(copy, ME).map(|store| contents(&store)));
    }
}

#[test]
fn a_flipped_bit_in_a_closed_store_is_found_or_means_nothing() {
    let (disk, store, _, after) = used();
    drop(store);
    let (mut refused, mut harmless) = (0, 0);
    flip(&disk, 300, |outcome| match outcome {
        Ok(found) => {
            assert_eq!(found, after);
            harmless += 1;
        }
        Err(error) => {
            assert!(error.to_string().contains("damaged"), "{error}");
            refused += 1;
        }
    });
    assert!(refused > 50, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_flipped_bit_after_a_kill_costs_at_most_the_last_batch() {
    let (disk, store, before, after) = used();
    let disk = disk.after_kill();
    drop(store);
    let mut refused = 0;
    flip(&disk, 300, |outcome| match outcome {
        // With one sync a batch, damage in the last one looks like a batch that was never finished.
        Ok(found) => assert!(found == after || found == before),
        Err(error) => {
            assert!(error.to_string().contains("damaged"), "{error}");
            refused += 1;
        }
    });
    assert!(refused > 20, "{refused}");
}

/// Writes something else into the tables, past the store's own checks but with redb's.
fn forged(change: impl FnOnce(&redb::WriteTransaction)) -> Result<Store, OpenError> {
    let (disk, store, _, _) = used();
    drop(store);
    let db = redb::Database::builder().create_with_backend(disk.clone()).unwrap();
    let transaction = db.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    drop(db);
    Store::open(disk, ME)
}

const LOG: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("log");
const STATE: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("state");

#[test]
fn each_damaged_record_is_named() {
    for name in ["format", "identity", "hard state", "voters", "truncated", "snapshot"] {
        let outcome = forged(|transaction| {
            let mut state = transaction.open_table(STATE).unwrap();
            let mut record = state.get(name).unwrap().unwrap().value().to_vec();
            *record.last_mut().unwrap() ^= 1;
            state.insert(name, record.as_slice()).unwrap();
        });
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("damaged: its checksum"), "{error}");
    }
    let error = forged(|transaction| {
        let mut log = transaction.open_table(LOG).unwrap();
        let mut record = log.get(17).unwrap().unwrap().value().to_vec();
        record[9] ^= 4;
        log.insert(17, record.as_slice()).unwrap();
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the run of entries from 17 is damaged") && error.contains("new id"), "{error}");
}

#[test]
fn a_log_with_a_hole_or_a_swapped_run_or_a_lost_end_does_not_open() {
    let hole = forged(|transaction| {
        transaction.open_table(LOG).unwrap().remove(17).unwrap();
    });
    let error = hole.unwrap_err().to_string();
    assert!(error.contains("entries from 21") && error.contains("entry 17 should be in its place"), "{error}");
    let beginning = forged(|transaction| {
        transaction.open_table(LOG).unwrap().remove(5).unwrap();
    });
    assert!(beginning.unwrap_err().to_string().contains("entry 7 should be in its place"));
    let swapped = forged(|transaction| {
        let mut log = transaction.open_table(LOG).unwrap();
        let record = log.get(17).unwrap().unwrap().value().to_vec();
        log.insert(21, record.as_slice()).unwrap();
    });
    assert!(swapped.unwrap_err().to_string().contains("the run of entries from 21 is damaged"));
    let cut = forged(|transaction| {
        transaction.open_table(LOG).unwrap().retain_in(25.., |_, _| false).unwrap();
    });
    assert!(cut.unwrap_err().to_string().contains("30 is committed, and the log holds 7..=24"));
    let gone = forged(|transaction| {
        transaction.open_table(STATE).unwrap().remove("snapshot").unwrap();
    });
    assert!(gone.unwrap_err().to_string().contains("the snapshot is damaged"));
}

#[test]
fn what_is_no_store_or_another_ones_is_told_apart() {
    assert!(matches!(Store::open(SimDisk::new(), ME), Err(OpenError::Empty)));
    let other = Store::open(formatted(ReplicaId(8)), ME);
    assert!(matches!(other, Err(OpenError::OtherReplica { found: ReplicaId(8), wanted: ReplicaId(7) })));
    let text = SimDisk::new();
    redb::StorageBackend::write(&text, 0, &[b'x'; 9000]).unwrap();
    assert!(matches!(Store::open(text, ME), Err(OpenError::Damaged { .. })));
    let newer = forged(|transaction| {
        let record = crate::raft::record::seal(b"format", &(FORMAT + 1).to_be_bytes());
        transaction.open_table(STATE).unwrap().insert("format", record.as_slice()).unwrap();
    });
    assert!(matches!(newer, Err(OpenError::Version { found }) if found == FORMAT + 1));
}

#[test]
fn a_store_in_a_directory_is_made_once_and_opened_by_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("replica");
    // What a crash in the first start leaves.
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("raft.redb.unfinished"), b"half of it").unwrap();
    let mut store = Store::open_dir(&path, ME).unwrap();
    store
        .persist(Batch {
            entries: &to_raft(&[entry(1, 1, "kept")]),
            hard_state: Some(HardState { term: 1, vote: 0, commit: 0 }),
            ..Batch::default()
        })
        .unwrap();
    assert!(matches!(Store::open_dir(&path, ME), Err(OpenError::Busy)));
    drop(store);
    assert_eq!(Store::open_dir(&path, ME).unwrap().log(1, 2), [entry(1, 1, "kept")]);
    assert!(matches!(Store::open_dir(&path, ReplicaId(9)), Err(OpenError::OtherReplica { .. })));
}
