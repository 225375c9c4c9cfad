//! The table: what a node's readings make of its devices.

use protocol::capacity::*;
use protocol::node::*;

use super::super::table::FrameOutcome;
use super::*;

pub fn device(index: u32, memory: Option<u64>) -> DeviceReport {
    DeviceReport {
        index,
        uuid: format!("GPU-{index}"),
        sku: Sku::parse("H100").unwrap(),
        mig: Some(false),
        slices: vec![],
        activity: Some(Activity { percent: 40, source: ActivitySource::GpmSm }),
        memory_total_mib: Some(81_559),
        memory_used_mib: memory,
        processes: Some(vec![]),
        temperature_c: None,
        power_mw: None,
        health: DeviceHealth::Ok,
        xids: Xids::default(),
    }
}

pub fn frame(name: &str, sequence: u64, full: bool, devices: Vec<DeviceReport>) -> NodeFrame {
    let driver = DriverState::Ready { version: "580".into() };
    NodeFrame { node: node(name), sequence, full, at: UNIX, driver, devices, holders: None }
}

#[test]
fn a_device_in_use_that_no_attempt_holds_is_a_ghost_and_the_drivers_own_memory_is_not() {
    let mut table = Table::new(&config().nodes);
    let mut sick = device(2, Some(480));
    sick.health = DeviceHealth::Sick { cause: "XID 79".into() };
    let mut unread = device(3, None);
    unread.processes = Some(vec![GpuProcess { pid: 7, memory_mib: None }]);
    let mut mig = device(4, Some(0));
    mig.mig = Some(true);
    let devices = vec![device(0, Some(480)), device(1, Some(513)), sick, unread, mig];
    table.node_frame(&frame("a", 1, true, devices), MonotonicMs(0));
    let columns = table.columns();
    assert_eq!((columns.devices[0], columns.source[0], columns.source[1]), (5, Source::Measured, Source::Declared));
    use DeviceState::*;
    assert_eq!(columns.device_state[..5], [Free, Ghost, Sick, Ghost, Free]);
    assert_eq!(columns.activity[3..5], [40, ACTIVITY_UNKNOWN]);
    assert_eq!(columns.memory_used_mib[3], MEMORY_UNKNOWN);

    let Order::Launch(order) = launch(1, 2, 1) else { unreachable!() };
    let given = table.reserve(&order).unwrap();
    assert_eq!(given.members.iter().map(|m| m.devices[0]).collect::<Vec<_>>(), [0, 4], "only free ones are given");
    // What it uses is its own now.
    table.node_frame(&frame("a", 2, false, vec![device(0, Some(70_000))]), MonotonicMs(0));
    assert_eq!(table.columns().device_state[0], Held);
    table.release(attempt(1));
    assert_eq!(table.columns().device_state[0], Ghost, "memory that stays behind is nobody's");
}

#[test]
fn a_node_is_stale_after_five_seconds_and_ready_with_its_next_frame() {
    let mut table = Table::new(&config().nodes);
    table.node_frame(&frame("a", 1, true, vec![device(0, Some(0))]), MonotonicMs(100));
    table.tick(MonotonicMs(5_100));
    assert_eq!(table.columns().state[0], NodeState::Ready);
    table.tick(MonotonicMs(5_101));
    assert_eq!(table.columns().state, [NodeState::Stale, NodeState::Ready], "a declared node is never stale");
    table.node_frame(&frame("a", 2, false, vec![]), MonotonicMs(6_000));
    assert_eq!(table.columns().state[0], NodeState::Ready);
}

#[test]
fn a_gap_takes_nothing_and_asks_for_a_full_frame() {
    let mut table = Table::new(&config().nodes);
    table.node_frame(&frame("a", 1, true, vec![device(0, Some(0))]), MonotonicMs(0));
    let gap = frame("a", 3, false, vec![device(0, Some(900))]);
    assert_eq!(table.node_frame(&gap, MonotonicMs(1)), FrameOutcome::Gap);
    assert_eq!(table.columns().memory_used_mib[0], 0);
    assert_eq!(table.node_frame(&frame("new", 2, false, vec![]), MonotonicMs(1)), FrameOutcome::Gap);
    assert_eq!(table.nodes(), 2);
    // The highest number has none after it.
    table.node_frame(&frame("a", u64::MAX, true, vec![]), MonotonicMs(2));
    assert_eq!(table.node_frame(&frame("a", 0, false, vec![]), MonotonicMs(3)), FrameOutcome::Gap);
}

#[test]
fn without_a_driver_nothing_is_known_and_nothing_is_placed() {
    let mut table = Table::new(&config().nodes);
    table.node_frame(&frame("a", 1, true, vec![device(0, Some(0)), device(1, Some(0))]), MonotonicMs(0));
    let mut gone = frame("a", 2, false, vec![]);
    gone.driver = DriverState::Missing { cause: "no libnvidia-ml.so".into() };
    table.node_frame(&gone, MonotonicMs(1));
    let columns = table.columns();
    assert_eq!(columns.device_state[..2], [DeviceState::Sick; 2]);
    assert_eq!(columns.activity[..2], [ACTIVITY_UNKNOWN; 2]);
    let Order::Launch(order) = launch(1, 1, 1) else { unreachable!() };
    assert_eq!(table.reserve(&order), Err("node a: a member of group workers needs 1 GPUs, and 0 are free".to_owned()));
}

#[test]
fn wrong_frames_and_orders_take_no_memory_and_break_nothing() {
    let mut table = Table::new(&config().nodes);
    table.node_frame(&frame("a", 1, true, vec![device(u32::MAX, Some(1)), device(5_000, Some(1))]), MonotonicMs(0));
    assert_eq!(table.columns().devices[0], 0);
    let Order::Launch(mut order) = launch(1, u32::MAX, 0) else { unreachable!() };
    assert!(table.reserve(&order).unwrap_err().contains("members"));
    order.placement[0].nodes[0] = NodeShare { node: node("nowhere"), members: 1 };
    assert_eq!(table.reserve(&order), Err("node nowhere is not in this cluster's table".into()));
    let Order::Launch(mut order) = launch(1, 1, 1) else { unreachable!() };
    order.placement[0].nodes[0].node = node("b");
    order.placement[0].sku = Some(Sku::parse("L4").unwrap());
    assert_eq!(table.reserve(&order), Err("node b has H100, and group workers is placed on L4".into()));
}
