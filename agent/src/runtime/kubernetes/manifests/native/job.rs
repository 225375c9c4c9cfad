//! A `Job`: one group of pods.

use protocol::workload::Framework;
use serde_json::{Value, json};

use super::super::batch::{INDEX, JOB_NAME, failure_policy, sample};
use super::super::names::name;
use super::super::pod::{Starts, field};
use super::super::{Kind, Layout, Manifest, ManifestError, Manifests};
use super::take_out;

/// What would try failed pods again, have others do the work, or delete it before its end was seen.
const TAKEN_OUT: [&str; 6] = [
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "suspend",
    "managedBy",
    "ttlSecondsAfterFinished",
    "podReplacementPolicy",
];

pub(super) fn manifests(layout: &Layout<'_>, mut object: Value) -> Result<Manifests, ManifestError> {
    let Some(placement) = layout.order.placement.first() else {
        return Err(ManifestError::NoPlacement("workers".into()));
    };
    let group = placement.group.as_str();
    let name = name(layout.order, group, JOB_NAME);
    object["metadata"] = layout.native_metadata(&object, &name, layout.labels_of(group));
    let counted = object["spec"]["completions"].is_u64() || object["spec"]["parallelism"].is_null();
    let spec = &mut object["spec"];
    take_out(spec, &TAKEN_OUT);
    spec["parallelism"] = json!(placement.members());
    spec["backoffLimit"] = json!(0);
    spec["podReplacementPolicy"] = json!("Failed");
    spec["podFailurePolicy"] = failure_policy();
    let (own_name, more) = match counted {
        true => {
            // Each pod then has a number by which its log can be asked for.
            spec["completionMode"] = json!("Indexed");
            if spec["completions"].is_null() {
                spec["completions"] = json!(1);
            }
            (format!("{group}-$(TIDEWATER_INDEX)"), vec![field("TIDEWATER_INDEX", INDEX)])
        }
        false => (group.to_owned(), vec![]),
    };
    let starts = Starts::Unknown("spec.manifest.spec.template.spec.containers[].command");
    layout.dress(&mut spec["template"], placement, &own_name, starts, more)?;
    take_out(&mut object, &["status"]);
    let samples = vec![sample(layout, &name, &object["spec"]["template"])];
    Ok(layout.finish(Framework::Batch, vec![Manifest { kind: Kind::Job, name, object }], samples))
}
