//! Whose failure a pod's end is, and what is said of it. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod, PodCondition};
use pod_guard::pod::{FENCED, MESSAGE};
use protocol::control::AttemptState;
use protocol::errors::FailureClass;

use super::manifests::GUARD_CONTAINER;

/// Reasons that a kubelet gives for a pod that it would not take, for want of room that the scheduler thought was there.
const NO_ROOM: &str = "OutOf";

/// A condition of this type, where it holds.
pub(super) fn holds<'a>(pod: &'a Pod, condition: &str) -> Option<&'a PodCondition> {
    conditions(pod).find(|c| c.type_ == condition && c.status == "True")
}

/// All conditions.
pub(super) fn conditions(pod: &Pod) -> impl Iterator<Item = &PodCondition> {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

/// All containers' states, those that come before the others first.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
}

/// Its name, for people.
pub(super) fn name_of(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Its phase.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Why this pod failed; none where it has not.
pub(super) fn of_pod(pod: &Pod) -> Option<AttemptState> {
    if phase(pod) != "Failed" {
        return None;
    }
    let name = name_of(pod);
    let on =
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).map(|n| format!(" on {n}")).unwrap_or_default();
    let status = pod.status.as_ref();
    let reason = status.and_then(|s| s.reason.as_deref()).unwrap_or_default();
    let said = status.and_then(|s| s.message.as_deref()).unwrap_or_default();
    if let Some(disrupted) = holds(pod, "DisruptionTarget") {
        let reason = disrupted.reason.as_deref().unwrap_or("disrupted");
        let message = disrupted.message.as_deref().unwrap_or_default();
        return Some(infrastructure(format!("pod {name}{on} was taken away ({reason}): {message}")));
    }
    if reason.starts_with(NO_ROOM) {
        let message = format!("pod {name} found no room{on} ({reason}): {said}");
        return Some(AttemptState::Failed { class: FailureClass::Capacity, message, exit_code: None });
    }
    if !reason.is_empty() {
        return Some(infrastructure(format!("pod {name}{on} was ended ({reason}): {said}")));
    }
    let ended = containers(pod).filter_map(|c| Some((c, c.state.as_ref()?.terminated.as_ref()?)));
    let failed =
        ended.filter(|(_, end)| end.exit_code != 0).min_by_key(|(_, end)| end.finished_at.as_ref().map(|t| t.0));
    let Some((container, end)) = failed else {
        return Some(infrastructure(format!("pod {name}{on} failed and does not say why")));
    };
    let container = &container.name;
    if container == GUARD_CONTAINER {
        let said = end.message.as_deref().unwrap_or_default();
        return Some(infrastructure(format!("the guard could not be copied into pod {name}{on}: {}", said.trim())));
    }
    let code = end.exit_code;
    let reason = end.reason.as_deref().unwrap_or_default();
    if code == FENCED && end.message.as_deref().is_some_and(|message| message.starts_with(MESSAGE)) {
        let said = end.message.as_deref().and_then(|message| message.strip_prefix(MESSAGE)).unwrap_or_default();
        return Some(infrastructure(format!("the guard of pod {name}{on} ended it: {}", said.trim())));
    }
    let more = end.message.as_deref().map(|m| format!(": {}", m.trim())).unwrap_or_default();
    Some(match reason {
        // Its own memory cgroup was full: what it asked for was not enough.
        "OOMKilled" => user(
            format!("container {container} of pod {name}{on} used more memory than it asked for and was killed{more}"),
            code,
        ),
        // The kubelet lost sight of it.
        "ContainerStatusUnknown" => infrastructure(format!("pod {name}{on} was lost from sight{more}")),
        "Error" | "" => user(format!("container {container} of pod {name}{on} exited with {code}{more}"), code),
        _ => user(format!("container {container} of pod {name}{on} exited with {code} ({reason}){more}"), code),
    })
}

/// Why pods are not made, by what is said of whoever makes them, last of all: Jobs' controller and KubeRay try again and again.
pub(super) fn of_making(events: Vec<Event>) -> Option<(FailureClass, String)> {
    const REFUSED: [&str; 3] = ["FailedCreate", "FailedToCreateHeadPod", "FailedToCreateWorkerPod"];
    let refused = events.into_iter().filter(|event| event.reason.as_deref().is_some_and(|r| REFUSED.contains(&r)));
    let said = refused.max_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0))?.message?;
    let class = if said.contains("exceeded quota") { FailureClass::Capacity } else { FailureClass::User };
    Some((class, said))
}

/// What keeps a pod's volumes from it, by the events of that pod: where its kubelet said so last. Images are fetched once they are there,
/// so that one that failed at first is forgotten as soon as that begins.
pub(super) fn of_volumes(events: Vec<Event>) -> Option<(FailureClass, String)> {
    const FAILED: &str = "FailedMount";
    let is_kubelets = |event: &Event| {
        let component = event.source.as_ref().and_then(|source| source.component.as_deref());
        component.or(event.reporting_component.as_deref()) == Some("kubelet")
    };
    let failed = |event: &Event| event.reason.as_deref() == Some(FAILED);
    let all = events.into_iter().filter(is_kubelets);
    let last = all.max_by_key(|event| (event.last_timestamp.as_ref().map(|at| at.0), !failed(event)))?;
    let said = last.message.clone().filter(|_| failed(&last))?;
    // What the workload names and is not there; anything else is between the node and its storage.
    let missing = said.contains("not found") || said.contains("non-existent");
    Some((if missing { FailureClass::User } else { FailureClass::Infrastructure }, said))
}

/// The end of the program's own fault.
pub(super) fn user(message: String, exit_code: i32) -> AttemptState {
    AttemptState::Failed { class: FailureClass::User, message, exit_code: Some(exit_code) }
}

/// The end that is nobody's fault who submitted it.
pub(super) fn infrastructure(message: impl Into<String>) -> AttemptState {
    AttemptState::Failed { class: FailureClass::Infrastructure, message: message.into(), exit_code: None }
}

/// Of pods that failed, the failure that the others follow from: a pod that was taken away before a program that failed, which may have
/// failed for that; else the first. The second is when, for the order.
pub(super) fn first<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<AttemptState> {
    let failed = pods.filter_map(|pod| Some((pod, of_pod(pod)?)));
    let when = |pod: &Pod| {
        let ends =
            containers(pod).filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|t| t.0));
        ends.min()
    };
    let class = |state: &AttemptState| match state {
        AttemptState::Failed { class, .. } => std::cmp::Reverse(*class),
        _ => std::cmp::Reverse(FailureClass::User),
    };
    failed
        .min_by_key(|(pod, state)| (class(state), when(pod).is_none(), when(pod), name_of(pod).to_owned()))
        .map(|(_, s)| s)
}
