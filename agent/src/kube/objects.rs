//! Of the API server's objects only the fields that the capacity table needs: everything else is passed over while it is
//! read, so that a page of large pods costs no more memory than its text.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::offer::{PRODUCT, is_gpu};

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
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// The product of a node's GPUs.
    pub product: Option<String>,
    /// Whose a pod is.
    pub attempt: Option<String>,
    /// By resource, without the suffix of shared ones: how many units there are of a device.
    pub replicas: BTreeMap<Box<str>, String>,
}

/// The label of a pod with its attempt.
const ATTEMPT: &str = "tidewater.dev/attempt";
/// What follows a resource in the label that says how many units there are of a device.
const REPLICAS: &str = ".replicas";

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut labels = Labels::default();
        let resource = |label: &str| label.strip_suffix(REPLICAS).filter(|resource| is_gpu(resource)).map(Box::from);
        let wanted = |label: &str| matches!(label, PRODUCT | ATTEMPT) || resource(label).is_some();
        for (label, value) in entries::<_, String>(d, wanted)? {
            match (&*label, resource(&label), value) {
                (PRODUCT, _, value) => labels.product = value,
                (ATTEMPT, _, value) => labels.attempt = value,
                (_, Some(resource), Some(value)) => drop(labels.replicas.insert(resource, value)),
                _ => {}
            }
        }
        Ok(labels)
    }
}

/// Amounts by resource; the API server writes them as texts.
#[derive(Debug, Default)]
pub(super) struct Amounts {
    pub cpu: Option<Value>,
    pub memory: Option<Value>,
    /// Of the resources under which NVIDIA's device plugin offers GPUs, parts and slices of them.
    pub gpus: Vec<(Box<str>, Value)>,
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut amounts = Amounts::default();
        let wanted = |resource: &str| matches!(resource, "cpu" | "memory") || is_gpu(resource);
        for (resource, value) in entries::<_, Value>(d, wanted)? {
            match (&*resource, value) {
                ("cpu", value) => amounts.cpu = value,
                ("memory", value) => amounts.memory = value,
                (_, Some(value)) => amounts.gpus.push((resource, value)),
                _ => {}
            }
        }
        Ok(amounts)
    }
}

/// Those entries of an object whose key is wanted. The others are passed over without a copy.
pub(super) fn entries<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    d: D,
    wanted: impl Fn(&str) -> bool,
) -> Result<Entries<V>, D::Error> {
    d.deserialize_map(Wanted(wanted, PhantomData))
}

pub(super) type Entries<V> = Vec<(Box<str>, Option<V>)>;

/// Reads an object, and of a key whether it is wanted.
struct Wanted<W, V>(W, PhantomData<V>);

impl<'de, W: Fn(&str) -> bool, V: Deserialize<'de>> Visitor<'de> for Wanted<W, V> {
    type Value = Entries<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![];
        while let Some(key) = map.next_key_seed(Key(&self.0))? {
            match key {
                Some(key) => found.push((key, map.next_value()?)),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// A key, if it is wanted.
struct Key<'w, W>(&'w W);

impl<'de, W: Fn(&str) -> bool> DeserializeSeed<'de> for Key<'_, W> {
    type Value = Option<Box<str>>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl<W: Fn(&str) -> bool> Visitor<'_> for Key<'_, W> {
    type Value = Option<Box<str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok((self.0)(key).then(|| key.into()))
    }
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

/// Keeps pods away that do not tolerate it, from a node or from a device.
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
