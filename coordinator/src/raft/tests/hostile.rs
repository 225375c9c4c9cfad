//! Messages that can't be are refused; none makes a replica panic.

use proptest::prelude::*;

use super::cluster::{Cluster, bare, id};
use super::wire_bytes::any_message;
use super::*;
use crate::raft::driver::{Fatal, ReceiveError};
use crate::raft::wire::{MessageKind, PeerMessage};

/// A message from replica 2 to replica 1 in a term.
fn message(kind: MessageKind, term: u64) -> PeerMessage {
    PeerMessage { from: id(2), to: id(1), term, ..bare(kind) }
}

/// A cluster that has committed a few entries under replica 1.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(3, None);
    let leader = cluster.elect();
    for number in 0..3 {
        cluster.propose(leader, number, "committed");
    }
    cluster.settle();
    cluster
}

fn refused(message: PeerMessage) -> String {
    let mut cluster = cluster();
    let driver = &mut cluster.up.get_mut(&id(1)).unwrap().driver;
    let before = (driver.role(), contents(driver.store()));
    let error = driver.receive(id(2), message).unwrap_err();
    assert!(driver.ready().unwrap().is_none(), "a refused message changes nothing");
    assert_eq!((driver.role(), contents(driver.store())), before);
    error.to_string()
}

#[test]
fn each_message_that_cant_be_is_refused_with_its_reason() {
    use MessageKind::*;
    let voters = ConfState { voters: vec![id(1), id(2), id(3)], ..ConfState::default() };
    let at = |index, term, conf_state: &ConfState| {
        Some(super::Snapshot { index, term, conf_state: conf_state.clone(), data: vec![] })
    };
    let strange = ConfState { voters: vec![id(1), id(9)], ..ConfState::default() };
    let conf_change = Entry { kind: EntryKind::ConfChange, ..entry(1, 2, "") };
    let question = |data: Vec<u8>| Entry { data: data.into(), ..entry(0, 0, "") };
    for (reason, message) in [
        ("says that it is from 3", PeerMessage { from: id(3), ..message(Heartbeat, 2) }),
        ("is for 3", PeerMessage { to: id(3), ..message(Heartbeat, 2) }),
        ("out of range", message(Heartbeat, 0)),
        ("out of range", message(Heartbeat, u64::MAX)),
        ("out of range", PeerMessage { index: u64::MAX, ..message(AppendResponse, 1) }),
        (
            "entries are not in order",
            PeerMessage { entries: vec![entry(7, 1, "")], index: 5, log_term: 1, ..message(Append, 2) },
        ),
        ("has no term", PeerMessage { index: 5, commit: 5, ..message(Append, 2) }),
        ("terms are not in order", PeerMessage { entries: vec![entry(1, 3, "")], ..message(Append, 2) }),
        ("does not change members", PeerMessage { entries: vec![conf_change], ..message(Append, 2) }),
        ("change what is committed", PeerMessage { entries: vec![entry(1, 2, "x")], ..message(Append, 2) }),
        ("has no snapshot", message(Snapshot, 2)),
        ("position is out of range", PeerMessage { snapshot: at(0, 1, &voters), ..message(Snapshot, 2) }),
        ("has other voters", PeerMessage { snapshot: at(9, 1, &strange), ..message(Snapshot, 2) }),
        ("confirms more than was sent", PeerMessage { index: 99, ..message(AppendResponse, 1) }),
        ("does not ask for snapshots", PeerMessage { request_snapshot: 3, ..message(AppendResponse, 1) }),
        ("not exactly one question", message(ReadIndex, 0)),
        ("its question is not one", PeerMessage { entries: vec![question(vec![1])], ..message(ReadIndex, 0) }),
        ("asks for another replica", PeerMessage { entries: vec![question(vec![9; 24])], ..message(ReadIndex, 0) }),
        ("answers no question", PeerMessage { entries: vec![question(vec![9; 24])], ..message(ReadIndexResponse, 1) }),
        ("more is committed", PeerMessage { commit: 9, commit_term: 1, ..message(RequestVote, 2) }),
    ] {
        let error = refused(message);
        assert!(error.contains(reason), "{error:?} should say {reason:?}");
    }
}

#[test]
fn a_replica_that_lost_what_it_confirmed_says_so_and_stops() {
    let mut cluster = cluster();
    let driver = &mut cluster.up.get_mut(&id(1)).unwrap().driver;
    let error = driver.receive(id(2), PeerMessage { commit: 50, ..message(MessageKind::Heartbeat, 2) });
    assert!(matches!(error, Err(ReceiveError::Fatal(Fatal::StorageLost { confirmed: 50, last: 4 }))));
}

#[test]
fn a_step_that_is_dropped_and_a_disk_that_fails_stop_the_driver() {
    let mut cluster = cluster();
    let driver = &mut cluster.up.get_mut(&id(1)).unwrap().driver;
    driver.propose(1, b"x".to_vec()).unwrap();
    drop(driver.begin().unwrap().unwrap());
    assert!(matches!(driver.begin(), Err(Fatal::Stopped)));
    let disk = cluster.disk(id(2)).clone();
    disk.arm_error(0);
    let driver = &mut cluster.up.get_mut(&id(2)).unwrap().driver;
    driver.campaign();
    // The pre-vote needs no disk; the vote for itself does.
    let ready = driver.ready().unwrap().unwrap();
    let answer = PeerMessage { from: id(3), to: id(2), term: 2, ..message(MessageKind::RequestPreVoteResponse, 2) };
    assert!(!ready.messages.is_empty());
    driver.receive(id(3), answer).unwrap();
    assert!(matches!(driver.ready(), Err(Fatal::Persist(_))));
    assert!(matches!(driver.ready(), Err(Fatal::Stopped)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_message_from_a_voter_makes_a_replica_panic(
        messages in proptest::collection::vec((any_message(), 1u64..=3, 2u64..=3, any::<bool>()), 1..12),
    ) {
        let mut cluster = cluster();
        let voters = cluster.up[&id(1)].driver.store().conf_state().clone();
        for (mut message, to, from, whole) in messages {
            (message.from, message.to) = (id(if from == to { 1 } else { from }), id(to));
            if whole && let Some(snapshot) = &mut message.snapshot {
                snapshot.conf_state = voters.clone();
            }
            for (number, entry) in message.entries.iter_mut().enumerate().filter(|_| whole) {
                (entry.kind, entry.term, entry.index) = (EntryKind::Normal, message.term, message.index.saturating_add(1 + number as u64));
            }
            let driver = &mut cluster.up.get_mut(&message.to).unwrap().driver;
            if matches!(driver.receive(message.from, message), Err(ReceiveError::Fatal(_))) {
                return Ok(());
            }
            driver.tick();
            while driver.ready().unwrap().is_some() {}
        }
    }
}
