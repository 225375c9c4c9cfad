//! What the log and the snapshots hold, byte by byte: a change here is a change of the format, and needs its version.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use engine::commands::{
    Binding, Command, Cordoning, DrainEnd, Expect, Fence, Growth, IdleEnd, Outcome, Preemption, Raising, Refusal,
    Shrink, Victim,
};
use engine::pools::Raise;
use engine::reasons::{Candidate, Copies, Decision, Obstacle, Passed, ScoreTerm};
use engine::state::Avoided;
use engine::token_keys::PublicKey;
use engine::{Phase, State};
use proptest::prelude::*;
use protocol::codec::{CodecError, decode_body, encode_body};
use protocol::control::{AttemptState, GroupPlacement, NodeShare};
use protocol::ids::*;
use protocol::pool::{Amounts, OwnershipSpec, Resource};
use protocol::resources::DataSize;
use protocol::sku::Sku;
use protocol::workload::Spread;
use support::*;

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for row in bytes.chunks(32) {
        row.iter().for_each(|b| write!(text, "{b:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn decision() -> Decision {
    let term = ScoreTerm { name: "cost".into(), value: -5, unit: "milli/h".into() };
    let obstacle = Obstacle::NoRoom {
        group: GroupName::new("w").unwrap(),
        each: resources(8, 64, 1),
        sku: Some(Sku::from_driver("H100")),
        spread: Spread::Nodes,
        needs: 4,
        fits: 2,
        held_by_ghosts: 1,
        held_by_sick: 0,
        held_by_foreign: 2,
        held_by_attempts: 3,
        on_avoided: 1,
        avoided: Some(Avoided { until: UnixMs(60_000), attempt: AttemptNumber(2), failures: 1 }),
    };
    let copies = Copies { clusters: vec![cluster("eu-1")], regions: vec![Region::new("us-east").unwrap()], more: 2 };
    let no_copy = Obstacle::NoCopy { data: imagenet(), size: DataSize(2 << 20), copies };
    let cordoned = Obstacle::Cordoned { since: UnixMs(5000), reason: "a new switch".into(), drained: true };
    let candidates = vec![
        Candidate { cluster: cluster("eu-1"), obstacle: None, score: vec![term] },
        Candidate { cluster: cluster("eu-2"), obstacle: Some(obstacle), score: vec![] },
        Candidate { cluster: cluster("eu-3"), obstacle: Some(no_copy), score: vec![] },
        Candidate { cluster: cluster("eu-4"), obstacle: Some(cordoned), score: vec![] },
    ];
    let passed = vec![Passed { workload: key("big"), uid: Uid(9) }];
    Decision { candidates, sequence: 9, age_ms: 20, engine: "0.1.0".into(), passed, despite: None }
}

fn imagenet() -> DataName {
    DataName::new("imagenet").unwrap()
}

fn owner() -> Namespace {
    Namespace::new("team-a").unwrap()
}

fn commands() -> Vec<(&'static str, Command)> {
    let placement = GroupPlacement {
        group: GroupName::new("w").unwrap(),
        each: resources(8, 64, 1),
        sku: Some(Sku::from_driver("H100")),
        nodes: vec![NodeShare { node: NodeName::new("n0").unwrap(), members: 2 }],
    };
    let binding = Binding {
        key: key("a"),
        uid: uid("a"),
        attempt: AttemptNumber(1),
        epoch: Epoch(3),
        cluster: cluster("eu-1"),
        placement: vec![placement.clone()],
        decision: decision(),
    };
    let mut info = info("eu-1", "eu-west");
    info.prices.push(price("H100", 2500));
    let spec = Box::new(batch(vec![group("w", 2, 8, 64, 1, &["H100"])]));
    let running = report("a", 1, 2, AttemptState::Running);
    let lost = AttemptId { workload: uid("a"), number: AttemptNumber(2) };
    let mut pool = script::pool_of(&["within", "cpu=100/-/1", "gpu/H100=8/16/2/static"]);
    pool.access.submit.insert("team-a".into());
    let rule = OwnershipSpec { pool: Some(script::pool("research")), parent: Some(owner()) };
    let data = script::data_of(&["2Ti", "in=eu-1", "region=us-east"]);
    let (attempt, since) = (AttemptNumber(1), UnixMs(60_000));
    let (key_, uid_) = (key("a"), uid("a"));
    let shrink = Shrink { key: key_.clone(), uid: uid_, attempt, members: vec![placement.clone()] };
    let preemption = Preemption {
        epoch: Epoch(3),
        by: key("b"),
        by_uid: uid("b"),
        victims: vec![Victim { key: key("c"), uid: uid("c"), attempt }],
        shrinks: vec![shrink],
        fleet: Amounts([(Resource::Gpu, 8000)].into()),
        clusters: [cluster("eu-1")].into(),
    };
    let growth = Growth {
        epoch: Epoch(3),
        key: key_,
        uid: uid_,
        attempt,
        sized_by: CommandNumber(301),
        members: vec![placement.clone()],
    };
    let idle = IdleEnd { epoch: Epoch(3), key: key("a"), uid: uid("a"), attempt, since };
    let raise = Raise { to: Amounts([(Resource::Gpu, 64_000)].into()), until: UnixMs(90_000) };
    let raising = Raising { epoch: Epoch(3), pool: script::pool("research"), raise: Some(raise) };
    let reason = || "its lease ends".to_owned();
    let drain = Cordoning::Drain { reason: Some(reason()), force: true, max_at_once: Some(2) };
    let drained = DrainEnd { epoch: Epoch(3), key: key("a"), uid: uid("a"), attempt, cluster: cluster("eu-1") };
    let fence = Fence { epoch: Epoch(3), key: key("a"), uid: uid("a"), attempt };
    let token_key = PublicKey { x: [1; 32], y: [254; 32] };
    vec![
        ("Fence", Command::Fence(Box::new(fence))),
        ("SetTokenKey", Command::SetTokenKey { replica: ReplicaId(2), key: Some(token_key) }),
        ("OpenEpoch", Command::OpenEpoch { epoch: Epoch(3) }),
        ("Submit", Command::Submit { key: key("a"), uid: uid("a"), spec }),
        ("Bind", Command::Bind(Box::new(binding))),
        (
            "Join",
            Command::Join {
                info,
                incarnation: Incarnation(7),
                last_command: CommandNumber(300),
                attempts: vec![running.clone()],
            },
        ),
        ("Report", Command::Report { cluster: cluster("eu-1"), report: running }),
        ("LoseCluster", Command::LoseCluster { cluster: cluster("eu-1") }),
        ("Cancel", Command::Cancel { key: key("a") }),
        ("Delete", Command::Delete { key: key("a") }),
        ("Expire", Command::Expire { key: key("a"), uid: uid("a") }),
        ("Forget", Command::Forget { key: key("a"), attempt: lost, reason: "its node was taken away".into() }),
        ("SetPool", Command::SetPool { name: script::pool("research"), spec: Box::new(pool), expect: Expect::Absent }),
        ("DeletePool", Command::DeletePool { name: script::pool("research") }),
        (
            "SetOwnershipRule",
            Command::SetOwnershipRule { owner: owner(), spec: rule, expect: Expect::Version(LogIndex(3)) },
        ),
        ("DeleteOwnershipRule", Command::DeleteOwnershipRule { owner: owner() }),
        ("EndIdle", Command::EndIdle(Box::new(idle))),
        ("SetData", Command::SetData { name: imagenet(), spec: Box::new(data), expect: Expect::Any }),
        ("DeleteData", Command::DeleteData { name: imagenet() }),
        ("Preempt", Command::Preempt(Box::new(preemption))),
        ("Grow", Command::Grow(Box::new(growth))),
        ("RaisePool", Command::RaisePool(Box::new(raising))),
        ("Cordon", Command::Cordon { cluster: cluster("eu-1"), to: drain }),
        ("EndDrained", Command::EndDrained(Box::new(drained))),
        ("RemoveCluster", Command::RemoveCluster { cluster: cluster("us-1"), reason: reason(), lost_for_good: true }),
    ]
}

#[test]
fn commands_have_these_bytes_and_come_back_equal() {
    let mut text = String::new();
    for (name, command) in commands() {
        let bytes = encode_body(&command).unwrap();
        assert_eq!(decode_body::<Command>(&bytes).unwrap(), command);
        write!(text, "{name}\n{}", hex(&bytes)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_state_has_these_bytes_and_comes_back_equal_with_its_views() {
    let mut state = State::default();
    let commands: BTreeMap<&str, Command> = commands().into_iter().collect();
    for (index, name) in (1..).zip([
        "OpenEpoch",
        "SetPool",
        "SetData",
        "Submit",
        "Join",
        "Bind",
        "Report",
        "LoseCluster",
        "Cancel",
        "SetTokenKey",
    ]) {
        let applied = state.apply(LogIndex(index), &commands[name], UnixMs(1000 * index));
        assert!(applied.outcome.is_ok(), "{name}: {:?}", applied.outcome);
    }
    let bytes = encode_body(&state).unwrap();
    assert_eq!(decode_body::<State>(&bytes).unwrap(), state);
    insta::assert_snapshot!(hex(&bytes));
}

#[test]
fn a_cluster_that_is_drained_and_one_that_was_removed_have_these_bytes() {
    let mut state = State::default();
    let commands: BTreeMap<&str, Command> = commands().into_iter().collect();
    let join = Command::Join {
        info: info("us-1", "us-east"),
        incarnation: Incarnation(8),
        last_command: CommandNumber(12),
        attempts: vec![],
    };
    let lost = Command::LoseCluster { cluster: cluster("us-1") };
    let named = |name: &str| commands[name].clone();
    let all = ["OpenEpoch", "SetPool", "SetData", "Submit", "Join", "Bind", "Cordon", "EndDrained"].map(named);
    let all = all.into_iter().chain([join, lost, named("RemoveCluster")]);
    for (index, command) in (1..).zip(all) {
        let applied = state.apply(LogIndex(index), &command, UnixMs(1000 * index));
        assert!(applied.outcome.is_ok(), "{command:?}: {:?}", applied.outcome);
    }
    let bytes = encode_body(&state).unwrap();
    assert_eq!(decode_body::<State>(&bytes).unwrap(), state);
    insta::assert_snapshot!(hex(&bytes));
}

#[test]
fn an_attempt_that_grew_and_is_to_shrink_has_these_bytes() {
    let group = elastic(support::group("w", 2, 8, 64, 1, &["H100"]), 3);
    let place = |members| GroupPlacement {
        group: group.name.clone(),
        each: resources(8, 64, 1),
        sku: Some(Sku::from_driver("H100")),
        nodes: vec![NodeShare { node: NodeName::new("n0").unwrap(), members }],
    };
    let head = GroupPlacement {
        group: GroupName::new("head").unwrap(),
        each: protocol::resources::Resources { cpu_milli: 1, memory_mib: 1, gpu_milli: 0 },
        sku: None,
        nodes: vec![NodeShare { node: NodeName::new("n0").unwrap(), members: 1 }],
    };
    let (attempt, epoch) = (AttemptNumber(1), Epoch(3));
    let join = Command::Join {
        info: info("eu-1", "eu-west"),
        incarnation: Incarnation(7),
        last_command: CommandNumber(300),
        attempts: vec![],
    };
    let all = [
        Command::OpenEpoch { epoch },
        join,
        Command::Submit { key: key("a"), uid: uid("a"), spec: Box::new(ray(1, vec![group.clone()])) },
        Command::Submit {
            key: key("b"),
            uid: uid("b"),
            spec: Box::new(batch(vec![support::group("w", 1, 8, 64, 1, &["H100"])])),
        },
        Command::Bind(Box::new(Binding {
            key: key("a"),
            uid: uid("a"),
            attempt,
            epoch,
            cluster: cluster("eu-1"),
            placement: vec![head, place(2)],
            decision: decision(),
        })),
        Command::Report { cluster: cluster("eu-1"), report: report("a", 1, 2, AttemptState::Running) },
        Command::Grow(Box::new(Growth {
            epoch,
            key: key("a"),
            uid: uid("a"),
            attempt,
            sized_by: CommandNumber(301),
            members: vec![place(2)],
        })),
        Command::Preempt(Box::new(Preemption {
            epoch,
            by: key("b"),
            by_uid: uid("b"),
            victims: vec![],
            shrinks: vec![Shrink { key: key("a"), uid: uid("a"), attempt, members: vec![place(1)] }],
            fleet: Amounts([(Resource::Gpu, 8000)].into()),
            clusters: [cluster("eu-1")].into(),
        })),
    ];
    let mut state = State::default();
    for (index, command) in (1..).zip(&all) {
        let applied = state.apply(LogIndex(index), command, UnixMs(1000 * index));
        assert!(applied.outcome.is_ok(), "{command:?}: {:?}", applied.outcome);
    }
    let bytes = encode_body(&state).unwrap();
    assert_eq!(decode_body::<State>(&bytes).unwrap(), state);
    insta::assert_snapshot!(hex(&bytes));
}

#[test]
fn outcomes_and_refusals_come_back_equal() {
    let attempt = AttemptId { workload: uid("a"), number: AttemptNumber(2) };
    let outcomes = [
        Outcome::Submitted { version: LogIndex(4), existed: true },
        Outcome::Bound { attempt, launch: CommandNumber(5) },
        Outcome::Ended { phase: Phase::Draining, version: LogIndex(6) },
        Outcome::Done,
        Outcome::Set { version: LogIndex(7) },
    ];
    let refusals = [
        Refusal::NameTaken { key: key("a"), uid: uid("b") },
        Refusal::Invalid(batch(vec![]).problems()),
        Refusal::StaleBinding { key: key("a"), why: "gone".into() },
        Refusal::OldEpoch { epoch: Epoch(1), current: Epoch(2) },
        Refusal::StrayReport { cluster: cluster("eu-1"), attempt },
        Refusal::NotAbandoned { key: key("a"), why: "its agent sees it".into() },
        Refusal::NotDue { key: key("a"), due: Some(UnixMs(7)), now: UnixMs(6) },
        Refusal::Exists { what: "pool a".into() },
        Refusal::UnknownCluster { cluster: cluster("eu-2"), known: vec![cluster("eu-1")] },
        Refusal::ClusterRemoved { cluster: cluster("eu-1"), reason: "its lease ended".into() },
        Refusal::ClusterStays { cluster: cluster("eu-1"), why: "a is there".into() },
        Refusal::NotDrained { key: key("a"), why: "it is Draining".into() },
        Refusal::TokenKeyRefused { replica: ReplicaId(2), why: "it was replaced".into() },
        Refusal::from(engine::data::DataFault::NoData { name: imagenet() }),
        Refusal::from(engine::pools::PoolFault::LiveWorkloads { name: script::pool("a"), workloads: 3 }),
    ];
    for outcome in outcomes {
        assert_eq!(decode_body::<Outcome>(&encode_body(&outcome).unwrap()).unwrap(), outcome);
    }
    for refusal in refusals {
        assert_eq!(decode_body::<Refusal>(&encode_body(&refusal).unwrap()).unwrap(), refusal);
    }
}

#[test]
fn a_cut_or_lengthened_command_is_refused() {
    for (name, command) in commands() {
        let bytes = encode_body(&command).unwrap();
        assert!(decode_body::<Command>(&bytes[..bytes.len() - 1]).is_err(), "{name} cut short");
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert!(matches!(decode_body::<Command>(&longer), Err(CodecError::LeftOver { .. })), "{name} lengthened");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes that were damaged on disk are read as something else or refused; reading never panics.
    #[test]
    fn damaged_bytes_never_panic(which in 0..25usize, at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encode_body(&commands()[which].1).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(command) = decode_body::<Command>(&bytes) {
            State::default().apply(LogIndex(1), &command, UnixMs(0));
        }
        let _state = decode_body::<State>(&bytes);
    }
}
