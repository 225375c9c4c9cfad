//! The index against a look at everything: whatever happened before, both find places that are as good, and an index made anew the very same.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use protocol::capacity::{NodeState, Source};
use protocol::control::ClusterInfo;
use protocol::ids::{CommandNumber, GroupName, Incarnation, LogIndex, NodeName, Region, UnixMs};
use protocol::resources::Resources;
use protocol::workload::{Framework, Spread};

use super::*;
use crate::Command;
use crate::capacity::ClusterCapacity;

const LAST: usize = 6;

#[derive(Debug, Clone)]
enum Step {
    /// And whether it is counted into the mix: when that has grown, nothing that was kept holds.
    Place(GroupNeed, bool),
    Free {
        cluster: usize,
        row: usize,
        cpu: u64,
        gpus: u64,
        ready: bool,
    },
}

fn need() -> impl Strategy<Value = GroupNeed> {
    let milli = prop_oneof![Just(0u64), (1..10u64).prop_map(|s| s * 100), (1..4u64).prop_map(|g| g * 1000)];
    let skus = prop_oneof![3 => Just(vec![]), 1 => Just(vec!["T4"]), 1 => Just(vec!["L4", "T4"])];
    let count = prop_oneof![5 => Just(1u32), 1 => 2..4u32];
    (1..5u64, milli, skus, count).prop_map(|(cpu, gpu_milli, skus, count)| GroupNeed {
        name: GroupName::new("a").unwrap(),
        count,
        each: Resources { cpu_milli: cpu * 1000, memory_mib: 10, gpu_milli },
        skus: if gpu_milli == 0 { vec![] } else { skus.iter().map(|s| Sku::parse(s).unwrap()).collect() },
        spread: Spread::None,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let free = (0..2usize, 0..=LAST, 0..9u64, 0..5u64, prop::bool::weighted(0.8));
    prop_oneof![
        4 => (need(), prop::bool::weighted(0.2)).prop_map(|(need, seen)| Step::Place(need, seen)),
        1 => free.prop_map(|(cluster, row, cpu, gpus, ready)| Step::Free { cluster, row, cpu, gpus, ready }),
    ]
}

fn node(row: usize) -> NodeCapacity {
    // The last is the only one of its model, and takes no members at first.
    let sku = if row == LAST { Some("A10") } else { [None, Some("T4"), Some("L4")][row % 3] };
    let gpus = if sku.is_some() { 4 } else { 0 };
    let total = Resources { cpu_milli: 8_000 + 1_000 * (row as u64 % 2), memory_mib: 1000, gpu_milli: gpus * 1000 };
    NodeCapacity::untouched(
        NodeName::new(format!("n{row}")).unwrap(),
        sku.map(|s| Sku::parse(s).unwrap()),
        Source::Declared,
        total,
    )
}

fn world() -> (State, Capacity) {
    let (mut state, mut capacity) = (State::default(), Capacity::default());
    for (index, name) in [(1, "a"), (2, "b")] {
        let name = ClusterName::new(name).unwrap();
        let info = ClusterInfo {
            name: name.clone(),
            region: Region::new("here").unwrap(),
            frameworks: vec![Framework::Batch],
            fences: true,
            secrets: true,
            manifests: vec![],
            prices: vec![],
        };
        let (incarnation, last_command) = (Incarnation(1), CommandNumber(0));
        let join = Command::Join { info, incarnation, last_command, attempts: vec![] };
        state.apply(LogIndex(index), &join, UnixMs(0));
        let mut nodes: Vec<NodeCapacity> = (0..=LAST).map(node).collect();
        nodes[LAST].state = NodeState::Cordoned;
        let frame =
            ClusterCapacity { sequence: 1, watermark: last_command, age_ms: 0, fresh: true, nodes: nodes.into() };
        capacity.clusters.insert(name, frame);
    }
    (state, capacity)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_look_at_every_class_finds(steps in prop::collection::vec(step(), 1..60)) {
        let (state, capacity) = world();
        let mut placer = Placer::of_fleet(&state, &capacity);
        for step in steps {
            match step {
                Step::Place(need, seen) => {
                    let gang = [need];
                    if seen {
                        placer.see(&gang);
                    }
                    if gang[0].count > 1 {
                        placer.place(&gang, Order::Alike);
                        continue;
                    }
                    let kept = std::mem::take(&mut placer.index);
                    let anew = placer.one(&gang[0], Order::Alike);
                    placer.index = kept;
                    let fast = placer.one(&gang[0], Order::Alike);
                    prop_assert_eq!(&fast, &anew);
                    let fast = fast.map(|p| (p.score.decisive(), p.spots));
                    let slow = placer.best(&gang, Order::Alike).map(|p| (p.score.decisive(), p.spots));
                    prop_assert_eq!(fast.as_ref().map(|f| &f.0), slow.as_ref().map(|s| &s.0), "{:?} {:?}", fast, slow);
                    prop_assert_eq!(placer.place(&gang, Order::Alike).is_some(), slow.is_some());
                }
                Step::Free { cluster, row, cpu, gpus, ready } => {
                    let mut changed = node(row);
                    let gpu_milli = (gpus * 1000).min(changed.total.gpu_milli);
                    changed.free = Resources { cpu_milli: cpu * 1000, gpu_milli, ..changed.total };
                    changed.state = if ready { NodeState::Ready } else { NodeState::Cordoned };
                    let name = placer.rooms.names().nth(cluster).unwrap();
                    placer.change(name, row as u32, &changed);
                }
            }
        }
    }
}
