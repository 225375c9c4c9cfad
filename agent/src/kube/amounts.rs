//! What a pod asks for, added up as Kubernetes' scheduler does (its `PodRequests`): what is free on a node is only known if
//! both count alike.

use protocol::resources::Resources;
use serde_json::Value;

use super::GPU;
use super::objects::{Amounts, Container, ContainerStatus, PodObject};
use super::quantity::{BadQuantity, Quantity, Round};

/// Thousandths of a GPU.
const WHOLE_GPU: u64 = 1000;

/// An amount that cannot be used: which field of its object, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {cause}")]
pub(super) struct BadAmount {
    field: String,
    cause: BadQuantity,
}

fn amount(value: Option<&Value>) -> Result<Option<Quantity>, BadQuantity> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some),
        Some(Value::Number(number)) => number.to_string().parse().map(Some),
        Some(other) => Err(BadQuantity::Text(other.to_string().chars().take(40).collect())),
    }
}

/// Amounts in Tidewater's units; `field` is where they stand in their object.
pub(super) fn resources(amounts: &Amounts, round: Round, field: &str) -> Result<Resources, BadAmount> {
    let read = |value: &Option<Value>, name: &str, unit: fn(Quantity, Round) -> Result<u64, BadQuantity>| {
        let found = amount(value.as_ref()).and_then(|q| q.map_or(Ok(0), |q| unit(q, round)));
        found.map_err(|cause| BadAmount { field: format!("{field}.{name}"), cause })
    };
    Ok(Resources {
        cpu_milli: read(&amounts.cpu, "cpu", Quantity::milli)?,
        memory_mib: read(&amounts.memory, "memory", Quantity::mib)?,
        gpu_milli: read(&amounts.gpus, GPU, Quantity::whole)?.saturating_mul(WHOLE_GPU),
    })
}

/// The larger of each resource.
fn most(one: Resources, other: Resources) -> Resources {
    Resources {
        cpu_milli: one.cpu_milli.max(other.cpu_milli),
        memory_mib: one.memory_mib.max(other.memory_mib),
        gpu_milli: one.gpu_milli.max(other.gpu_milli),
    }
}

/// What a live pod takes of its node.
pub(super) fn of_pod(pod: &PodObject) -> Result<Resources, BadAmount> {
    let Some(spec) = &pod.spec else { return Ok(Resources::ZERO) };
    let status = pod.status.as_ref();
    let statuses = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let init_statuses = status.and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();

    let mut running = Resources::ZERO;
    for container in spec.containers.iter().flatten() {
        running += of_container(container, statuses, "containers")?;
    }
    // An init container runs beside the sidecars that were started before it, and before everything else.
    let (mut sidecars, mut starting) = (Resources::ZERO, Resources::ZERO);
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container, init_statuses, "initContainers")?;
        let beside = sidecars + own;
        starting = most(starting, beside);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = beside;
        }
    }
    let mut all = most(running + sidecars, starting);
    // What is asked for the pod as a whole stands for what its containers ask for.
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let asked = resources(whole, Round::Up, "spec.resources.requests")?;
        let set = |value: &Option<Value>| value.as_ref().is_some_and(|v| !v.is_null());
        all.cpu_milli = if set(&whole.cpu) { asked.cpu_milli } else { all.cpu_milli };
        all.memory_mib = if set(&whole.memory) { asked.memory_mib } else { all.memory_mib };
    }
    match &spec.overhead {
        Some(overhead) => Ok(all + resources(overhead, Round::Up, "spec.overhead")?),
        None => Ok(all),
    }
}

/// What a container asks for, or has where that is more: it may be on its way from one size to another.
fn of_container(container: &Container, statuses: &[ContainerStatus], kind: &str) -> Result<Resources, BadAmount> {
    let name = &container.name;
    let field = |what: &str| format!("{what}[{name}].resources.requests");
    let mut asked = match container.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        Some(requests) => resources(requests, Round::Up, &field(&format!("spec.{kind}")))?,
        None => Resources::ZERO,
    };
    if let Some(status) = statuses.iter().find(|status| status.name == *name) {
        let has = status.resources.as_ref().and_then(|r| r.requests.as_ref());
        for amounts in has.into_iter().chain(&status.allocated_resources) {
            asked = most(asked, resources(amounts, Round::Up, &field("status"))?);
        }
    }
    Ok(asked)
}
