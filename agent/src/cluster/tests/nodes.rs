//! Sessions of node roles: a node speaks for itself alone, the newer of two wins, and what is missing is asked for once.

use protocol::capacity::NodeState;
use protocol::node::*;

use super::table::{device, frame};
use super::*;

/// The sessions of nodes a to d.
pub const NODES: [(NodeSession, &str); 4] =
    [(NodeSession(1), "a"), (NodeSession(2), "b"), (NodeSession(3), "c"), (NodeSession(4), "d")];

fn opened(session: u64, name: &str) -> Input {
    Input::Node { session: NodeSession(session), input: NodeInput::Opened { node: node(name) } }
}

fn said(session: u64, frame: NodeFrame) -> Input {
    Input::Node { session: NodeSession(session), input: NodeInput::Frame(frame) }
}

/// Opens the sessions of [`NODES`].
pub fn open_nodes(agent: &mut Agent) {
    for (session, name) in NODES {
        assert_eq!(step(agent, 0, opened(session.0, name)), []);
    }
}

/// A frame on its node's session.
pub fn read(frame: NodeFrame) -> Input {
    let (session, _) = NODES.into_iter().find(|(_, name)| *name == frame.node.as_str()).unwrap();
    said(session.0, frame)
}

fn used(agent: &Agent) -> u32 {
    agent.table().columns().memory_used_mib[0]
}

fn readings(memory: u64) -> Vec<DeviceReport> {
    vec![device(0, Some(memory))]
}

#[test]
fn a_gap_is_asked_about_once_and_nothing_is_taken_until_the_full_frame_is_there() {
    let mut a = open(&Disk::default(), vec![]).0;
    let want = [Output::WantFullFrame { session: NodeSession(5) }];
    step(&mut a, 0, opened(5, "a"));
    assert_eq!(step(&mut a, 0, said(5, frame("a", 7, false, readings(1)))), want, "a session begins with a full frame");
    assert_eq!(a.table().columns().state[0], NodeState::Ready, "still as declared");
    step(&mut a, 10, said(5, frame("a", 8, true, readings(2))));
    assert_eq!(step(&mut a, 20, said(5, frame("a", 10, false, readings(3)))), want);
    // 11 follows 10, but 9 is still missing.
    assert_eq!(step(&mut a, 30, said(5, frame("a", 11, false, readings(4)))), []);
    assert_eq!(used(&a), 2);
    assert_eq!(step(&mut a, 2_020, said(5, frame("a", 12, false, readings(5)))), want, "the first order may be lost");
    assert_eq!(step(&mut a, 2_030, said(5, frame("a", 13, true, readings(6)))), []);
    assert_eq!(step(&mut a, 2_040, said(5, frame("a", 14, false, readings(7)))), []);
    assert_eq!(used(&a), 7);
}

#[test]
fn a_node_that_is_back_begins_anew_with_a_full_frame() {
    let mut a = open(&Disk::default(), vec![]).0;
    step(&mut a, 0, opened(5, "a"));
    step(&mut a, 0, said(5, frame("a", 1, true, readings(1))));
    step(&mut a, 0, Input::Node { session: NodeSession(5), input: NodeInput::Closed });
    step(&mut a, 5_001, Input::Tick);
    assert_eq!(a.table().columns().state[0], NodeState::Stale);
    step(&mut a, 5_002, opened(6, "a"));
    // The number that would be next does not make it whole: what came between is not known on this session.
    let out = step(&mut a, 5_003, said(6, frame("a", 2, false, readings(9))));
    assert_eq!(out, [Output::WantFullFrame { session: NodeSession(6) }]);
    assert_eq!(a.table().columns().state[0], NodeState::Stale);
    step(&mut a, 5_004, said(6, frame("a", 1, true, readings(3))));
    assert_eq!((a.table().columns().state[0], used(&a)), (NodeState::Ready, 3));
}

#[test]
fn the_newer_of_two_sessions_of_a_node_counts_and_the_older_is_told() {
    let mut a = open(&Disk::default(), vec![]).0;
    step(&mut a, 0, opened(5, "a"));
    step(&mut a, 0, said(5, frame("a", 1, true, readings(1))));
    let out = step(&mut a, 1, opened(6, "a"));
    let [Output::EndNode { session: NodeSession(5), why: NodeClosed::Replaced, reason }] = &out[..] else {
        panic!("{out:?}")
    };
    assert!(reason.contains("node a"), "{reason}");
    // What the older one still says, and that it is gone, changes nothing.
    assert_eq!(step(&mut a, 2, said(5, frame("a", 2, false, readings(99)))), []);
    step(&mut a, 3, said(6, frame("a", 1, true, readings(4))));
    step(&mut a, 4, Input::Node { session: NodeSession(5), input: NodeInput::Closed });
    assert_eq!(step(&mut a, 5, said(6, frame("a", 2, false, readings(5)))), []);
    assert_eq!(used(&a), 5);
}

#[test]
fn a_frame_that_no_node_role_would_send_ends_its_session() {
    let ended = |frame: NodeFrame, word: &str| {
        let mut a = open(&Disk::default(), vec![]).0;
        step(&mut a, 0, opened(5, "a"));
        let out = step(&mut a, 0, said(5, frame.clone()));
        let [Output::EndNode { session: NodeSession(5), why: NodeClosed::BadFrame, reason }] = &out[..] else {
            panic!("{out:?}")
        };
        assert!(reason.contains(word), "{reason}");
        let declared = Table::new(&config().nodes).columns();
        assert_eq!(a.table().columns(), declared, "it left something in the table");
        assert_eq!(step(&mut a, 0, said(5, frame)), [], "it is ended once");
    };
    ended(frame("b", 1, true, readings(1)), "node b");
    ended(frame("new", 1, true, readings(1)), "node new");
    ended(frame("a", 1, true, vec![device(u32::MAX, Some(1))]), "GPU 4294967295");
    ended(frame("a", 1, true, vec![device(1024, Some(1))]), "GPU 1024");
}
