//! Rows of Kubernetes' nodes: what is free there, whose the rest is, and when nothing of it is known any more.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::capacity::{DeviceState, NodeState, Source};

use super::table::{device, frame};
use super::*;

pub fn cluster_node(name: &str, devices: u16) -> ClusterNode {
    ClusterNode {
        name: node(name),
        sku: Some(Sku::parse("H100").unwrap()),
        offer: Offer::whole(devices),
        cpu_milli: 64_000,
        memory_mib: 512_000,
        closed: None,
        passed_over: None,
    }
}

fn takes(cpu_milli: u64, gpus: u64) -> Resources {
    Resources { cpu_milli, memory_mib: cpu_milli, gpu_milli: 1000 * gpus }
}

pub fn others(cpu_milli: u64, gpus: u64) -> NodePods {
    NodePods { others: takes(cpu_milli, gpus), ..NodePods::default() }
}

fn put(table: &mut Table, node: ClusterNode, pods: NodePods) {
    table.kubernetes_changed(vec![(node, pods)], &[], MonotonicMs(0));
}

fn count(table: &Table, state: DeviceState) -> usize {
    table.columns().device_state.iter().filter(|s| **s == state).count()
}

#[test]
fn what_pods_of_others_take_is_not_free_and_their_gpus_are_the_last_ones() {
    let mut table = Table::default();
    put(&mut table, cluster_node("a", 4), others(1_500, 1));
    let columns = table.columns();
    assert_eq!((columns.source[0], columns.cpu_milli[0], columns.free_cpu_milli[0]), (Source::Label, 64_000, 62_500));
    assert_eq!((columns.memory_mib[0], columns.free_memory_mib[0]), (512_000, 510_500));
    use DeviceState::*;
    assert_eq!(columns.device_state, [Free, Free, Free, Foreign]);
    assert_eq!(columns.activity, [protocol::capacity::ACTIVITY_UNKNOWN; 4], "nothing is read of them");
    let Order::Launch(order) = launch(1, 2, 1) else { unreachable!() };
    assert_eq!(table.reserve(&order).unwrap().members[1].devices, [1]);
    put(&mut table, cluster_node("a", 4), others(0, 3));
    assert_eq!(table.columns().device_state, [Held, Held, Foreign, Foreign], "never more than there are");
    put(&mut table, cluster_node("a", 4), others(u64::MAX, 0));
    assert_eq!(table.columns().free_cpu_milli, [0]);
}

#[test]
fn pods_of_an_attempt_are_counted_by_its_reservation_or_as_somebody_elses_never_both() {
    let mut table = Table::default();
    let mut pods = others(0, 0);
    pods.attempts.insert(attempt(1), takes(1_000, 1));
    put(&mut table, cluster_node("a", 4), pods.clone());
    put(&mut table, cluster_node("b", 4), pods);
    let free = |t: &Table| (t.columns().free_cpu_milli, count(t, DeviceState::Held), count(t, DeviceState::Foreign));
    assert_eq!(free(&table), (vec![63_000, 63_000], 0, 2), "the journal knows nothing of it");
    let Order::Launch(order) = launch(1, 1, 1) else { unreachable!() };
    table.reserve(&order).unwrap();
    assert_eq!(free(&table), (vec![63_000, 64_000], 1, 0), "also on the node where it holds nothing");
    table.release(attempt(1));
    assert_eq!(free(&table), (vec![63_000, 63_000], 0, 2), "its pods are still there");
    put(&mut table, cluster_node("a", 4), others(0, 0));
    table.kubernetes_changed(vec![], &[node("b")], MonotonicMs(0));
    assert_eq!(free(&table), (vec![64_000], 0, 0));
}

#[test]
fn of_measured_devices_those_in_use_are_the_others_first_and_what_is_not_offered_is_out() {
    let mut table = Table::default();
    put(&mut table, cluster_node("a", 4), others(0, 1));
    let mut sick = device(3, Some(0));
    sick.health = protocol::node::DeviceHealth::Sick { cause: "XID 79".into() };
    let read = vec![device(0, Some(60_000)), device(1, Some(0)), device(2, Some(60_000)), sick];
    table.node_frame(&frame("a", 1, true, read), MonotonicMs(0));
    use DeviceState::*;
    assert_eq!(table.columns().source[0], Source::Measured);
    assert_eq!(table.columns().device_state, [Ghost, Free, Foreign, Sick]);
    // The device plugin took the sick one out as well.
    put(&mut table, cluster_node("a", 3), others(0, 2));
    assert_eq!(table.columns().device_state, [Foreign, Free, Foreign, Sick]);
    // No device plugin at all: nothing can be placed there, whatever is read.
    put(&mut table, cluster_node("a", 0), others(0, 0));
    assert_eq!(table.columns().device_state, [Foreign, Foreign, Foreign, Sick]);
    // What the devices say of their model counts, whatever the label says.
    let labelled = ClusterNode { sku: Some(Sku::parse("L4").unwrap()), ..cluster_node("a", 3) };
    put(&mut table, labelled, others(0, 0));
    assert_eq!(table.columns().skus, [Sku::parse("H100").unwrap()]);
}

#[test]
fn a_node_that_is_closed_takes_nobody_and_one_that_is_gone_has_no_row() {
    let mut table = Table::default();
    put(&mut table, cluster_node("a", 4), others(0, 0));
    put(&mut table, cluster_node("b", 2), others(0, 1));
    let closed = ClusterNode { closed: Some("it is cordoned".into()), ..cluster_node("a", 4) };
    put(&mut table, closed, others(0, 0));
    assert_eq!(table.columns().state, [NodeState::Cordoned, NodeState::Ready]);
    let Order::Launch(order) = launch(1, 1, 4) else { unreachable!() };
    table.reserve(&order).unwrap();
    let before = table.generation();
    table.kubernetes_changed(vec![], &[node("a"), node("nowhere")], MonotonicMs(0));
    let columns = table.columns();
    assert_eq!((columns.name.as_slice(), columns.devices.as_slice()), (&[node("b")][..], &[2][..]));
    assert_eq!(columns.device_state, [DeviceState::Free, DeviceState::Foreign]);
    assert!(table.generation() > before, "only a snapshot can say it");
    // It comes back, and what an attempt holds there is still held.
    put(&mut table, cluster_node("a", 4), others(0, 0));
    assert_eq!(count(&table, DeviceState::Held), 4);
    put(&mut table, cluster_node("b", 3), others(0, 1));
    assert_eq!(table.columns().devices, [3, 4]);
    assert_eq!(count(&table, DeviceState::Held), 4);
}

#[test]
fn rows_are_stale_once_the_api_server_was_silent_for_too_long_and_back_with_its_first_word() {
    let mut a = open(&Disk::default(), vec![]).0;
    let kubernetes = |input| Input::Kubernetes(input);
    let changed = KubernetesInput::Changed { nodes: vec![(cluster_node("k", 4), others(0, 0))], gone: vec![] };
    step(&mut a, 1_000, kubernetes(changed));
    let states = |a: &Agent| a.table().columns().state;
    use NodeState::*;
    step(&mut a, 31_000, Input::Tick);
    assert_eq!(states(&a), [Ready, Ready, Ready]);
    step(&mut a, 31_001, Input::Tick);
    assert_eq!(states(&a), [Ready, Ready, Stale], "what is declared needs no API server");
    step(&mut a, 31_050, kubernetes(KubernetesInput::Current { age_ms: 30_001 }));
    step(&mut a, 31_050, Input::Tick);
    assert_eq!(states(&a)[2], Stale);
    step(&mut a, 31_100, kubernetes(KubernetesInput::Current { age_ms: 100 }));
    step(&mut a, 31_100, Input::Tick);
    assert_eq!(states(&a)[2], Ready);
}

#[test]
fn a_node_that_is_measured_and_not_of_the_cluster_takes_nobody() {
    let mut table = Table::default();
    table.node_frame(&frame("x", 1, true, vec![device(0, Some(0))]), MonotonicMs(0));
    assert_eq!(table.columns().state, [NodeState::Ready]);
    put(&mut table, cluster_node("a", 1), others(0, 0));
    assert_eq!(table.columns().state, [NodeState::Cordoned, NodeState::Ready]);
    put(&mut table, cluster_node("x", 1), others(0, 0));
    assert_eq!(table.columns().state, [NodeState::Ready, NodeState::Ready]);
    table.kubernetes_changed(vec![], &[node("x")], MonotonicMs(0));
    assert_eq!(table.nodes(), 1);
    use crate::cluster::table::FrameOutcome;
    let delta = table.node_frame(&frame("x", 2, false, vec![device(0, Some(0))]), MonotonicMs(0));
    assert_eq!(delta, FrameOutcome::Gap, "it has to say everything again");
    table.node_frame(&frame("x", 3, true, vec![device(0, Some(0))]), MonotonicMs(0));
    assert_eq!(table.columns().state, [NodeState::Ready, NodeState::Cordoned]);
}

#[derive(Debug, Clone)]
enum Move {
    Put { node: u8, devices: u16, cpu: u64, closed: bool, sku: bool, pods: Vec<(Option<u8>, u64, u64)> },
    Gone { node: u8 },
    Launch { node: u8, members: u32, gpus: u64 },
    End { attempt: u8 },
    Read { node: u8, used: Vec<bool>, sick: Option<u8> },
    Wait { ms: u64, heard: bool },
}

fn moves() -> impl Strategy<Value = Move> {
    let pod = (prop::option::of(0u8..12), 0u64..20_000, 0u64..3);
    let pods = prop::collection::vec(pod, 0..4);
    prop_oneof![
        6 => (0u8..5, 0u16..9, 0u64..70_000, any::<bool>(), any::<bool>(), pods)
            .prop_map(|(node, devices, cpu, closed, sku, pods)| Move::Put { node, devices, cpu, closed, sku, pods }),
        2 => (0u8..5).prop_map(|node| Move::Gone { node }),
        4 => (0u8..5, 1u32..4, 0u64..4).prop_map(|(node, members, gpus)| Move::Launch { node, members, gpus }),
        3 => (0u8..12).prop_map(|attempt| Move::End { attempt }),
        2 => (0u8..5, prop::collection::vec(any::<bool>(), 1..9), prop::option::of(0u8..9))
            .prop_map(|(node, used, sick)| Move::Read { node, used, sick }),
        1 => (0u64..20_000, any::<bool>()).prop_map(|(ms, heard)| Move::Wait { ms, heard }),
    ]
}

/// Pods of a node: whose each is, and what it takes.
type Pods = Vec<(Option<AttemptId>, Resources)>;

/// Everything that happened, to be counted anew.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<NodeName, (ClusterNode, Pods)>,
    holds: BTreeMap<AttemptId, Assignment>,
    each: BTreeMap<AttemptId, Resources>,
    /// By node: of each device whether it is used and whether it is sick; and when that was read.
    read: BTreeMap<NodeName, (Vec<(bool, bool)>, u64)>,
    heard: Option<u64>,
    now: u64,
}

/// A row, in numbers that can be counted without a table.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    sku: bool,
    source: Source,
    state: NodeState,
    cpu: (u64, u64),
    memory: (u64, u64),
    held: BTreeSet<u16>,
    sick: BTreeSet<u16>,
    free: usize,
    foreign: usize,
    ghosts: usize,
}

impl Model {
    fn count(&self, name: &NodeName) -> Counted {
        let kubernetes = self.nodes.get(name);
        let read = self.read.get(name);
        let (mut cpu, mut memory, mut foreign_gpus) = (0, 0, 0);
        let mut held: BTreeSet<u16> = BTreeSet::new();
        for (attempt, assignment) in &self.holds {
            for member in assignment.members.iter().filter(|m| m.node == *name) {
                cpu += self.each[attempt].cpu_milli;
                memory += self.each[attempt].memory_mib;
                held.extend(&member.devices);
            }
        }
        for (attempt, takes) in kubernetes.iter().flat_map(|(_, pods)| pods) {
            if attempt.is_none_or(|attempt| !self.holds.contains_key(&attempt)) {
                cpu += takes.cpu_milli;
                memory += takes.memory_mib;
                foreign_gpus += takes.gpu_milli / 1000;
            }
        }
        let offered = kubernetes.map_or(0, |(node, _)| usize::from(node.offer.devices()));
        let devices: Vec<(bool, bool)> =
            read.map_or_else(|| vec![(false, false); offered], |(devices, _)| devices.clone());
        let place = |is: &dyn Fn(usize, (bool, bool)) -> bool| -> BTreeSet<u16> {
            let found = devices.iter().enumerate().filter(|(i, d)| is(*i, **d));
            found.map(|(i, _)| i as u16).collect()
        };
        let sick = place(&|_, (_, sick)| sick);
        let ours = place(&|i, (_, sick)| !sick && held.contains(&(i as u16)));
        let used = place(&|i, (used, sick)| used && !sick && !held.contains(&(i as u16))).len();
        let unused = devices.len() - sick.len() - ours.len() - used;
        let unoffered = (devices.len() - sick.len()).saturating_sub(offered);
        let out = if kubernetes.is_some() { (foreign_gpus as usize + unoffered).min(used + unused) } else { 0 };
        let total = kubernetes.map_or((0, 0), |(node, _)| (node.cpu_milli, node.memory_mib));
        let silent = self.heard.is_none_or(|at| self.now - at > KUBERNETES_SILENT_AFTER_MS);
        let unread = read.is_some_and(|(_, at)| self.now - at > STALE_AFTER_MS);
        let state = if unread || kubernetes.is_some() && silent {
            NodeState::Stale
        } else if kubernetes.is_some_and(|(node, _)| node.closed.is_some())
            || kubernetes.is_none() && self.heard.is_some()
        {
            NodeState::Cordoned
        } else {
            NodeState::Ready
        };
        Counted {
            sku: read.is_some() || kubernetes.is_some_and(|(node, _)| node.sku.is_some()),
            source: if read.is_some() { Source::Measured } else { Source::Label },
            state,
            cpu: (total.0, total.0.saturating_sub(cpu)),
            memory: (total.1, total.1.saturating_sub(memory)),
            held: ours,
            sick,
            free: unused - out.saturating_sub(used),
            foreign: out,
            ghosts: used - out.min(used),
        }
    }
}

fn rows(table: &Table) -> BTreeMap<NodeName, Counted> {
    let c = table.columns();
    let mut first = 0;
    let mut rows = BTreeMap::new();
    for (row, name) in c.name.iter().enumerate() {
        let states = &c.device_state[first..first + usize::from(c.devices[row])];
        first += states.len();
        let place = |state| (0u16..).zip(states).filter(|(_, s)| **s == state).map(|(i, _)| i).collect::<BTreeSet<_>>();
        let counted = Counted {
            sku: c.sku[row] != 0,
            source: c.source[row],
            state: c.state[row],
            cpu: (c.cpu_milli[row], c.free_cpu_milli[row]),
            memory: (c.memory_mib[row], c.free_memory_mib[row]),
            held: place(DeviceState::Held),
            sick: place(DeviceState::Sick),
            free: place(DeviceState::Free).len(),
            foreign: place(DeviceState::Foreign).len(),
            ghosts: place(DeviceState::Ghost).len(),
        };
        rows.insert(name.clone(), counted);
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened in whatever order, the table is what a count of all that is there now gives.
    #[test]
    fn the_table_equals_a_fresh_recount(moves in prop::collection::vec(moves(), 1..60)) {
        let (mut table, mut model) = (Table::default(), Model::default());
        let mut sequence = 0;
        for mv in moves {
            let now = MonotonicMs(model.now);
            let name = |n: u8| node(&format!("n{n}"));
            match mv {
                Move::Put { node: n, devices, cpu, closed, sku, pods } => {
                    let mut there = ClusterNode { cpu_milli: cpu, memory_mib: cpu * 2, ..cluster_node(name(n).as_str(), devices) };
                    there.closed = closed.then(|| "closed".to_owned());
                    there.sku = there.sku.filter(|_| sku);
                    let pods: Vec<_> = pods.into_iter()
                        .map(|(a, cpu, gpus)| (a.map(|a| attempt(a.into())), takes(cpu, gpus)))
                        .collect();
                    let mut sums = NodePods::default();
                    for (attempt, takes) in &pods {
                        match attempt {
                            None => sums.others += *takes,
                            Some(attempt) => *sums.attempts.entry(*attempt).or_default() += *takes,
                        }
                    }
                    model.nodes.insert(there.name.clone(), (there.clone(), pods));
                    model.heard.get_or_insert(model.now);
                    table.kubernetes_changed(vec![(there, sums)], &[], now);
                }
                Move::Gone { node: n } => {
                    if model.nodes.remove(&name(n)).is_some() {
                        model.read.remove(&name(n));
                    }
                    model.heard.get_or_insert(model.now);
                    table.kubernetes_changed(vec![], &[name(n)], now);
                }
                Move::Launch { node: n, members, gpus } => {
                    let workload = (0..12).find(|a| !model.holds.contains_key(&attempt(*a)));
                    let Some(workload) = workload else { continue };
                    let Order::Launch(mut order) = launch(workload, members, gpus) else { unreachable!() };
                    order.placement[0].nodes[0].node = name(n);
                    order.placement[0].sku = None;
                    if let Ok(assignment) = table.reserve(&order) {
                        model.holds.insert(order.attempt, assignment);
                        model.each.insert(order.attempt, order.placement[0].each);
                    }
                }
                Move::End { attempt: a } => {
                    model.holds.remove(&attempt(a.into()));
                    table.release(attempt(a.into()));
                }
                Move::Read { node: n, used, sick } => {
                    sequence += 1;
                    let mut devices = vec![];
                    let mut read = vec![];
                    for (i, used) in (0u8..).zip(used) {
                        let mut one = device(i.into(), Some(if used { 10_000 } else { 0 }));
                        if sick == Some(i) {
                            one.health = protocol::node::DeviceHealth::Sick { cause: "XID 79".into() };
                        }
                        devices.push(one);
                        read.push((used, sick == Some(i)));
                    }
                    model.read.insert(name(n), (read, model.now));
                    table.node_frame(&frame(name(n).as_str(), sequence, true, devices), now);
                }
                Move::Wait { ms, heard } => {
                    model.now += ms;
                    let now = MonotonicMs(model.now);
                    if heard && model.heard.is_some() {
                        model.heard = Some(model.now);
                        table.kubernetes_current(0, now);
                    }
                }
            }
            table.tick(MonotonicMs(model.now));
            let names: BTreeSet<NodeName> = model.nodes.keys().chain(model.read.keys()).cloned().collect();
            let expected: BTreeMap<NodeName, Counted> = names.into_iter().map(|n| (n.clone(), model.count(&n))).collect();
            prop_assert_eq!(rows(&table), expected);
        }
    }
}
