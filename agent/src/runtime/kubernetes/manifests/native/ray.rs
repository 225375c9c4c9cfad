//! A `RayJob`: submitted once, as one of ours is.

use protocol::workload::Framework;
use serde_json::{Value, json};

use super::super::names::{ROLE, name};
use super::super::pod::Starts;
use super::super::ray::{RAY_JOB_NAME, STARTS, SUBMITTER, give_dashboard_time, submitter};
use super::super::{Kind, Layout, Manifest, ManifestError, Manifests};
use super::{put, take_out};

/// What would have others do the work, or delete it before its end was seen.
const TAKEN_OUT: [&str; 4] = ["suspend", "managedBy", "ttlSecondsAfterFinished", "deletionStrategy"];

pub(super) fn manifests(layout: &Layout<'_>, mut object: Value) -> Result<Manifests, ManifestError> {
    let order = layout.order;
    let job = name(order, "", RAY_JOB_NAME);
    object["metadata"] = layout.native_metadata(&object, &job, layout.labels());
    let mut annotations = json!({"ray.io/disable-provisioned-head-restart": "true"});
    if layout.guard.is_some() {
        annotations["ray.io/overwrite-container-cmd"] = json!("true");
    }
    put(&mut object["metadata"]["annotations"], annotations);
    let spec = &mut object["spec"];
    take_out(spec, &TAKEN_OUT);
    put(
        spec,
        json!({
            "jobId": order.attempt.to_string(),
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 0},
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": true,
        }),
    );
    let cluster = &mut spec["rayClusterSpec"];
    take_out(cluster, &["suspend", "managedBy", "autoscalerOptions"]);
    cluster["enableInTreeAutoscaling"] = json!(false);
    let head = layout.placement("head")?;
    let template = &mut cluster["headGroupSpec"]["template"];
    let image = template["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    ray_starts(layout, template, "headGroupSpec")?;
    layout.dress(template, head, "head", Starts::This(&STARTS), vec![])?;
    give_dashboard_time(template);
    let mut samples = vec![layout.sample(&format!("{job}-head"), template)];
    for (index, worker) in cluster["workerGroupSpecs"].as_array_mut().into_iter().flatten().enumerate() {
        let group = worker["groupName"].as_str().unwrap_or_default().to_owned();
        let Ok(placement) = layout.placement(&group) else {
            // A group without members.
            put(worker, json!({"replicas": 0, "minReplicas": 0}));
            continue;
        };
        let hosts = worker["numOfHosts"].as_u64().unwrap_or(1).max(1);
        let replicas = u64::from(placement.members()) / hosts;
        put(worker, json!({"replicas": replicas, "minReplicas": replicas, "maxReplicas": replicas}));
        if layout.claim(placement).is_some() && worker["rayStartParams"]["num-gpus"].is_null() {
            // KubeRay counts no claims.
            worker["rayStartParams"]["num-gpus"] = json!(placement.each.gpus().to_string());
        }
        let template = &mut worker["template"];
        ray_starts(layout, template, &group)?;
        layout.dress(template, placement, &group, Starts::This(&STARTS), vec![])?;
        samples.push(layout.sample(&format!("{job}-{index}"), template));
    }
    match &mut spec["submitterPodTemplate"] {
        Value::Null => spec["submitterPodTemplate"] = submitter(layout, &image),
        own => {
            put(&mut own["metadata"]["labels"], layout.labels());
            own["metadata"]["labels"][ROLE] = json!(SUBMITTER);
            own["spec"]["restartPolicy"] = json!("Never");
        }
    }
    take_out(&mut object, &["status"]);
    Ok(layout.finish(Framework::Ray, vec![Manifest { kind: Kind::RayJob, name: job, object }], samples))
}

/// KubeRay weaves a command of the container with its own; a guard could start only one of them.
fn ray_starts(layout: &Layout<'_>, template: &Value, group: &str) -> Result<(), ManifestError> {
    let container = &template["spec"]["containers"][0];
    if layout.order.spec.fence().is_some() && !(container["command"].is_null() && container["args"].is_null()) {
        return Err(ManifestError::WovenCommand { group: group.to_owned() });
    }
    Ok(())
}
