//! What is kept of a node and of a pod.

use protocol::sku::Sku;
use serde_json::{Value, json};

use super::super::amounts::Takes;
use super::super::objects::{NodeObject, PodObject};
use super::super::seen::{self, SeenPod};
use crate::cluster::ClusterNode;

fn node(changes: Value) -> Result<ClusterNode, String> {
    let mut node = json!({
        "metadata": {"name": "gpu-0", "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "x": "y"}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "191900m", "memory": "2113537068Ki", "nvidia.com/gpu": "8", "pods": "110"},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut node, changes);
    seen::node(&serde_json::from_value::<NodeObject>(node).unwrap())
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            changes.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, changes) => *into = changes,
    }
}

#[test]
fn a_node_has_what_kubernetes_gives_out_there_and_the_model_of_its_label() {
    let found = node(json!({})).unwrap();
    assert_eq!(found.name.as_str(), "gpu-0");
    assert_eq!(found.sku, Some(Sku::parse("H100").unwrap()));
    assert_eq!((found.offer.devices(), found.cpu_milli, found.memory_mib), (8, 191_900, 2_064_001));
    assert_eq!(found.closed, None);
    let plain =
        node(json!({"metadata": {"labels": null}, "status": {"allocatable": {"nvidia.com/gpu": null}}})).unwrap();
    assert_eq!((plain.sku, plain.offer.devices()), (None, 0));
    let new = node(json!({"metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-X9"}}})).unwrap();
    assert_eq!(new.sku.unwrap().as_str(), "NVIDIA-X9", "what is not known is shown under its own name");
    let silent = node(json!({"status": null})).unwrap();
    assert_eq!((silent.offer.devices(), silent.cpu_milli), (0, 0));
    assert_eq!(silent.closed.unwrap(), "its kubelet has not said that it is ready");
}

#[test]
fn a_node_takes_nobody_while_it_is_cordoned_not_ready_or_tainted_and_the_reason_is_kept() {
    let closed = |changes| node(changes).unwrap().closed;
    assert_eq!(closed(json!({"spec": {"unschedulable": true}})).unwrap(), "it is cordoned (spec.unschedulable)");
    let unknown = json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]);
    let why = closed(json!({"status": {"conditions": unknown}})).unwrap();
    assert_eq!(why, "it is not ready (Ready is Unknown: NodeStatusUnknown)");
    let taints = |taints: Value| closed(json!({"spec": {"taints": taints}}));
    let why = taints(json!([{"key": "team", "value": "a", "effect": "NoSchedule"}])).unwrap();
    assert_eq!(why, "it has the taint team=a:NoSchedule, which nothing that is placed here tolerates");
    assert!(taints(json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}])).is_some());
    assert_eq!(taints(json!([{"key": "team", "effect": "PreferNoSchedule"}])), None);
    assert_eq!(taints(json!([{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}])), None);
}

#[test]
fn nonsense_names_the_node_and_the_field() {
    let why = node(json!({"status": {"allocatable": {"memory": "lots"}}})).unwrap_err();
    assert_eq!(
        why,
        "node gpu-0: status.allocatable.memory: \"lots\" is no quantity: write a number such as 4, 500m or 16Gi"
    );
    let why = node(json!({"status": {"allocatable": {"cpu": "-3"}}})).unwrap_err();
    assert_eq!(why, "node gpu-0: status.allocatable.cpu: \"-3\" is negative");
    let why = node(json!({"status": {"allocatable": {"nvidia.com/gpu": "5000"}}})).unwrap_err();
    assert_eq!(why, "node gpu-0: status.allocatable.nvidia.com/gpu: 5000 GPUs; a node has at most 1024");
    assert!(node(json!({"status": {"allocatable": {"cpu": ["4"]}}})).is_err());
    assert!(node(json!({"metadata": {"name": "a".repeat(64)}})).unwrap_err().contains("too long"));
}

fn pod(spec: Value, status: Value) -> Option<SeenPod> {
    let mut whole = json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "x"}},
        "spec": {"nodeName": "gpu-0"},
        "status": {"phase": "Running"},
    });
    merge(&mut whole, json!({"spec": spec, "status": status}));
    seen::pod(&serde_json::from_value::<PodObject>(whole).unwrap())
}

fn container(name: &str, cpu: &str, memory: &str, gpus: u32) -> Value {
    json!({"name": name, "resources": {"requests": {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus.to_string()}}})
}

fn sidecar(name: &str, cpu: &str) -> Value {
    let mut container = container(name, cpu, "0", 0);
    container["restartPolicy"] = "Always".into();
    container
}

fn takes(spec: Value) -> (u64, u64, u64) {
    taken(pod(spec, json!({})).unwrap().takes.unwrap())
}

fn taken(takes: Takes) -> (u64, u64, u64) {
    let r = takes.of("nvidia.com/gpu");
    (r.cpu_milli, r.memory_mib, r.gpu_milli)
}

#[test]
fn a_pod_takes_what_the_scheduler_counts_for_it() {
    let two = json!([container("a", "1", "1Gi", 1), container("b", "500m", "1", 2)]);
    assert_eq!(takes(json!({"containers": two})), (1_500, 1_025, 3_000));
    // Init containers run one after the other, before the others.
    let init = json!([container("i", "4", "10Mi", 0), container("j", "3", "2Gi", 1)]);
    assert_eq!(takes(json!({"containers": two, "initContainers": init})), (4_000, 2_048, 3_000));
    // Sidecars run beside all that comes after them.
    let init = json!([sidecar("s", "1"), container("i", "2", "0", 0), sidecar("t", "1")]);
    assert_eq!(takes(json!({"containers": two, "initContainers": init})), (3_500, 1_025, 3_000));
    let init = json!([sidecar("s", "1"), container("i", "8", "0", 0), sidecar("t", "1")]);
    assert_eq!(takes(json!({"containers": two, "initContainers": init})), (9_000, 1_025, 3_000));
    let overhead = json!({"cpu": "250m", "memory": "120Mi"});
    assert_eq!(takes(json!({"containers": two, "overhead": overhead})), (1_750, 1_145, 3_000));
    // Of the pod as a whole; it says nothing of memory, so that the containers' counts.
    let whole = json!({"requests": {"cpu": "6"}});
    assert_eq!(takes(json!({"containers": two, "resources": whole, "overhead": overhead})), (6_250, 1_145, 3_000));
    assert_eq!(takes(json!({"containers": [{"name": "none"}]})), (0, 0, 0));
    // While a container is made smaller it still has what it had.
    let status = json!({"containerStatuses": [
        {"name": "a", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"memory": "3Gi"}},
    ]});
    let resized = pod(json!({"containers": [container("a", "1", "1Gi", 0)]}), status).unwrap();
    assert_eq!(taken(resized.takes.unwrap()), (2_000, 3_072, 0));
}

#[test]
fn a_pod_counts_from_when_it_is_bound_until_it_ended() {
    let spec = || json!({"containers": [container("a", "1", "1Gi", 1)]});
    assert!(pod(spec(), json!({"phase": "Pending"})).is_some());
    assert!(pod(spec(), json!({"phase": "Unknown"})).is_some());
    assert!(pod(spec(), json!({"phase": "Succeeded"})).is_none());
    assert!(pod(spec(), json!({"phase": "Failed"})).is_none());
    assert!(pod(json!({"nodeName": null}), json!({"phase": "Pending"})).is_none());
    assert!(pod(json!({"nodeName": ""}), json!({})).is_none());
}

#[test]
fn a_pods_attempt_is_its_label_and_nonsense_names_the_pod_and_the_field() {
    let attempt = "01890a5d-ac96-774b-bcce-b302099a8057-3";
    let mut object = json!({"metadata": {"labels": {"tidewater.dev/attempt": attempt}}, "spec": {"nodeName": "n"}});
    let read = |object: &Value| seen::pod(&serde_json::from_value::<PodObject>(object.clone()).unwrap()).unwrap();
    assert_eq!(read(&object).attempt.unwrap().to_string(), attempt);
    object["metadata"]["labels"]["tidewater.dev/attempt"] = "mine".into();
    assert_eq!(read(&object).attempt, None);
    let bad = pod(json!({"containers": [container("a", "1", "much", 0)]}), json!({})).unwrap();
    assert_eq!(
        &*bad.takes.unwrap_err(),
        "pod ns/p: spec.containers[a].resources.requests.memory: \"much\" is no quantity: write a number such as 4, 500m \
         or 16Gi"
    );
}

#[test]
fn a_pod_is_kept_by_name_where_its_kubelet_may_name_it() {
    let named = |gpus, labels: Value| {
        let whole = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": labels},
            "spec": {"nodeName": "gpu-0", "containers": [container("a", "1", "1Gi", gpus)]},
        });
        let seen = seen::pod(&serde_json::from_value::<PodObject>(whole).unwrap()).unwrap();
        let gpus = seen.takes.unwrap().units("nvidia.com/gpu");
        (seen.name.map(|name| format!("{}/{}", name.namespace, name.name)), gpus, seen.attempt.is_some())
    };
    let attempt = json!({"tidewater.dev/attempt": "00000000-0000-0000-0000-000000000007-1"});
    assert_eq!(named(0, json!({})), (None, 0, false), "most pods have nothing to do with GPUs");
    assert_eq!(named(2, json!({})), (Some("ns/p".into()), 2, false));
    // One that has a share of a GPU asks for none.
    assert_eq!(named(0, attempt), (Some("ns/p".into()), 0, true));
}
