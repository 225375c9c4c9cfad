//! Single rules of commands and questions that no story tells.

#![allow(clippy::unwrap_used)]

mod support;

use engine::commands::{Applied, Binding, Command, FREE_RETRIES, Outcome, Refusal};
use engine::plan::{GangQuestion, gangs, plan};
use engine::reasons::WaitCause;
use engine::state::{Happening, KEPT_ATTEMPTS, KEPT_MOMENTS};
use engine::{Phase, State};
use protocol::control::{AttemptState, NodeShare};
use protocol::ids::*;
use protocol::sku::Sku;
use protocol::workload::{Spread, WorkloadSpec};
use support::*;

fn apply(state: &mut State, command: Command) -> Applied {
    let index = LogIndex(state.applied.0 + 1);
    state.apply(index, &command, UnixMs(0))
}

fn join(state: &mut State, name: &str, last: u64) -> Applied {
    let (info, attempts) = (info(name, "eu-west"), vec![]);
    let last_command = CommandNumber(last);
    apply(state, Command::Join { info, incarnation: Incarnation(1), last_command, attempts })
}

/// A joined cluster of two H100 nodes and a workload of two members.
fn world() -> (State, Fleet) {
    let (mut state, mut fleet) = (State::default(), Fleet::default());
    join(&mut state, "eu-1", 0);
    let nodes = (0..2).map(|i| node(&format!("n{i}"), Some("H100"), resources(64, 512, 8)));
    fleet.set("eu-1", nodes.collect());
    let mut spec = batch(vec![group("w", 2, 8, 64, 8, &["H100"])]);
    spec.retries.limit = 50;
    apply(&mut state, Command::Submit { key: key("a"), uid: uid("a"), spec: Box::new(spec) });
    (state, fleet)
}

fn binding(state: &State, fleet: &Fleet, at: u64) -> Binding {
    plan(state, &fleet.capacity, UnixMs(at), 1).bindings.pop().unwrap()
}

#[test]
fn a_binding_that_is_not_whole_is_refused_with_what_is_wrong() {
    type Spoil = fn(&mut Binding);
    let spoilt: [(Spoil, &str); 10] = [
        (|b| b.uid = Uid(9), "the name belongs to another workload now"),
        (|b| b.attempt = AttemptNumber(2), "its next attempt is 1, not 2"),
        (|b| b.cluster = cluster("eu-9"), "cluster eu-9 has not joined"),
        (|b| b.placement.clear(), "0 groups are placed; the gang has 1"),
        (|b| b.placement[0].group = GroupName::new("x").unwrap(), "group w is not placed exactly once"),
        (|b| b.placement[0].each.gpu_milli = 1000, "has members of"),
        (|b| b.placement[0].nodes.truncate(1), "group w has 1 members placed; it has 2"),
        (|b| b.placement[0].nodes[1] = b.placement[0].nodes[0].clone(), "names a node twice"),
        (|b| b.placement[0].sku = None, "needs GPUs and no model was chosen"),
        (|b| b.placement[0].sku = Some(Sku::from_driver("L4")), "does not accept L4"),
    ];
    let (state, fleet) = world();
    for (spoil, expected) in spoilt {
        let (mut state, mut binding) = (state.clone(), binding(&state, &fleet, 0));
        spoil(&mut binding);
        let applied = apply(&mut state, Command::Bind(Box::new(binding)));
        let Err(Refusal::StaleBinding { why, .. }) = applied.outcome else { panic!("{:?}", applied.outcome) };
        assert!(why.contains(expected), "{why:?} does not say {expected:?}");
        assert!(applied.effects.is_empty());
    }
}

#[test]
fn a_binding_to_a_node_on_which_it_failed_lately_is_refused_unless_the_planner_saw_no_other() {
    let (mut state, mut fleet) = world();
    let nodes = (0..4).map(|i| node(&format!("n{i}"), Some("H100"), resources(64, 512, 8)));
    fleet.set("eu-1", nodes.collect());
    let (first, now) = (binding(&state, &fleet, 0), UnixMs(59_999));
    apply(&mut state, Command::Bind(Box::new(first.clone())));
    let failed = report("a", 1, 1, script::state_of("infrastructure"));
    apply(&mut state, Command::Report { cluster: cluster("eu-1"), report: failed });
    let again = |attempt, despite| {
        let mut again = Binding { attempt: AttemptNumber(attempt), ..first.clone() };
        again.decision.despite = despite;
        Command::Bind(Box::new(again))
    };
    let avoided = state.workloads[&key("a")].avoids(now).first_of(&cluster("eu-1"), &first.placement).map(|(_, a)| a);
    let outcome = |command: &Command, at| state.clone().apply(LogIndex(9), command, at).outcome;
    let Err(Refusal::StaleBinding { why, .. }) = outcome(&again(2, None), now) else { panic!("it was bound") };
    assert_eq!(why, "node n0 of eu-1 is avoided: attempt 1 failed there; taken again at 60000 (ms since 1970)");
    assert!(outcome(&again(2, avoided), now).is_ok(), "the planner's word that it could be nowhere else counts");
    assert!(outcome(&again(2, None), UnixMs(60_000)).is_ok(), "it is over");
    let plan = plan(&state, &fleet.capacity, now, 1);
    let placed: Vec<&str> = plan.bindings[0].placement[0].nodes.iter().map(|n| n.node.as_str()).collect();
    assert_eq!(placed, ["n2", "n3"]);
}

#[test]
fn a_binding_that_puts_members_together_that_are_to_be_apart_is_refused() {
    let (mut state, fleet) = world();
    let mut spec = batch(vec![group("w", 2, 8, 64, 4, &["H100"])]);
    let submit = |spec: &WorkloadSpec| Command::Submit { key: key("b"), uid: uid("b"), spec: Box::new(spec.clone()) };
    apply(&mut state, Command::Cancel { key: key("a") });
    let together = |state: &mut State| {
        let mut binding = binding(state, &fleet, 0);
        let nodes = &mut binding.placement[0].nodes;
        nodes.truncate(1);
        nodes[0].members = 2;
        apply(state, Command::Bind(Box::new(binding))).outcome
    };
    spec.placement.spread = Spread::Nodes;
    let mut apart = state.clone();
    apply(&mut apart, submit(&spec));
    assert_eq!(binding(&apart, &fleet, 0).placement[0].nodes.len(), 2);
    let Err(Refusal::StaleBinding { why, .. }) = together(&mut apart) else { panic!("it was bound") };
    assert_eq!(why, "group w has 2 members on node n0; each is to have a node of its own");
    spec.placement.spread = Spread::None;
    apply(&mut state, submit(&spec));
    assert!(together(&mut state).is_ok());
}

#[test]
fn a_share_for_no_member_is_refused() {
    let (mut state, fleet) = world();
    let mut binding = binding(&state, &fleet, 0);
    binding.placement[0].nodes.push(NodeShare { node: NodeName::new("n9").unwrap(), members: 0 });
    assert!(apply(&mut state, Command::Bind(Box::new(binding))).outcome.is_err());
}

/// Fails the workload's attempts again and again; returns the waits in ms.
fn waits(state: &mut State, fleet: &Fleet, ends: AttemptState, times: u32) -> Vec<u64> {
    let mut now = 0;
    (0..times)
        .map(|_| {
            let binding = binding(state, fleet, now);
            let attempt = binding.attempt.0;
            let index = LogIndex(state.applied.0 + 1);
            let bound = state.apply(index, &Command::Bind(Box::new(binding)), UnixMs(now));
            assert!(matches!(bound.outcome, Ok(Outcome::Bound { .. })), "{:?}", bound.outcome);
            apply(state, Command::Report { cluster: cluster("eu-1"), report: report("a", attempt, 1, ends.clone()) });
            let until = state.workloads[&key("a")].not_before.unwrap().0;
            let wait = until - now;
            now = until;
            wait
        })
        .collect()
}

#[test]
fn waits_double_up_to_their_bounds() {
    let (mut state, fleet) = world();
    let capacity = waits(&mut state, &fleet, script::state_of("capacity"), 11);
    assert_eq!(capacity, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].map(|s| s * 1000));
    let (mut state, fleet) = world();
    let infrastructure = waits(&mut state, &fleet, script::state_of("infrastructure"), FREE_RETRIES);
    assert_eq!(infrastructure, [1, 2, 4, 8, 16, 32, 64, 128].map(|s| s * 1000));
    let (mut state, fleet) = world();
    let user = waits(&mut state, &fleet, script::state_of("user"), 11);
    assert_eq!(user, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600].map(|s| s * 1000));
}

#[test]
fn a_failure_of_its_own_ends_a_row_of_free_ones() {
    let (mut state, fleet) = world();
    waits(&mut state, &fleet, script::state_of("infrastructure"), 3);
    let mut state = state.clone();
    let now = state.workloads[&key("a")].not_before.unwrap().0;
    let mut last = 0;
    for (i, ends) in ["user", "infrastructure"].into_iter().enumerate() {
        let at = now + 1_000_000 * (i as u64 + 1);
        let b = binding(&state, &fleet, at);
        let attempt = b.attempt.0;
        state.apply(LogIndex(state.applied.0 + 1), &Command::Bind(Box::new(b)), UnixMs(at));
        let report = report("a", attempt, 1, script::state_of(ends));
        apply(&mut state, Command::Report { cluster: cluster("eu-1"), report });
        last = state.workloads[&key("a")].not_before.unwrap().0 - at;
    }
    assert_eq!(last, 1000, "the row begins anew");
}

#[test]
fn what_is_kept_of_a_workload_is_bounded_and_its_beginning_stays() {
    let (mut state, fleet) = world();
    waits(&mut state, &fleet, script::state_of("capacity"), 40);
    let workload = &state.workloads[&key("a")];
    assert_eq!(workload.attempts.len(), KEPT_ATTEMPTS);
    assert_eq!(workload.attempts.last().unwrap().number, AttemptNumber(40));
    assert_eq!(workload.timeline.len(), KEPT_MOMENTS);
    assert_eq!(workload.timeline[0].what, Happening::Submitted);
}

#[test]
fn a_number_that_the_agent_has_seen_is_never_given_out_again() {
    let (mut state, fleet) = world();
    join(&mut state, "eu-1", 41);
    join(&mut state, "eu-1", 7);
    let binding = binding(&state, &fleet, 0);
    let applied = apply(&mut state, Command::Bind(Box::new(binding)));
    assert!(matches!(applied.outcome, Ok(Outcome::Bound { launch: CommandNumber(42), .. })), "{:?}", applied.outcome);
}

#[test]
fn time_never_goes_back() {
    let (mut state, _) = world();
    state.apply(LogIndex(9), &Command::OpenEpoch { epoch: Epoch(1) }, UnixMs(500));
    state.apply(LogIndex(10), &Command::OpenEpoch { epoch: Epoch(2) }, UnixMs(100));
    assert_eq!(state.now, UnixMs(500));
}

#[test]
fn a_gang_question_counts_whole_gangs_on_one_model_less_what_is_in_flight() {
    let (mut state, mut fleet) = world();
    join(&mut state, "us-1", 0);
    join(&mut state, "silent", 0);
    let nodes = (0..5).map(|i| node(&format!("n{i}"), Some(if i < 3 { "L4" } else { "H100" }), resources(64, 512, 8)));
    fleet.set("us-1", nodes.collect());
    let ask = |state: &State, fleet: &Fleet, nodes, gpus_per_node, sku: Option<&str>| {
        let question = GangQuestion { nodes, gpus_per_node, sku: sku.map(Sku::from_driver) };
        let answer = gangs(state, &fleet.capacity, &question);
        (answer.fits["eu-1"], answer.fits["us-1"], answer.fits["silent"], answer.largest)
    };
    assert_eq!(ask(&state, &fleet, 1, 8, Some("H100")), (2, 2, 0, 2));
    assert_eq!(ask(&state, &fleet, 2, 8, None), (1, 2, 0, 3), "one gang on each model of us-1");
    assert_eq!(ask(&state, &fleet, 3, 1, None), (0, 1, 0, 3));
    assert_eq!(ask(&state, &fleet, 1, 9, None), (0, 0, 0, 0));
    let binding = binding(&state, &fleet, 0);
    apply(&mut state, Command::Bind(Box::new(binding)));
    assert_eq!(ask(&state, &fleet, 1, 8, Some("H100")), (0, 2, 0, 2), "eu-1 is in flight");
    fleet.capacity.clusters.get_mut(&cluster("us-1")).unwrap().fresh = false;
    assert_eq!(ask(&state, &fleet, 1, 8, Some("H100")), (0, 0, 0, 0), "us-1 is stale");
}

#[test]
fn a_workload_that_never_stops_coming_does_not_starve_a_big_gang() {
    let (mut state, fleet) = world();
    let one = batch(vec![group("w", 1, 8, 64, 8, &["H100"])]);
    let mut running: Vec<(String, CommandNumber)> = vec![];
    apply(&mut state, Command::Cancel { key: key("a") });
    for round in 0..30 {
        let name = format!("small-{round}");
        apply(&mut state, Command::Submit { key: key(&name), uid: uid(&name), spec: Box::new(one.clone()) });
        if round == 5 {
            let big = batch(vec![group("w", 2, 8, 64, 8, &["H100"])]);
            apply(&mut state, Command::Submit { key: key("big"), uid: uid("big"), spec: Box::new(big) });
        }
        for binding in plan(&state, &fleet.capacity, UnixMs(0), 10).bindings {
            let name = binding.key.name.to_string();
            let Ok(Outcome::Bound { launch, .. }) = apply(&mut state, Command::Bind(Box::new(binding))).outcome else {
                panic!("a fresh binding was refused");
            };
            running.push((name, launch));
        }
        // One running workload ends each round.
        if state.workloads.get(&key("big")).is_some_and(|w| w.phase == Phase::Bound) {
            return;
        }
        let (name, _) = running.remove(0);
        let report = report(&name, 1, 1, AttemptState::Succeeded);
        apply(&mut state, Command::Report { cluster: cluster("eu-1"), report });
    }
    let waiting = &plan(&state, &fleet.capacity, UnixMs(0), 10).waiting[&uid("big")];
    assert_ne!(waiting.cause, WaitCause::NoRoom, "the big gang starves");
    panic!("the big gang starves: {waiting}");
}

#[test]
fn a_plan_explains_the_first_in_line_and_explain_explains_any() {
    let (mut state, fleet) = world();
    for i in 0..1500 {
        let name = format!("w{i}");
        let spec = Box::new(batch(vec![group("w", 3, 8, 64, 8, &["H100"])]));
        apply(&mut state, Command::Submit { key: key(&name), uid: uid(&name), spec });
    }
    let plan = plan(&state, &fleet.capacity, UnixMs(0), 10);
    assert_eq!(plan.waiting.len(), engine::plan::EXPLAINED);
    let why = engine::plan::explain(&state, &fleet.capacity, UnixMs(0), &key("w1499")).unwrap();
    let waiting = why.waiting.unwrap();
    assert_eq!((waiting.place, waiting.of, waiting.cause), (1501, 1501, WaitCause::Impossible));
}
