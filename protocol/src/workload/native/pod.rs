//! What a pod of a template asks for.

use std::collections::BTreeSet;

use serde_json::Value;

use super::place::{Faults, Place};
use crate::ids::GroupName;
use crate::kubernetes::{GPU, PRODUCT, Round, SLICE, Takes};
use crate::resources::Resources;
use crate::sku::{Sku, mig_profile};
use crate::workload::{GroupNeed, Spread};

/// A group of pods of this template.
pub(super) fn group(template: &Place<'_>, name: &str, count: u32, faults: &mut Faults) -> Option<GroupNeed> {
    let spec = template.get("spec");
    let containers = spec.get("containers");
    if containers.list(faults).is_empty() {
        containers.fault("it is empty: a pod has at least one container", faults);
        return None;
    }
    let running: Vec<Takes> = containers.list(faults).iter().map(|container| takes(container, faults)).collect();
    let starting = starting(spec.get("initContainers").list(faults), faults);
    let mut all = Takes::together(running, starting);
    let whole = amounts(&spec.get("resources"), faults);
    let overhead = named(&spec.get("overhead"), faults);
    all = Takes {
        cpu_milli: if whole.cpu_milli > 0 { whole.cpu_milli } else { all.cpu_milli },
        memory_mib: if whole.memory_mib > 0 { whole.memory_mib } else { all.memory_mib },
        gpus: all.gpus,
    };
    all.add(&overhead);
    check(&spec, faults);
    need(&spec, name, count, &all, &[&spec], faults)
}

/// What no template may say.
pub(super) fn check(spec: &Place<'_>, faults: &mut Faults) {
    spec.get("nodeName").refuse("which nodes its pods go to is decided by the coordinator: leave it out", faults);
    spec.get("resourceClaims")
        .refuse("what claims ask for is not counted: ask for nvidia.com/gpu in the container's resources", faults);
}

/// A group whose pods take this each. Which models it accepts is said in node selectors and required affinities, at these places.
pub(super) fn need(
    at: &Place<'_>,
    name: &str,
    count: u32,
    takes: &Takes,
    selectors: &[&Place<'_>],
    faults: &mut Faults,
) -> Option<GroupNeed> {
    for (what, amount) in [("cpu", takes.cpu_milli), ("memory", takes.memory_mib)] {
        if amount == 0 {
            let cure = "set requests of their containers, so that room is kept for it";
            at.fault(format!("its pods ask for no {what}: {cure}"), faults);
        }
    }
    let name = match GroupName::new(name) {
        Ok(name) => name,
        Err(cause) => {
            at.fault(cause, faults);
            return None;
        }
    };
    let products: BTreeSet<&str> = selectors.iter().flat_map(|place| products(place)).collect();
    let models = products.iter().map(|product| Sku::from_driver(product));
    let (units, skus): (u64, Vec<Sku>) = match takes.gpus.as_slice() {
        [] => (0, vec![]),
        [(resource, units)] if **resource == *GPU => (*units, models.collect()),
        [(resource, units)] => {
            let Some(profile) = resource.strip_prefix(SLICE).and_then(mig_profile) else {
                at.fault(
                    format!("it asks for {resource}: whole GPUs ({GPU}) and MIG slices ({SLICE}…) are counted"),
                    faults,
                );
                return None;
            };
            let slices: Vec<Sku> = models.map(|sku| sku.slice(&profile)).collect();
            if slices.is_empty() {
                let cure = format!("select {PRODUCT} in nodeSelector");
                at.fault(format!("it asks for {resource}, and not for which GPU's slices: {cure}"), faults);
                return None;
            }
            (*units, slices)
        }
        [(one, _), (other, _), ..] => {
            at.fault(format!("it asks for {one} and {other}: a pod gets devices of one sort"), faults);
            return None;
        }
    };
    let each =
        Resources { cpu_milli: takes.cpu_milli, memory_mib: takes.memory_mib, gpu_milli: units.saturating_mul(1000) };
    Some(GroupNeed { name, count, each, skus, spread: Spread::default() })
}

/// What containers ask for that begin before the others, each with whether it stays.
pub(super) fn starting<'a>(containers: impl IntoIterator<Item = Place<'a>>, faults: &mut Faults) -> Vec<(Takes, bool)> {
    let stays = |c: &Place<'_>| c.get("restartPolicy").value().and_then(Value::as_str) == Some("Always");
    containers.into_iter().map(|container| (takes(&container, faults), stays(&container))).collect()
}

/// What a container asks for.
pub(super) fn takes(container: &Place<'_>, faults: &mut Faults) -> Takes {
    amounts(&container.get("resources"), faults)
}

/// What is not asked for and is limited is asked for up to the limit.
fn amounts(resources: &Place<'_>, faults: &mut Faults) -> Takes {
    let limits = named(&resources.get("limits"), faults);
    let mut asked = named(&resources.get("requests"), faults);
    let requests = resources.get("requests");
    let or = |name: &str, own: u64, limit: u64| if requests.get(name).is_there() { own } else { limit };
    asked.cpu_milli = or("cpu", asked.cpu_milli, limits.cpu_milli);
    asked.memory_mib = or("memory", asked.memory_mib, limits.memory_mib);
    let devices = Takes { gpus: limits.gpus, ..Takes::default() };
    asked.most(&devices)
}

fn named(amounts: &Place<'_>, faults: &mut Faults) -> Takes {
    let cpu = amounts.get("cpu").amount(|q| q.milli(Round::Up), faults);
    let memory = amounts.get("memory").amount(|q| q.mib(Round::Up), faults);
    let mut gpus = vec![];
    for name in amounts.value().and_then(Value::as_object).into_iter().flat_map(|all| all.keys()) {
        if !name.starts_with("nvidia.com/") {
            continue;
        }
        let units = amounts.get(name).amount(|q| q.whole(Round::Up), faults).unwrap_or_default();
        if units > 0 {
            gpus.push((name.as_str().into(), units));
        }
    }
    gpus.sort();
    Takes { cpu_milli: cpu.unwrap_or_default(), memory_mib: memory.unwrap_or_default(), gpus }
}

/// The products that a pod of this specification may sit on: those of its node selector, else those that each term of its required
/// affinity names; none: any.
fn products<'a>(spec: &Place<'a>) -> Vec<&'a str> {
    if let Some(product) = spec.get("nodeSelector").get(PRODUCT).value().and_then(Value::as_str) {
        return vec![product];
    }
    let required = spec.get("affinity").get("nodeAffinity").get("requiredDuringSchedulingIgnoredDuringExecution");
    let terms = required.get("nodeSelectorTerms").value().and_then(Value::as_array);
    let of_term = |term: &'a Value| -> Vec<&'a str> {
        let expressions = term["matchExpressions"].as_array().into_iter().flatten();
        let mut named = expressions.filter(|e| e["key"] == PRODUCT && e["operator"] == "In");
        let values = named.next().and_then(|e| e["values"].as_array()).into_iter().flatten();
        values.filter_map(Value::as_str).collect()
    };
    let each: Vec<Vec<&str>> = terms.into_iter().flatten().map(of_term).collect();
    if each.iter().any(Vec::is_empty) { vec![] } else { each.into_iter().flatten().collect() }
}
