//! Tests of the room as a whole: the store against a model, crashes and damage; drivers linked in virtual time.
#![allow(clippy::unwrap_used)]

mod cluster;
mod consensus;
mod hostile;
mod random;
mod scripts;
mod store_crash;
mod store_damage;
mod store_model;
mod store_speed;
mod wire_bytes;

use ::raft::eraftpb;
use protocol::ids::ReplicaId;

use super::disk::SimDisk;
use super::store::Store;
use super::wire::{ConfState, Entry, EntryKind, HardState, Payload, Snapshot};

const ME: ReplicaId = ReplicaId(7);

fn entry(index: u64, term: u64, data: &str) -> Entry {
    Entry { kind: EntryKind::Normal, term, index, data: data.to_owned().into(), context: Payload::default() }
}

fn to_raft(entries: &[Entry]) -> Vec<eraftpb::Entry> {
    entries.iter().cloned().map(Into::into).collect()
}

fn voters() -> ConfState {
    ConfState { voters: vec![ME], ..ConfState::default() }
}

fn snapshot(index: u64, term: u64, data: &str) -> Snapshot {
    Snapshot { index, term, conf_state: voters(), data: data.into() }
}

fn formatted(id: ReplicaId) -> SimDisk {
    let disk = SimDisk::new();
    Store::format(disk.clone(), id).unwrap();
    disk
}

/// Everything that a store says, to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    first: u64,
    log: Vec<Entry>,
    terms: Vec<Option<u64>>,
    hard_state: HardState,
    snapshot: Option<Snapshot>,
    bytes: u64,
}

fn contents(store: &Store) -> Contents {
    Contents {
        first: store.first(),
        log: store.log(store.first(), store.last() + 1),
        terms: (store.first().saturating_sub(2)..store.last() + 2).map(|index| store.term_of(index)).collect(),
        hard_state: store.hard_state(),
        snapshot: store.latest_snapshot(),
        bytes: store.log_bytes(),
    }
}

#[test]
fn a_driver_can_be_made_in_one_thread_and_owned_by_another() {
    fn assert_send<T: Send>() {}
    assert_send::<crate::raft::Driver>();
}
