//! What is kept of a node and of a pod: pure functions of the object.

use protocol::ids::{AttemptId, NodeName};
use protocol::kubernetes::Round;

use super::GPU;
use super::amounts::{Takes, of_pod, takes};
use super::objects::{NodeObject, PodObject, Taint};
use super::offer::{Found, offer};
use crate::cluster::{ClusterNode, PodName};

/// Taints that what is placed here tolerates: where devices are, Kubernetes itself adds this toleration to pods that ask for
/// them (`ExtendedResourceToleration`).
const TOLERATED: [&str; 1] = [GPU];

/// A node as it is kept; where it cannot be used, why: it is left out of the table then.
pub(super) fn node(object: &NodeObject) -> Result<ClusterNode, String> {
    let text = object.metadata.name.as_deref().unwrap_or_default();
    let name = NodeName::new(text).map_err(|e| e.to_string())?;
    let status = object.status.as_ref();
    let has = match status.and_then(|s| s.allocatable.as_ref()) {
        Some(amounts) => takes(amounts, Round::Down, "status.allocatable").map_err(|e| format!("node {name}: {e}"))?,
        // A node whose kubelet has not said anything yet.
        None => Takes::default(),
    };
    let found = offer(object.metadata.labels.as_ref(), &has.gpus);
    let Found { sku, offer, passed_over } = found.map_err(|why| format!("node {name}: {why}"))?;
    let (cpu_milli, memory_mib, closed) = (has.cpu_milli, has.memory_mib, closed(object));
    Ok(ClusterNode { name, sku, offer, cpu_milli, memory_mib, closed, passed_over })
}

/// Why a node takes no new members; none where it does.
fn closed(object: &NodeObject) -> Option<String> {
    let spec = object.spec.as_ref();
    if spec.and_then(|s| s.unschedulable) == Some(true) {
        return Some("it is cordoned (spec.unschedulable)".to_owned());
    }
    let conditions = object.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|c| c.kind == "Ready") {
        Some(ready) if ready.status == "True" => {}
        Some(ready) => {
            let reason = ready.reason.as_deref().unwrap_or("no reason given");
            return Some(format!("it is not ready (Ready is {}: {reason})", ready.status));
        }
        None => return Some("its kubelet has not said that it is ready".to_owned()),
    }
    let bars = |t: &&Taint| matches!(&*t.effect, "NoSchedule" | "NoExecute") && !TOLERATED.contains(&&*t.key);
    let taint = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default().iter().find(bars)?;
    let value = taint.value.as_ref().map_or_else(String::new, |value| format!("={value}"));
    Some(format!("it has the taint {}{value}:{}, which nothing that is placed here tolerates", taint.key, taint.effect))
}

/// A live pod that is bound to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenPod {
    /// Its node.
    pub node: NodeName,
    /// What it takes of it; or what of it cannot be counted, so that nobody can say what is free there.
    pub takes: Result<Takes, Box<str>>,
    /// Whose it is, by its label.
    pub attempt: Option<AttemptId>,
    /// Its name, where its kubelet may name it as one that has devices.
    pub name: Option<Box<PodName>>,
}

/// A pod as it is kept; none where it takes nothing: not bound yet, at its end, or on a node that cannot be in the table.
pub(super) fn pod(object: &PodObject) -> Option<SeenPod> {
    let phase = object.status.as_ref().and_then(|s| s.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let node = object.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())?;
    let metadata = &object.metadata;
    let attempt = metadata.labels.as_ref().and_then(|l| l.attempt.as_deref()).and_then(|text| text.parse().ok());
    let takes = of_pod(object).map_err(|bad| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("pod {}/{}: {bad}", part(&metadata.namespace), part(&metadata.name)).into()
    });
    let concerned = attempt.is_some() || takes.as_ref().is_ok_and(|takes: &Takes| !takes.gpus.is_empty());
    let name = match (&metadata.namespace, &metadata.name) {
        (Some(namespace), Some(name)) if concerned => {
            Some(Box::new(PodName { namespace: namespace.as_str().into(), name: name.as_str().into() }))
        }
        _ => None,
    };
    Some(SeenPod { node: NodeName::new(node).ok()?, takes, attempt, name })
}
