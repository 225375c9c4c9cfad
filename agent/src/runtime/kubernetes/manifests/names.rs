//! Names and labels of an attempt's objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use protocol::control::LaunchOrder;
use protocol::ids::{AttemptId, ClusterName, Namespace, WorkloadKey, WorkloadName};
use serde_json::{Value, json};

use super::Layout;

/// The workload's name.
pub const WORKLOAD: &str = "tidewater.dev/workload";
/// The attempt, as [`AttemptId`] is written.
pub const ATTEMPT: &str = "tidewater.dev/attempt";
/// The group of a pod.
pub const GROUP: &str = "tidewater.dev/group";
/// What a pod is beside the members of the gang, such as `submitter`.
pub const ROLE: &str = "tidewater.dev/role";
/// The cluster, as the federation names it.
pub const CLUSTER: &str = "tidewater.dev/cluster";
/// Kubernetes' own label for who made an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value here.
pub const MANAGER: &str = "tidewater";

/// How much of the hash of all of a name's parts stands in it: 40 bits, among the attempts of one workload.
const HASH_DIGITS: usize = 10;

/// A selector of all objects of one attempt.
pub fn of_attempt(attempt: AttemptId) -> String {
    format!("{ATTEMPT}={attempt}")
}

/// A selector of all objects of a cluster's attempts.
pub fn of_cluster(cluster: &ClusterName) -> String {
    format!("{MANAGED_BY}={MANAGER},{CLUSTER}={cluster},{ATTEMPT}")
}

/// Whose an object is, by its labels.
pub fn attempt_of(labels: Option<&BTreeMap<String, String>>) -> Option<AttemptId> {
    labels?.get(ATTEMPT)?.parse().ok()
}

/// Whose workload an object is part of, by its labels and its namespace.
pub(in crate::runtime::kubernetes) fn workload_of(metadata: &ObjectMeta) -> Option<WorkloadKey> {
    let name = WorkloadName::new(metadata.labels.as_ref()?.get(WORKLOAD)?.as_str()).ok()?;
    let namespace = Namespace::new(metadata.namespace.as_deref()?).ok()?;
    Some(WorkloadKey { namespace, name })
}

/// [`name_of`] a part of what is ordered.
pub(super) fn name(order: &LaunchOrder, part: &str, limit: usize) -> String {
    name_of(&order.key, order.attempt, part, limit)
}

/// A name of at most `limit` characters that only this part of this attempt has: the workload and the part as far as there is room, the
/// attempt's number, and a hash of all. A DNS label that begins with a letter, as services need it.
pub(super) fn name_of(key: &WorkloadKey, attempt: AttemptId, part: &str, limit: usize) -> String {
    let tail = format!("-{}-{}", attempt.number, hash(&format!("{key}/{attempt}/{part}")));
    let mut head = key.name.as_str().replace('.', "-");
    if !part.is_empty() {
        head = format!("{head}-{part}");
    }
    if !head.starts_with(|c: char| c.is_ascii_lowercase()) {
        head.insert(0, 'w');
    }
    head.truncate(limit - tail.len());
    format!("{}{tail}", head.trim_end_matches('-'))
}

fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(HASH_DIGITS);
    hex
}

impl Layout<'_> {
    /// The labels of every object.
    pub(super) fn labels(&self) -> Value {
        json!({
            MANAGED_BY: MANAGER,
            CLUSTER: self.settings.cluster,
            WORKLOAD: self.order.key.name,
            ATTEMPT: self.order.attempt.to_string(),
        })
    }

    /// The labels of a group's objects.
    pub(super) fn labels_of(&self, group: &str) -> Value {
        let mut labels = self.labels();
        labels[GROUP] = json!(group);
        labels
    }

    /// An object's metadata.
    pub(super) fn metadata(&self, name: &str, labels: Value) -> Value {
        json!({"name": name, "namespace": self.namespace(), "labels": labels})
    }
}
