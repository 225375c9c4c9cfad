//! The fleet against a plain model: whatever frames come, it holds what a careful reader of the protocol would.
#![allow(clippy::unwrap_used)]

use engine::plan::FRESH_MS;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use protocol::capacity::*;
use protocol::ids::*;
use protocol::sku::Sku;

use super::*;

fn cluster() -> ClusterName {
    ClusterName::new("here").unwrap()
}

fn snapshot(sequence: u64, devices: &[u16]) -> Snapshot {
    let (nodes, all) = (devices.len(), devices.iter().map(|d| usize::from(*d)).sum());
    Snapshot {
        sequence,
        watermark: CommandNumber(0),
        columns: Columns {
            name: (0..nodes).map(|n| NodeName::new(format!("n{n}")).unwrap()).collect(),
            skus: vec![Sku::parse("H100").unwrap(), Sku::parse("L4").unwrap()],
            sku: (0..nodes).map(|n| (n % 3) as u16).collect(),
            devices: devices.to_vec(),
            source: vec![Source::Declared; nodes],
            sharing: vec![Sharing::Any; nodes],
            cpu_milli: vec![64_000; nodes],
            memory_mib: vec![1_000; nodes],
            state: vec![NodeState::Ready; nodes],
            free_cpu_milli: vec![64_000; nodes],
            free_memory_mib: vec![1_000; nodes],
            device_state: vec![DeviceState::Free; all],
            activity: vec![ACTIVITY_UNKNOWN; all],
            memory_used_mib: vec![MEMORY_UNKNOWN; all],
            left_milli: vec![0; all],
        },
    }
}

fn take(fleet: &mut Fleet, session: u64, frame: CapacityFrame, now: u64) -> Result<(), IntakeError> {
    fleet.intake(&cluster(), session, frame, MonotonicMs(now))
}

fn delta(sequence: u64) -> Delta {
    Delta { sequence, ..Delta::default() }
}

#[test]
fn what_is_left_of_devices_that_shares_hold_reaches_the_planner_and_no_more_than_a_device() {
    let mut fleet = Fleet::default();
    let mut first = snapshot(1, &[2, 4]);
    first.columns.device_state[2] = DeviceState::Held;
    first.columns.left_milli[2] = 750;
    // Of a sick device nothing is left, whatever is said.
    first.columns.device_state[0] = DeviceState::Sick;
    first.columns.left_milli[0] = 500;
    take(&mut fleet, 1, CapacityFrame::Snapshot(first.clone()), 0).unwrap();
    let shares = |fleet: &mut Fleet, at| {
        let nodes = fleet.capacity(MonotonicMs(at)).clusters[&cluster()].nodes.clone();
        nodes.iter().map(|n| (n.free.gpu_milli, n.shares.clone())).collect::<Vec<_>>()
    };
    assert_eq!(shares(&mut fleet, 1), [(1000, vec![]), (3750, vec![750])]);
    let mut d = delta(2);
    d.device_state = Changes { gaps: vec![3], values: vec![DeviceState::Held] };
    d.left_milli = Changes { gaps: vec![2, 0], values: vec![250, 400] };
    take(&mut fleet, 1, CapacityFrame::Delta(d), 2).unwrap();
    assert_eq!(shares(&mut fleet, 3), [(1000, vec![]), (2650, vec![250, 400])]);
    let mut d = delta(3);
    d.left_milli = Changes { gaps: vec![2], values: vec![1000] };
    assert!(take(&mut fleet, 1, CapacityFrame::Delta(d), 4).is_err());
    first.columns.left_milli[2] = 1000;
    assert!(take(&mut fleet, 2, CapacityFrame::Snapshot(first), 5).is_err());
}

#[test]
fn changes_reach_the_planners_view_and_nothing_else_moves() {
    let mut fleet = Fleet::default();
    take(&mut fleet, 1, CapacityFrame::Snapshot(snapshot(1, &[0, 4, 8])), 0).unwrap();
    let before = fleet.capacity(MonotonicMs(5)).clone();
    let mut d = delta(2);
    d.watermark = CommandNumber(9);
    d.device_state =
        Changes { gaps: vec![4, 0, 1], values: vec![DeviceState::Held, DeviceState::Sick, DeviceState::Ghost] };
    d.activity = Changes { gaps: vec![4, 6], values: vec![50, 101] };
    d.free_cpu_milli = Changes { gaps: vec![2], values: vec![1] };
    take(&mut fleet, 1, CapacityFrame::Delta(d), 10).unwrap();
    let view = fleet.capacity(MonotonicMs(15)).clusters[&cluster()].clone();
    assert_eq!((view.sequence, view.watermark, view.age_ms, view.fresh), (2, CommandNumber(9), 5, true));
    assert_eq!(view.nodes[..2], before.clusters[&cluster()].nodes[..2]);
    let node = &view.nodes[2];
    assert_eq!((node.free.cpu_milli, node.free.gpu_milli, node.ghosts, node.sick), (1, 5_000, 1, 1));
    assert_eq!(node.activity_percent, Some(50), "a percentage above 100 is no reading");
    assert_eq!(node.held_activity, Some(50), "what is not held does not count");
    assert_eq!(node.total.gpu_milli, 8_000);
    let mut held = Delta { watermark: CommandNumber(9), ..delta(3) };
    held.device_state = Changes { gaps: vec![6], values: vec![DeviceState::Held] };
    take(&mut fleet, 1, CapacityFrame::Delta(held), 20).unwrap();
    let nodes = |fleet: &mut Fleet| fleet.capacity(MonotonicMs(25)).clusters[&cluster()].nodes.clone();
    assert_eq!(nodes(&mut fleet)[2].held_activity, None, "one that is held has no reading");
    let mut read = Delta { watermark: CommandNumber(9), ..delta(4) };
    read.activity = Changes { gaps: vec![6], values: vec![4] };
    take(&mut fleet, 1, CapacityFrame::Delta(read), 20).unwrap();
    assert_eq!(nodes(&mut fleet)[2].held_activity, Some(54));
    assert_eq!(nodes(&mut fleet)[1].held_activity, None, "nothing is held");
    // The planner uses again what it made of nodes that nobody touched: with a copy at hand, a touch would be seen by another address.
    let copy = nodes(&mut fleet);
    take(&mut fleet, 1, CapacityFrame::Delta(Delta { watermark: CommandNumber(9), ..delta(5) }), 30).unwrap();
    assert_eq!(nodes(&mut fleet).as_ptr(), copy.as_ptr(), "nor does anything move where nothing changed");
}

#[test]
fn a_gap_or_a_row_that_is_not_there_wants_a_snapshot_and_changes_nothing() {
    let mut fleet = Fleet::default();
    let frame = |d| CapacityFrame::Delta(d);
    assert_eq!(take(&mut fleet, 1, frame(delta(1)), 0), Err(IntakeError::SnapshotWanted));
    assert!(fleet.capacity(MonotonicMs(0)).clusters.is_empty());
    take(&mut fleet, 1, CapacityFrame::Snapshot(snapshot(1, &[2])), 0).unwrap();
    let before = fleet.capacity(MonotonicMs(0)).clone();
    assert_eq!(take(&mut fleet, 1, frame(delta(3)), 1), Err(IntakeError::SnapshotWanted));
    assert_eq!(take(&mut fleet, 1, frame(delta(1)), 1), Err(IntakeError::SnapshotWanted));
    let mut far = delta(2);
    far.state = Changes { gaps: vec![0], values: vec![NodeState::Stale] };
    far.activity = Changes { gaps: vec![0, 0, 0], values: vec![1; 3] };
    assert_eq!(take(&mut fleet, 1, frame(far), 1), Err(IntakeError::SnapshotWanted));
    assert_eq!(*fleet.capacity(MonotonicMs(0)), before);
}

#[test]
fn what_no_agent_sends_is_refused_with_its_reason_and_changes_nothing() {
    let mut fleet = Fleet::default();
    take(&mut fleet, 1, CapacityFrame::Snapshot(snapshot(1, &[2])), 0).unwrap();
    let before = fleet.capacity(MonotonicMs(0)).clone();
    let mut reason = |frame| match take(&mut fleet, 1, frame, 1) {
        Err(IntakeError::Malformed { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let mut uneven = delta(2);
    uneven.state = Changes { gaps: vec![0], values: vec![NodeState::Stale] };
    uneven.activity = Changes { gaps: vec![0], values: vec![] };
    assert_eq!(reason(CapacityFrame::Delta(uneven)), "column activity has 1 gaps for 0 values");
    assert_eq!(reason(CapacityFrame::Snapshot(snapshot(1, &[2]))), "a snapshot's sequence 1 is not above 1");
    let broken = |change: &dyn Fn(&mut Columns)| {
        let mut s = snapshot(2, &[2, 2]);
        change(&mut s.columns);
        CapacityFrame::Snapshot(s)
    };
    assert_eq!(reason(broken(&|c| c.devices[0] = 3)), "column device_state has 4 values for 5 devices");
    assert_eq!(reason(broken(&|c| c.source.truncate(1))), "column source has 1 values for 2 nodes");
    assert_eq!(reason(broken(&|c| c.sku[0] = 3)), "model 3 of 2 is named");
    assert_eq!(reason(broken(&|c| c.name[1] = c.name[0].clone())), "node n0 occurs twice");
    assert_eq!(*fleet.capacity(MonotonicMs(0)), before);
}

#[test]
fn an_ended_session_leaves_its_capacity_to_age_until_a_new_snapshot() {
    let mut fleet = Fleet::default();
    take(&mut fleet, 1, CapacityFrame::Snapshot(snapshot(7, &[2])), 0).unwrap();
    fleet.forget_session(&cluster(), 1);
    let view = &fleet.capacity(MonotonicMs(FRESH_MS)).clusters[&cluster()];
    assert!(view.fresh && view.nodes.len() == 1);
    assert!(!fleet.capacity(MonotonicMs(FRESH_MS + 1)).clusters[&cluster()].fresh);
    assert_eq!(
        take(&mut fleet, 1, CapacityFrame::Delta(delta(8)), 1),
        Err(IntakeError::Over { session: 1, current: 1 })
    );
    assert_eq!(take(&mut fleet, 2, CapacityFrame::Delta(delta(8)), 1), Err(IntakeError::SnapshotWanted));
    take(&mut fleet, 2, CapacityFrame::Snapshot(snapshot(1, &[2, 2])), 20_000).unwrap();
    let view = &fleet.capacity(MonotonicMs(20_000)).clusters[&cluster()];
    assert!(view.fresh && view.nodes.len() == 2 && view.sequence == 1);
    fleet.forget_session(&cluster(), 1);
    take(&mut fleet, 2, CapacityFrame::Delta(delta(2)), 20_001).unwrap();
    let late = take(&mut fleet, 1, CapacityFrame::Snapshot(snapshot(9, &[1])), 20_002);
    assert_eq!(late, Err(IntakeError::Over { session: 1, current: 2 }), "an older session's word is over");
}

#[test]
fn nodes_show_each_device_and_never_take_unknown_for_zero() {
    let mut fleet = Fleet::default();
    take(&mut fleet, 1, CapacityFrame::Snapshot(snapshot(1, &[0, 4, 8, 0])), 0).unwrap();
    let mut d = delta(2);
    d.device_state = Changes { gaps: vec![0, 3], values: vec![DeviceState::Held, DeviceState::Ghost] };
    d.activity = Changes { gaps: vec![0], values: vec![80] };
    take(&mut fleet, 1, CapacityFrame::Delta(d), 0).unwrap();
    let nodes = fleet.nodes(&cluster(), usize::MAX);
    assert_eq!(nodes[1].devices[0].state, DeviceState::Held);
    assert_eq!(nodes[1].devices[0].activity_percent, Some(80));
    assert_eq!(fleet.nodes(&cluster(), 1).len(), 1);
    assert_eq!((nodes[1].devices[1].activity_percent, nodes[1].devices[1].memory_used_mib), (None, None));
}

/// Changes of distinct rows in growing order.
fn changes<T: std::fmt::Debug + Clone + 'static>(
    rows: usize,
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Vec<(usize, T)>> {
    prop::collection::btree_map(0..rows, value, 0..rows.min(8)).prop_map(|m| m.into_iter().collect())
}

fn on_wire<T: Clone>(rows: &[(usize, T)]) -> Changes<T> {
    let mut next = 0;
    let mut wire = Changes::default();
    for (row, value) in rows {
        wire.gaps.push((row - next) as u32);
        wire.values.push(value.clone());
        next = row + 1;
    }
    wire
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_view_kept_step_by_step_equals_the_view_of_the_columns_as_they_should_be(
        devices in prop::collection::vec(0u16..5, 1..70),
        seed in any::<u64>(),
        steps in 1usize..12,
    ) {
        let total: usize = devices.iter().map(|d| usize::from(*d)).sum();
        let mut runner = proptest::test_runner::TestRunner::new_with_rng(
            ProptestConfig::default(),
            proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4)),
        );
        let mut expected = snapshot(1, &devices);
        let mut fleet = Fleet::default();
        take(&mut fleet, 1, CapacityFrame::Snapshot(expected.clone()), 0).unwrap();
        let mut draw_device = |of: usize| {
            let states = prop_oneof![Just(DeviceState::Free), Just(DeviceState::Held), Just(DeviceState::Ghost), Just(DeviceState::Sick)];
            (
                changes(of.max(1), states).new_tree(&mut runner).unwrap().current(),
                changes(of.max(1), 0u8..=255).new_tree(&mut runner).unwrap().current(),
                changes(of.max(1), any::<u32>()).new_tree(&mut runner).unwrap().current(),
                changes(devices.len(), 0u64..64_000).new_tree(&mut runner).unwrap().current(),
            )
        };
        for step in 0..steps as u64 {
            let (mut states, mut activity, mut memory, cpu) = draw_device(total);
            if total == 0 {
                (states, activity, memory) = (vec![], vec![], vec![]);
            }
            let c = &mut expected.columns;
            states.iter().for_each(|(r, v)| c.device_state[*r] = *v);
            activity.iter().for_each(|(r, v)| c.activity[*r] = *v);
            let mut moved = vec![];
            for (r, v) in &memory {
                moved.push((*r, v.wrapping_sub(c.memory_used_mib[*r]).cast_signed()));
                c.memory_used_mib[*r] = *v;
            }
            cpu.iter().for_each(|(r, v)| c.free_cpu_milli[*r] = *v);
            expected.sequence = step + 2;
            let d = Delta {
                sequence: step + 2,
                watermark: CommandNumber(0),
                device_state: on_wire(&states),
                activity: on_wire(&activity),
                memory_moved_mib: on_wire(&moved),
                free_cpu_milli: on_wire(&cpu),
                ..Delta::default()
            };
            take(&mut fleet, 1, CapacityFrame::Delta(d), 0).unwrap();
            // Not after each: marks must add up over several frames.
            if step % 2 == 0 {
                fleet.capacity(MonotonicMs(0));
            }
        }
        let mut fresh = Fleet::default();
        take(&mut fresh, 1, CapacityFrame::Snapshot(expected), 0).unwrap();
        prop_assert_eq!(fleet.capacity(MonotonicMs(0)), fresh.capacity(MonotonicMs(0)));
        prop_assert_eq!(fleet.nodes(&cluster(), usize::MAX), fresh.nodes(&cluster(), usize::MAX));
    }
}
