//! What a pod asks for, added up as Kubernetes' scheduler does (its `PodRequests`): what is free on a node is only known if
//! both count alike.

use protocol::resources::Resources;
use serde_json::Value;

use super::objects::{Amounts, Container, ContainerStatus, PodObject};
use super::quantity::{BadQuantity, Quantity, Round};

/// What a pod takes of its node, or what a node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Takes {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// MiB.
    pub memory_mib: u64,
    /// Units by resource, sorted, of what device plugins offer of GPUs; none is 0.
    pub gpus: Vec<(Box<str>, u64)>,
}

impl Takes {
    /// Units of a resource.
    pub fn units(&self, resource: &str) -> u64 {
        self.gpus.iter().find(|(name, _)| **name == *resource).map_or(0, |(_, units)| *units)
    }

    /// The same where nothing but this resource counts of GPUs, 1000 thousandths for each unit.
    pub fn of(&self, resource: &str) -> Resources {
        let gpu_milli = self.units(resource).saturating_mul(1000);
        Resources { cpu_milli: self.cpu_milli, memory_mib: self.memory_mib, gpu_milli }
    }

    /// Each resource of both, by `how`.
    fn with(&mut self, other: &Takes, how: impl Fn(u64, u64) -> u64) {
        self.cpu_milli = how(self.cpu_milli, other.cpu_milli);
        self.memory_mib = how(self.memory_mib, other.memory_mib);
        for (resource, units) in &mut self.gpus {
            *units = how(*units, other.units(resource));
        }
        for (resource, units) in &other.gpus {
            if let Err(at) = self.gpus.binary_search_by(|(name, _)| name.cmp(resource)) {
                self.gpus.insert(at, (resource.clone(), how(0, *units)));
            }
        }
        self.gpus.retain(|(_, units)| *units > 0);
    }

    /// And what another takes.
    pub fn add(&mut self, other: &Takes) {
        self.with(other, u64::saturating_add);
    }

    /// Without what another takes.
    pub fn take_out(&mut self, other: &Takes) {
        self.with(other, u64::saturating_sub);
    }

    /// The larger of each resource.
    fn most(mut self, other: &Takes) -> Takes {
        self.with(other, u64::max);
        self
    }

    fn plus(mut self, other: &Takes) -> Takes {
        self.add(other);
        self
    }
}

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
pub(super) fn takes(amounts: &Amounts, round: Round, field: &str) -> Result<Takes, BadAmount> {
    let read = |value: Option<&Value>, name: &str, unit: fn(Quantity, Round) -> Result<u64, BadQuantity>| {
        let found = amount(value).and_then(|q| q.map_or(Ok(0), |q| unit(q, round)));
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

    let mut running = Takes::default();
    for container in spec.containers.iter().flatten() {
        running.add(&of_container(container, statuses, "containers")?);
    }
    // An init container runs beside the sidecars that were started before it, and before everything else.
    let (mut sidecars, mut starting) = (Takes::default(), Takes::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container, init_statuses, "initContainers")?;
        let beside = own.plus(&sidecars);
        starting = starting.most(&beside);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars = beside;
        }
    }
    let mut all = running.plus(&sidecars).most(&starting);
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
