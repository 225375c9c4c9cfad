//! Of the API server's objects only the fields that the capacity table needs: everything else is passed over while it is
//! read, so that a page of large pods costs no more memory than its text.

use serde::Deserialize;
use serde_json::Value;

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    #[serde(default)]
    pub metadata: PageMetadata,
    // Go writes an empty list as null.
    pub items: Option<Vec<T>>,
}

/// What a page says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PageMetadata {
    pub resource_version: Option<String>,
    #[serde(rename = "continue")]
    pub token: Option<String>,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Event<T> {
    #[serde(rename = "type")]
    pub kind: String,
    pub object: T,
}

/// An answer that is an error; also the object of a watch's `ERROR`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Refusal {
    pub code: Option<u16>,
    pub message: Option<String>,
    pub reason: Option<String>,
    pub details: Option<RefusalDetails>,
}

/// More of an error.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RefusalDetails {
    pub retry_after_seconds: Option<u64>,
}

/// What every object says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub labels: Option<Labels>,
}

/// Labels that mean something here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Labels {
    #[serde(rename = "nvidia.com/gpu.product")]
    pub product: Option<String>,
    #[serde(rename = "tidewater.dev/attempt")]
    pub attempt: Option<String>,
}

/// Amounts by resource; the API server writes them as texts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Amounts {
    pub cpu: Option<Value>,
    pub memory: Option<Value>,
    #[serde(rename = "nvidia.com/gpu")]
    pub gpus: Option<Value>,
}

/// A node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeObject {
    pub metadata: Metadata,
    pub spec: Option<NodeSpec>,
    pub status: Option<NodeStatus>,
}

/// What a person or a controller wants of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeSpec {
    pub unschedulable: Option<bool>,
    pub taints: Option<Vec<Taint>>,
}

/// Keeps pods away that do not tolerate it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Taint {
    pub key: String,
    pub value: Option<String>,
    pub effect: String,
}

/// What a kubelet says of its node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    pub allocatable: Option<Amounts>,
    pub conditions: Option<Vec<Condition>>,
}

/// One thing that holds of a node, or does not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: Option<String>,
}

/// A pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodObject {
    pub metadata: Metadata,
    pub spec: Option<PodSpec>,
    pub status: Option<PodStatus>,
}

/// What a pod is to be.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub node_name: Option<String>,
    pub containers: Option<Vec<Container>>,
    pub init_containers: Option<Vec<Container>>,
    pub overhead: Option<Amounts>,
    /// Of the pod as a whole (Kubernetes 1.34 and later).
    pub resources: Option<Requirements>,
}

/// A container of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub name: String,
    pub resources: Option<Requirements>,
    pub restart_policy: Option<String>,
}

/// What something asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Requirements {
    pub requests: Option<Amounts>,
}

/// How far a pod is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub phase: Option<String>,
    pub container_statuses: Option<Vec<ContainerStatus>>,
    pub init_container_statuses: Option<Vec<ContainerStatus>>,
}

/// What a container has, which is not what it asks for while it is resized.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub name: String,
    pub resources: Option<Requirements>,
    pub allocated_resources: Option<Amounts>,
}
