//! Ray: a `RayJob` of KubeRay, which makes the Ray cluster and submits the job to it, once.
//!
//! Once, because the submission's id is the attempt's, the submitter is not tried again, the `RayJob` is not either, and a head that ended
//! is not made anew. The entrypoint is a file of a config map: the shells between a `RayJob` and its driver would each read it differently.

use protocol::control::GroupPlacement;
use protocol::workload::Framework;
use serde_json::{Value, json};

use super::names::{ROLE, name};
use super::pod::{Access, Container, Volume, push, variable};
use super::{Kind, Layout, Manifest, ManifestError, Manifests};
use crate::runtime::DASHBOARD_TIME;

/// KubeRay's own limit.
pub(super) const RAY_JOB_NAME: usize = 47;
/// Where the entrypoint is in the head's pod.
const ENTRYPOINT_DIR: &str = "/etc/tidewater";
const ENTRYPOINT: &str = "entrypoint.sh";
/// The role of the pod that submits the job, and prints its log.
pub(in crate::runtime::kubernetes) const SUBMITTER: &str = "submitter";
/// What KubeRay starts in the containers: it says so in a variable where somebody else is to start it.
pub(super) const STARTS: [&str; 3] = ["/bin/bash", "-c", "ulimit -n 65536; $KUBERAY_GEN_RAY_START_CMD"];
/// What `ray job submit` takes. It is not part of the gang, and so not of what was reserved.
const SUBMITTER_TAKES: (&str, &str) = ("200m", "512Mi");

pub(super) fn manifests(layout: &Layout<'_>) -> Result<Manifests, ManifestError> {
    let order = layout.order;
    let spec = order.spec.ray.as_ref().ok_or_else(|| ManifestError::NoPlacement("ray".into()))?;
    let image = spec.image.as_deref().ok_or(ManifestError::NoImage { field: "spec.ray.image" })?;
    let job = name(order, "", RAY_JOB_NAME);
    let head = layout.placement("head")?;
    // KubeRay starts Ray in the containers.
    let mut template = layout.template(head, Container::of_image("ray-head", image, "head", &STARTS))?;
    let of = json!({"configMap": {"name": job}});
    Volume { name: "entrypoint", of, path: ENTRYPOINT_DIR, access: Access::Read }.mount(&mut template);
    give_dashboard_time(&mut template);
    let mut samples = vec![layout.sample(&format!("{job}-head"), &template)];
    let mut head_parameters = start_parameters(layout, head);
    head_parameters["dashboard-host"] = json!("0.0.0.0");
    let mut workers = vec![];
    for placement in order.placement.iter().filter(|placement| placement.group != head.group) {
        let group = placement.group.as_str();
        let template = layout.template(placement, Container::of_image("ray-worker", image, group, &STARTS))?;
        samples.push(layout.sample(&format!("{job}-{}", workers.len()), &template));
        let members = placement.members();
        workers.push(json!({
            "groupName": group,
            "replicas": members,
            "minReplicas": members,
            "maxReplicas": members,
            "rayStartParams": start_parameters(layout, placement),
            "template": template,
        }));
    }
    let entrypoint = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": layout.metadata(&job, layout.labels()),
        "immutable": true,
        "data": {ENTRYPOINT: format!("{}\n", spec.entrypoint)},
    });
    let mut metadata = layout.metadata(&job, layout.labels());
    metadata["annotations"] = json!({"ray.io/disable-provisioned-head-restart": "true"});
    if layout.guard.is_some() {
        metadata["annotations"]["ray.io/overwrite-container-cmd"] = json!("true");
    }
    let object = json!({
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            "entrypoint": format!("sh {ENTRYPOINT_DIR}/{ENTRYPOINT}"),
            "jobId": order.attempt.to_string(),
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": 0},
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": true,
            "submitterPodTemplate": submitter(layout, image),
            "rayClusterSpec": {
                "enableInTreeAutoscaling": false,
                "headGroupSpec": {"rayStartParams": head_parameters, "template": template},
                "workerGroupSpecs": workers,
            },
        },
    });
    let objects = vec![
        Manifest { kind: Kind::ConfigMap, name: job.clone(), object: entrypoint },
        Manifest { kind: Kind::RayJob, name: job, object },
    ];
    Ok(layout.finish(Framework::Ray, objects, samples))
}

/// Ray gives its dashboard 30 s to start, and a head with one core may take longer: then it never answers, and KubeRay never submits.
pub(super) fn give_dashboard_time(head: &mut Value) {
    let env = &mut head["spec"]["containers"][0]["env"];
    let is_there = |name: &str| env.as_array().is_some_and(|env| env.iter().any(|variable| variable["name"] == name));
    let missing = DASHBOARD_TIME.into_iter().filter(|(name, _)| !is_there(name));
    let missing: Vec<Value> = missing.map(|(name, seconds)| variable(name, seconds)).collect();
    push(env, missing);
}

/// Ray knows whole cores only. KubeRay counts GPUs of whole devices; of a slice or a part it does not know that it is one.
fn start_parameters(layout: &Layout<'_>, placement: &GroupPlacement) -> Value {
    let mut parameters = json!({"num-cpus": placement.each.cpu_milli.div_ceil(1000).to_string()});
    if layout.devices.contains_key(&placement.group) {
        parameters["num-gpus"] = json!(placement.each.gpus().to_string());
    }
    parameters
}

/// The template of the pod that submits the job.
pub(super) fn submitter(layout: &Layout<'_>, image: &str) -> Value {
    let mut metadata = json!({"labels": layout.labels()});
    metadata["labels"][ROLE] = json!(SUBMITTER);
    let (cpu, memory) = SUBMITTER_TAKES;
    let mut container = json!({
        "name": "ray-job-submitter",
        "image": image,
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}},
        "securityContext": layout.of_container(),
    });
    layout.pull(&mut container);
    let mut template = json!({
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": layout.of_pod(),
            "tolerations": layout.tolerations(),
            "containers": [container],
        },
    });
    layout.prioritise(&mut template);
    template
}
