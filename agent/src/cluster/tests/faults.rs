//! GPUs that fail under attempts: whose end they explain, and whose they don't.

use protocol::node::*;

use super::holders::{Scene, held, known};
use super::table::{device, frame};
use super::*;

fn with(health: DeviceHealth, index: u32) -> DeviceReport {
    DeviceReport { health, ..device(index, Some(0)) }
}

fn sick(index: u32, cause: &str) -> DeviceReport {
    with(DeviceHealth::Sick { cause: cause.into() }, index)
}

fn failed(class: FailureClass) -> AttemptState {
    AttemptState::Failed { class, message: "it exited with 1".into(), exit_code: Some(1) }
}

/// What becomes of an attempt's own failure; none where it stays what it is.
fn cause(table: &Table, workload: u128) -> Option<String> {
    match table.explained(attempt(workload), failed(FailureClass::User)) {
        AttemptState::Failed { class: FailureClass::Infrastructure, message, exit_code: Some(1) } => {
            let cause = message.strip_prefix("while it ran these failed: ").unwrap();
            Some(cause.strip_suffix("; it exited with 1").unwrap().to_owned())
        }
        state => {
            assert_eq!(state, failed(FailureClass::User));
            None
        }
    }
}

/// Node a with so many GPUs that are well, and an attempt on each of the first two.
fn table(gpus: u32) -> Table {
    let mut table = Table::new(&config().nodes);
    table.node_frame(&frame("a", 1, true, (0..gpus).map(|i| device(i, Some(0))).collect()), MonotonicMs(0));
    for workload in [1, 2] {
        let Order::Launch(order) = launch(workload, 1, 1) else { unreachable!() };
        table.reserve(&order).unwrap();
    }
    table
}

#[test]
fn a_fault_explains_the_end_of_whoever_had_the_gpu() {
    let mut table = table(3);
    table.node_frame(&frame("a", 2, false, vec![sick(0, "XID 79: GPU has fallen off the bus")]), MonotonicMs(0));
    assert_eq!(cause(&table, 1).unwrap(), "GPU 0 of node a (XID 79: GPU has fallen off the bus)");
    assert_eq!(cause(&table, 2), None, "its GPU is well");
    assert_eq!(cause(&table, 3), None, "it has none");
    let kept = [AttemptState::Succeeded, AttemptState::Stopped, AttemptState::Running, failed(FailureClass::Capacity)];
    for state in kept {
        assert_eq!(table.explained(attempt(1), state.clone()), state);
    }
    let AttemptState::Failed { message, .. } = table.explained(attempt(1), failed(FailureClass::Infrastructure)) else {
        unreachable!()
    };
    assert!(message.contains("XID 79"), "{message}");
    // Said once, however often it is read, and also where more is known of it later.
    table.node_frame(&frame("a", 3, false, vec![sick(0, "XID 79: GPU has fallen off the bus; more")]), MonotonicMs(0));
    assert_eq!(cause(&table, 1).unwrap(), "GPU 0 of node a (XID 79: GPU has fallen off the bus)");
    // Whoever has it next begins after it.
    table.release(attempt(1));
    assert_eq!(cause(&table, 1), None);
}

#[test]
fn what_was_out_before_or_ends_no_program_explains_nothing() {
    let mut table = Table::new(&config().nodes);
    let Order::Launch(order) = launch(1, 1, 1) else { unreachable!() };
    table.reserve(&order).unwrap();
    table.node_frame(&frame("a", 1, true, vec![sick(0, "XID 48")]), MonotonicMs(0));
    assert_eq!(cause(&table, 1), None, "nobody knows since when");
    table.node_frame(&frame("a", 2, false, vec![device(0, Some(0))]), MonotonicMs(0));
    table.node_frame(&frame("a", 3, false, vec![sick(0, "hardware thermal slowdown")]), MonotonicMs(0));
    assert_eq!(cause(&table, 1), None, "heat slows it down");
    let hot = sick(0, "XID 48: double-bit ECC error; hardware thermal slowdown");
    table.node_frame(&frame("a", 4, false, vec![hot]), MonotonicMs(0));
    assert_eq!(cause(&table, 1).unwrap(), "GPU 0 of node a (XID 48: double-bit ECC error)");
    // It was well in between: that is another fault.
    table.node_frame(&frame("a", 5, false, vec![device(0, Some(0))]), MonotonicMs(0));
    let lost = with(DeviceHealth::Lost { cause: "no such device".into() }, 0);
    table.node_frame(&frame("a", 6, false, vec![lost]), MonotonicMs(0));
    let both = "GPU 0 of node a (XID 48: double-bit ECC error), GPU 0 of node a (it is lost: no such device)";
    assert_eq!(cause(&table, 1).unwrap(), both);
}

#[test]
fn a_gang_names_some_and_counts_the_rest() {
    let mut table = Table::new(&config().nodes);
    table.node_frame(&frame("a", 1, true, (0..8).map(|i| device(i, Some(0))).collect()), MonotonicMs(0));
    let Order::Launch(order) = launch(1, 1, 8) else { unreachable!() };
    table.reserve(&order).unwrap();
    table.node_frame(&frame("a", 2, false, (0..8).map(|i| sick(i, "XID 74: NVLink error")).collect()), MonotonicMs(0));
    let said = cause(&table, 1).unwrap();
    assert!(said.ends_with("GPU 3 of node a (XID 74: NVLink error), 4 more"), "{said}");
}

#[test]
fn in_kubernetes_the_kubelet_says_whose_it_was() {
    let mut s = Scene::new(4, &[]);
    assert!(s.launch(1, 1, 1_000) && s.launch(2, 1, 1_000));
    let pods = [("one", Some(1), 1), ("two", Some(2), 1), ("theirs", None, 1)];
    s.pods(4, &pods);
    // The journal gave them devices 0 and 1.
    s.holders(known(&[held("one", &["GPU-3"]), held("two", &["GPU-2"]), held("theirs", &["GPU-0"])]));
    // Its pod is gone with the very frame that tells of the fault.
    let gone =
        NodeFrame { holders: known(&[held("two", &["GPU-2"])]), ..frame("a", 3, false, vec![sick(3, "XID 79")]) };
    s.table.node_frame(&gone, MonotonicMs(0));
    assert_eq!(cause(&s.table, 1).unwrap(), "GPU 3 of node a (XID 79)");
    assert_eq!(cause(&s.table, 2), None);
    s.table.node_frame(&frame("a", 4, false, vec![sick(0, "XID 79")]), MonotonicMs(0));
    assert_eq!(cause(&s.table, 2), None, "the pod of somebody else had it, whatever the journal says");
}

#[test]
fn where_no_kubelet_says_it_any_gpu_of_the_node_may_have_been_its() {
    let mut s = Scene::new(4, &[]);
    assert!(s.launch(1, 1, 1_000) && s.launch(2, 1, 0));
    s.pods(4, &[("one", Some(1), 1)]);
    s.table.node_frame(&frame("a", 2, false, vec![sick(3, "XID 79")]), MonotonicMs(0));
    assert_eq!(cause(&s.table, 1).unwrap(), "GPU 3 of node a (XID 79)");
    assert_eq!(cause(&s.table, 2), None, "it has no GPU");
}

#[test]
fn the_coordinators_are_told_so() {
    let (mut agent, _) = open(&Disk::default(), vec![]);
    connect(&mut agent, 0, R1, 1, 60_000);
    let session = NodeSession(1);
    let node = |input| Input::Node { session, input };
    step(&mut agent, 1, node(NodeInput::Opened { node: super::node("a") }));
    step(&mut agent, 1, node(NodeInput::Frame(frame("a", 1, true, vec![device(0, Some(0))]))));
    let out = step(&mut agent, 2, command(R1, 1, 1, launch(1, 1, 1)));
    assert_eq!(starts(&out), [attempt(1)]);
    step(&mut agent, 3, node(NodeInput::Frame(frame("a", 2, false, vec![sick(0, "XID 79")]))));
    let state = failed(FailureClass::User);
    let out = step(&mut agent, 4, Input::Runtime { attempt: attempt(1), state });
    let [(_, report)] = &reports(&out)[..] else { panic!("{out:?}") };
    let AttemptState::Failed { class, message, .. } = &report.state else { panic!("{report:?}") };
    assert_eq!(*class, FailureClass::Infrastructure);
    assert_eq!(message, "while it ran these failed: GPU 0 of node a (XID 79); it exited with 1");
}

/// A device after so many XIDs, of which these are the last.
fn after(index: u32, count: u64, last: &[u64]) -> DeviceReport {
    DeviceReport { xids: Xids { count, last: last.to_vec() }, ..device(index, Some(0)) }
}

#[test]
fn xids_of_programs_are_named_and_stay_the_programs() {
    let mut table = Table::new(&config().nodes);
    // What was told before the agent came is nobody's.
    table.node_frame(&frame("a", 1, true, vec![after(0, 2, &[13, 31]), device(1, Some(0))]), MonotonicMs(0));
    for workload in [1, 2] {
        let Order::Launch(order) = launch(workload, 1, 1) else { unreachable!() };
        table.reserve(&order).unwrap();
    }
    let message =
        |table: &Table, workload: u128, class: FailureClass| match table.explained(attempt(workload), failed(class)) {
            AttemptState::Failed { class: same, message, exit_code: Some(1) } if same == class => message,
            state => panic!("{state:?}"),
        };
    assert_eq!(message(&table, 1, FailureClass::User), "it exited with 1");
    table.node_frame(&frame("a", 2, false, vec![after(0, 5, &[13, 31, 31, 45, 31])]), MonotonicMs(0));
    let told = "GPU 0 of node a (XID 31: GPU memory page fault), GPU 0 of node a (XID 45: preemptive cleanup after earlier errors)";
    for class in [FailureClass::User, FailureClass::Infrastructure] {
        assert_eq!(message(&table, 1, class), format!("while it ran the driver told of: {told}; it exited with 1"));
    }
    assert_eq!(message(&table, 2, FailureClass::User), "it exited with 1", "its GPU had none");
    assert_eq!(table.explained(attempt(1), AttemptState::Succeeded), AttemptState::Succeeded);
    // A node role that was started again counts anew.
    table.node_frame(&frame("a", 1, true, vec![device(0, Some(0)), after(1, 1, &[9999])]), MonotonicMs(0));
    let said = "while it ran the driver told of: GPU 1 of node a (XID 9999); it exited with 1";
    assert_eq!(message(&table, 2, FailureClass::User), said);
    // With a fault of the GPU itself it is the cluster's, and both are said.
    let both =
        DeviceReport { health: sick(1, "XID 79: GPU has fallen off the bus").health, ..after(1, 3, &[9999, 43, 79]) };
    table.node_frame(&frame("a", 2, false, vec![both]), MonotonicMs(0));
    let AttemptState::Failed { class: FailureClass::Infrastructure, message, .. } =
        table.explained(attempt(2), failed(FailureClass::User))
    else {
        panic!("its GPU failed")
    };
    assert_eq!(
        message,
        "while it ran these failed: GPU 1 of node a (XID 79: GPU has fallen off the bus); while it ran the driver told of: GPU 1 of \
         node a (XID 9999), GPU 1 of node a (XID 43: GPU stopped processing of a program); it exited with 1"
    );
}
