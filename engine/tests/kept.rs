//! A plan is the same with what the last one kept as from nothing, whatever commands and frames came between them.

#![allow(clippy::unwrap_used)]
#![cfg(not(feature = "planted"))]

mod support;

use engine::capacity::{Capacity, ClusterCapacity};
use engine::plan::{Bounds, Kept, Memory, plan_again, plan_within};
use proptest::prelude::*;
use protocol::capacity::{NodeState, Sharing};
use protocol::ids::CommandNumber;
use protocol::resources::Resources;
use support::histories::History;
use support::operations::{Op, draining, lending, op, stretching};
use support::{node, resources};

/// How a cluster's next frame differs.
#[derive(Debug, Clone)]
enum Frame {
    Free {
        row: usize,
        cpu: u64,
        gpus: u64,
    },
    Share {
        row: usize,
        left: u16,
    },
    State {
        row: usize,
        ready: bool,
    },
    Ghosts {
        row: usize,
        ghosts: u16,
    },
    Sharing {
        row: usize,
        whole: bool,
    },
    Model {
        row: usize,
        sku: Option<&'static str>,
    },
    Come,
    Go,
    Fresh(bool),
    Watermark(u64),
    /// The same again.
    Touched,
}

fn frame() -> impl Strategy<Value = Frame> {
    let row = || 0..3usize;
    prop_oneof![
        2 => (row(), 0..9u64, 0..5u64).prop_map(|(row, cpu, gpus)| Frame::Free { row, cpu, gpus }),
        1 => (row(), 1..1000u16).prop_map(|(row, left)| Frame::Share { row, left }),
        2 => (row(), any::<bool>()).prop_map(|(row, ready)| Frame::State { row, ready }),
        1 => (row(), 0..3u16).prop_map(|(row, ghosts)| Frame::Ghosts { row, ghosts }),
        1 => (row(), any::<bool>()).prop_map(|(row, whole)| Frame::Sharing { row, whole }),
        1 => (row(), prop_oneof![Just(None), Just(Some("H100")), Just(Some("L4"))])
            .prop_map(|(row, sku)| Frame::Model { row, sku }),
        1 => Just(Frame::Come),
        1 => Just(Frame::Go),
        1 => any::<bool>().prop_map(Frame::Fresh),
        2 => (0..20u64).prop_map(Frame::Watermark),
        1 => Just(Frame::Touched),
    ]
}

impl Frame {
    fn send(&self, frame: &mut ClusterCapacity) {
        let rows = frame.nodes.len();
        let row = |row: &usize| Some(*row).filter(|row| *row < rows);
        match self {
            Frame::Free { row: r, cpu, gpus } => {
                let Some(n) = row(r) else { return };
                let gpu_milli = (gpus * 1000).min(frame.nodes[n].total.gpu_milli);
                frame.nodes[n].free = Resources { gpu_milli, ..resources(*cpu, 8, 0) };
                frame.nodes[n].shares.clear();
            }
            Frame::Share { row: r, left } => {
                let Some(n) = row(r).filter(|n| frame.nodes[*n].total.gpu_milli > 0) else { return };
                frame.nodes[n].free.gpu_milli = u64::from(*left);
                frame.nodes[n].shares = vec![*left];
            }
            Frame::State { row: r, ready } => {
                let Some(n) = row(r) else { return };
                frame.nodes[n].state = if *ready { NodeState::Ready } else { NodeState::Cordoned };
            }
            Frame::Ghosts { row: r, ghosts } => {
                let Some(n) = row(r) else { return };
                frame.nodes[n].ghosts = *ghosts;
            }
            Frame::Sharing { row: r, whole } => {
                let Some(n) = row(r) else { return };
                frame.nodes[n].sharing = if *whole { Sharing::Whole } else { Sharing::Any };
            }
            Frame::Model { row: r, sku } => {
                let Some(n) = row(r) else { return };
                frame.nodes[n].sku = sku.map(protocol::sku::Sku::from_driver);
            }
            Frame::Come => frame.nodes.push(node(&format!("n{rows}"), Some("H100"), resources(8, 8, 4))),
            Frame::Go => drop(frame.nodes.pop()),
            Frame::Fresh(fresh) => frame.fresh = *fresh,
            Frame::Watermark(number) => frame.watermark = CommandNumber(*number),
            Frame::Touched => drop(frame.nodes.iter_mut().last()),
        }
    }
}

/// Something happens, and now and then a frame comes from one of the clusters.
type Step = (Op, Option<(usize, Frame)>);

fn steps(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((op, prop::option::of((0..2usize, frame()))), 1..60)
}

fn run(steps: &[Step]) -> Result<(), String> {
    let mut history = History::new();
    // The frames as the history has them, and as they are seen here.
    let (mut theirs, mut seen) = (Capacity::default(), Capacity::default());
    let (mut memory, mut kept) = (Memory::new(3_000), Kept::default());
    for (i, (op, frame)) in steps.iter().enumerate() {
        history.step(op)?;
        for (name, frame) in &history.fleet().capacity.clusters {
            if theirs.clusters.get(name) != Some(frame) {
                theirs.clusters.insert(name.clone(), frame.clone());
                seen.clusters.insert(name.clone(), frame.clone());
            }
        }
        if let Some((cluster, frame)) = frame {
            seen.clusters.values_mut().nth(*cluster).into_iter().for_each(|there| frame.send(there));
        }
        let (state, bounds) = (&history.state, Bounds { bindings: 1 + i % 5, explained: 8 });
        let anew = plan_within(state, &seen, &memory, state.now, bounds);
        let again = plan_again(state, &seen, (&memory, &mut kept), state.now, bounds);
        if anew != again {
            return Err(format!("step {i}: with what was kept it plans {again:?}\n  and not {anew:?}"));
        }
        memory = anew.memory;
    }
    Ok(())
}

/// Histories of a kind, with frames between what happens.
fn with_frames(histories: impl Strategy<Value = Vec<Op>>) -> impl Strategy<Value = Vec<Step>> {
    let frames = prop::collection::vec(prop::option::of((0..2usize, frame())), 1..40);
    (histories, frames).prop_map(|(ops, frames)| ops.into_iter().zip(frames.into_iter().cycle()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_the_same_with_what_the_last_one_kept(steps in steps(op())) {
        run(&steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn also_where_room_is_lent(steps in with_frames(lending())) {
        run(&steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn also_where_workloads_grow(steps in with_frames(stretching())) {
        run(&steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn also_where_clusters_are_drained(steps in with_frames(draining())) {
        run(&steps).map_err(TestCaseError::fail)?;
    }
}
