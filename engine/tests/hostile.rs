//! Whatever comes, nothing panics and nothing overflows: commands whose bytes were changed on the way, and quantities at the ends of
//! their types. Tests are built with overflow checks, so that every sum that is not checked ends them.

#![allow(clippy::unwrap_used)]
#![cfg(not(feature = "planted"))]

mod support;

use engine::State;
use engine::ahead::{forecast, whatif};
use engine::commands::Command;
use engine::plan::{Memory, explain, plan_on, pools, warnings};
use proptest::prelude::*;
use protocol::codec::{decode_body, encode_body};
use protocol::ids::*;
use protocol::pool::*;
use protocol::resources::{Cpu, Gpus, Memory as Mib, Span};
use protocol::workload::{GroupSpec, WorkloadSpec};
use support::histories::History;
use support::operations::op;
use support::*;

/// Asks everything that can be asked of a state.
fn ask(state: &State, fleet: &Fleet, now: UnixMs) {
    let plan = plan_on(state, &fleet.capacity, &Memory::new(0), now, 16);
    for key in state.workloads.keys().take(8) {
        explain(state, &fleet.capacity, now, key);
        forecast(state.clone(), fleet.capacity.clone(), Memory::new(0), now, key);
    }
    pools(state, &fleet.capacity, now);
    drop(plan);
}

/// Values at the ends of a type, and some between.
fn extreme() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(999), Just(1000), Just(u64::MAX), Just(u64::MAX / 2), any::<u64>(), 0..10_000u64]
}

fn extreme_spec() -> impl Strategy<Value = WorkloadSpec> {
    let group =
        (prop_oneof![Just(0u32), Just(1), Just(100_000), Just(u32::MAX)], extreme(), extreme(), extreme(), 0..3usize);
    let groups = prop::collection::vec(group, 1..4);
    (groups, any::<i32>(), extreme(), extreme(), any::<bool>()).prop_map(|(groups, priority, lasts, backoff, firm)| {
        let made = |(i, (count, cpu, memory, gpus, skus)): (usize, (u32, u64, u64, u64, usize))| GroupSpec {
            name: GroupName::new(format!("g{i}")).unwrap(),
            count: Some(count),
            min: None,
            max: None,
            cpu: Cpu(cpu),
            memory: Mib(memory),
            gpus: Gpus(gpus),
            gpu: ["H100", "A100-80GB", "L4"].iter().take(skus).map(|s| protocol::sku::Sku::parse(s).unwrap()).collect(),
        };
        let mut spec = batch(groups.into_iter().enumerate().map(made).collect());
        spec.priority = priority;
        spec.expected_duration = Some(Span(lasts));
        spec.retries.backoff = Span(backoff);
        spec.preemptible = (!firm).into();
        spec
    })
}

fn extreme_pool() -> impl Strategy<Value = PoolSpec> {
    (extreme(), prop::option::of(extreme()), any::<u32>(), any::<bool>()).prop_map(
        |(reservation, limit, share, kept)| {
            let lending = if kept { Lending::Static } else { Lending::Elastic };
            let quota = Quota { reservation, limit, share, lending };
            let all = [Resource::Gpu, Resource::Cpu, Resource::Memory].map(|resource| (resource, quota));
            PoolSpec { resources: Quotas(all.into()), ..PoolSpec::default() }
        },
    )
}

/// Two groups that each fit on the node and together do not: whether they do is searched member by member.
#[test]
fn a_gang_of_thousands_of_small_members_does_not_end_the_planner() {
    let (mut state, mut fleet) = (State::default(), Fleet::default());
    let total = protocol::resources::Resources { cpu_milli: 30_000, memory_mib: 30_000, gpu_milli: 0 };
    fleet.set("eu-1", vec![node("n0", None, total)]);
    let group = |name: &str| GroupSpec {
        name: GroupName::new(name).unwrap(),
        count: Some(20_000),
        min: None,
        max: None,
        cpu: Cpu(1),
        memory: Mib(1),
        gpus: Gpus(0),
        gpu: vec![],
    };
    let (incarnation, last_command) = (Incarnation(1), CommandNumber(0));
    let spec = Box::new(batch(vec![group("a"), group("b")]));
    let commands = [
        Command::OpenEpoch { epoch: Epoch(1) },
        Command::Join { info: info("eu-1", "eu-west"), incarnation, last_command, attempts: vec![] },
        Command::Submit { key: key("w"), uid: uid("w"), spec },
    ];
    for (index, command) in (1..).zip(commands) {
        state.apply(LogIndex(index), &command, UnixMs(0)).outcome.unwrap();
    }
    let plan = plan_on(&state, &fleet.capacity, &Memory::new(0), UnixMs(0), 16);
    assert!(plan.bindings.is_empty() && plan.waiting.len() == 1, "{plan:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A log that is damaged where its checksums can't see it, or a peer of another mind.
    #[test]
    fn commands_that_changed_on_the_way_are_refused_or_applied(
        steps in prop::collection::vec((op(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)), 1..60),
    ) {
        let mut history = History::new();
        let fleet = Fleet::default();
        for (op, changes) in steps {
            let Some(command) = history.command(&op) else { continue };
            let mut bytes = encode_body(&command).unwrap();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let Ok(command) = decode_body::<Command>(&bytes) else { continue };
            let index = LogIndex(history.state.applied.0 + 1);
            history.state.apply(index, &command, UnixMs(index.0 * 1000));
        }
        let now = history.state.now;
        ask(&history.state, &fleet, now);
        let bytes = encode_body(&history.state).unwrap();
        prop_assert_eq!(decode_body::<State>(&bytes).unwrap(), history.state);
    }

    #[test]
    fn quantities_at_the_ends_of_their_types_are_refused_or_handled(
        specs in prop::collection::vec((extreme_spec(), 0..3usize), 1..6),
        rules in prop::collection::vec(extreme_pool(), 0..3),
        node_size in extreme(),
        gpus in prop_oneof![Just(0u64), Just(8_000), Just(16_000)],
        at in extreme(),
    ) {
        let (mut state, mut fleet) = (State::default(), Fleet::default());
        let total = protocol::resources::Resources { cpu_milli: node_size, memory_mib: node_size, gpu_milli: gpus };
        fleet.set("eu-1", vec![node("n0", (gpus > 0).then_some("H100"), total), node("n1", None, resources(4, 4, 0))]);
        let mut index = 0;
        let mut apply = |state: &mut State, command: Command| {
            index += 1;
            state.apply(LogIndex(index), &command, UnixMs(at)).outcome.is_ok()
        };
        apply(&mut state, Command::OpenEpoch { epoch: Epoch(1) });
        let (incarnation, last_command) = (Incarnation(1), CommandNumber(0));
        let mut info = info("eu-1", "eu-west");
        info.prices = vec![price("H100", u64::MAX)];
        apply(&mut state, Command::Join { info, incarnation, last_command, attempts: vec![] });
        for (i, spec) in rules.into_iter().enumerate() {
            let (name, expect) = (script::pool(&format!("p{i}")), engine::commands::Expect::Any);
            apply(&mut state, Command::SetPool { name, spec: Box::new(spec), expect });
        }
        for (i, (mut spec, pool)) in specs.into_iter().enumerate() {
            warnings(&state, &fleet.capacity, &spec);
            spec.pool = (pool < 2).then(|| script::pool(&format!("p{pool}")));
            let edit = engine::ahead::Edit::Submit { key: key("imagined"), spec: Box::new(spec.clone()) };
            let _told = whatif(state.clone(), fleet.capacity.clone(), Memory::new(0), UnixMs(at), &[edit]);
            let name = format!("w{i}");
            apply(&mut state, Command::Submit { key: key(&name), uid: uid(&name), spec: Box::new(spec) });
        }
        for binding in plan_on(&state, &fleet.capacity, &Memory::new(0), UnixMs(at), 16).bindings {
            prop_assert!(apply(&mut state, Command::Bind(Box::new(binding))), "a fresh binding was refused");
        }
        ask(&state, &fleet, UnixMs(at));
    }
}
