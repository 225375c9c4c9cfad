//! Objects that a person handed in as they are. What makes them an attempt of Tidewater is put into them, and what would try anything a
//! second time, or delete what is still to be looked at, is taken out; the rest stays as it is.
//!
//! | in | is set | is taken out |
//! |---|---|---|
//! | metadata | name, namespace, labels | what an API server or controller wrote, finalizers, owners |
//! | each pod template | labels, environment, secrets, node affinity to the decision, tolerations, guard, `restartPolicy: Never` | |
//! | `Job` | `backoffLimit: 0`, parallelism, the rule that a pod that was taken away fails it; Indexed where completions are counted | its own rules on failed pods, `suspend`, `managedBy`, `ttlSecondsAfterFinished` |
//! | `RayJob` | submission once, replicas, cluster deleted at the end, a submitter with our labels | `suspend`, `managedBy`, its time to live and deletion strategy |
//! | `SparkApplication` | `restartPolicy: Never`, the driver's name, instances, templates with the above | `suspend`, its time to live and retries |
//!
//! A priority class, a service account, node selectors and security contexts that it has stay.

mod job;
mod pod;
mod ray;
mod spark;
#[cfg(test)]
mod tests;

use protocol::workload::{Framework, NativeManifest, without_server};
use serde_json::{Map, Value, json};

use super::{Layout, ManifestError, Manifests};

pub(super) use spark::driver_account;

pub(super) fn manifests(layout: &Layout<'_>, manifest: &NativeManifest) -> Result<Manifests, ManifestError> {
    let object = manifest.object();
    let mut made = match layout.order.spec.framework()? {
        Framework::Batch => job::manifests(layout, object),
        Framework::Ray => ray::manifests(layout, object),
        Framework::Spark => spark::manifests(layout, object),
    }?;
    for manifest in made.objects.iter_mut().chain(&mut made.samples) {
        without_nulls(&mut manifest.object);
    }
    Ok(made)
}

/// An API server takes what is `null` in some places for what is not there, and refuses it in others.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

impl Layout<'_> {
    /// An object's metadata with these names and labels in place of its own.
    fn native_metadata(&self, object: &Value, name: &str, labels: Value) -> Value {
        let mut metadata = Value::Object(without_server(&object["metadata"]));
        put(&mut metadata["labels"], labels);
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(self.namespace());
        metadata
    }
}

/// Sets what stands in one map in another as well.
fn put(into: &mut Value, more: Value) {
    if let Value::Object(more) = more {
        map(into).extend(more);
    }
}

/// A map to write into; what is there and is none is replaced.
fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made one"),
    }
}

/// Takes fields out.
fn take_out(value: &mut Value, fields: &[&str]) {
    if let Value::Object(map) = value {
        map.retain(|name, _| !fields.contains(&name.as_str()));
    }
}
