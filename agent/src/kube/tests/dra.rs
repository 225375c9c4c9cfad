//! Slices and claims as NVIDIA's driver and Kubernetes write them: what is kept of them, and what they come to on a node.

use std::collections::BTreeMap;

use protocol::ids::{AttemptId, AttemptNumber, Uid};
use protocol::resources::Resources;
use serde_json::{Value, json};

use super::super::amounts::Takes;
use super::super::dra::{ClaimObject, SliceObject};
use super::super::follow::{Kind, News};
use super::super::objects::NodeObject;
use super::super::seen::{self, SeenPod};
use super::super::store::Store;
use crate::cluster::{ClusterNode, KubernetesInput, NodePods, Offer, PodName};

const H100: &str = "NVIDIA H100 80GB HBM3";

/// A whole GPU as the driver describes it.
fn gpu(number: u32, product: &str) -> Value {
    json!({
        "name": format!("gpu-{number}"),
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": format!("GPU-{number}")},
            "gpu.nvidia.com/productName": {"string": product},
            "brand": {"string": "Nvidia"},
            "driverVersion": {"version": "580.95.5"},
            "resource.kubernetes.io/pcieRoot": {"string": "pci0000:01"},
        },
        "capacity": {"memory": {"value": "81559Mi"}},
    })
}

fn mig(number: u32, product: &str, profile: &str) -> Value {
    let mut device = gpu(number, product);
    device["name"] = json!(format!("gpu-0-mig-{number}"));
    device["attributes"]["type"] = json!({"string": "mig"});
    device["attributes"]["uuid"] = json!({"string": format!("MIG-{number}")});
    device["attributes"]["profile"] = json!({"string": profile});
    device
}

fn with(mut device: Value, field: &str, value: Value) -> Value {
    device[field] = value;
    device
}

/// The slice `number` of so many of a generation of node n's pool.
fn slice(number: u32, slices: u32, generation: u32, devices: &[Value]) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": format!("n-gpu.nvidia.com-{generation}-{number}"), "uid": "u"},
        "spec": {
            "driver": "gpu.nvidia.com", "nodeName": "n", "devices": devices,
            "pool": {"name": "n", "generation": generation, "resourceSliceCount": slices},
        },
    })
}

/// A claim that was given these devices, for a pod of that uid and name.
fn claim(name: &str, devices: &[&str], pod: Option<&str>) -> Value {
    let results: Vec<Value> = devices
        .iter()
        .map(|device| json!({"request": "gpus", "driver": "gpu.nvidia.com", "pool": "n", "device": device}))
        .collect();
    let users = pod.map(|pod| json!([{"resource": "pods", "name": pod, "uid": format!("uid-{pod}")}]));
    json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "finalizers": ["resource.kubernetes.io/delete-protection"]},
        "spec": {"devices": {"requests": [{"name": "gpus", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]}},
        "status": {"allocation": {"devices": {"results": results}}, "reservedFor": users},
    })
}

fn read<K: Kind>(object: &Value) -> (Box<str>, Option<K::Seen>) {
    let object: K = serde_json::from_value(object.clone()).unwrap();
    (object.key().unwrap().into(), object.seen())
}

fn all<K: Kind>(objects: &[Value]) -> News<K::Seen> {
    News::All(objects.iter().map(read::<K>).filter_map(|(key, seen)| Some((key, seen?))).collect())
}

fn attempt(number: u32) -> AttemptId {
    AttemptId { workload: Uid(1), number: AttemptNumber(number) }
}

/// Node n, whose device plugin offers so many GPUs.
fn node(plugin: u32) -> ClusterNode {
    let mut object = json!({
        "metadata": {"name": "n"},
        "status": {"allocatable": {"cpu": "64", "memory": "1Ti"}, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    if plugin > 0 {
        object["metadata"]["labels"] = json!({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"});
        object["status"]["allocatable"]["nvidia.com/gpu"] = json!(plugin.to_string());
    }
    seen::node(&serde_json::from_value::<NodeObject>(object).unwrap()).unwrap()
}

/// A store in which node n and these are all that there is.
struct Scene {
    store: Store,
    row: Option<(ClusterNode, NodePods)>,
}

impl Scene {
    fn new(plugin: u32, slices: &[Value], claims: &[Value]) -> Self {
        let mut store = Store::default();
        store.nodes(News::All(vec![("n".into(), Ok(node(plugin)))]));
        store.pods(News::All(vec![]));
        store.slices(all::<SliceObject>(slices));
        assert_eq!(store.take_news(), None, "claims are not known yet");
        store.claims(all::<ClaimObject>(claims));
        let mut scene = Self { store, row: None };
        scene.hear();
        scene
    }

    fn hear(&mut self) {
        let Some(KubernetesInput::Changed { mut nodes, .. }) = self.store.take_news() else { panic!("nothing is new") };
        self.row = nodes.pop();
    }

    fn put(&mut self, claim: &Value) {
        let (key, seen) = read::<ClaimObject>(claim);
        self.store.claims(seen.map_or(News::Gone(key.clone()), |seen| News::Put(key, seen)));
        self.hear();
    }

    fn slices(&mut self, slices: &[Value]) {
        self.store.slices(all::<SliceObject>(slices));
        self.hear();
    }

    fn node(&self) -> &ClusterNode {
        &self.row.as_ref().unwrap().0
    }

    fn pods(&self) -> &NodePods {
        &self.row.as_ref().unwrap().1
    }

    /// Model, class, open devices, all devices.
    fn offers(&self) -> (&str, &str, u32, u16) {
        let ClusterNode { sku, offer, .. } = self.node();
        (sku.as_ref().map_or("", |sku| sku.as_str()), &offer.resource, offer.units, offer.devices())
    }

    fn claimed(&self) -> Vec<(&str, Option<AttemptId>)> {
        self.pods().claimed.iter().map(|(id, attempt)| (&**id, *attempt)).collect()
    }
}

#[test]
fn of_a_slice_and_a_claim_what_counts_is_kept() {
    let tainted =
        json!([{"key": "k", "effect": "None"}, {"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]);
    let counters = json!([{"counterSet": "gpu-2", "counters": {"memory": {"value": "80Gi"}}}]);
    let devices = [
        gpu(0, H100),
        with(gpu(1, H100), "taints", tainted),
        with(gpu(2, H100), "consumesCounters", counters.clone()),
        mig(3, H100, "1g.10gb+me"),
        with(mig(4, H100, "1g.10gb"), "consumesCounters", counters),
        with(gpu(5, H100), "allowMultipleAllocations", json!(true)),
        json!({"name": "bare"}),
        json!({"name": "vfio", "attributes": {"type": {"string": "vfio"}, "productName": {"string": H100}}}),
    ];
    let (key, kept) = read::<SliceObject>(&slice(1, 2, 7, &devices));
    insta::assert_debug_snapshot!((key, kept));
    let mut given = claim("c", &["gpu-0"], Some("p"));
    given["metadata"]["labels"] = json!({"tidewater.dev/attempt": attempt(3).to_string(), "other": "x"});
    let others = json!([
        {"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1", "adminAccess": true},
        {"driver": "nic.example.com", "pool": "n", "device": "nic-0"},
    ]);
    let results = given["status"]["allocation"]["devices"]["results"].as_array_mut().unwrap();
    results.extend(others.as_array().unwrap().iter().cloned());
    insta::assert_debug_snapshot!(read::<ClaimObject>(&given));
    // What holds nothing here is not kept at all.
    given["status"]["allocation"]["devices"]["results"] = others;
    assert_eq!(read::<ClaimObject>(&given).1, None);
    assert_eq!(read::<ClaimObject>(&json!({"metadata": {"uid": "c"}, "spec": {}, "status": {}})).1, None);
    let mut shared = slice(1, 1, 1, &[gpu(0, H100)]);
    shared["spec"].as_object_mut().unwrap().remove("nodeName");
    shared["spec"]["allNodes"] = json!(true);
    assert_eq!(read::<SliceObject>(&shared).1, None, "devices that are no node's own");
}

#[test]
fn only_whole_pools_of_the_newest_generation_count() {
    let mut s = Scene::new(0, &[slice(1, 1, 1, &[gpu(0, H100), gpu(1, H100)])], &[]);
    assert_eq!(s.offers(), ("H100", "gpu.nvidia.com", 2, 2));
    // The next generation has two slices, and one of them is not there yet.
    let old = slice(1, 1, 1, &[gpu(0, H100), gpu(1, H100)]);
    let (first, second) = (slice(1, 2, 2, &[gpu(0, H100)]), slice(2, 2, 2, &[gpu(3, H100), gpu(2, H100)]));
    s.slices(&[old.clone(), first.clone()]);
    assert_eq!(s.offers(), ("", "nvidia.com/gpu", 0, 0));
    s.slices(&[old, second.clone(), first.clone()]);
    assert_eq!(s.offers(), ("H100", "gpu.nvidia.com", 3, 3));
    let ids: Vec<&str> = s.node().offer.claims.as_ref().unwrap().devices.iter().map(|d| &*d.id).collect();
    assert_eq!(ids, ["GPU-0", "GPU-2", "GPU-3"], "in an order that is the same each time");
    // A name twice makes a pool worthless, a UUID twice is one device.
    s.slices(&[slice(1, 2, 2, &[gpu(2, H100)]), second.clone()]);
    assert_eq!(s.offers().3, 0);
    s.slices(&[slice(1, 2, 2, &[with(gpu(2, H100), "name", json!("again"))]), second]);
    assert_eq!(s.offers().3, 2);
    s.store.slices(News::NotServed);
    s.hear();
    assert_eq!(s.offers(), ("", "nvidia.com/gpu", 0, 0));
}

#[test]
fn a_claim_holds_its_devices_whoever_has_reserved_it_and_each_once() {
    let slices = [slice(1, 1, 1, &[gpu(0, H100), gpu(1, H100), gpu(2, H100), gpu(3, H100)])];
    let mut s = Scene::new(0, &slices, &[claim("c", &["gpu-1", "gpu-3"], Some("p")), claim("idle", &["gpu-0"], None)]);
    assert_eq!(s.claimed(), [("GPU-0", None), ("GPU-1", None), ("GPU-3", None)]);
    assert_eq!(s.pods().others.gpu_milli, 3_000);
    // A second claim that says that it has one of them as well.
    s.put(&claim("odd", &["gpu-1"], Some("q")));
    assert_eq!(s.pods().others.gpu_milli, 3_000);
    // Whose it is its pod says, or its own label.
    let ours =
        SeenPod { node: "n".parse().unwrap(), takes: Ok(Takes::default()), attempt: Some(attempt(1)), name: None };
    s.store.pods(News::Put("uid-p".into(), ours));
    s.hear();
    let mut labelled = claim("mine", &["gpu-2"], None);
    labelled["metadata"]["labels"] = json!({"tidewater.dev/attempt": attempt(2).to_string()});
    s.put(&labelled);
    assert_eq!(
        s.claimed(),
        [("GPU-0", None), ("GPU-1", Some(attempt(1))), ("GPU-2", Some(attempt(2))), ("GPU-3", Some(attempt(1)))]
    );
    let gpus: BTreeMap<_, _> =
        s.pods().attempts.iter().map(|(attempt, takes)| (attempt.number.0, takes.gpus())).collect();
    assert_eq!((gpus, s.pods().others.gpus()), (BTreeMap::from([(1, 2), (2, 1)]), 1));
    // Deallocated; and gone with its object.
    s.put(&json!({"metadata": {"uid": "c"}, "status": {}}));
    s.put(&json!({"metadata": {"uid": "odd"}, "status": {}}));
    assert_eq!(s.claimed(), [("GPU-0", None), ("GPU-2", Some(attempt(2)))]);
    s.store.claims(News::All(vec![]));
    s.hear();
    assert_eq!(s.pods().claimed.len(), 0);
    assert_eq!(s.pods().others, Resources::ZERO);
}

#[test]
fn what_is_not_counted_or_given_to_nobody_is_told_once() {
    let tainted = with(gpu(1, H100), "taints", json!([{"key": "k", "effect": "NoSchedule"}]));
    let devices = [gpu(0, H100), tainted, gpu(2, "NVIDIA L4"), with(gpu(3, H100), "attributes", json!({}))];
    let mut s = Scene::new(0, &[slice(1, 1, 1, &devices)], &[]);
    assert_eq!(s.offers(), ("H100", "gpu.nvidia.com", 1, 2));
    assert_eq!(
        s.store.take_complaints(),
        ["devices of node n: not counted are 1 of gpu.nvidia.com: it has no attribute productName, 1 of L4: \
         beside H100; given to nobody are gpu-1 (taint k:NoSchedule)"]
    );
    s.put(&claim("c", &["gpu-1", "gpu-2"], Some("p")));
    assert!(s.store.take_complaints().is_empty());
    assert_eq!(s.claimed(), [("GPU-1", None)], "what is not counted is not taken from what is");
}

#[test]
fn slices_cut_for_good_are_devices_and_those_cut_on_demand_are_their_gpu() {
    let fixed = [mig(1, H100, "1g.10gb"), mig(2, H100, "1g.10gb"), mig(3, H100, "3g.40gb")];
    let s = Scene::new(0, &[slice(1, 1, 1, &fixed)], &[]);
    assert_eq!(s.offers(), ("H100-MIG-1g.10gb", "mig.nvidia.com", 2, 2));
    assert_eq!(s.node().offer.claims.as_ref().unwrap().profile.as_deref(), Some("1g.10gb"));
    assert!(s.node().offer.slices && !s.node().offer.is_counted());

    let of = |device, set: &str| with(device, "consumesCounters", json!([{"counterSet": set}]));
    let cut = [
        of(gpu(0, H100), "gpu-0"),
        of(mig(1, H100, "1g.10gb"), "gpu-0"),
        of(mig(2, H100, "1g.10gb"), "gpu-0"),
        of(gpu(3, H100), "gpu-3"),
    ];
    let mut s = Scene::new(0, &[slice(1, 1, 1, &cut)], &[]);
    assert_eq!(s.offers(), ("H100", "gpu.nvidia.com", 2, 2));
    s.put(&claim("c", &["gpu-0-mig-1"], Some("p")));
    s.put(&claim("d", &["gpu-0-mig-2"], Some("q")));
    assert_eq!(s.claimed(), [("GPU-0", None)], "its GPU can't be had any more, and is one");
    assert_eq!(s.pods().others.gpus(), 1);
}

#[test]
fn where_the_device_plugin_offers_its_gpus_they_count_and_claims_take_from_them() {
    let slices = [slice(1, 1, 1, &[gpu(0, H100), gpu(1, H100)])];
    let mut s = Scene::new(2, &slices, &[claim("c", &["gpu-1"], Some("p"))]);
    assert_eq!(s.node().offer, Offer::whole(2));
    assert_eq!(
        s.store.take_complaints(),
        ["devices of node n: not counted are 2 of gpu.nvidia.com: beside nvidia.com/gpu"]
    );
    assert_eq!((s.pods().others.gpus(), s.pods().claimed.len()), (1, 0));
    let name = PodName { namespace: "d".into(), name: "p".into() };
    assert_eq!(s.pods().named[&name].gpus, 1, "also beside what its kubelet says of the plugin's");
    // A pod that has both takes both.
    let takes = Takes { gpus: vec![("nvidia.com/gpu".into(), 1)], ..Takes::default() };
    let both =
        SeenPod { node: "n".parse().unwrap(), takes: Ok(takes), attempt: None, name: Some(Box::new(name.clone())) };
    s.store.pods(News::Put("uid-p".into(), both));
    s.hear();
    assert_eq!((s.pods().others.gpus(), s.pods().named[&name].gpus), (2, 2));
}
