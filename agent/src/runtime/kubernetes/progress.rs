//! How far an attempt is, from what the API server has of it. Pure.

use k8s_openapi::api::core::v1::Pod;
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::GroupName;
use protocol::workload::Framework;
use serde_json::Value;

use super::failure::{self, conditions, containers, name_of, phase};
use super::kinds::Kind;
use super::manifests::{DRIVER_CONTAINER, GROUP, GUARD_CONTAINER, Manifests};
use super::seen::Objects;

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    /// Not all of the gang is up.
    Starting {
        /// What is missing.
        waiting_for: String,
        /// Where waiting seldom helps: what it has failed of if it goes on for too long.
        stuck: Option<FailureClass>,
    },
    /// Every member is up.
    Running,
    /// It has ended so; what is left of it is to go.
    Ended(AttemptState),
}

/// How far it is. Objects that are not seen have not come yet: whether they are gone is not for this to say.
pub(super) fn of(manifests: &Manifests, objects: &Objects) -> Progress {
    let ended = match manifests.framework {
        Framework::Batch => batch_ended(manifests, objects),
        Framework::Ray => ray_ended(manifests, objects),
        Framework::Spark if manifests.driver().is_some() => driver_ended(manifests, objects),
        Framework::Spark => spark_ended(manifests, objects),
    };
    if let Some(state) = ended {
        return Progress::Ended(state);
    }
    let mut missing = vec![];
    let mut stuck = None;
    for (group, wanted) in &manifests.members {
        let pods: Vec<&Pod> = objects.pods.values().filter(|pod| group_of(pod) == Some(group.as_str())).collect();
        let up = pods.iter().filter(|pod| is_up(pod)).count() as u32;
        if up < *wanted {
            let waits = pods.iter().filter(|pod| !is_up(pod)).map(|pod| why_not(pod)).max_by_key(|why| why.0.is_some());
            let maker = match manifests.framework {
                Framework::Spark if group.as_str() != "driver" => "driver",
                _ => "controller",
            };
            let (class, why) = waits.unwrap_or((None, format!("pods that its {maker} has yet to make")));
            stuck = stuck.or(class);
            missing.push(format!("{up} of {wanted} {group} up, waiting for {why}"));
        }
    }
    if !missing.is_empty() {
        return Progress::Starting { waiting_for: missing.join("; "), stuck };
    }
    match manifests.framework {
        Framework::Batch => Progress::Running,
        Framework::Spark if manifests.driver().is_some() => Progress::Running,
        Framework::Ray => match owner_text(manifests, objects, Kind::RayJob, "/status/jobDeploymentStatus").as_str() {
            "Running" | "Complete" => Progress::Running,
            // It waits until Ray's own dashboard answers: one that missed its time as it started never does.
            said => {
                let waiting_for = format!("KubeRay to submit the job (it says {said:?})");
                Progress::Starting { waiting_for, stuck: Some(FailureClass::Infrastructure) }
            }
        },
        Framework::Spark => {
            match owner_text(manifests, objects, Kind::SparkApplication, "/status/applicationState/state").as_str() {
                "RUNNING" | "SUCCEEDING" | "COMPLETED" => Progress::Running,
                said => {
                    let waiting_for = format!("the Spark operator (it says {said:?})");
                    Progress::Starting { waiting_for, stuck: None }
                }
            }
        }
    }
}

fn group_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(GROUP).map(String::as_str)
}

/// Its containers run, or have ended well: a member that is quick is not missing.
fn is_up(pod: &Pod) -> bool {
    match phase(pod) {
        "Succeeded" => true,
        "Running" => pod.metadata.deletion_timestamp.is_none() && containers(pod).all(runs),
        _ => false,
    }
}

fn runs(container: &k8s_openapi::api::core::v1::ContainerStatus) -> bool {
    container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// What a pod waits for, and what it has failed of if that never comes.
fn why_not(pod: &Pod) -> (Option<FailureClass>, String) {
    let name = name_of(pod);
    let unschedulable = conditions(pod).find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unschedulable {
        let said = condition.message.as_deref().or(condition.reason.as_deref()).unwrap_or_default();
        return (Some(FailureClass::Capacity), format!("a node for pod {name}: {said}"));
    }
    let waiting = containers(pod).find_map(|c| Some((c, c.state.as_ref()?.waiting.as_ref()?)));
    if let Some((container, waiting)) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let said = waiting.message.as_deref().unwrap_or_default();
        let class = match reason {
            "" | "ContainerCreating" | "PodInitializing" => None,
            // Its image is the cluster's to have.
            _ if container.name == GUARD_CONTAINER => Some(FailureClass::Infrastructure),
            _ => Some(FailureClass::User),
        };
        return (class, format!("container {} of pod {name} ({reason}) {said}", container.name).trim_end().to_owned());
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    (None, node.map_or_else(|| format!("a node for pod {name}"), |node| format!("{node} to start pod {name}")))
}

/// A pod that has a node and whose containers have not begun, though nothing of its own says why.
pub(super) fn waits_on_its_node(objects: &Objects) -> Option<&str> {
    let on_node = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let waits = objects.pods.values().filter(on_node).find(|pod| phase(pod) == "Pending" && why_not(pod).0.is_none());
    waits.map(name_of)
}

/// How many guards there are in pods of its members that run, and have not ended.
pub(super) fn guards_running(manifests: &Manifests, objects: &Objects) -> usize {
    let guards = |pod| {
        let group = group_of(pod)?;
        let own = manifests.guards.iter().find(|(name, _)| name.as_str() == group).map(|(_, guards)| *guards as usize);
        manifests.members.keys().any(|name| name.as_str() == group).then(|| own.unwrap_or(1))
    };
    objects.pods.values().filter(|pod| phase(pod) == "Running").filter_map(guards).sum()
}

/// The executors, where the driver of a Spark application runs and has not made all of them.
pub(super) fn executors_unmade<'a>(manifests: &'a Manifests, objects: &Objects) -> Option<&'a str> {
    let of = |group: &str| objects.pods.values().filter(move |pod| group_of(pod) == Some(group)).count();
    let executors =
        |(group, count): &(&'a GroupName, &u32)| group.as_str() != "driver" && of(group.as_str()) < **count as usize;
    let unmade = manifests.members.iter().find(executors)?.0;
    let driver_runs = objects.pods.values().any(|pod| group_of(pod) == Some("driver") && phase(pod) == "Running");
    (manifests.framework == Framework::Spark && driver_runs).then_some(unmade.as_str())
}

/// Whoever makes its pods, as far as that is known yet.
pub(super) fn makers(manifests: &Manifests, objects: &Objects) -> Vec<(Kind, String)> {
    match manifests.framework {
        Framework::Batch => manifests.owners().map(|job| (Kind::Job, job.name.clone())).collect(),
        Framework::Ray => {
            let cluster = owner_text(manifests, objects, Kind::RayJob, "/status/rayClusterName");
            Some(cluster).filter(|name| !name.is_empty()).map(|name| (Kind::RayCluster, name)).into_iter().collect()
        }
        Framework::Spark => vec![],
    }
}

/// What stands at a place of the attempt's owner of this kind.
fn owner_text(manifests: &Manifests, objects: &Objects, kind: Kind, at: &str) -> String {
    let owner = manifests.owners().find(|m| m.kind == kind).and_then(|m| objects.owner(kind, &m.name));
    owner.and_then(|owner| owner.pointer(at)).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// All Jobs are complete, or one has failed.
fn batch_ended(manifests: &Manifests, objects: &Objects) -> Option<AttemptState> {
    let mut complete = true;
    for job in manifests.owners() {
        let conditions = objects.owner(Kind::Job, &job.name).and_then(|job| job.pointer("/status/conditions"));
        let holds = |wanted: &str| {
            let mut all = conditions.and_then(Value::as_array).into_iter().flatten();
            all.find(|c| c["type"] == wanted && c["status"] == "True")
        };
        complete &= holds("Complete").is_some();
        // The first word of a failure; the last one comes only when all its pods are gone, which is what this is to bring about.
        let Some(failed) = holds("Failed").or_else(|| holds("FailureTarget")) else { continue };
        let text = |field: &str| failed[field].as_str().unwrap_or_default().to_owned();
        let said = format!("job {} failed ({}): {}", job.name, text("reason"), text("message"));
        // Only one condition of pods is named in the Job's rules: that they were taken away.
        let by_its_pods = failure::first(objects.pods.values());
        return Some(match (text("reason").as_str(), by_its_pods) {
            (_, Some(state)) => state,
            ("PodFailurePolicy", None) => failure::infrastructure(said),
            // Pods that failed stay until they are deleted: somebody deleted them.
            (_, None) => failure::infrastructure(format!("{said}; its pods are not there any more")),
        });
    }
    complete.then_some(AttemptState::Succeeded)
}

fn ray_ended(manifests: &Manifests, objects: &Objects) -> Option<AttemptState> {
    let text = |at: &str| owner_text(manifests, objects, Kind::RayJob, at);
    let job = text("/status/jobStatus");
    let deployment = text("/status/jobDeploymentStatus");
    if job == "SUCCEEDED" {
        return Some(AttemptState::Succeeded);
    }
    let said = text("/status/message");
    let (reason, failed) = (text("/status/reason"), matches!(deployment.as_str(), "Failed" | "ValidationFailed"));
    let head = |pod: &&Pod| group_of(pod) == Some("head");
    // Ray's own programs end so only where they are ended: the program's exit is the job's.
    if let Some(state) = failure::first(objects.pods.values().filter(head)) {
        return Some(state);
    }
    if !failed && !matches!(job.as_str(), "FAILED" | "STOPPED") {
        return None;
    }
    let message = format!("the Ray job failed ({}): {said}", if reason.is_empty() { job } else { reason.clone() });
    Some(match reason.as_str() {
        "AppFailed" | "ValidationFailed" | "" => {
            AttemptState::Failed { class: FailureClass::User, message, exit_code: None }
        }
        _ => failure::infrastructure(message),
    })
}

fn spark_ended(manifests: &Manifests, objects: &Objects) -> Option<AttemptState> {
    let state = owner_text(manifests, objects, Kind::SparkApplication, "/status/applicationState/state");
    let said = owner_text(manifests, objects, Kind::SparkApplication, "/status/applicationState/errorMessage");
    match state.as_str() {
        "COMPLETED" => Some(AttemptState::Succeeded),
        "FAILED" | "SUBMISSION_FAILED" | "FAILING" => {
            // An executor that failed is Spark's to replace; the application fails by its driver.
            let driver = objects.pods.values().filter(|pod| group_of(pod) == Some("driver"));
            Some(failure::first(driver).unwrap_or_else(|| match state.as_str() {
                "SUBMISSION_FAILED" => {
                    failure::infrastructure(format!("the Spark operator could not submit it: {said}"))
                }
                _ => AttemptState::Failed {
                    class: FailureClass::User,
                    message: format!("the Spark application failed: {said}"),
                    exit_code: None,
                },
            }))
        }
        _ => None,
    }
}

/// A driver that no operator made: how its container ends, the application ends, whatever else runs in its pod.
fn driver_ended(manifests: &Manifests, objects: &Objects) -> Option<AttemptState> {
    let driver = objects.pods.get(&manifests.driver()?.name)?;
    let end =
        containers(driver).find(|c| c.name == DRIVER_CONTAINER).and_then(|c| c.state.as_ref()?.terminated.as_ref());
    if end.is_some_and(|end| end.exit_code == 0) {
        return Some(AttemptState::Succeeded);
    }
    let name = name_of(driver);
    let taken_away = failure::holds(driver, "DisruptionTarget").is_some();
    if (end.is_some() || phase(driver) == "Failed") && driver.metadata.deletion_timestamp.is_some() && !taken_away {
        return Some(failure::infrastructure(format!("pod {name} was deleted by somebody else")));
    }
    let exited = || {
        end.map(|end| failure::user(format!("the driver, pod {name}, exited with {}", end.exit_code), end.exit_code))
    };
    failure::of_pod(driver).or_else(exited)
}
