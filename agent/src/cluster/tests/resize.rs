//! Members come and go: what comes holds its devices at once, what goes until the runtime has seen it gone; all of it is known again after
//! a crash.

use super::*;

fn resize(workload: u128, a: u32, b: u32) -> Order {
    let Order::Launch(order) = launch(workload, a, 2) else { unreachable!() };
    let mut placement = order.placement;
    placement[0].nodes.push(NodeShare { node: node("b"), members: b });
    placement[0].nodes.retain(|share| share.members > 0);
    Order::Resize(Box::new(ResizeOrder { attempt: attempt(workload), placement, grace_ms: 1_000 }))
}

/// Held devices of a node.
fn held(agent: &Agent, place: usize) -> usize {
    let columns = agent.table().columns();
    let devices = columns.device_state[place * 8..place * 8 + 8].iter();
    devices.filter(|state| **state == protocol::capacity::DeviceState::Held).count()
}

type Members = (Vec<(u32, String)>, Vec<u32>);

/// What the runtime is told: ranks with their nodes, and the ranks that leave.
fn told(out: &[Output]) -> Option<Members> {
    out.iter().find_map(|o| match o {
        Output::Resize { assignment, leaving, .. } => Some((
            assignment.members.iter().map(|m| (m.rank, m.node.to_string())).collect(),
            leaving.iter().map(|m| m.rank).collect(),
        )),
        _ => None,
    })
}

fn gone(ranks: &[u32]) -> Input {
    let group = GroupName::new("workers").unwrap();
    Input::Members { attempt: attempt(1), gone: ranks.iter().map(|rank| (group.clone(), *rank)).collect() }
}

fn on(ranks: &[(u32, &str)]) -> Vec<(u32, String)> {
    ranks.iter().map(|(rank, node)| (*rank, (*node).to_owned())).collect()
}

fn last(out: &[Output]) -> Resized {
    reports(out).last().unwrap().1.resized.clone().unwrap()
}

#[test]
fn what_comes_is_held_at_once_and_what_goes_until_it_is_gone() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    connect(&mut agent, 0, R1, 3, 60_000);
    step(&mut agent, 1, command(R1, 1, 3, launch(1, 2, 2)));
    step(&mut agent, 2, Input::Runtime { attempt: attempt(1), state: AttemptState::Running });
    let out = step(&mut agent, 3, command(R1, 2, 3, resize(1, 2, 2)));
    assert_eq!(told(&out), Some((on(&[(0, "a"), (1, "a"), (2, "b"), (3, "b")]), vec![])));
    assert_eq!((held(&agent, 0), held(&agent, 1)), (4, 4));
    let word = last(&out);
    assert_eq!((word.number, word.settled, word.missing), (CommandNumber(2), true, vec![]));
    // The same number again is answered and changes nothing.
    let out = step(&mut agent, 4, command(R1, 2, 3, resize(1, 2, 2)));
    assert!(told(&out).is_none() && last(&out).number == CommandNumber(2));

    let out = step(&mut agent, 5, command(R1, 3, 3, resize(1, 2, 1)));
    assert_eq!(told(&out), Some((on(&[(0, "a"), (1, "a"), (2, "b")]), vec![3])));
    assert_eq!(held(&agent, 1), 4, "it holds its devices until it is gone");
    assert!(!last(&out).settled);
    // One that comes meanwhile has a rank of its own.
    let out = step(&mut agent, 6, command(R1, 4, 3, resize(1, 2, 2)));
    assert_eq!(told(&out), Some((on(&[(0, "a"), (1, "a"), (2, "b"), (4, "b")]), vec![3])));
    assert_eq!(held(&agent, 1), 6);
    let out = step(&mut agent, 7, gone(&[3]));
    assert!(last(&out).settled);
    assert_eq!(held(&agent, 1), 4);
    assert!(reports(&step(&mut agent, 8, gone(&[3]))).is_empty(), "said twice, heard once");
}

#[test]
fn a_crash_loses_no_member_and_the_newest_size_is_said_again() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    connect(&mut agent, 0, R1, 3, 60_000);
    step(&mut agent, 1, command(R1, 1, 3, launch(1, 2, 2)));
    step(&mut agent, 2, Input::Runtime { attempt: attempt(1), state: AttemptState::Running });
    step(&mut agent, 3, command(R1, 2, 3, resize(1, 2, 2)));
    step(&mut agent, 4, command(R1, 3, 3, resize(1, 2, 1)));
    let (mut agent, out) = open(&disk.crash(false), vec![(attempt(1), AttemptState::Running)]);
    assert_eq!(told(&out), Some((on(&[(0, "a"), (1, "a"), (2, "b")]), vec![3])));
    assert_eq!((held(&agent, 0), held(&agent, 1)), (4, 4));
    connect(&mut agent, 5, R1, 3, 60_000);
    assert!(last(&step(&mut agent, 6, gone(&[3]))).settled);
    assert_eq!(held(&agent, 1), 2);
}

#[test]
fn what_finds_no_room_is_missing_and_holds_nothing() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    connect(&mut agent, 0, R1, 3, 60_000);
    step(&mut agent, 1, command(R1, 1, 3, launch(1, 2, 2)));
    step(&mut agent, 2, Input::Runtime { attempt: attempt(1), state: AttemptState::Running });
    let word = last(&step(&mut agent, 3, command(R1, 2, 3, resize(1, 2, 5))));
    assert_eq!(word.missing[0].nodes, [NodeShare { node: node("b"), members: 5 }]);
    assert_eq!(held(&agent, 1), 0);
}

/// Two members on each node, and the one of rank 2 ended by itself: told with the revision that is returned.
fn one_ends_by_itself(agent: &mut Agent) -> u64 {
    connect(agent, 0, R1, 3, 60_000);
    step(agent, 1, command(R1, 1, 3, launch(1, 2, 2)));
    step(agent, 2, Input::Runtime { attempt: attempt(1), state: AttemptState::Running });
    step(agent, 3, command(R1, 2, 3, resize(1, 2, 2)));
    let out = step(agent, 4, gone(&[2]));
    let word = last(&out);
    assert_eq!((word.settled, word.missing[0].nodes[0].members), (true, 1));
    reports(&out).last().unwrap().1.revision
}

fn committed(revision: u64) -> Input {
    let message = CoordinatorMessage::ReportCommitted { attempt: attempt(1), revision };
    Input::FromCoordinator { replica: R1, message }
}

#[test]
fn what_ends_by_itself_holds_its_devices_until_that_is_on_record() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    let revision = one_ends_by_itself(&mut agent);
    assert_eq!(held(&agent, 1), 4);
    step(&mut agent, 5, committed(revision - 1));
    assert_eq!(held(&agent, 1), 4, "that was an earlier word");
    // Whether it is on record is asked again after a restart.
    let (mut agent, _) = open(&disk.crash(false), vec![(attempt(1), AttemptState::Running)]);
    assert_eq!(held(&agent, 1), 4);
    connect(&mut agent, 6, R1, 3, 60_000);
    step(&mut agent, 7, committed(revision));
    assert_eq!((held(&agent, 0), held(&agent, 1)), (4, 2));
}

#[test]
fn an_order_that_was_given_without_knowing_brings_it_again() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    one_ends_by_itself(&mut agent);
    let out = step(&mut agent, 5, command(R1, 3, 3, resize(1, 1, 2)));
    assert_eq!(told(&out), Some((on(&[(0, "a"), (3, "b"), (4, "b")]), vec![1])));
    let word = last(&out);
    assert_eq!((word.number, word.missing), (CommandNumber(3), vec![]));
    assert_eq!((held(&agent, 0), held(&agent, 1)), (4, 4));
    // Or it is not wanted any more, and then holds nothing.
    step(&mut agent, 6, gone(&[3]));
    step(&mut agent, 7, command(R1, 4, 3, resize(1, 1, 1)));
    assert_eq!((held(&agent, 0), held(&agent, 1)), (4, 2));
}

#[test]
fn nothing_comes_to_an_attempt_that_is_ending_or_without_a_lease() {
    let disk = Disk::default();
    let (mut agent, _) = open(&disk, vec![]);
    connect(&mut agent, 0, R1, 3, 1_000);
    step(&mut agent, 1, command(R1, 1, 3, launch(1, 2, 2)));
    step(&mut agent, 2, Input::Runtime { attempt: attempt(1), state: AttemptState::Running });
    assert!(told(&step(&mut agent, 2_000, command(R1, 2, 3, resize(1, 2, 2)))).is_none(), "the lease is over");
    connect(&mut agent, 2_001, R1, 3, 1_000);
    step(&mut agent, 2_002, command(R1, 2, 3, stop(1)));
    assert!(told(&step(&mut agent, 2_003, command(R1, 3, 3, resize(1, 2, 2)))).is_none());
    assert_eq!(held(&agent, 1), 0);
}
