//! Each type on the wire: its golden bytes, and the way to raft's own type and back.

use proptest::prelude::*;
use protocol::codec::{decode_body, decode_frame, encode_body, encode_frame};

use super::*;
use crate::raft::wire::{MessageKind, PeerMessage};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn message() -> PeerMessage {
    PeerMessage {
        kind: MessageKind::Append,
        from: ReplicaId(1),
        to: ReplicaId(2),
        term: 3,
        log_term: 4,
        index: 300,
        entries: vec![entry(301, 3, "hi")],
        commit: 299,
        commit_term: 0,
        snapshot: None,
        request_snapshot: 0,
        reject: false,
        reject_hint: 0,
        context: vec![0xaa],
        priority: 0,
    }
}

#[test]
fn the_bytes_are_those_of_this_version() {
    assert_eq!(hex(&encode_body(&entry(300, 2, "ab")).unwrap()), "0002fb2c0102616200");
    assert_eq!(hex(&encode_body(&HardState { term: 5, vote: 2, commit: 251 }).unwrap()), "0502fbfb00");
    let conf_state = ConfState { voters: vec![ReplicaId(1), ReplicaId(2)], ..ConfState::default() };
    assert_eq!(hex(&encode_body(&conf_state).unwrap()), "02010200000000");
    assert_eq!(hex(&encode_body(&snapshot(9, 2, "s")).unwrap()), "09020107000000000173");
    let frame = encode_frame(&message()).unwrap();
    assert_eq!(
        hex(&frame),
        "0000001e0c00010203 04fb2c01 01 0003fb2d01026869 00 fb2b01 00 00 00 00 00 01aa 00".replace(' ', "")
    );
    assert_eq!(decode_frame::<PeerMessage>(&frame).unwrap(), message());
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut body = encode_body(&message()).unwrap();
    assert_eq!(decode_body::<PeerMessage>(&body).unwrap(), message());
    body[0] = 12;
    assert!(decode_body::<PeerMessage>(&body).is_err());
    let mut body = encode_body(&entry(1, 1, "")).unwrap();
    body[0] = 3;
    assert!(decode_body::<Entry>(&body).is_err());
}

#[test]
fn what_never_leaves_a_replica_has_no_wire_form() {
    use eraftpb::MessageType as Raft;
    for kind in [Raft::MsgHup, Raft::MsgBeat, Raft::MsgPropose, Raft::MsgUnreachable, Raft::MsgSnapStatus] {
        let mut message = eraftpb::Message::default();
        message.set_msg_type(kind);
        assert!(PeerMessage::try_from(&message).is_err(), "{kind:?}");
    }
}

fn any_ids() -> impl Strategy<Value = Vec<ReplicaId>> {
    proptest::collection::vec(any::<u64>().prop_map(ReplicaId), 0..3)
}

fn any_conf_state() -> impl Strategy<Value = ConfState> {
    (any_ids(), any_ids(), any_ids(), any_ids(), any::<bool>()).prop_map(
        |(voters, learners, voters_outgoing, learners_next, auto_leave)| ConfState {
            voters,
            learners,
            voters_outgoing,
            learners_next,
            auto_leave,
        },
    )
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..30)
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![Just(EntryKind::Normal), Just(EntryKind::ConfChange), Just(EntryKind::ConfChangeV2)];
    (kind, any::<u64>(), any::<u64>(), any_bytes(), any_bytes()).prop_map(|(kind, term, index, data, context)| Entry {
        kind,
        term,
        index,
        data: data.into(),
        context: context.into(),
    })
}

fn any_kind() -> impl Strategy<Value = MessageKind> {
    (0u8..12).prop_map(|kind| bincode::decode_from_slice(&[kind], bincode::config::standard()).unwrap().0)
}

/// A number that is often small enough to mean something.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..6, 1 => any::<u64>()]
}

/// Any message, more or less likely ones.
pub fn any_message() -> impl Strategy<Value = PeerMessage> {
    let snapshot = (number(), number(), any_conf_state(), any_bytes());
    let snapshot = snapshot.prop_map(|(index, term, conf_state, data)| Snapshot { index, term, conf_state, data });
    let entries = proptest::collection::vec(any_entry(), 0..3);
    let head = (any_kind(), 0u64..5, 0u64..5, number(), number(), number());
    let tail = (number(), number(), proptest::option::of(snapshot), number(), any::<bool>(), number(), any_bytes());
    (head, entries, tail, any::<i64>()).prop_map(|(head, entries, tail, priority)| PeerMessage {
        kind: head.0,
        from: ReplicaId(head.1),
        to: ReplicaId(head.2),
        term: head.3,
        log_term: head.4,
        index: head.5,
        entries,
        commit: tail.0,
        commit_term: tail.1,
        snapshot: tail.2,
        request_snapshot: tail.3,
        reject: tail.4,
        reject_hint: tail.5,
        context: tail.6,
        priority,
    })
}

proptest! {
    #[test]
    fn a_message_comes_back_from_raft_and_from_the_wire_as_it_was(message in any_message()) {
        let raft = eraftpb::Message::from(message.clone());
        prop_assert_eq!(&PeerMessage::try_from(&raft).unwrap(), &message);
        let frame = encode_frame(&message).unwrap();
        prop_assert_eq!(decode_frame::<PeerMessage>(&frame).unwrap(), message);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode_body::<PeerMessage>(&bytes);
    }
}
