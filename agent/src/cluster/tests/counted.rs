//! GPUs in parts and slices of GPUs: what units Kubernetes counts come to, and what is left of them whoever takes some.

use proptest::prelude::*;
use protocol::capacity::DeviceState::{self, *};
use protocol::capacity::{Sharing, Source};

use super::kubernetes::{cluster_node, others};
use super::table::{device, frame};
use super::*;

/// A node whose GPUs are given out in so many parts each.
pub fn in_parts(name: &str, units: u32, parts: u16) -> ClusterNode {
    let offer = Offer { units, sharing: Sharing::Parts(parts), ..Offer::whole(0) };
    ClusterNode { offer, ..cluster_node(name, 0) }
}

fn sliced(name: &str, units: u32) -> ClusterNode {
    let offer = Offer { resource: "nvidia.com/mig-1g.10gb".into(), units, slices: true, ..Offer::whole(0) };
    ClusterNode { sku: Some(Sku::parse("H100-MIG-1g.10gb").unwrap()), offer, ..cluster_node(name, 0) }
}

fn put(table: &mut Table, node: ClusterNode, pods: NodePods) {
    table.kubernetes_changed(vec![(node, pods)], &[], MonotonicMs(0));
}

/// What devices do, and what is left of those that are given out in part.
fn seen(table: &Table) -> (Vec<DeviceState>, Vec<u16>) {
    let columns = table.columns();
    (columns.device_state, columns.left_milli)
}

fn takes(table: &mut Table, workload: u128, members: u32, gpu_milli: u64) -> Result<(), String> {
    let Order::Launch(mut order) = launch(workload, members, 1) else { unreachable!() };
    order.placement[0].each.gpu_milli = gpu_milli;
    order.placement[0].sku = table.columns().skus.first().cloned();
    table.reserve(&order).map(drop)
}

#[test]
fn devices_are_counted_as_devices_and_a_member_takes_a_part() {
    let mut table = Table::default();
    put(&mut table, in_parts("a", 12, 4), others(0, 0));
    let columns = table.columns();
    assert_eq!((columns.devices[0], columns.sharing[0], columns.source[0]), (3, Sharing::Parts(4), Source::Label));
    takes(&mut table, 1, 2, 100).unwrap();
    assert_eq!(seen(&table), (vec![Held, Free, Free], vec![500, 0, 0]), "a part each, however little they ask for");
    let refused = takes(&mut table, 2, 1, 1_000).unwrap_err();
    assert_eq!(refused, "node a gives out its GPUs in 4 parts each, and a member of group workers needs 1");
    let refused = takes(&mut table, 2, 1, 251).unwrap_err();
    assert_eq!(refused, "node a gives out its GPUs in 4 parts each, and a member of group workers needs 0.251");
    takes(&mut table, 3, 10, 250).unwrap();
    assert_eq!(seen(&table), (vec![Held; 3], vec![0; 3]));
    let refused = takes(&mut table, 4, 1, 1).unwrap_err();
    assert_eq!(refused, "node a: a member of group workers needs 0.001 GPUs, and 0 are free");
    table.release(attempt(1));
    assert_eq!(seen(&table), (vec![Held; 3], vec![500, 0, 0]));
}

#[test]
fn a_pod_of_others_takes_a_part_for_each_unit_and_what_is_not_offered_is_out() {
    let mut table = Table::default();
    put(&mut table, in_parts("a", 12, 4), others(0, 5));
    assert_eq!(seen(&table), (vec![Free, Held, Foreign], vec![0, 750, 0]));
    takes(&mut table, 1, 7, 250).unwrap();
    assert!(takes(&mut table, 2, 1, 250).is_err());
    let before = table.generation();
    put(&mut table, in_parts("a", 12, 4), others(0, 1));
    assert_eq!(table.generation(), before, "a delta says it");
    assert_eq!(seen(&table), (vec![Held, Held, Held], vec![0, 250, 750]));
    // The device plugin found a device to be broken: all of its units are gone.
    put(&mut table, in_parts("a", 8, 4), others(0, 0));
    assert_eq!(table.columns().devices, [2]);
    assert_eq!(seen(&table), (vec![Held, Held], vec![0, 250]));
    // With a node role there are as many devices as it reads.
    let read = || (0..3).map(|i| device(i, Some(0))).collect();
    table.node_frame(&frame("a", 1, true, read()), MonotonicMs(0));
    assert_eq!(seen(&table), (vec![Held, Held, Foreign], vec![0, 250, 0]));
}

#[test]
fn pods_of_an_attempt_count_where_they_are_also_where_that_is_not_where_they_should_be() {
    let mut table = Table::default();
    let mut pods = others(0, 0);
    pods.attempts.insert(attempt(1), Resources { gpu_milli: 3_000, ..Resources::ZERO });
    put(&mut table, in_parts("a", 4, 4), others(0, 0));
    put(&mut table, in_parts("b", 4, 4), pods.clone());
    assert_eq!(seen(&table), (vec![Free, Held], vec![0, 250]), "nobody knows the attempt");
    takes(&mut table, 1, 3, 250).unwrap();
    assert_eq!(seen(&table), (vec![Held, Held], vec![250, 250]), "its pods were to be on a, and are on b");
    put(&mut table, in_parts("b", 4, 4), others(0, 0));
    put(&mut table, in_parts("a", 4, 4), pods);
    assert_eq!(seen(&table), (vec![Held, Free], vec![250, 0]), "not twice where they are");
}

#[test]
fn memory_in_use_is_a_ghosts_only_where_nothing_is_given_out() {
    let mut table = Table::default();
    put(&mut table, in_parts("a", 8, 4), others(0, 0));
    let used = (0..2).map(|i| device(i, Some(if i == 1 { 40_000 } else { 0 }))).collect();
    table.node_frame(&frame("a", 1, true, used), MonotonicMs(0));
    assert_eq!(table.columns().source, [Source::Measured]);
    assert_eq!(seen(&table), (vec![Free, Ghost], vec![0, 0]));
    put(&mut table, in_parts("a", 8, 4), others(0, 1));
    assert_eq!(seen(&table), (vec![Free, Held], vec![0, 750]), "it may be that pod's");
}

#[test]
fn slices_are_whole_devices_of_their_own_model_of_which_nothing_is_read() {
    let mut table = Table::default();
    table.node_frame(&frame("a", 1, true, (0..2).map(|i| device(i, Some(60_000))).collect()), MonotonicMs(0));
    assert_eq!((table.columns().skus[0].as_str(), table.columns().devices[0]), ("H100", 2));
    let before = table.generation();
    put(&mut table, sliced("a", 14), others(0, 3));
    let columns = table.columns();
    assert_eq!((columns.skus[0].as_str(), columns.devices[0]), ("H100-MIG-1g.10gb", 14));
    assert_eq!((columns.source[0], columns.sharing[0]), (Source::Label, Sharing::Whole));
    assert_eq!(columns.device_state, [[Free; 11].as_slice(), &[Foreign; 3]].concat());
    assert!(table.generation() > before, "only a snapshot can say it");
    takes(&mut table, 1, 2, 4_000).unwrap();
    assert!(takes(&mut table, 2, 1, 500).is_err(), "slices are whole");
    // What the node role says of the GPUs changes nothing, and is not asked for anew each second.
    for sequence in 2..5 {
        let gone = frame("a", sequence, false, vec![device(0, Some(0))]);
        assert_eq!(table.node_frame(&gone, MonotonicMs(0)), super::super::table::FrameOutcome::Joined);
    }
    table.tick(MonotonicMs(super::super::STALE_AFTER_MS + 1_000));
    assert_eq!(table.columns().state, [protocol::capacity::NodeState::Ready]);
    assert_eq!(table.columns().device_state, [[Held; 8].as_slice(), &[Free; 3], &[Foreign; 3]].concat());
    table.release(attempt(1));
    // They are GPUs again: everything is read anew.
    put(&mut table, cluster_node("a", 2), others(0, 0));
    assert_eq!((table.columns().skus[0].as_str(), table.columns().devices[0]), ("H100", 2));
    let gap = table.node_frame(&frame("a", 5, false, vec![]), MonotonicMs(0));
    assert_eq!(gap, super::super::table::FrameOutcome::Gap);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However units are given out, as many are left as there are less those that are taken.
    #[test]
    fn what_is_left_is_what_there_is_less_what_is_taken(
        parts in 1u16..9,
        devices in 1u32..5,
        lost in 0u32..9,
        foreign in 0u64..12,
        asked in prop::collection::vec(1u32..4, 0..8),
    ) {
        let slices = parts == 1;
        let there = u32::from(parts) * devices;
        let offered = there.saturating_sub(lost);
        let node = |units| if slices { sliced("a", units) } else { in_parts("a", units, parts) };
        let mut table = Table::default();
        put(&mut table, node(there), others(0, 0));
        let each = if slices { 1_000 } else { 1_000 / u64::from(parts) };
        let mut held = 0;
        for (workload, members) in (1u128..).zip(asked) {
            let room = u64::from(there) - held >= u64::from(members);
            prop_assert_eq!(takes(&mut table, workload, members, each).is_ok(), room);
            held += if room { u64::from(members) } else { 0 };
        }
        put(&mut table, node(offered), others(0, foreign));
        let (states, left) = seen(&table);
        let unit = u64::from(1_000 / parts);
        let free: u64 = states.iter().zip(&left).map(|(state, left)| match state {
            Free => u64::from(parts),
            _ => u64::from(*left) / unit,
        }).sum();
        prop_assert_eq!(free, u64::from(offered).saturating_sub(held + foreign), "{:?} {:?}", states, left);
        prop_assert!(left.iter().all(|left| u64::from(*left) % unit == 0 && *left < 1_000));
    }
}
