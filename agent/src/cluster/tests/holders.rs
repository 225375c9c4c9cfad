//! Whose each device is, where the kubelet is asked: exactly the devices that pods have, never more free than there are, and the guess of old
//! where it does not say.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::capacity::DeviceState::{self, *};
use protocol::node::*;

use super::kubernetes::cluster_node;
use super::table::{device, frame};
use super::*;

pub fn held(pod: &str, devices: &[&str]) -> PodDevices {
    let devices = devices.iter().map(|id| (*id).to_owned()).collect();
    PodDevices { namespace: "d".into(), pod: pod.into(), container: "c".into(), devices }
}

pub fn known(pods: &[PodDevices]) -> Option<Holders> {
    Some(Holders::Known { pods: pods.to_vec() })
}

/// Pods by name: whose each is, and how many GPUs it asks for.
fn pods(all: &[(&str, Option<u128>, u16)]) -> NodePods {
    let mut sums = NodePods::default();
    for &(name, workload, gpus) in all {
        let takes = Resources { gpu_milli: 1000 * u64::from(gpus), ..Resources::ZERO };
        let attempt = workload.map(attempt);
        match attempt {
            Some(attempt) => *sums.attempts.entry(attempt).or_default() += takes,
            None => sums.others += takes,
        }
        let name = PodName { namespace: "d".into(), name: name.into() };
        sums.named.insert(name, PodGpus { attempt, gpus });
    }
    sums
}

/// A table in which node a has so many devices, all of them read, in use where `used` says so.
pub struct Scene {
    pub table: Table,
    sequence: u64,
}

impl Scene {
    pub fn new(devices: u32, used: &[u32]) -> Self {
        let mut scene = Self { table: Table::default(), sequence: 0 };
        scene.pods(devices as u16, &[]);
        scene.read(devices, used);
        scene
    }

    fn read(&mut self, devices: u32, used: &[u32]) {
        self.sequence += 1;
        let memory = |i| Some(if used.contains(&i) { 60_000 } else { 0 });
        let all = (0..devices).map(|i| device(i, memory(i))).collect();
        self.table.node_frame(&frame("a", self.sequence, true, all), MonotonicMs(0));
    }

    pub fn pods(&mut self, devices: u16, all: &[(&str, Option<u128>, u16)]) {
        self.table.kubernetes_changed(vec![(cluster_node("a", devices), pods(all))], &[], MonotonicMs(0));
    }

    pub fn holders(&mut self, holders: Option<Holders>) {
        self.sequence += 1;
        let frame = NodeFrame { holders, ..frame("a", self.sequence, false, vec![]) };
        self.table.node_frame(&frame, MonotonicMs(0));
    }

    pub fn launch(&mut self, workload: u128, members: u32, gpu_milli: u64) -> bool {
        let Order::Launch(mut order) = launch(workload, members, 1) else { unreachable!() };
        order.placement[0].each.gpu_milli = gpu_milli;
        self.table.reserve(&order).is_ok()
    }

    fn states(&self) -> Vec<DeviceState> {
        self.table.columns().device_state
    }
}

#[test]
fn the_device_that_a_pod_has_is_the_one_that_is_its() {
    // The foreign pod does nothing, and somebody uses a GPU that no pod has: the guess would take each for the other.
    let mut s = Scene::new(4, &[1]);
    s.pods(4, &[("theirs", None, 1)]);
    assert_eq!(s.states(), [Free, Foreign, Free, Free], "nobody says which it is");
    s.holders(known(&[held("theirs", &["GPU-2"])]));
    assert_eq!(s.states(), [Free, Ghost, Foreign, Free]);
    // The journal gives device 0; the kubelet gave device 3.
    assert!(s.launch(1, 1, 1_000));
    assert_eq!(s.states(), [Held, Ghost, Foreign, Free], "its pod is not there yet");
    s.pods(4, &[("theirs", None, 1), ("ours", Some(1), 1)]);
    s.holders(known(&[held("ours", &["GPU-3"]), held("theirs", &["GPU-2"])]));
    assert_eq!(s.states(), [Free, Ghost, Foreign, Held]);
    // A frame that says nothing of it changes nothing of it.
    s.holders(None);
    assert_eq!(s.states(), [Free, Ghost, Foreign, Held]);
    // The next one is given device 0, whatever the journal of the first says, and a full frame without holders is the guess again: then both
    // hold the same device by the journal, and still two are held.
    assert!(s.launch(2, 1, 1_000));
    s.pods(4, &[("theirs", None, 1), ("ours", Some(1), 1), ("next", Some(2), 1)]);
    assert_eq!(s.states(), [Held, Ghost, Foreign, Held]);
    s.read(4, &[1]);
    assert_eq!(s.states(), [Held, Foreign, Held, Free]);
    s.holders(Some(Holders::Unknown { cause: "no socket".into() }));
    assert_eq!(s.states(), [Held, Foreign, Held, Free]);
}

#[test]
fn a_pod_that_only_the_kubelet_knows_keeps_its_device() {
    let mut s = Scene::new(3, &[]);
    s.holders(known(&[held("forgotten", &["GPU-1"])]));
    assert_eq!(s.states(), [Free, Foreign, Free]);
    // So does one of an attempt that has ended, until the kubelet has seen its pod go.
    assert!(s.launch(1, 1, 1_000));
    s.pods(3, &[("ours", Some(1), 1)]);
    s.holders(known(&[held("ours", &["GPU-2"])]));
    assert_eq!(s.states(), [Free, Free, Held]);
    s.table.release(attempt(1));
    s.pods(3, &[]);
    assert_eq!(s.states(), [Free, Free, Foreign]);
    s.holders(known(&[]));
    assert_eq!(s.states(), [Free, Free, Free]);
}

#[test]
fn pods_that_the_kubelet_does_not_have_yet_are_counted_by_what_they_ask_for() {
    let mut s = Scene::new(4, &[0]);
    s.pods(4, &[("one", None, 1), ("two", None, 2)]);
    s.holders(known(&[held("one", &["GPU-1"])]));
    // The one in use is one of its two, most likely.
    assert_eq!(s.states(), [Foreign, Foreign, Free, Foreign]);
    s.holders(known(&[held("one", &["GPU-1"]), held("two", &["GPU-2", "GPU-3"])]));
    assert_eq!(s.states(), [Ghost, Foreign, Foreign, Foreign]);
    // An attempt of which only one of two pods is there.
    s.pods(4, &[]);
    s.holders(known(&[]));
    s.read(4, &[]);
    assert!(s.launch(1, 2, 1_000));
    s.pods(4, &[("first", Some(1), 1)]);
    s.holders(known(&[held("first", &["GPU-1"])]));
    assert_eq!(s.states(), [Held, Held, Free, Free]);
    s.holders(known(&[held("first", &["GPU-3"])]));
    assert_eq!(s.states(), [Free, Held, Free, Held]);
    // What its other pod would have is taken by somebody else: it goes elsewhere.
    s.holders(known(&[held("first", &["GPU-3"]), held("theirs", &["GPU-1"])]));
    assert_eq!(s.states(), [Held, Foreign, Free, Held]);
    // Where there is no room for it nothing is free, and what others have stays theirs.
    s.holders(known(&[held("first", &["GPU-3"]), held("theirs", &["GPU-0", "GPU-1", "GPU-2"])]));
    assert_eq!(s.states(), [Foreign, Foreign, Foreign, Held]);
}

#[test]
fn a_device_is_known_by_all_of_its_names() {
    let mut s = Scene::new(4, &[]);
    let mut cut = device(2, Some(0));
    (cut.mig, cut.slices) = (Some(true), vec!["MIG-7".into(), "MIG-8".into()]);
    s.sequence += 1;
    s.table.node_frame(&frame("a", s.sequence, false, vec![cut]), MonotonicMs(0));
    s.holders(known(&[held("shares", &["GPU-1::3"]), held("slice", &["MIG-8"]), held("numbered", &["0"])]));
    assert_eq!(s.states(), [Foreign, Foreign, Foreign, Free]);
    // What has a name that nobody here knows is somewhere.
    s.holders(known(&[held("odd", &["MIG-nowhere", "7"])]));
    assert_eq!(s.states(), [Free, Free, Foreign, Foreign]);
    s.pods(4, &[("odd", None, 2)]);
    assert_eq!(s.states(), [Free, Free, Foreign, Foreign], "it is not counted twice");
}

#[test]
fn of_a_whole_device_nothing_is_left_for_a_share() {
    let mut s = Scene::new(2, &[]);
    assert!(!s.launch(1, 1, 300), "Kubernetes gives out whole ones");
    assert!(s.launch(2, 1, 1_000));
    assert_eq!((s.states(), s.table.columns().left_milli), (vec![Held, Free], vec![0, 0]));
}

#[test]
fn a_sick_device_is_sick_whoever_has_it_and_is_not_made_up_for() {
    let mut s = Scene::new(2, &[]);
    let mut sick = device(0, Some(0));
    sick.health = DeviceHealth::Sick { cause: "XID 79".into() };
    s.sequence += 1;
    s.table.node_frame(&frame("a", s.sequence, false, vec![sick]), MonotonicMs(0));
    s.pods(1, &[("theirs", None, 1)]);
    assert_eq!(s.states(), [Sick, Foreign]);
    s.holders(known(&[held("theirs", &["GPU-0"])]));
    assert_eq!(s.states(), [Sick, Free]);
}

/// A pod: whose it is, what it asks for, what it has by the kubelet, and whether the API server knows it.
type AnyPod = (Option<u128>, Vec<u32>, bool, bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a pod has is never free and no ghost; once the kubelet lists every pod, what is held and what is foreign is exactly that; and
    /// never is more free than the devices that nobody was given or asks for.
    #[test]
    fn what_pods_have_is_theirs_and_no_more_is_free_than_there_is(
        launches in prop::collection::vec(1u32..3, 0..3),
        used in prop::collection::btree_set(0u32..8, 0..8),
        order in Just((0u32..8).collect::<Vec<_>>()).prop_shuffle(),
        kinds in prop::collection::vec((prop::option::weighted(0.6, 0u128..4), 1usize..3, any::<bool>(), prop::bool::weighted(0.8)), 0..5),
        whole in any::<bool>(),
    ) {
        let used: Vec<u32> = used.into_iter().collect();
        let mut s = Scene::new(8, &[]);
        let mut reserved: BTreeMap<u128, usize> = BTreeMap::new();
        for (workload, members) in (0u128..).zip(&launches) {
            prop_assert!(s.launch(workload, *members, 1_000));
            reserved.insert(workload, *members as usize);
        }
        s.read(8, &used);
        // Each pod has devices of its own.
        let mut order = order.into_iter();
        let all: Vec<AnyPod> = kinds.into_iter()
            .map(|(workload, gpus, listed, api)| (workload, order.by_ref().take(gpus).collect(), whole || listed, whole || api))
            .collect();
        let names: Vec<String> = (0..all.len()).map(|i| format!("p{i}")).collect();
        let api: Vec<_> = all.iter().zip(&names).filter(|(pod, _)| pod.3).map(|(pod, name)| (&**name, pod.0, pod.1.len() as u16)).collect();
        s.pods(8, &api);
        let ids = |devices: &[u32]| devices.iter().map(|d| format!("GPU-{d}")).collect::<Vec<_>>();
        let listed: Vec<_> = all.iter().zip(&names).filter(|(pod, _)| pod.2)
            .map(|(pod, name)| held(name, &ids(&pod.1).iter().map(String::as_str).collect::<Vec<_>>()))
            .collect();
        s.holders(known(&listed));
        let states = s.states();
        let at = |state| (0u32..8).filter(|d| states[*d as usize] == state).collect::<BTreeSet<u32>>();
        let ours = |pod: &AnyPod| pod.3 && pod.0.is_some_and(|w| reserved.contains_key(&w));
        for pod in all.iter().filter(|pod| pod.2) {
            let expected = if ours(pod) { Held } else { Foreign };
            prop_assert!(pod.1.iter().all(|d| states[*d as usize] == expected), "{:?} of {:?}", pod, states);
        }
        // Held: what attempts' pods have, or what they were given where that is more.
        let mut held_by: BTreeMap<u128, usize> = BTreeMap::new();
        for pod in all.iter().filter(|pod| pod.2 && ours(pod)) {
            *held_by.entry(pod.0.unwrap()).or_default() += pod.1.len();
        }
        let held: usize = reserved.iter().map(|(w, given)| (*given).max(held_by.get(w).copied().unwrap_or(0))).sum();
        let foreign: usize = all.iter().filter(|pod| (pod.2 || pod.3) && !ours(pod)).map(|pod| pod.1.len()).sum();
        if held + foreign <= 8 {
            prop_assert_eq!(at(Held).len(), held);
            prop_assert_eq!(at(Foreign).len(), foreign);
            prop_assert!(at(Ghost).iter().all(|d| used.contains(d)));
            prop_assert!(at(Free).iter().all(|d| !used.contains(d)));
        }
        prop_assert!(at(Free).len() <= 8usize.saturating_sub(held + foreign));
    }
}
