//! Shares of a GPU: on one device each, no device given out beyond itself, and a gang with shares fits exactly where brute force
//! over devices says so.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use engine::State;
use engine::commands::{Binding, Command};
use engine::plan::plan;
use proptest::prelude::*;
use protocol::ids::*;
use protocol::resources::{Gpus, Resources};
use protocol::workload::GroupSpec;
use support::*;

/// A node: free cores, and what is left of each device.
type SmallNode = (u64, Vec<u16>);

fn small_node() -> impl Strategy<Value = SmallNode> {
    let left = prop_oneof![3 => Just(1000u16), 1 => Just(0u16), 2 => (1..10u16).prop_map(|l| l * 100)];
    (0..6u64, prop::collection::vec(left, 1..4))
}

fn milli() -> impl Strategy<Value = u64> {
    prop_oneof![(1..10u64).prop_map(|share| share * 100), Just(1000), Just(2000)]
}

fn member_group(name: &'static str, gpus: impl Strategy<Value = u64>) -> impl Strategy<Value = GroupSpec> {
    (1..4u32, 1..3u64, gpus)
        .prop_map(move |(count, cpu, milli)| GroupSpec { gpus: Gpus(milli), ..group(name, count, cpu, 1, 0, &[]) })
}

/// One group that may ask for shares, and perhaps others that ask for none.
fn gang() -> impl Strategy<Value = Vec<GroupSpec>> {
    let others = prop_oneof![Just(0u64), Just(1000), Just(2000)];
    (member_group("a", milli()), prop::option::of(member_group("b", others)))
        .prop_map(|(a, b)| [Some(a), b].into_iter().flatten().collect())
}

fn world(nodes: &[SmallNode]) -> (State, Fleet) {
    let mut fleet = Fleet::default();
    let nodes = nodes.iter().enumerate().map(|(i, (cpu, left))| {
        let mut made = node(&format!("n{i}"), Some("L4"), resources(8, 64, left.len() as u64));
        let gpu_milli = left.iter().map(|l| u64::from(*l)).sum();
        made.free = Resources { gpu_milli, ..resources(*cpu, 64, 0) };
        made.shares = left.iter().copied().filter(|l| *l > 0 && *l < 1000).collect();
        made
    });
    fleet.set("eu-1", nodes.collect());
    let mut state = State::default();
    let info = info("eu-1", "eu-west");
    apply(
        &mut state,
        Command::Join { info, incarnation: Incarnation(1), last_command: CommandNumber(0), attempts: vec![] },
    );
    (state, fleet)
}

fn apply(state: &mut State, command: Command) {
    let applied = state.apply(LogIndex(state.applied.0 + 1), &command, UnixMs(0));
    assert!(applied.outcome.is_ok(), "{:?}", applied.outcome);
}

/// Enters a workload as the log would have it: what a submitter may ask for is the protocol's rule, not the planner's.
fn submit(state: &mut State, name: &str, gang: &[GroupSpec]) {
    apply(state, Command::Submit { key: key(name), uid: uid(name), spec: Box::new(batch(gang.to_vec())) });
}

/// Whether all members fit, trying every node and every device for each.
fn brute_force(nodes: &[SmallNode], members: &[(u64, u64)]) -> bool {
    let Some(((cpu, milli), rest)) = members.split_first() else { return true };
    (0..nodes.len()).any(|n| {
        if nodes[n].0 < *cpu {
            return false;
        }
        let mut less = nodes.to_vec();
        less[n].0 -= cpu;
        if *milli == 0 {
            return brute_force(&less, rest);
        }
        if *milli >= 1000 {
            let whole: Vec<usize> = (0..less[n].1.len()).filter(|d| less[n].1[*d] == 1000).collect();
            let needs = (*milli / 1000) as usize;
            if whole.len() < needs {
                return false;
            }
            whole[..needs].iter().for_each(|d| less[n].1[*d] = 0);
            return brute_force(&less, rest);
        }
        (0..less[n].1.len()).any(|d| {
            let mut less = less.clone();
            let holds = u64::from(less[n].1[d]) >= *milli;
            less[n].1[d] = less[n].1[d].saturating_sub(*milli as u16);
            holds && brute_force(&less, rest)
        })
    })
}

fn members(gang: &[GroupSpec]) -> Vec<(u64, u64)> {
    gang.iter().flat_map(|g| std::iter::repeat_n((g.cpu.0 / 1000, g.gpus.0), g.least() as usize)).collect()
}

/// Everything that was ever bound must fit onto the devices at once, node by node: by brute force, whatever rule picked them.
fn check(bindings: &[Binding], nodes: &[SmallNode]) -> Result<(), TestCaseError> {
    let mut there: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
    for placed in bindings.iter().flat_map(|b| &b.placement) {
        for share in &placed.nodes {
            let node: usize = share.node.as_str()[1..].parse().unwrap();
            let one = (placed.each.cpu_milli / 1000, placed.each.gpu_milli);
            there.entry(node).or_default().extend(std::iter::repeat_n(one, share.members as usize));
        }
    }
    for (node, mut members) in there {
        members.sort_by_key(|m| std::cmp::Reverse(m.1));
        prop_assert!(brute_force(&nodes[node..=node], &members), "node {node} {:?} holds {members:?}", nodes[node]);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_gang_with_shares_is_placed_exactly_where_brute_force_places_it(
        nodes in prop::collection::vec(small_node(), 1..4), gang in gang()
    ) {
        let (mut state, fleet) = world(&nodes);
        submit(&mut state, "a", &gang);
        let plan = plan(&state, &fleet.capacity, UnixMs(0), 10);
        prop_assert_eq!(plan.bindings.len() == 1, brute_force(&nodes, &members(&gang)));
        check(&plan.bindings, &nodes)?;
    }

    #[test]
    fn gangs_with_shares_in_flight_and_planned_never_take_a_device_beyond_itself(
        nodes in prop::collection::vec(small_node(), 1..4), gangs in prop::collection::vec(gang(), 1..7)
    ) {
        let (mut state, fleet) = world(&nodes);
        let mut all = vec![];
        for (i, gang) in gangs.iter().enumerate() {
            submit(&mut state, &format!("w{i}"), gang);
            for binding in plan(&state, &fleet.capacity, UnixMs(0), 100).bindings {
                apply(&mut state, Command::Bind(Box::new(binding.clone())));
                all.push(binding);
            }
        }
        // The frame never changed: each plan had to count what was bound before, device by device.
        check(&all, &nodes)?;
    }

    #[test]
    fn several_groups_of_shares_are_never_placed_where_they_do_not_fit(
        nodes in prop::collection::vec(small_node(), 1..4),
        gang in (member_group("a", 100..1000u64), member_group("b", 100..1000u64)).prop_map(|(a, b)| vec![a, b])
    ) {
        let (mut state, fleet) = world(&nodes);
        submit(&mut state, "a", &gang);
        let plan = plan(&state, &fleet.capacity, UnixMs(0), 10);
        prop_assert!(plan.bindings.is_empty() || brute_force(&nodes, &members(&gang)));
        check(&plan.bindings, &nodes)?;
        prop_assert_eq!(engine::plan::plan(&state, &fleet.capacity, UnixMs(0), 10), plan);
    }
}
