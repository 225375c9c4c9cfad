//! What a session may do, when: each rule alone. The simulation has them all together, under faults.

#![allow(clippy::unwrap_used)]

use protocol::control::{AttemptState, Order, StopCause, StopOrder};
use protocol::ids::{AttemptNumber, LogIndex, Region, Uid, UnixMs};

use super::*;

const SESSION: SessionId = SessionId(1);

fn cluster() -> ClusterName {
    ClusterName::new("eu-1").unwrap()
}

fn info(name: &ClusterName) -> ClusterInfo {
    ClusterInfo {
        name: name.clone(),
        region: Region::new("eu").unwrap(),
        frameworks: vec![],
        fences: true,
        secrets: true,
        manifests: vec![],
        prices: vec![],
    }
}

fn hello(name: &ClusterName) -> AgentMessage {
    AgentMessage::Hello {
        cluster: info(name),
        incarnation: Incarnation(7),
        last_command: CommandNumber(0),
        attempts: vec![],
    }
}

fn attempt() -> AttemptId {
    AttemptId { workload: Uid(9), number: AttemptNumber(1) }
}

fn report(revision: u64) -> AttemptReport {
    AttemptReport { attempt: attempt(), revision, state: AttemptState::Running, resized: None, at: UnixMs(0) }
}

fn stop(number: u64) -> Effect {
    let order = Order::Stop(StopOrder { attempt: attempt(), cause: StopCause::Cancelled, grace_ms: 0 });
    Effect::Command { cluster: cluster(), number: CommandNumber(number), order }
}

fn join() -> Command {
    Command::Join {
        info: info(&cluster()),
        incarnation: Incarnation(7),
        last_command: CommandNumber(0),
        attempts: vec![],
    }
}

fn opened() -> Sessions {
    let mut sessions = Sessions::new(ReplicaId(1));
    assert_eq!(sessions.opened(SESSION, cluster()), vec![]);
    sessions
}

/// A leader whose one agent has joined.
fn joined() -> Sessions {
    let mut sessions = opened();
    sessions.begin_reign(Epoch(3), MonotonicMs(0));
    sessions.received(SESSION, hello(&cluster()));
    sessions.committed(&join(), vec![]);
    assert!(sessions.is_joined(&cluster()));
    sessions
}

fn sent_numbers(asks: &[Ask]) -> Vec<u64> {
    let number = |ask: &Ask| match ask {
        Ask::Send(SESSION, CoordinatorMessage::Command { number, epoch: Epoch(3), .. }) => Some(number.0),
        _ => None,
    };
    asks.iter().filter_map(number).collect()
}

/// A state in which the cluster has joined.
fn state() -> State {
    let mut state = State::default();
    state.apply(LogIndex(1), &join(), UnixMs(1)).outcome.unwrap();
    state
}

#[test]
fn an_agent_that_says_it_is_another_cluster_is_refused_and_cut_off() {
    let mut sessions = opened();
    let asks = sessions.received(SESSION, hello(&ClusterName::new("eu-2").unwrap()));
    assert!(matches!(&asks[0], Ask::Send(_, CoordinatorMessage::Refused { reason }) if reason.contains("eu-2")));
    assert!(matches!(&asks[1], Ask::Close(SESSION, _)));
}

#[test]
fn the_agent_of_a_removed_cluster_is_told_why_and_cut_off_until_it_is_let_in_again() {
    let (mut sessions, mut state) = (joined(), state());
    assert_eq!(sessions.turn_away(&state), vec![]);
    let reason = "its lease ended".to_owned();
    let remove = Command::RemoveCluster { cluster: cluster(), reason, lost_for_good: false };
    state.apply(LogIndex(2), &remove, UnixMs(2)).outcome.unwrap();
    let asks = sessions.turn_away(&state);
    assert!(asks.contains(&Ask::ForgetCapacity(cluster(), SESSION)));
    let told = |ask: &Ask| matches!(ask, Ask::Send(SESSION, CoordinatorMessage::Refused { reason }) if reason.contains("(its lease ended)"));
    assert!(asks.iter().any(told) && asks.iter().any(|ask| matches!(ask, Ask::Close(SESSION, _))), "{asks:?}");
    // Nothing of it is left to be told twice, nor to be listened to.
    assert_eq!(sessions.turn_away(&state), vec![]);
    assert_eq!(sessions.received(SESSION, hello(&cluster())), vec![]);
    let lift = Command::Cordon { cluster: cluster(), to: engine::commands::Cordoning::Lift };
    state.apply(LogIndex(3), &lift, UnixMs(3)).outcome.unwrap();
    sessions.opened(SessionId(2), cluster());
    assert_eq!(sessions.turn_away(&state), vec![]);
}

#[test]
fn a_follower_welcomes_and_does_nothing_else() {
    let mut sessions = opened();
    let welcome = Ask::Send(SESSION, CoordinatorMessage::Welcome { replica: ReplicaId(1) });
    assert_eq!(sessions.received(SESSION, hello(&cluster())), vec![welcome]);
    assert_eq!(sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 1 }), vec![]);
    assert_eq!(sessions.received(SESSION, AgentMessage::Report(report(1))), vec![]);
    assert_eq!(sessions.committed(&join(), vec![stop(1)]), vec![]);
}

#[test]
fn commands_flow_from_the_committed_join_on_and_each_once() {
    let mut sessions = opened();
    sessions.begin_reign(Epoch(3), MonotonicMs(0));
    let asks = sessions.received(SESSION, hello(&cluster()));
    assert!(asks.contains(&Ask::Propose(join())));
    assert_eq!(
        sent_numbers(&sessions.committed(&Command::OpenEpoch { epoch: Epoch(3) }, vec![stop(1)])),
        Vec::<u64>::new()
    );
    assert_eq!(sent_numbers(&sessions.committed(&join(), vec![stop(1), stop(2)])), vec![1, 2]);
    assert_eq!(
        sent_numbers(&sessions.committed(&Command::OpenEpoch { epoch: Epoch(3) }, vec![stop(2), stop(3)])),
        vec![3]
    );
}

#[test]
fn a_new_leader_asks_for_a_fresh_hello_and_joins_on_it_alone() {
    let mut sessions = opened();
    sessions.received(SESSION, hello(&cluster()));
    let asks = sessions.begin_reign(Epoch(3), MonotonicMs(0));
    assert_eq!(asks, vec![Ask::Send(SESSION, CoordinatorMessage::HelloWanted)]);
    assert_eq!(sessions.tick(&State::default(), MonotonicMs(1)), vec![], "the old hello makes no join");
    assert!(sessions.received(SESSION, hello(&cluster())).contains(&Ask::Propose(join())));
}

#[test]
fn a_join_that_was_lost_is_proposed_again() {
    let mut sessions = opened();
    sessions.begin_reign(Epoch(3), MonotonicMs(0));
    sessions.received(SESSION, hello(&cluster()));
    assert_eq!(sessions.tick(&State::default(), MonotonicMs(1)), vec![]);
    sessions.proposal_lost(&join());
    assert_eq!(sessions.tick(&State::default(), MonotonicMs(2)), vec![Ask::Propose(join())]);
}

#[test]
fn a_lease_goes_out_only_once_leadership_is_confirmed() {
    let mut sessions = joined();
    let asks = sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 44 });
    let [Ask::Confirm(token)] = asks[..] else { panic!("{asks:?}") };
    let lease = CoordinatorMessage::Lease { nonce: 44, epoch: Epoch(3), ttl_ms: LEASE_MS, attempts: vec![] };
    assert_eq!(
        sessions.leadership_confirmed(token, &State::default(), MonotonicMs(5)),
        vec![Ask::Send(SESSION, lease)]
    );
    assert_eq!(
        sessions.leadership_confirmed(token, &State::default(), MonotonicMs(6)),
        vec![],
        "each request is answered once"
    );
}

#[test]
fn a_confirmation_of_another_reign_grants_nothing() {
    let mut sessions = joined();
    let asks = sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 44 });
    let [Ask::Confirm(token)] = asks[..] else { panic!("{asks:?}") };
    sessions.end_reign();
    assert_eq!(sessions.leadership_confirmed(token, &State::default(), MonotonicMs(5)), vec![]);
    sessions.begin_reign(Epoch(5), MonotonicMs(6));
    assert_eq!(sessions.leadership_confirmed(token, &State::default(), MonotonicMs(7)), vec![]);
}

#[test]
fn a_cluster_is_lost_when_its_lease_is_over_to_the_millisecond_and_is_declared_once() {
    let mut sessions = joined();
    let state = state();
    let lose = Ask::Propose(Command::LoseCluster { cluster: cluster() });
    let [Ask::Confirm(token)] = sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 1 })[..] else {
        panic!()
    };
    sessions.leadership_confirmed(token, &State::default(), MonotonicMs(1_000));
    assert_eq!(sessions.tick(&state, MonotonicMs(1_000 + LEASE_MS - 1)), vec![]);
    assert_eq!(sessions.tick(&state, MonotonicMs(1_000 + LEASE_MS)), vec![lose.clone()]);
    assert_eq!(sessions.tick(&state, MonotonicMs(1_001 + LEASE_MS)), vec![]);
    sessions.proposal_lost(&Command::LoseCluster { cluster: cluster() });
    assert_eq!(sessions.tick(&state, MonotonicMs(1_002 + LEASE_MS)), vec![lose]);
}

#[test]
fn a_new_leader_gives_every_cluster_a_whole_lease_first() {
    let mut sessions = opened();
    sessions.begin_reign(Epoch(3), MonotonicMs(500));
    assert_eq!(sessions.tick(&state(), MonotonicMs(500 + LEASE_MS - 1)), vec![]);
    assert_eq!(sessions.tick(&state(), MonotonicMs(500 + LEASE_MS)).len(), 1);
}

#[test]
fn a_report_is_proposed_once_a_revision() {
    let mut sessions = joined();
    let propose = |revision| vec![Ask::Propose(Command::Report { cluster: cluster(), report: report(revision) })];
    assert_eq!(sessions.received(SESSION, AgentMessage::Report(report(2))), propose(2));
    assert_eq!(sessions.received(SESSION, AgentMessage::Report(report(2))), vec![]);
    assert_eq!(sessions.received(SESSION, AgentMessage::Report(report(1))), vec![]);
    assert_eq!(sessions.received(SESSION, AgentMessage::Report(report(3))), propose(3));
    sessions.proposal_lost(&Command::Report { cluster: cluster(), report: report(3) });
    assert_eq!(sessions.received(SESSION, AgentMessage::Report(report(3))), propose(3));
}

#[test]
fn a_newer_session_of_an_identity_takes_over() {
    let mut sessions = joined();
    let newer = SessionId(2);
    let asks = sessions.opened(newer, cluster());
    assert!(asks.iter().any(|a| matches!(a, Ask::Close(SESSION, _))));
    assert!(asks.contains(&Ask::ForgetCapacity(cluster(), SESSION)));
    assert_eq!(sessions.session_of(&cluster()), Some(newer));
    assert_eq!(sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 1 }), vec![], "the older one is over");
    assert_eq!(sessions.closed(SESSION), vec![]);
    assert_eq!(sessions.session_of(&cluster()), Some(newer), "its late end changes nothing");
}

#[test]
fn a_cluster_that_was_lost_is_asked_what_it_holds_once_it_has_a_lease_again() {
    let mut sessions = joined();
    let mut state = state();
    state.apply(LogIndex(2), &Command::LoseCluster { cluster: cluster() }, UnixMs(2)).outcome.unwrap();
    let [Ask::Confirm(token)] = sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 1 })[..] else {
        panic!()
    };
    sessions.leadership_confirmed(token, &State::default(), MonotonicMs(100));
    let asks = sessions.tick(&state, MonotonicMs(200));
    assert_eq!(asks, vec![Ask::Send(SESSION, CoordinatorMessage::HelloWanted)]);
    assert_eq!(sessions.tick(&state, MonotonicMs(201)), vec![], "it is asked once");
}

/// A state with one workload in the cluster, which goes on for a minute without word, and that one's attempt.
fn fenced() -> (State, AttemptId) {
    use protocol::control::{GroupPlacement, NodeShare};
    use protocol::ids::{GroupName, NodeName, WorkloadKey};
    use protocol::resources::{Cpu, Gpus, Memory, Resources, Span};
    use protocol::workload::{BatchSpec, Framework, GroupSpec, OnClusterLoss, WorkloadSpec};

    let group = GroupName::new("w").unwrap();
    let (cpu, memory, gpus) = (Cpu(1000), Memory(1024), Gpus(0));
    let (count, min, max, gpu) = (Some(1), None, None, vec![]);
    let groups = vec![GroupSpec { name: group.clone(), count, min, max, cpu, memory, gpus, gpu }];
    let spec = WorkloadSpec {
        batch: Some(BatchSpec { command: vec!["train".into()], image: None, groups }),
        on_cluster_loss: OnClusterLoss::Failover,
        failover_after: Some(Span(60_000)),
        ..WorkloadSpec::default()
    };
    let key = WorkloadKey { namespace: "default".parse().unwrap(), name: "w".parse().unwrap() };
    let (uid, attempt) = (Uid(9), AttemptNumber(1));
    let nodes = vec![NodeShare { node: NodeName::new("n").unwrap(), members: 1 }];
    let each = Resources { cpu_milli: 1000, memory_mib: 1024, gpu_milli: 0 };
    let binding = engine::commands::Binding {
        key: key.clone(),
        uid,
        attempt,
        epoch: Epoch(3),
        cluster: cluster(),
        placement: vec![GroupPlacement { group, each, sku: None, nodes }],
        decision: engine::reasons::Decision::default(),
    };
    let mut info = info(&cluster());
    info.frameworks.push(Framework::Batch);
    let mut state = State::default();
    let join = Command::Join { info, incarnation: Incarnation(7), last_command: CommandNumber(0), attempts: vec![] };
    let submit = Command::Submit { key, uid, spec: Box::new(spec) };
    let commands = [Command::OpenEpoch { epoch: Epoch(3) }, join, submit, Command::Bind(Box::new(binding))];
    for (index, command) in (1..).zip(&commands) {
        state.apply(LogIndex(index), command, UnixMs(1)).outcome.unwrap();
    }
    (state, AttemptId { workload: uid, number: attempt })
}

fn lease(sessions: &mut Sessions, state: &State, at: u64) -> Vec<AttemptId> {
    let [Ask::Confirm(token)] = sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: at })[..] else {
        panic!()
    };
    match &sessions.leadership_confirmed(token, state, MonotonicMs(at))[..] {
        [Ask::Send(_, CoordinatorMessage::Lease { attempts, .. })] => attempts.clone(),
        other => panic!("{other:?}"),
    }
}

fn fences(asks: &[Ask]) -> Vec<Command> {
    let fence = |ask: &Ask| match ask {
        Ask::Propose(command @ Command::Fence(_)) => Some(command.clone()),
        _ => None,
    };
    asks.iter().filter_map(fence).collect()
}

fn lost(state: &mut State, index: u64) {
    state.apply(LogIndex(index), &Command::LoseCluster { cluster: cluster() }, UnixMs(2)).outcome.unwrap();
}

/// 60 s for itself, 20 s for its end, and a hundredth of that for the clocks.
const PASSED: u64 = 80_800;

#[test]
fn an_attempt_is_taken_for_gone_once_its_fence_has_passed_to_the_millisecond_and_is_let_go_on_no_more() {
    let (mut sessions, (mut state, attempt)) = (joined(), fenced());
    assert_eq!(lease(&mut sessions, &state, 500), [attempt]);
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(500 + PASSED))), [], "its cluster is not lost");
    lost(&mut state, 10);
    let [Ask::Confirm(token)] = sessions.received(SESSION, AgentMessage::LeaseRequest { nonce: 7 })[..] else {
        panic!()
    };
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(1_499 + PASSED))).len(), 0, "it was looked at just now");
    let proposed = fences(&sessions.tick(&state, MonotonicMs(1_500 + PASSED)));
    assert_eq!(proposed.len(), 1);
    // On its way to the log it is neither asked for twice nor let go on.
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(9_000 + PASSED))), []);
    let asks = sessions.leadership_confirmed(token, &state, MonotonicMs(9_001 + PASSED));
    let granted =
        |ask: &Ask| matches!(ask, Ask::Send(_, CoordinatorMessage::Lease { attempts, .. }) if attempts.is_empty());
    assert!(asks.iter().any(granted), "{asks:?}");
    // Where it came to nothing for certain, it is as it was before.
    sessions.proposal_lost(&proposed[0]);
    assert_eq!(lease(&mut sessions, &state, 9_500 + PASSED), [attempt]);
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(9_499 + 2 * PASSED))), []);
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(10_500 + 2 * PASSED))), proposed);
}

#[test]
fn a_new_leader_counts_from_when_it_first_saw_the_attempt() {
    let (mut sessions, (mut state, attempt)) = (joined(), fenced());
    assert_eq!(lease(&mut sessions, &state, 500), [attempt]);
    lost(&mut state, 10);
    sessions.begin_reign(Epoch(3), MonotonicMs(70_000));
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(71_000))), []);
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(70_999 + PASSED))), []);
    assert_eq!(fences(&sessions.tick(&state, MonotonicMs(71_999 + PASSED))).len(), 1);
}

#[test]
fn an_agent_in_another_life_is_not_told_of_what_it_never_held() {
    let (mut sessions, (state, attempt)) = (joined(), fenced());
    assert_eq!(lease(&mut sessions, &state, 1), [attempt]);
    let other = AgentMessage::Hello {
        cluster: info(&cluster()),
        incarnation: Incarnation(8),
        last_command: CommandNumber(0),
        attempts: vec![],
    };
    sessions.received(SESSION, other);
    assert_eq!(lease(&mut sessions, &state, 2), []);
}
