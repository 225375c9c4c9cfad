//! Placement against brute force: on small fleets, the planner places a gang exactly where some way of placing it exists,
//! and what it proposes is whole and never more than is free.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use engine::State;
use engine::commands::{Binding, Command};
use engine::plan::plan;
use engine::reasons::{Obstacle, WaitCause};
use proptest::prelude::*;
use protocol::capacity::NodeState;
use protocol::ids::*;
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::{GroupSpec, Spread, WorkloadSpec};
use support::*;

const SKUS: [&str; 2] = ["H100", "L4"];

#[derive(Debug, Clone)]
struct SmallNode {
    sku: Option<usize>,
    free: (u64, u64, u64),
    ready: bool,
}

fn small_node() -> impl Strategy<Value = SmallNode> {
    (prop::option::of(0..2usize), (0..7u64, 0..7u64, 0..4u64), prop::bool::weighted(0.9)).prop_map(
        |(sku, (cpu, gib, gpus), ready)| SmallNode {
            sku,
            free: (cpu, gib, if sku.is_some() { gpus } else { 0 }),
            ready,
        },
    )
}

fn small_group(name: &'static str) -> impl Strategy<Value = GroupSpec> {
    let skus = prop_oneof![Just(vec![]), Just(vec!["H100"]), Just(vec!["L4"]), Just(vec!["L4", "H100"])];
    (1..4u32, 1..4u64, 1..4u64, 0..3u64, skus).prop_map(move |(count, cpu, gib, gpus, skus)| {
        group(name, count, cpu, gib, gpus, if gpus == 0 { &[] } else { &skus })
    })
}

fn gang() -> impl Strategy<Value = Vec<GroupSpec>> {
    (small_group("a"), prop::option::of(small_group("b")), prop::option::of(small_group("c")))
        .prop_map(|(a, b, c)| [Some(a), b, c].into_iter().flatten().collect())
}

fn spread() -> impl Strategy<Value = Spread> {
    prop_oneof![2 => Just(Spread::None), 1 => Just(Spread::Nodes)]
}

fn spec(gang: &[GroupSpec], spread: Spread) -> WorkloadSpec {
    let mut spec = batch(gang.to_vec());
    spec.placement.spread = spread;
    spec
}

fn world(nodes: &[SmallNode], gang: &[GroupSpec], spread: Spread) -> (State, Fleet) {
    let mut fleet = Fleet::default();
    let nodes = nodes.iter().enumerate().map(|(i, n)| {
        let (cpu, gib, gpus) = n.free;
        let mut made =
            node(&format!("n{i}"), n.sku.map(|s| SKUS[s]), resources(8, 8, if n.sku.is_some() { 4 } else { 0 }));
        made.free = resources(cpu, gib, gpus);
        made.state = if n.ready { NodeState::Ready } else { NodeState::Cordoned };
        made
    });
    fleet.set("eu-1", nodes.collect());
    let mut state = State::default();
    join(&mut state, "eu-1", 1);
    submit(&mut state, "a", spec(gang, spread));
    (state, fleet)
}

fn join(state: &mut State, name: &str, life: u128) {
    let (info, attempts) = (info(name, "eu-west"), vec![]);
    let command = Command::Join { info, incarnation: Incarnation(life), last_command: CommandNumber(0), attempts };
    state.apply(LogIndex(state.applied.0 + 1), &command, UnixMs(0));
}

fn submit(state: &mut State, name: &str, spec: WorkloadSpec) {
    let command = Command::Submit { key: key(name), uid: uid(name), spec: Box::new(spec) };
    state.apply(LogIndex(state.applied.0 + 1), &command, UnixMs(0));
}

/// Whether any way of placing the gang exists: tries every node for every member, and every model for every group.
fn brute_force(nodes: &[SmallNode], gang: &[GroupSpec], spread: Spread) -> bool {
    // A member after another of its group goes to the same node or a later one, or to a later one where they are kept apart.
    let step = usize::from(spread == Spread::Nodes);
    fn group(nodes: &[(Option<usize>, [u64; 3])], gang: &[GroupSpec], step: usize) -> bool {
        let Some((first, rest)) = gang.split_first() else { return true };
        if first.gpus.0 == 0 {
            return members(nodes.to_vec(), first, first.least(), None, (0, step), rest);
        }
        let accepted = |s: &usize| first.gpu.is_empty() || first.gpu.contains(&Sku::parse(SKUS[*s]).unwrap());
        (0..SKUS.len())
            .filter(accepted)
            .any(|s| members(nodes.to_vec(), first, first.least(), Some(s), (0, step), rest))
    }
    fn members(
        nodes: Vec<(Option<usize>, [u64; 3])>,
        one: &GroupSpec,
        left: u32,
        sku: Option<usize>,
        (from, step): (usize, usize),
        rest: &[GroupSpec],
    ) -> bool {
        if left == 0 {
            return group(&nodes, rest, step);
        }
        let need = [one.cpu.0, one.memory.0, one.gpus.0];
        (from..nodes.len()).any(|i| {
            let (has, free) = nodes[i];
            if (sku.is_some() && has != sku) || free.iter().zip(need).any(|(f, n)| *f < n) {
                return false;
            }
            let mut less = nodes.clone();
            less[i].1 = [free[0] - need[0], free[1] - need[1], free[2] - need[2]];
            members(less, one, left - 1, sku, (i + step, step), rest)
        })
    }
    let free = |n: &SmallNode| (n.sku, [n.free.0 * 1000, n.free.1 * 1024, n.free.2 * 1000]);
    let ready: Vec<_> = nodes.iter().filter(|n| n.ready).map(free).collect();
    group(&ready, gang, step)
}

/// What bindings take of each node must be free there; each gang must be whole, on models that it accepts.
fn check_bindings(bindings: &[Binding], state: &State, fleet: &Fleet) -> Result<(), TestCaseError> {
    let mut taken: BTreeMap<(ClusterName, NodeName), Resources> = BTreeMap::new();
    for b in bindings {
        let gang = state.workloads[&b.key].spec.gang();
        prop_assert_eq!(gang.len(), b.placement.len());
        for (need, placed) in gang.iter().zip(&b.placement) {
            prop_assert_eq!(&need.name, &placed.group);
            prop_assert_eq!(need.count, placed.nodes.iter().map(|n| n.members).sum::<u32>());
            prop_assert_eq!(placed.sku.is_some(), need.each.gpu_milli > 0);
            prop_assert!(placed.sku.as_ref().is_none_or(|s| need.skus.is_empty() || need.skus.contains(s)));
            let distinct = placed.nodes.iter().map(|n| &n.node).collect::<std::collections::BTreeSet<_>>().len();
            prop_assert_eq!(distinct, placed.nodes.len());
            for share in &placed.nodes {
                prop_assert!(
                    share.members == 1 || need.spread == Spread::None,
                    "members that are to be apart share a node"
                );
                let at = (b.cluster.clone(), share.node.clone());
                *taken.entry(at).or_default() += need.each.times(u64::from(share.members));
                let node = &fleet.capacity.clusters[&b.cluster].nodes.iter().find(|n| n.name == share.node).unwrap();
                prop_assert!(placed.sku.is_none() || node.sku == placed.sku, "on another model than was chosen");
                prop_assert_eq!(node.state, NodeState::Ready);
            }
        }
    }
    for ((cluster, name), taken) in taken {
        let node = fleet.capacity.clusters[&cluster].nodes.iter().find(|n| n.name == name).unwrap();
        prop_assert!(taken.fits_in(&node.free), "{cluster}/{name}: {taken} taken of {}", node.free);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_gang_is_placed_exactly_where_brute_force_places_it(
        nodes in prop::collection::vec(small_node(), 1..5), gang in gang(), spread in spread()
    ) {
        let (state, fleet) = world(&nodes, &gang, spread);
        let plan = plan(&state, &fleet.capacity, UnixMs(0), 10);
        prop_assert_eq!(plan.bindings.len() == 1, brute_force(&nodes, &gang, spread));
        check_bindings(&plan.bindings, &state, &fleet)?;
    }

    #[test]
    fn what_no_empty_cluster_could_hold_is_called_impossible_and_nothing_else_is(
        nodes in prop::collection::vec(small_node(), 1..4), gang in gang(), spread in spread()
    ) {
        let (state, fleet) = world(&nodes, &gang, spread);
        let empty: Vec<SmallNode> = nodes.iter()
            .map(|n| SmallNode { free: (8, 8, if n.sku.is_some() { 4 } else { 0 }), ready: true, ..n.clone() })
            .collect();
        let plan = plan(&state, &fleet.capacity, UnixMs(0), 10);
        if let Some(waiting) = plan.waiting.get(&uid("a")) {
            prop_assert_eq!(waiting.cause == WaitCause::Impossible, !brute_force(&empty, &gang, spread));
        }
    }

    #[test]
    fn many_gangs_never_take_more_than_is_free_and_the_same_inputs_give_the_same_plan(
        nodes in prop::collection::vec(small_node(), 1..6), gangs in prop::collection::vec((gang(), -1..2i32, spread()), 1..6)
    ) {
        let (mut state, fleet) = world(&nodes, &gangs[0].0, Spread::None);
        for (i, (gang, priority, spread)) in gangs.iter().enumerate() {
            submit(&mut state, &format!("w{i}"), WorkloadSpec { priority: *priority, ..spec(gang, *spread) });
        }
        let first = plan(&state, &fleet.capacity, UnixMs(0), 100);
        check_bindings(&first.bindings, &state, &fleet)?;
        prop_assert_eq!(first.bindings.len() + first.waiting.len(), state.waiting().len());
        prop_assert_eq!(&plan(&state, &fleet.capacity, UnixMs(0), 100), &first);
    }

    #[test]
    fn bindings_in_flight_are_not_given_out_again(
        nodes in prop::collection::vec(small_node(), 1..6), gangs in prop::collection::vec(gang(), 2..8)
    ) {
        let (mut state, fleet) = world(&nodes, &gangs[0], Spread::None);
        let mut all = vec![];
        for (i, gang) in gangs.iter().enumerate() {
            submit(&mut state, &format!("w{i}"), batch(gang.clone()));
            for binding in plan(&state, &fleet.capacity, UnixMs(0), 100).bindings {
                let command = Command::Bind(Box::new(binding.clone()));
                let applied = state.apply(LogIndex(state.applied.0 + 1), &command, UnixMs(0));
                prop_assert!(applied.outcome.is_ok(), "{:?}", applied.outcome);
                all.push(binding);
            }
        }
        // The frame never changed: all that was ever bound must fit into what it said was free.
        check_bindings(&all, &state, &fleet)?;
    }
}

#[test]
fn the_numbers_of_an_obstacle_are_those_of_the_fleet() {
    let mut fleet = Fleet::default();
    let whole = resources(64, 512, 8);
    let mut nodes: Vec<_> = (0..7).map(|i| node(&format!("n{i}"), Some("H100"), whole)).collect();
    // n0 and n1 are free, n2 has a ghost, n3 a sick device, n4 is held, n5 is cordoned, a pod of somebody has one of n6.
    (nodes[2].ghosts, nodes[2].free.gpu_milli) = (1, 7000);
    (nodes[3].sick, nodes[3].free.gpu_milli) = (1, 7000);
    nodes[4].free = Resources::ZERO;
    nodes[5].state = NodeState::Cordoned;
    (nodes[6].foreign, nodes[6].free.gpu_milli) = (1, 7000);
    fleet.set("eu-1", nodes);
    let mut state = State::default();
    join(&mut state, "eu-1", 1);
    submit(&mut state, "a", batch(vec![group("w", 4, 8, 8, 8, &["H100"])]));
    let plan = plan(&state, &fleet.capacity, UnixMs(0), 10);
    let obstacle = plan.waiting[&uid("a")].candidates[0].obstacle.clone().unwrap();
    let expected = Obstacle::NoRoom {
        group: GroupName::new("w").unwrap(),
        each: resources(8, 8, 8),
        sku: Some(Sku::from_driver("H100")),
        spread: Spread::None,
        needs: 4,
        fits: 2,
        held_by_ghosts: 1,
        held_by_sick: 1,
        held_by_foreign: 1,
        held_by_attempts: 1,
        on_avoided: 0,
        avoided: None,
    };
    assert_eq!(obstacle, expected);
}
