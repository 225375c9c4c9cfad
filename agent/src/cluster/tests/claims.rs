//! Devices that claims give out: whose each is by the API server's word, with a node role and without.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::capacity::DeviceState::{self, *};
use protocol::capacity::{Sharing, Source};

use super::kubernetes::cluster_node;
use super::table::{device, frame};
use super::*;

/// A node with so many devices, of which these have a taint.
fn claimable(name: &str, devices: u32, barred: &[u32]) -> ClusterNode {
    let all = (0..devices).map(|i| ClaimDevice { id: format!("GPU-{i}").into(), open: !barred.contains(&i) });
    let claims = ByClaims { products: ["NVIDIA H100 80GB HBM3".into()].into(), profile: None, devices: all.collect() };
    let offer = Offer {
        resource: "gpu.nvidia.com".into(),
        units: devices - barred.len() as u32,
        claims: Some(Box::new(claims)),
        ..Offer::whole(0)
    };
    ClusterNode { offer, ..cluster_node(name, 0) }
}

/// What claims hold, and for which workload.
fn claims(all: &[(u32, Option<u128>)]) -> NodePods {
    let mut pods = NodePods::default();
    for (at, workload) in all {
        let one = Resources { gpu_milli: 1_000, ..Resources::ZERO };
        let workload = workload.map(attempt);
        match workload {
            Some(attempt) => *pods.attempts.entry(attempt).or_default() += one,
            None => pods.others += one,
        }
        pods.claimed.insert(format!("GPU-{at}").into(), workload);
    }
    pods
}

fn put(table: &mut Table, node: ClusterNode, pods: NodePods) {
    table.kubernetes_changed(vec![(node, pods)], &[], MonotonicMs(0));
}

fn states(table: &Table) -> Vec<DeviceState> {
    table.columns().device_state
}

fn takes(table: &mut Table, workload: u128, members: u32, gpu_milli: u64) -> Result<(), String> {
    let Order::Launch(mut order) = launch(workload, members, 1) else { unreachable!() };
    order.placement[0].each.gpu_milli = gpu_milli;
    table.reserve(&order).map(drop)
}

#[test]
fn a_claim_says_which_device_and_a_reservation_moves_to_it() {
    let mut table = Table::default();
    put(&mut table, claimable("a", 4, &[]), claims(&[(1, None)]));
    let columns = table.columns();
    assert_eq!((columns.devices[0], columns.sharing[0], columns.source[0]), (4, Sharing::Whole, Source::Label));
    assert_eq!(states(&table), [Free, Foreign, Free, Free]);
    takes(&mut table, 1, 1, 1_000).unwrap();
    assert_eq!(states(&table), [Held, Foreign, Free, Free], "its claim is not allocated yet");
    put(&mut table, claimable("a", 4, &[]), claims(&[(1, None), (3, Some(1))]));
    assert_eq!(states(&table), [Free, Foreign, Free, Held]);
    // Its claim is seen for a moment longer than it.
    table.release(attempt(1));
    assert_eq!(states(&table), [Free, Foreign, Free, Foreign]);
    put(&mut table, claimable("a", 4, &[]), claims(&[]));
    assert_eq!(states(&table), [Free; 4]);
    assert!(takes(&mut table, 2, 1, 500).unwrap_err().contains("whole"), "no share of them is given out");
}

#[test]
fn a_device_with_a_taint_is_out_and_what_holds_it_takes_no_other() {
    let mut table = Table::default();
    put(&mut table, claimable("a", 3, &[1]), claims(&[]));
    assert_eq!(states(&table), [Free, Sick, Free]);
    put(&mut table, claimable("a", 3, &[1]), claims(&[(1, None)]));
    assert_eq!(states(&table), [Free, Sick, Free]);
    put(&mut table, claimable("a", 3, &[]), claims(&[(1, None)]));
    assert_eq!(states(&table), [Free, Foreign, Free]);
}

#[test]
fn a_node_roles_readings_are_of_the_devices_that_claims_name() {
    let mut table = Table::default();
    put(&mut table, claimable("a", 3, &[]), claims(&[(2, None)]));
    let read = |used: u32| (0..4).map(|i| device(i, Some(if i == used { 60_000 } else { 0 }))).collect();
    table.node_frame(&frame("a", 1, true, read(0)), MonotonicMs(0));
    assert_eq!(table.columns().source, [Source::Measured]);
    // The last one is in no slice, and nobody has a claim to the first, which is in use.
    assert_eq!(states(&table), [Foreign, Free, Foreign, Free], "what is not offered is a ghost's first");
    put(&mut table, claimable("a", 4, &[3]), claims(&[(2, None)]));
    assert_eq!(states(&table), [Ghost, Free, Foreign, Sick]);
    put(&mut table, claimable("a", 4, &[]), claims(&[(2, None), (7, None)]));
    assert_eq!(states(&table), [Foreign, Free, Foreign, Free], "one that is not read is somewhere");
    // The driver is gone: what is read is offered by nobody.
    put(&mut table, cluster_node("a", 0), claims(&[]));
    assert_eq!(states(&table), [Foreign; 4]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a claim holds is never free, and never more is free than nobody was given, holds or is barred.
    #[test]
    fn what_is_claimed_is_not_free_whatever_is_read(
        launches in prop::collection::vec(1u32..3, 0..3),
        held in prop::collection::btree_map(0u32..8, prop::option::of(0u128..4), 0..8),
        barred in prop::collection::btree_set(0u32..8, 0..3),
        measured in any::<bool>(),
    ) {
        let barred: Vec<u32> = barred.into_iter().collect();
        let mut table = Table::default();
        put(&mut table, claimable("a", 8, &[]), claims(&[]));
        if measured {
            table.node_frame(&frame("a", 1, true, (0..8).map(|i| device(i, Some(0))).collect()), MonotonicMs(0));
        }
        let mut given: BTreeMap<u128, usize> = BTreeMap::new();
        for (workload, members) in (0u128..).zip(&launches) {
            prop_assert!(takes(&mut table, workload, *members, 1_000).is_ok());
            given.insert(workload, *members as usize);
        }
        let all: Vec<(u32, Option<u128>)> = held.iter().map(|(at, workload)| (*at, *workload)).collect();
        put(&mut table, claimable("a", 8, &barred), claims(&all));
        let states = states(&table);
        for (at, workload) in &all {
            let expected = match workload {
                _ if barred.contains(at) => Sick,
                Some(workload) if given.contains_key(workload) => Held,
                _ => Foreign,
            };
            prop_assert_eq!(states[*at as usize], expected);
        }
        let has = |workload: &u128| all.iter().filter(|(_, of)| of.as_ref() == Some(workload)).count();
        let more: usize = given.iter().map(|(workload, given)| given.saturating_sub(has(workload))).sum();
        let out = (0..8).filter(|at| barred.contains(at) || held.contains_key(at)).count();
        let free = states.iter().filter(|state| **state == Free).count();
        prop_assert_eq!(free, (8 - out).saturating_sub(more));
    }
}
