//! What the cluster role is told equals a count of all objects, whatever happened before.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::ids::{AttemptId, AttemptNumber, NodeName, Uid};

use super::super::amounts::Takes;
use super::super::follow::News;
use super::super::seen::SeenPod;
use super::super::store::Store;
use crate::cluster::{ClusterNode, KubernetesInput, NodePods, Offer, PodGpus, PodName};

fn name(n: u8) -> NodeName {
    NodeName::new(format!("n{n}")).unwrap()
}

fn node(n: u8, cpu_milli: u64) -> ClusterNode {
    // The device plugin may be told to give out something else.
    let resource = if cpu_milli.is_multiple_of(2) { "nvidia.com/gpu" } else { "nvidia.com/mig-1g.10gb" };
    let offer = Offer { resource: resource.into(), slices: cpu_milli % 2 == 1, ..Offer::whole(4) };
    ClusterNode { name: name(n), sku: None, offer, cpu_milli, memory_mib: 0, closed: None, passed_over: None }
}

fn key(n: u8) -> Box<str> {
    name(n).as_str().into()
}

fn pod(n: u8, cpu_milli: u64, attempt: Option<u8>) -> SeenPod {
    let gpus = [("nvidia.com/gpu", cpu_milli % 3), ("nvidia.com/mig-1g.10gb", cpu_milli % 4)];
    let gpus = gpus.into_iter().filter(|(_, units)| *units > 0).map(|(name, units)| (name.into(), units)).collect();
    let attempt = attempt.map(|a| AttemptId { workload: Uid(a.into()), number: AttemptNumber(1) });
    SeenPod { node: name(n), takes: Ok(Takes { cpu_milli, memory_mib: 0, gpus }), attempt, name: None }
}

/// The same by a name of its own, as those have that are of an attempt.
fn named(p: u8, pod: SeenPod) -> SeenPod {
    let name = PodName { namespace: "d".into(), name: format!("p{p}").into() };
    SeenPod { name: pod.attempt.map(|_| Box::new(name)), ..pod }
}

/// The cluster role's end: what it has been told.
#[derive(Default)]
struct Told(BTreeMap<NodeName, (ClusterNode, NodePods)>);

impl Told {
    fn take(&mut self, store: &mut Store) {
        let Some(KubernetesInput::Changed { nodes, gone }) = store.take_news() else { return };
        for name in gone {
            assert!(self.0.remove(&name).is_some(), "{name} was not there");
        }
        nodes.into_iter().for_each(|(node, pods)| drop(self.0.insert(node.name.clone(), (node, pods))));
    }
}

/// That of a cluster without claims and slices.
fn store() -> Store {
    let mut store = Store::default();
    store.slices(News::NotServed);
    store.claims(News::NotServed);
    store
}

#[test]
fn nothing_is_said_before_both_kinds_were_listed_and_then_only_what_changed() {
    let (mut store, mut told) = (store(), Told::default());
    store.nodes(News::All(vec![(key(1), Ok(node(1, 10))), (key(2), Ok(node(2, 10)))]));
    assert_eq!(store.take_news(), None, "its pods are not known yet");
    store.pods(News::All(vec![("p".into(), pod(1, 3, None))]));
    told.take(&mut store);
    assert_eq!(told.0.len(), 2);
    assert_eq!(told.0[&name(1)].1.others.cpu_milli, 3);
    assert!(!store.has_news());
    // A heartbeat of a kubelet, or a label that means nothing here.
    store.nodes(News::Put(key(1), Ok(node(1, 10))));
    store.pods(News::Put("p".into(), pod(1, 3, None)));
    assert!(!store.has_news());
    store.pods(News::Gone("p".into()));
    let Some(KubernetesInput::Changed { nodes, gone }) = store.take_news() else { panic!("it is gone") };
    assert_eq!((nodes, gone), (vec![(node(1, 10), NodePods::default())], vec![]));
}

#[test]
fn a_node_with_nonsense_is_left_out_and_told_once() {
    let (mut store, mut told) = (store(), Told::default());
    store.nodes(News::All(vec![(key(1), Err("node n1: nonsense".into())), (key(2), Ok(node(2, 10)))]));
    store.pods(News::All(vec![]));
    told.take(&mut store);
    assert_eq!(told.0.keys().collect::<Vec<_>>(), [&name(2)]);
    assert_eq!(store.take_complaints(), ["node n1 is left out of the capacity table: node n1: nonsense"]);
    let bad = SeenPod { takes: Err("pod a/b: nonsense".into()), ..pod(2, 0, None) };
    store.pods(News::Put("b".into(), bad));
    told.take(&mut store);
    assert!(told.0.is_empty(), "nobody knows what is free there");
    assert_eq!(store.take_complaints(), ["node n2 is left out of the capacity table: pod a/b: nonsense"]);
    store.pods(News::Put("c".into(), pod(2, 1, None)));
    told.take(&mut store);
    assert!(store.take_complaints().is_empty(), "it is known");
    store.nodes(News::Put(key(1), Ok(node(1, 5))));
    store.pods(News::Gone("b".into()));
    told.take(&mut store);
    assert_eq!(told.0.len(), 2);
    assert_eq!(told.0[&name(2)].1.others.cpu_milli, 1);
}

#[derive(Debug, Clone)]
enum Move {
    PutNode(u8, u64),
    NodeGone(u8),
    Nodes(Vec<(u8, u64)>),
    PutPod(u8, u8, u64, Option<u8>),
    PodGone(u8),
    Pods(Vec<(u8, u8, u64, Option<u8>)>),
    Tell,
}

fn moves() -> impl Strategy<Value = Move> {
    let pod = || (0u8..20, 0u8..5, 0u64..9, prop::option::of(0u8..3));
    prop_oneof![
        3 => (0u8..5, 0u64..9).prop_map(|(n, cpu)| Move::PutNode(n, cpu)),
        1 => (0u8..5).prop_map(Move::NodeGone),
        1 => prop::collection::btree_map(0u8..5, 0u64..9, 0..5).prop_map(|all| Move::Nodes(all.into_iter().collect())),
        8 => pod().prop_map(|(p, n, cpu, a)| Move::PutPod(p, n, cpu, a)),
        4 => (0u8..20).prop_map(Move::PodGone),
        1 => prop::collection::vec(pod(), 0..20).prop_map(Move::Pods),
        3 => Just(Move::Tell),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_told_equals_a_recount(moves in prop::collection::vec(moves(), 1..80)) {
        let (mut store, mut told) = (store(), Told::default());
        let (mut nodes, mut pods) = (BTreeMap::new(), BTreeMap::new());
        store.nodes(News::All(vec![]));
        store.pods(News::All(vec![]));
        let uid = |p: u8| Box::<str>::from(format!("p{p}"));
        for mv in moves.into_iter().chain([Move::Tell]) {
            match mv {
                Move::PutNode(n, cpu) => {
                    nodes.insert(name(n), node(n, cpu));
                    store.nodes(News::Put(key(n), Ok(node(n, cpu))));
                }
                Move::NodeGone(n) => {
                    nodes.remove(&name(n));
                    store.nodes(News::Gone(key(n)));
                }
                Move::Nodes(all) => {
                    nodes = all.iter().map(|(n, cpu)| (name(*n), node(*n, *cpu))).collect();
                    store.nodes(News::All(all.into_iter().map(|(n, cpu)| (key(n), Ok(node(n, cpu)))).collect()));
                }
                Move::PutPod(p, n, cpu, attempt) => {
                    pods.insert(p, named(p, pod(n, cpu, attempt)));
                    store.pods(News::Put(uid(p), named(p, pod(n, cpu, attempt))));
                }
                Move::PodGone(p) => {
                    pods.remove(&p);
                    store.pods(News::Gone(uid(p)));
                }
                Move::Pods(all) => {
                    pods = all.iter().map(|(p, n, cpu, a)| (*p, named(*p, pod(*n, *cpu, *a)))).collect();
                    let all = all.into_iter().map(|(p, n, cpu, a)| (uid(p), named(p, pod(n, cpu, a))));
                    store.pods(News::All(all.collect()));
                }
                Move::Tell => {
                    told.take(&mut store);
                    let mut expected: BTreeMap<NodeName, (ClusterNode, NodePods)> =
                        nodes.iter().map(|(name, node)| (name.clone(), (node.clone(), NodePods::default()))).collect();
                    for pod in pods.values() {
                        let Some((node, sums)) = expected.get_mut(&pod.node) else { continue };
                        let takes = pod.takes.clone().unwrap().of(&node.offer.resource);
                        let gpus = PodGpus { attempt: pod.attempt, gpus: takes.gpus() as u16 };
                        sums.named.extend(pod.name.clone().map(|name| (*name, gpus)));
                        match pod.attempt {
                            None => sums.others += takes,
                            Some(attempt) => *sums.attempts.entry(attempt).or_default() += takes,
                        }
                    }
                    prop_assert_eq!(&told.0, &expected);
                }
            }
        }
    }
}
