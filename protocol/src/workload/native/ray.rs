//! A `RayJob`: a head and groups of workers.

use super::place::{Faults, Place};
use super::pod;
use crate::workload::GroupNeed;

/// The one way to submit the job that is carried out once, whatever ends meanwhile.
const SUBMISSION_MODE: &str = "K8sJobMode";

pub(super) fn groups(spec: &Place<'_>, faults: &mut Faults) -> Vec<GroupNeed> {
    spec.get("clusterSelector")
        .refuse("a job on a Ray cluster that is there already is not placed: write rayClusterSpec instead", faults);
    let entrypoint = spec.get("entrypoint");
    if entrypoint.text(faults).is_none_or(|text| text.trim().is_empty()) {
        entrypoint.fault("it is empty: write the command that the job runs", faults);
    }
    let mode = spec.get("submissionMode");
    if let Some(other) = mode.text(faults).filter(|mode| *mode != SUBMISSION_MODE) {
        mode.fault(format!("{other} is not taken: leave it out ({SUBMISSION_MODE})"), faults);
    }
    let cluster = spec.get("rayClusterSpec");
    if !cluster.is_there() {
        cluster.fault("it is not there: write the Ray cluster that the job runs on", faults);
        return vec![];
    }
    let autoscaling = cluster.get("enableInTreeAutoscaling");
    if autoscaling.is_true() {
        let why = "how many workers there are is decided as the gang is placed: leave it out, or write spec.ray with min and max";
        autoscaling.fault(why, faults);
    }
    let mut groups: Vec<GroupNeed> =
        pod::group(&cluster.get("headGroupSpec").get("template"), "head", 1, faults).into_iter().collect();
    for worker in cluster.get("workerGroupSpecs").list(faults) {
        worker.get("suspend").refuse("KubeRay suspends groups of its own accord only: leave it out", faults);
        let name = worker.get("groupName");
        let Some(name_text) = name.text(faults) else {
            name.fault("it is not there: name the group", faults);
            continue;
        };
        if name_text == "head" || groups.iter().any(|group| group.name.as_str() == name_text) {
            name.fault(format!("{name_text} is taken: each group needs a name of its own"), faults);
            continue;
        }
        let members = members(&worker, faults);
        if members > 0 {
            groups.extend(pod::group(&worker.get("template"), name_text, members, faults));
        }
    }
    groups
}

/// How many pods KubeRay makes of a group.
fn members(worker: &Place<'_>, faults: &mut Faults) -> u32 {
    let mut count = |name: &str, otherwise: u32| worker.get(name).count(faults).unwrap_or(otherwise);
    let (least, most) = (count("minReplicas", 0), count("maxReplicas", u32::MAX));
    let (replicas, hosts) = (count("replicas", 0), count("numOfHosts", 1));
    replicas.max(least).min(most).saturating_mul(hosts)
}
