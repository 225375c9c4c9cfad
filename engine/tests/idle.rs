//! An idle attempt is ended exactly when all of its GPUs have surely been measured to do nothing for its time, and never before. Held to
//! a model that knows what each device does: no attempt with a device that does something may ever be ended.

#![allow(clippy::unwrap_used)]

mod support;

use engine::State;
use engine::commands::Command;
use engine::plan::{IDLE_PERCENT, Memory, plan_on};
use proptest::prelude::*;
use protocol::ids::*;
use protocol::resources::Span;
use support::*;

/// What a device does in a round, in percent; none: it is not known.
type Reading = Option<u32>;

const ROUND_MS: u64 = 20_000;
const DEVICES: usize = 4;

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![20 => Just(Some(0)), 3 => (1..8u32).prop_map(Some), 2 => (8..101u32).prop_map(Some), 1 => Just(None)]
}

fn apply(state: &mut State, command: &Command, now: u64) {
    let applied = state.apply(LogIndex(state.applied.0 + 1), command, UnixMs(now));
    assert!(applied.outcome.is_ok(), "{:?}", applied.outcome);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Two attempts share a node: `a` has the first devices of it, `b` the rest.
    #[test]
    fn only_what_surely_does_nothing_for_its_time_is_ended(
        own in 1..=DEVICES,
        rounds in prop::collection::vec(prop::collection::vec(reading(), DEVICES), 1..16),
    ) {
        let (mut state, mut fleet) = (State::default(), Fleet::default());
        let join = Command::Join {
            info: info("eu-1", "eu-west"), incarnation: Incarnation(1), last_command: CommandNumber(0), attempts: vec![],
        };
        apply(&mut state, &join, 0);
        fleet.set("eu-1", vec![node("n0", Some("H100"), resources(64, 512, DEVICES as u64))]);
        for (name, gpus) in [("a", own), ("b", DEVICES - own)].into_iter().filter(|(_, gpus)| *gpus > 0) {
            let mut spec = batch(vec![group("w", 1, 1, 1, gpus as u64, &["H100"])]);
            spec.idle_timeout = Some(Span(3 * ROUND_MS)).filter(|_| name == "a");
            apply(&mut state, &Command::Submit { key: key(name), uid: uid(name), spec: Box::new(spec) }, 0);
            let plan = plan_on(&state, &fleet.capacity, &Memory::default(), UnixMs(0), 9);
            apply(&mut state, &Command::Bind(Box::new(plan.bindings[0].clone())), 0);
            let running = report(name, 1, 1, script::state_of("running"));
            apply(&mut state, &Command::Report { cluster: cluster("eu-1"), report: running }, 0);
        }
        fleet.catch_up(&state, "eu-1");
        let (mut memory, mut quiet_rounds) = (Memory::default(), 0);
        for (round, readings) in (1..).zip(&rounds) {
            let now = round * ROUND_MS;
            let known: Option<Vec<u32>> = readings.iter().copied().collect();
            let sum: Option<u32> = known.map(|all| all.iter().sum());
            fleet.capacity.clusters.get_mut(&cluster("eu-1")).unwrap().nodes[0].held_activity = sum;
            let plan = plan_on(&state, &fleet.capacity, &memory, UnixMs(now), 9);
            memory = plan.memory;
            let limit = u32::from(IDLE_PERCENT) * own as u32;
            quiet_rounds = if sum.is_some_and(|sum| sum < limit) { quiet_rounds + 1 } else { 0 };
            // Three times between four rounds.
            prop_assert_eq!(plan.idle.len(), usize::from(quiet_rounds > 3), "round {}: {:?}", round, readings);
            if let Some(end) = plan.idle.first() {
                prop_assert_eq!(&end.key, &key("a"));
                for seen in &rounds[round as usize - 4..round as usize] {
                    let own_sum: Option<u32> = seen[..own].iter().copied().sum();
                    prop_assert!(own_sum.is_some_and(|sum| sum < limit), "it was busy, or nobody knows: {:?}", seen);
                }
                apply(&mut state, &Command::EndIdle(Box::new(end.clone())), now);
                prop_assert_eq!(state.workloads[&key("a")].phase, engine::Phase::Draining);
                let again = plan_on(&state, &fleet.capacity, &memory, UnixMs(now), 9);
                prop_assert!(again.idle.is_empty());
                break;
            }
        }
    }
}
