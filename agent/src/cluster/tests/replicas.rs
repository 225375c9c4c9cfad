//! Replicas of one agent: what runs is known from the runtime's records, and the journal of whoever leads keeps nothing. A second
//! replica goes on where the first one ended, whatever that had begun.

use super::*;

fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn launched(workload: u128, number: u64, members: u32, devices: &[u16]) -> KnownAttempt {
    let Order::Launch(order) = launch(workload, members, 2) else { unreachable!() };
    let members = (0..members).map(|rank| MemberAssignment {
        group: group("workers"),
        rank,
        node: node("a"),
        devices: devices[rank as usize * 2..rank as usize * 2 + 2].to_vec(),
    });
    let assignment = Assignment { members: members.collect() };
    let launch = Some(KnownLaunch { number: CommandNumber(number), order: *order, assignment });
    KnownAttempt { attempt: attempt(workload), launch }
}

/// Leadership number `number`, which finds these.
fn reign(number: u64, epoch: u64, found: Vec<(KnownAttempt, AttemptState)>) -> (Agent, Vec<Output>) {
    let states = found.iter().map(|(known, state)| (known.attempt, state.clone())).collect();
    let attempts = found.into_iter().map(|(known, _)| known).collect();
    let from = Elsewhere { incarnation: Incarnation(5), epoch: Epoch(epoch), revision: (number << 32) + 1, attempts };
    Agent::open(Journal::rebuilt(from, UNIX), config(), states, MonotonicMs(0), UNIX).unwrap()
}

fn hello(out: &[Output]) -> (Incarnation, CommandNumber, Vec<AttemptReport>) {
    let hello = out.iter().find_map(|o| match o {
        Output::Send { message: AgentMessage::Hello { incarnation, last_command, attempts, .. }, .. } => {
            Some((*incarnation, *last_command, attempts.clone()))
        }
        _ => None,
    });
    hello.expect("it greets")
}

fn runtime(agent: &mut Agent, now: u64, workload: u128, state: AttemptState) -> Vec<Output> {
    step(agent, now, Input::Runtime { attempt: attempt(workload), state })
}

#[test]
fn what_runs_is_reported_as_it_is_and_holds_the_devices_that_it_had() {
    let found = vec![
        (launched(1, 3, 2, &[4, 5, 6, 7]), AttemptState::Running),
        (launched(2, 4, 1, &[1, 2]), AttemptState::Succeeded),
    ];
    let (mut agent, out) = reign(1, 8, found);
    assert_eq!(out, [], "nothing is ended or started");
    assert_eq!(agent.epoch(), Epoch(8));
    let (incarnation, last, attempts) = hello(&step(&mut agent, 0, Input::Connected { replica: R1 }));
    assert_eq!((incarnation, last), (Incarnation(5), CommandNumber(4)));
    let said: Vec<_> = attempts.iter().map(|r| (r.attempt, r.state.clone())).collect();
    assert_eq!(said, [(attempt(1), AttemptState::Running), (attempt(2), AttemptState::Succeeded)]);
    assert!(attempts.iter().all(|r| r.revision > 1 << 32), "above every word of the leaders before");
    // What is free is what the first one does not hold: a new one gets it, lowest first.
    connect(&mut agent, 10, R1, 8, 60_000);
    step(&mut agent, 20, command(R1, 9, 8, launch(3, 1, 2)));
    assert_eq!(agent.assignment(attempt(3)).unwrap().members[0].devices, [0, 1]);
    step(&mut agent, 30, command(R1, 10, 8, launch(4, 2, 1)));
    assert_eq!(agent.assignment(attempt(4)).unwrap().members.iter().map(|m| m.devices[0]).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_launch_is_told_to_nobody_before_its_record_is_there() {
    let (mut agent, _) = reign(0, 0, vec![]);
    connect(&mut agent, 0, R1, 1, 60_000);
    let out = step(&mut agent, 10, command(R1, 5, 1, launch(1, 1, 1)));
    assert_eq!((starts(&out), reports(&out)), (vec![attempt(1)], vec![]));
    // Whatever asks for it: the runtime that can't make the record yet, a resend, another session.
    let waiting = AttemptState::Starting { waiting_for: "its record".into() };
    assert_eq!(reports(&runtime(&mut agent, 20, 1, waiting)), []);
    assert_eq!(reports(&step(&mut agent, 30, command(R1, 5, 1, launch(1, 1, 1)))), []);
    assert_eq!(reports(&step(&mut agent, 10_000, Input::Tick)), []);
    assert_eq!(hello(&step(&mut agent, 10_010, Input::Connected { replica: R2 })).2, []);
    let out = runtime(&mut agent, 10_020, 1, AttemptState::Accepted);
    assert_eq!(reports(&out).len(), 1, "{out:?}");
    assert_eq!(hello(&step(&mut agent, 10_030, Input::Connected { replica: R2 })).2.len(), 1);
}

#[test]
fn a_launch_that_came_to_nothing_is_told_once_that_is_final() {
    let (mut agent, _) = reign(0, 0, vec![]);
    connect(&mut agent, 0, R1, 1, 60_000);
    step(&mut agent, 10, command(R1, 5, 1, launch(1, 1, 1)));
    let failed = AttemptState::Failed { class: FailureClass::User, message: "too large".into(), exit_code: None };
    let out = reports(&runtime(&mut agent, 20, 1, failed.clone()));
    assert_eq!(out.iter().map(|(_, r)| r.state.clone()).collect::<Vec<_>>(), [failed]);
}

#[test]
fn commands_that_were_acted_upon_come_again_and_do_no_harm() {
    // The first leader had taken 3 (a launch), 5 (a stop of it, whose end it did not see) and 7 (another launch, which made no record).
    let (mut agent, _) = reign(1, 2, vec![(launched(1, 3, 1, &[0, 1]), AttemptState::Running)]);
    let out = step(&mut agent, 0, Input::Connected { replica: R1 });
    step(&mut agent, 10, lease(R1, nonce(&out), 2, 60_000));
    let out = step(&mut agent, 20, command(R1, 3, 2, launch(1, 1, 2)));
    assert_eq!((starts(&out), reports(&out).len()), (vec![], 1), "it is told again how it is");
    let out = step(&mut agent, 30, command(R1, 5, 2, stop(1)));
    assert!(out.contains(&Output::Stop { attempt: attempt(1), grace_ms: 1_000 }), "{out:?}");
    let out = step(&mut agent, 40, command(R1, 7, 2, launch(2, 1, 2)));
    assert_eq!(starts(&out), [attempt(2)]);
}

#[test]
fn a_command_of_an_epoch_below_that_of_the_leader_before_never_acts() {
    let (mut agent, _) = reign(1, 6, vec![]);
    let out = step(&mut agent, 0, Input::Connected { replica: R1 });
    // Neither its lease nor its commands count.
    step(&mut agent, 10, lease(R1, nonce(&out), 5, 60_000));
    assert!(!agent.lease_valid(MonotonicMs(20)));
    let out = step(&mut agent, 20, command(R1, 1, 5, launch(1, 1, 1)));
    assert_eq!((starts(&out), agent.commands_waiting()), (vec![], 0));
    let out = step(&mut agent, 30, command(R1, 1, 5, stop(1)));
    assert_eq!(reports(&out), []);
}

#[test]
fn objects_that_nobody_has_a_record_of_are_told_until_they_are_gone() {
    let known = KnownAttempt { attempt: attempt(9), launch: None };
    let ends = AttemptState::Starting { waiting_for: "its end: it has no record".into() };
    let (mut agent, out) = reign(1, 1, vec![(known, ends)]);
    assert_eq!(out, [], "the runtime ends it by itself");
    connect(&mut agent, 0, R1, 1, 60_000);
    assert_eq!(reports(&runtime(&mut agent, 10, 9, AttemptState::Stopped)).len(), 1);
    let revision = agent.attempts().next().unwrap().revision;
    let committed = CoordinatorMessage::ReportCommitted { attempt: attempt(9), revision };
    let out = step(&mut agent, 20, Input::FromCoordinator { replica: R1, message: committed });
    assert!(out.contains(&Output::Forget { attempt: attempt(9) }), "{out:?}");
}

#[test]
fn a_launch_that_comes_before_the_nodes_are_known_waits_for_them() {
    let from = Elsewhere { incarnation: Incarnation(5), epoch: Epoch(1), revision: 1, attempts: vec![] };
    let config = AgentConfig { nodes: vec![], follows_kubernetes: true, ..config() };
    let (mut agent, _) = Agent::open(Journal::rebuilt(from, UNIX), config, vec![], MonotonicMs(0), UNIX).unwrap();
    connect(&mut agent, 0, R1, 1, 60_000);
    let out = step(&mut agent, 10, command(R1, 5, 1, launch(1, 1, 1)));
    assert_eq!((starts(&out), agent.commands_waiting()), (vec![], 1));
    let a = ClusterNode {
        name: node("a"),
        sku: Some(Sku::parse("H100").unwrap()),
        offer: Offer::whole(8),
        cpu_milli: 64_000,
        memory_mib: 512_000,
        closed: None,
        passed_over: None,
    };
    let all = KubernetesInput::Changed { nodes: vec![(a, NodePods::default())], gone: vec![] };
    let out = step(&mut agent, 20, Input::Kubernetes(all));
    assert_eq!(starts(&out), [attempt(1)]);
}
