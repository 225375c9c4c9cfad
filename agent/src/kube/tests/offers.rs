//! Nodes and pods as NVIDIA's device plugin and GPU feature discovery (0.17) have them.

use protocol::capacity::Sharing;
use serde_json::{Value, json};

use super::super::objects::{NodeObject, PodObject};
use super::super::seen;
use crate::cluster::{ClusterNode, Offer};

/// A node with these labels (without `nvidia.com/`) and these units (likewise).
fn node(labels: &[(&str, &str)], units: &[(&str, u32)]) -> Result<ClusterNode, String> {
    let labels: Value = labels.iter().map(|(label, value)| (format!("nvidia.com/{label}"), json!(value))).collect();
    let mut allocatable = json!({"cpu": "64", "memory": "1Ti", "nvidia.com/gds": "3", "rdma/ib": "8"});
    for (resource, units) in units {
        allocatable[format!("nvidia.com/{resource}")] = json!(units.to_string());
    }
    let object = json!({
        "metadata": {"name": "gpu-0", "labels": labels},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    seen::node(&serde_json::from_value::<NodeObject>(object).unwrap())
}

/// Model, resource, units, sharing, devices.
fn offered(labels: &[(&str, &str)], units: &[(&str, u32)]) -> (String, String, u32, Sharing, u16) {
    let ClusterNode { sku, offer, .. } = node(labels, units).unwrap();
    let Offer { resource, units, sharing, .. } = &offer;
    (sku.map(|s| s.to_string()).unwrap_or_default(), resource.to_string(), *units, *sharing, offer.devices())
}

fn found(
    model: &str,
    resource: &str,
    units: u32,
    sharing: Sharing,
    devices: u16,
) -> (String, String, u32, Sharing, u16) {
    (model.to_owned(), format!("nvidia.com/{resource}"), units, sharing, devices)
}

#[test]
fn replicas_are_parts_of_devices_whatever_the_resource_is_called() {
    let whole = [("gpu.product", "Tesla-T4"), ("gpu.replicas", "1"), ("gpu.sharing-strategy", "none")];
    assert_eq!(offered(&whole, &[("gpu", 8)]), found("T4", "gpu", 8, Sharing::Whole, 8));
    let sliced = [("gpu.product", "Tesla-T4-SHARED"), ("gpu.replicas", "4"), ("gpu.sharing-strategy", "time-slicing")];
    assert_eq!(offered(&sliced, &[("gpu", 32)]), found("T4", "gpu", 32, Sharing::Parts(4), 8));
    let renamed = [("gpu.product", "Tesla-T4"), ("gpu.replicas", "4"), ("gpu.sharing-strategy", "mps")];
    // A kubelet remembers what a device plugin offered before, of which nothing is left.
    let units = [("gpu", 0), ("gpu.shared", 32)];
    assert_eq!(offered(&renamed, &units), found("T4", "gpu.shared", 32, Sharing::Parts(4), 8));
    assert_eq!(offered(&renamed, &[("gpu.shared", 30)]).4, 8, "of one device not all units are given out");
    // Without GPU feature discovery nothing says what a unit is of.
    let odd = node(&[], &[("gpu.shared", 32)]).unwrap();
    assert_eq!((odd.offer, odd.sku), (Offer::whole(0), None));
    assert_eq!(
        odd.passed_over.unwrap(),
        "not counted are nvidia.com/gpu.shared: no label nvidia.com/gpu.replicas says in how many parts; GPU feature discovery \
         writes it"
    );
    assert_eq!(offered(&[], &[("gpu", 8)]).3, Sharing::Whole);
}

#[test]
fn slices_are_of_a_model_of_their_own_by_either_strategy() {
    let single =
        [("gpu.product", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"), ("gpu.replicas", "1"), ("mig.strategy", "single")];
    assert_eq!(offered(&single, &[("gpu", 56)]), found("H100-MIG-1g.10gb", "gpu", 56, Sharing::Whole, 56));
    assert!(node(&single, &[("gpu", 56)]).unwrap().offer.slices);
    let mixed = [("gpu.product", "NVIDIA-H100-80GB-HBM3"), ("gpu.replicas", "0"), ("mig-1g.10gb.replicas", "1")];
    let units = [("gpu", 0), ("mig-1g.10gb", 56)];
    assert_eq!(offered(&mixed, &units), found("H100-MIG-1g.10gb", "mig-1g.10gb", 56, Sharing::Whole, 56));
    let media = offered(&mixed, &[("mig-1g.10gb.me", 8)]);
    assert_eq!(media, found("H100-MIG-1g.10gb.me", "mig-1g.10gb.me", 8, Sharing::Whole, 8));
    // Slices can be in parts themselves.
    let shared = [("gpu.product", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-SHARED"), ("gpu.replicas", "2")];
    assert_eq!(offered(&shared, &[("gpu", 28)]), found("H100-MIG-1g.10gb", "gpu", 28, Sharing::Parts(2), 14));
    // What is said of slices that the strategy does not allow is no whole GPU.
    let invalid = [("gpu.product", "NVIDIA-H100-80GB-HBM3-MIG-INVALID"), ("gpu.replicas", "0"), ("gpu.count", "0")];
    let (model, .., devices) = offered(&invalid, &[("gpu", 0)]);
    assert_eq!((&*model, devices), ("NVIDIA-H100-80GB-HBM3-MIG-INVALID", 0));
}

#[test]
fn one_kind_of_several_is_counted_and_a_person_is_told_of_the_others() {
    let labels = [("gpu.product", "NVIDIA-A100-SXM4-40GB"), ("gpu.replicas", "1")];
    let mixed = node(&labels, &[("gpu", 6), ("mig-1g.5gb", 8), ("mig-3g.20gb", 2)]).unwrap();
    assert_eq!((mixed.sku.unwrap().as_str(), &*mixed.offer.resource), ("A100-40GB", "nvidia.com/gpu"));
    assert_eq!(
        mixed.passed_over.unwrap(),
        "not counted are 8 of nvidia.com/mig-1g.5gb: beside nvidia.com/gpu, 2 of nvidia.com/mig-3g.20gb: beside nvidia.com/gpu"
    );
    let slices = node(&labels, &[("mig-3g.20gb", 2), ("mig-1g.5gb", 8), ("mig-2g.10gb", 8)]).unwrap();
    assert_eq!(&*slices.offer.resource, "nvidia.com/mig-1g.5gb", "the most, and of equals the first");
}

#[test]
fn figures_that_cannot_be_leave_the_node_out() {
    let why = node(&[("gpu.replicas", "many")], &[("gpu", 8)]).unwrap_err();
    assert_eq!(why, "node gpu-0: label nvidia.com/gpu.replicas: \"many\" is no number of parts from 1 to 1000");
    assert!(node(&[("gpu.replicas", "1001")], &[("gpu", 8)]).is_err());
    let why = node(&[("gpu.replicas", "2")], &[("gpu", 4_000)]).unwrap_err();
    assert_eq!(why, "node gpu-0: status.allocatable.nvidia.com/gpu: 2000 GPUs; a node has at most 1024");
}

#[test]
fn a_pod_takes_units_of_every_resource_that_it_asks_for() {
    let container = |requests: Value| json!({"name": "c", "resources": {"requests": requests}});
    let containers = [
        container(json!({"nvidia.com/gpu": "1", "nvidia.com/mig-1g.5gb": "2", "nvidia.com/gds": "1"})),
        container(json!({"nvidia.com/mig-1g.5gb": 1, "nvidia.com/gpu.shared": "1", "rdma/ib": "1"})),
    ];
    let starting = [container(json!({"nvidia.com/mig-1g.5gb": "2", "nvidia.com/gpu": "3"}))];
    let spec = json!({"nodeName": "n", "containers": containers, "initContainers": starting});
    let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
    let seen = seen::pod(&serde_json::from_value::<PodObject>(pod).unwrap()).unwrap();
    let takes = seen.takes.unwrap();
    let units = ["gpu", "gpu.shared", "mig-1g.5gb", "gds"].map(|name| takes.units(&format!("nvidia.com/{name}")));
    assert_eq!(units, [3, 1, 3, 0]);
    assert_eq!(takes.of("nvidia.com/gpu.shared").gpu_milli, 1_000);
    assert!(seen.name.is_some(), "its kubelet may name it");
}
