//! Shares of GPUs: which device each sits on, what frames say is left, and that the planner counts as the agent gives.

use std::collections::BTreeMap;

use engine::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use engine::commands::{Command, Outcome};
use engine::{Effect, State, plan};
use proptest::prelude::*;
use protocol::capacity::{DeviceState, NodeState, Source};
use protocol::resources::{Cpu, Gpus, Memory};
use protocol::workload::{BatchSpec, GroupSpec};

use super::counted::in_parts;
use super::table::{device, frame};
use super::*;

/// A launch of a member of this many thousandths of a GPU in each group.
fn shares(workload: u128, groups: &[u64]) -> LaunchOrder {
    let Order::Launch(mut order) = launch(workload, 1, 1) else { unreachable!() };
    let first = order.placement.remove(0);
    order.placement = (0..)
        .zip(groups)
        .map(|(i, milli)| GroupPlacement {
            group: GroupName::new(format!("g{i}")).unwrap(),
            each: Resources { gpu_milli: *milli, ..first.each },
            ..first.clone()
        })
        .collect();
    *order
}

fn given(table: &mut Table, workload: u128, groups: &[u64]) -> Vec<Vec<u16>> {
    let assignment = table.reserve(&shares(workload, groups)).unwrap();
    assignment.members.into_iter().map(|member| member.devices).collect()
}

fn left(table: &Table) -> Vec<u16> {
    table.columns().left_milli[..8].to_vec()
}

#[test]
fn a_share_goes_to_the_fullest_device_that_holds_it_and_opens_a_new_one_last() {
    let mut table = Table::new(&config().nodes);
    assert_eq!(given(&mut table, 1, &[600]), [[0]]);
    assert_eq!(given(&mut table, 2, &[700]), [[1]], "400 are left of the first");
    assert_eq!(left(&table), [400, 300, 0, 0, 0, 0, 0, 0]);
    assert_eq!(given(&mut table, 3, &[300]), [[1]], "of two attempts, on the fuller device");
    assert_eq!(given(&mut table, 4, &[250, 150]), [[0], [0]], "two of one attempt");
    assert_eq!(left(&table), [0; 8], "two devices are wholly given out");
    // Whole devices are never those that shares have, and the largest group takes its device first.
    assert_eq!(given(&mut table, 5, &[500, 2000, 900]), [vec![5], vec![2, 3], vec![4]]);
    assert_eq!(left(&table), [0, 0, 0, 0, 100, 500, 0, 0]);
    let full = table.reserve(&shares(6, &[3000])).unwrap_err();
    assert_eq!(full, "node a: a member of group g0 needs 3 GPUs, and 2 are free");
    table.release(attempt(2));
    assert_eq!(left(&table)[1], 700, "300 of it are still somebody's");
    table.release(attempt(3));
    assert_eq!((left(&table)[1], table.columns().device_state[1]), (0, DeviceState::Free));
}

#[test]
fn no_device_has_shares_of_more_than_all_of_it() {
    let mut table = Table::new(&config().nodes);
    for workload in 0..8 {
        given(&mut table, workload, &[501]);
    }
    let full = table.reserve(&shares(9, &[500])).unwrap_err();
    assert_eq!(full, "node a: a member of group g0 needs 0.5 GPUs, and 0 are free");
    assert_eq!(given(&mut table, 10, &[499]), [[0]]);
}

#[test]
fn a_measured_device_that_a_share_uses_is_no_ghost_and_a_sick_one_takes_no_more() {
    let mut table = Table::new(&config().nodes);
    let devices = |memory, sick: bool| {
        let mut first = device(0, Some(memory));
        if sick {
            first.health = protocol::node::DeviceHealth::Sick { cause: "XID 79".into() };
        }
        vec![first, device(1, Some(0))]
    };
    table.node_frame(&frame("a", 1, true, devices(0, false)), MonotonicMs(0));
    assert_eq!(given(&mut table, 1, &[250]), [[0]]);
    table.node_frame(&frame("a", 2, false, devices(30_000, false)), MonotonicMs(1));
    let columns = table.columns();
    assert_eq!((columns.device_state[0], columns.left_milli[0]), (DeviceState::Held, 750));
    table.node_frame(&frame("a", 3, false, devices(30_000, true)), MonotonicMs(2));
    let columns = table.columns();
    assert_eq!((columns.device_state[0], columns.left_milli[0]), (DeviceState::Sick, 0));
    assert_eq!(given(&mut table, 2, &[250]), [[1]]);
    table.node_frame(&frame("a", 4, false, devices(30_000, false)), MonotonicMs(3));
    table.release(attempt(1));
    assert_eq!(table.columns().device_state[0], DeviceState::Ghost, "what stays behind is nobody's");
}

#[test]
fn a_killed_agent_knows_again_which_device_each_share_has() {
    let disk = Disk::default();
    let mut a = open(&disk, vec![]).0;
    connect(&mut a, 0, R1, 1, 30_000);
    for (n, groups) in [(1, &[700][..]), (2, &[500]), (3, &[500, 200])] {
        step(&mut a, n, command(R1, n, 1, Order::Launch(Box::new(shares(n.into(), groups)))));
    }
    let before = (a.assignment(attempt(3)).cloned(), a.table().columns());
    assert_eq!(before.1.left_milli[..3], [100, 0, 0]);
    drop(a);
    let found = [1, 2, 3].map(|n| (attempt(n), AttemptState::Running)).to_vec();
    let a = open(&disk.crash(false), found).0;
    assert_eq!((a.assignment(attempt(3)).cloned(), a.table().columns()), before);
}

/// The agent's table as the planner reads it.
fn view(a: &Agent) -> Capacity {
    let columns = a.table().columns();
    let mut first = 0;
    let mut nodes = vec![];
    for (row, name) in columns.name.iter().enumerate() {
        let devices = first..first + usize::from(columns.devices[row]);
        first = devices.end;
        let free = columns.device_state[devices.clone()].iter().filter(|s| **s == DeviceState::Free).count() as u64;
        let shares: Vec<u16> = columns.left_milli[devices.clone()].iter().copied().filter(|left| *left > 0).collect();
        let total = Resources {
            cpu_milli: columns.cpu_milli[row],
            memory_mib: columns.memory_mib[row],
            gpu_milli: 1000 * devices.len() as u64,
        };
        let sku = Some(Sku::parse("H100").unwrap());
        let mut node = NodeCapacity::untouched(name.clone(), sku, Source::Declared, total);
        node.state = NodeState::Ready;
        node.sharing = columns.sharing[row];
        node.free = Resources {
            cpu_milli: columns.free_cpu_milli[row],
            memory_mib: columns.free_memory_mib[row],
            gpu_milli: 1000 * free + shares.iter().map(|left| u64::from(*left)).sum::<u64>(),
        };
        node.shares = shares;
        nodes.push(node);
    }
    let frame =
        ClusterCapacity { sequence: 1, watermark: a.last_command(), age_ms: 0, fresh: true, nodes: nodes.into() };
    Capacity { clusters: BTreeMap::from([(config().cluster.name, frame)]) }
}

fn spec(groups: &[(u32, u64)]) -> WorkloadSpec {
    let group = |(i, (count, milli)): (usize, &(u32, u64))| GroupSpec {
        name: GroupName::new(format!("g{i}")).unwrap(),
        count: Some(*count),
        min: None,
        max: None,
        cpu: Cpu(1),
        memory: Memory(1),
        gpus: Gpus(*milli),
        gpu: vec![],
    };
    let groups = groups.iter().enumerate().map(group).collect();
    WorkloadSpec {
        batch: Some(BatchSpec { command: vec!["true".into()], image: None, groups }),
        ..WorkloadSpec::default()
    }
}

#[derive(Debug, Clone)]
enum Move {
    Submit(Vec<(u32, u64)>),
    /// Plans, and hands on what is bound.
    Plan,
    /// The planner hears of everything so far.
    Frame,
    /// Attempts end, and the planner hears of that at once.
    End(usize),
}

fn moves() -> impl Strategy<Value = Move> {
    let milli = prop_oneof![4 => 1u64..1000, 1 => Just(250), 1 => Just(500), 1 => Just(1000), 1 => Just(2000)];
    prop_oneof![
        5 => prop::collection::vec((1u32..4, milli), 1..4).prop_map(Move::Submit),
        4 => Just(Move::Plan),
        2 => Just(Move::Frame),
        2 => any::<usize>().prop_map(Move::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// What the planner bound the agent never has to refuse, and no device has more than 1000 thousandths given out.
    #[test]
    fn the_planner_counts_as_the_agent_gives(
        parts in prop_oneof![3 => Just(None), 1 => Just(Some(2u16)), 1 => Just(Some(3)), 1 => Just(Some(7))],
        moves in prop::collection::vec(moves(), 1..60),
    ) {
        let mut a = open(&Disk::default(), vec![]).0;
        connect(&mut a, 0, R1, 1, 1 << 40);
        if let Some(parts) = parts {
            let nodes = config().nodes.into_iter().map(|n| {
                let there = in_parts(n.name.as_str(), 3 * u32::from(parts), parts);
                (ClusterNode { cpu_milli: n.cpu_milli, memory_mib: n.memory_mib, ..there }, NodePods::default())
            });
            let there = KubernetesInput::Changed { nodes: nodes.collect(), gone: vec![] };
            step(&mut a, 0, Input::Kubernetes(there));
        }
        let (mut state, mut index) = (State::default(), 0);
        let mut apply = |state: &mut State, command: Command| {
            index += 1;
            state.apply(LogIndex(index), &command, UnixMs(index))
        };
        apply(&mut state, Command::OpenEpoch { epoch: Epoch(1) }).outcome.unwrap();
        let join = Command::Join {
            info: config().cluster, incarnation: Incarnation(7), last_command: CommandNumber(0), attempts: vec![],
        };
        apply(&mut state, join).outcome.unwrap();
        let mut capacity = view(&a);
        let mut submitted = 0;
        for mv in moves {
            match mv {
                Move::Submit(groups) => {
                    submitted += 1;
                    let name = WorkloadName::new(format!("w{submitted}")).unwrap();
                    let key = WorkloadKey { namespace: Namespace::new("default").unwrap(), name };
                    let submit = Command::Submit { key, uid: Uid(submitted), spec: Box::new(spec(&groups)) };
                    apply(&mut state, submit).outcome.unwrap();
                }
                Move::Plan => {
                    for binding in plan::plan(&state, &capacity, UnixMs(0), 4).bindings {
                        let applied = apply(&mut state, Command::Bind(Box::new(binding)));
                        let bound = matches!(applied.outcome, Ok(Outcome::Bound { .. }));
                        prop_assert!(bound, "{:?}", applied.outcome);
                        for effect in applied.effects {
                            let Effect::Command { number, order: Order::Launch(order), .. } = effect else { continue };
                            let attempt = order.attempt;
                            let out = step(&mut a, 1, command(R1, number.0, 1, Order::Launch(order)));
                            let report = a.attempts().find(|r| r.attempt == attempt).unwrap();
                            prop_assert_eq!(&report.state, &AttemptState::Accepted);
                            let starts = out.iter().any(|o| matches!(o, Output::Start { .. }));
                            prop_assert!(starts);
                        }
                    }
                }
                Move::Frame => capacity = view(&a),
                Move::End(which) => {
                    let live: Vec<AttemptId> = a.attempts().filter(|r| !r.state.is_final()).map(|r| r.attempt).collect();
                    let Some(attempt) = live.get(which % live.len().max(1)).copied() else { continue };
                    step(&mut a, 1, Input::Runtime { attempt, state: AttemptState::Succeeded });
                    let report = a.attempts().find(|r| r.attempt == attempt).unwrap().clone();
                    let cluster = config().cluster.name;
                    apply(&mut state, Command::Report { cluster, report }).outcome.unwrap();
                    capacity = view(&a);
                }
            }
            let mut held: BTreeMap<(NodeName, u16), u64> = BTreeMap::new();
            for report in a.attempts().filter(|r| !r.state.is_final()) {
                let gang = state.workloads[&state.by_uid[&report.attempt.workload]].spec.gang();
                for member in &a.assignment(report.attempt).unwrap().members {
                    let milli = gang.iter().find(|g| g.name == member.group).unwrap().each.gpu_milli;
                    let each = milli / member.devices.len().max(1) as u64;
                    for device in &member.devices {
                        *held.entry((member.node.clone(), *device)).or_default() += each;
                    }
                }
            }
            prop_assert!(held.values().all(|milli| *milli <= 1000), "{held:?}");
        }
    }
}
