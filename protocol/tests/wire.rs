//! The wire's promises: the bytes of every type stay what they are, and everything that is not exactly one value is refused.

#![allow(clippy::unwrap_used)]

#[path = "wire/samples.rs"]
mod samples;

use std::fmt::Write;

use bincode::{Decode, Encode};
use proptest::prelude::*;
use protocol::capacity::CapacityFrame;
use protocol::codec::{
    CodecError, HEADER_BYTES, Limited, VERSION, body_length, decode_body, decode_frame, encode_frame,
};
use protocol::control::{AgentMessage, CoordinatorMessage, Opening, PageAnswer};
use protocol::node::{NodeFrame, NodeOrder, NodeToken};
use protocol::token::{TokenAnswer, TokenRequest};
use protocol::workload::WorkloadSpec;

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        let gap = if i > 0 && i % 32 == 0 { "\n    " } else { "" };
        write!(text, "{gap}{byte:02x}").unwrap();
    }
    text
}

/// The frames of a type's samples, after each was read back and found the same.
fn golden<T: Encode + Decode<()> + Limited + PartialEq + std::fmt::Debug>(samples: Vec<(&str, T)>) -> String {
    let mut text = format!("{} (version {VERSION}, at most {} bytes)\n", T::NAME, T::LIMIT);
    for (name, value) in samples {
        let frame = encode_frame(&value).unwrap();
        assert_eq!(decode_frame::<T>(&frame).unwrap(), value, "{name}");
        writeln!(text, "  {name}\n    {}", hex(&frame)).unwrap();
    }
    text
}

#[test]
fn the_bytes_of_every_type_stay_what_they_are() {
    insta::assert_snapshot!("workload_spec", golden::<WorkloadSpec>(samples::specs()));
    insta::assert_snapshot!("node_frame", golden::<NodeFrame>(samples::node_frames()));
    insta::assert_snapshot!("node_order", golden::<NodeOrder>(vec![("full frame", NodeOrder::FullFrame)]));
    let token = vec![("token", NodeToken { token: "head.body.signature".into() })];
    insta::assert_snapshot!("node_token", golden::<NodeToken>(token));
    insta::assert_snapshot!("capacity_frame", golden::<CapacityFrame>(samples::capacity_frames()));
    insta::assert_snapshot!("agent_message", golden::<AgentMessage>(samples::agent_messages()));
    insta::assert_snapshot!("coordinator_message", golden::<CoordinatorMessage>(samples::coordinator_messages()));
    insta::assert_snapshot!("opening", golden::<Opening>(samples::openings()));
    insta::assert_snapshot!("page_answer", golden::<PageAnswer>(samples::page_answers()));
    insta::assert_snapshot!("token_request", golden::<TokenRequest>(samples::token_requests()));
    insta::assert_snapshot!("token_answer", golden::<TokenAnswer>(samples::token_answers()));
}

#[test]
fn a_frame_is_refused_unless_it_is_exactly_one_value() {
    let (_, request) = samples::openings().remove(0);
    let good = encode_frame(&request).unwrap();
    let refused = |bytes: &[u8]| decode_frame::<Opening>(bytes).unwrap_err();

    let mut left_over = good.clone();
    left_over.push(0);
    assert!(matches!(refused(&left_over), CodecError::LeftOver { bytes: 1, .. }));

    // The length counts the extra byte, so it belongs to the frame, but not to the value.
    left_over[3] += 1;
    assert!(matches!(refused(&left_over), CodecError::LeftOver { bytes: 1, .. }));

    assert!(matches!(refused(&good[..good.len() - 1]), CodecError::CutShort { .. }));
    assert!(matches!(refused(&good[..HEADER_BYTES - 1]), CodecError::CutShort { .. }));
    assert!(matches!(refused(&[]), CodecError::CutShort { .. }));

    let mut newer = good.clone();
    newer[4] = VERSION + 1;
    assert!(matches!(refused(&newer), CodecError::Version { found, .. } if found == VERSION + 1));

    let mut unknown = good.clone();
    *unknown.last_mut().unwrap() = 7; // A bool that is neither.
    assert!(matches!(refused(&unknown), CodecError::Malformed { .. }));
}

#[test]
fn a_frame_over_its_types_limit_is_refused_before_its_body_is_read() {
    let body = u32::try_from(Opening::LIMIT + 1).unwrap();
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(body + 1).to_be_bytes());
    header[4] = VERSION;
    assert!(matches!(body_length::<Opening>(&header), Err(CodecError::TooLong { .. })));
    header[..4].copy_from_slice(&0u32.to_be_bytes());
    assert!(matches!(body_length::<Opening>(&header), Err(CodecError::CutShort { .. })));
}

#[test]
fn what_would_not_be_read_again_is_not_written() {
    let mut spec = samples::specs().remove(0).1;
    spec.env.insert("BIG".into(), "x".repeat(WorkloadSpec::LIMIT));
    assert!(matches!(encode_frame(&spec), Err(CodecError::TooLong { .. })));
}

#[test]
fn a_hostile_length_allocates_no_more_than_its_types_limit() {
    // An environment of 2^60 entries, by its length alone.
    let mut body = vec![0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend([253, 0, 0, 0, 0, 0, 0, 0, 16]);
    assert!(decode_body::<WorkloadSpec>(&body).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_body::<WorkloadSpec>(&bytes);
        let _ = decode_body::<NodeFrame>(&bytes);
        let _ = decode_body::<NodeOrder>(&bytes);
        let _ = decode_body::<NodeToken>(&bytes);
        let _ = decode_body::<CapacityFrame>(&bytes);
        let _ = decode_body::<AgentMessage>(&bytes);
        let _ = decode_body::<CoordinatorMessage>(&bytes);
        let _ = decode_frame::<Opening>(&bytes);
        let _ = decode_frame::<PageAnswer>(&bytes);
        let _ = decode_body::<TokenRequest>(&bytes);
        let _ = decode_body::<TokenAnswer>(&bytes);
    }

    #[test]
    fn a_damaged_message_is_refused_or_another_valid_one(at in 0usize..10_000, bit in 0u8..8, which in 0usize..100) {
        let messages = samples::agent_messages();
        let (_, message) = &messages[which % messages.len()];
        let mut frame = encode_frame(message).unwrap();
        let at = HEADER_BYTES + at % (frame.len() - HEADER_BYTES);
        frame[at] ^= 1 << bit;
        if let Ok(other) = decode_frame::<AgentMessage>(&frame) {
            // What is accepted is a value in good standing: it survives the way back.
            let again = encode_frame(&other).unwrap();
            prop_assert_eq!(decode_frame::<AgentMessage>(&again).unwrap(), other);
        }
    }
}
