//! What a pod asks for, added up as Kubernetes' scheduler does (its `PodRequests`): what is free on a node is only known if
//! both count alike.

use protocol::kubernetes::{BadQuantity, Quantity, Round};
use serde_json::Value;

use super::objects::{Amounts, Container, ContainerStatus, PodObject};

pub(super) use protocol::kubernetes::Takes;

/// An amount that cannot be used: which field of its object, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub(super) struct BadAmount {
    field: String,
    cause: BadQuantity,
}

/// Amounts in Tidewater's units; `field` is where they stand in their object.
pub(super) fn takes(amounts: &Amounts, round: Round, field: &str) -> Result<Takes, BadAmount> {
    let read = |value: Option<&Value>, name: &str, unit: fn(Quantity, Round) -> Result<u64, BadQuantity>| {
        let found = Quantity::of_json(value).and_then(|q| q.map_or(Ok(0), |q| unit(q, round)));
        found.map_err(|cause| BadAmount { field: format!("{field}.{name}"), cause })
    };
    let mut gpus = vec![];
    for (resource, value) in &amounts.gpus {
        let units = read(Some(value), resource, Quantity::whole)?;
        if units > 0 {
            gpus.push((resource.clone(), units));
        }
    }
    gpus.sort();
    Ok(Takes {
        cpu_milli: read(amounts.cpu.as_ref(), "cpu", Quantity::milli)?,
        memory_mib: read(amounts.memory.as_ref(), "memory", Quantity::mib)?,
        gpus,
    })
}

/// What a live pod takes of its node.
pub(super) fn of_pod(pod: &PodObject) -> Result<Takes, BadAmount> {
    let Some(spec) = &pod.spec else { return Ok(Takes::default()) };
    let status = pod.status.as_ref();
    let statuses = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let init_statuses = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();

    let mut running = vec![];
    for container in spec.containers.iter().flatten() {
        running.push(of_container(container, statuses, "containers")?);
    }
    let mut starting = vec![];
    for container in spec.init_containers.iter().flatten() {
        let stays = container.restart_policy.as_deref() == Some("Always");
        starting.push((of_container(container, init_statuses, "initContainers")?, stays));
    }
    let mut all = Takes::together(running, starting);
    // What is asked for the pod as a whole stands for what its containers ask for.
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let asked = takes(whole, Round::Up, "spec.resources.requests")?;
        let set = |value: &Option<Value>| value.as_ref().is_some_and(|v| !v.is_null());
        all.cpu_milli = if set(&whole.cpu) { asked.cpu_milli } else { all.cpu_milli };
        all.memory_mib = if set(&whole.memory) { asked.memory_mib } else { all.memory_mib };
    }
    match &spec.overhead {
        Some(overhead) => Ok(all.plus(&takes(overhead, Round::Up, "spec.overhead")?)),
        None => Ok(all),
    }
}

/// What a container asks for, or has where that is more: it may be on its way from one size to another.
fn of_container(container: &Container, statuses: &[ContainerStatus], kind: &str) -> Result<Takes, BadAmount> {
    let name = &container.name;
    let field = |what: &str| format!("{what}[{name}].resources.requests");
    let mut asked = match container.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        Some(requests) => takes(requests, Round::Up, &field(&format!("spec.{kind}")))?,
        None => Takes::default(),
    };
    if let Some(status) = statuses.iter().find(|status| status.name == *name) {
        let has = status.resources.as_ref().and_then(|r| r.requests.as_ref());
        for amounts in has.into_iter().chain(&status.allocated_resources) {
            asked = asked.most(&takes(amounts, Round::Up, &field("status"))?);
        }
    }
    Ok(asked)
}
