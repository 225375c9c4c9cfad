//! What is kept of a slice and of a claim: pure functions of the object.

use protocol::ids::{AttemptId, NodeName};
use protocol::sku::{Sku, mig_profile};

use super::DRIVER;
use super::objects::{ClaimObject, DeviceObject, SliceObject};

/// Some of the devices of a node's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kube) struct SeenSlice {
    pub node: NodeName,
    pub pool: Box<str>,
    pub generation: i64,
    /// How many slices there are of this generation.
    pub slices: i64,
    pub devices: Vec<SeenDevice>,
}

/// A device as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kube) struct SeenDevice {
    pub name: Box<str>,
    /// What it is; or why it is not counted.
    pub model: Result<Model, Box<str>>,
    pub uuid: Option<Box<str>>,
    /// The taint that keeps it from being given out.
    pub taint: Option<Box<str>>,
    /// Of what it takes something: whatever else takes of the same is a part of it, or it of that.
    pub counters: Box<[Box<str>]>,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::kube) struct Model {
    pub sku: Sku,
    /// As its driver names it, which is what a claim's selector sees.
    pub product: Box<str>,
    /// Likewise, of a MIG slice.
    pub profile: Option<Box<str>>,
}

/// A claim that holds devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::kube) struct SeenClaim {
    pub namespace: Box<str>,
    /// Whose it is, by its own label.
    pub attempt: Option<AttemptId>,
    /// The first pod that uses it, by uid and name.
    pub pod: Option<(Box<str>, Box<str>)>,
    /// By pool and name.
    pub devices: Box<[(Box<str>, Box<str>)]>,
}

/// A slice as it is kept; none where its devices are no node's own.
pub(super) fn slice(object: &SliceObject) -> Option<SeenSlice> {
    let spec = &object.spec;
    let node = spec.node_name.as_deref().filter(|_| spec.driver == DRIVER)?;
    Some(SeenSlice {
        node: NodeName::new(node).ok()?,
        pool: spec.pool.name.as_str().into(),
        generation: spec.pool.generation,
        slices: spec.pool.resource_slice_count,
        devices: spec.devices.iter().flatten().map(device).collect(),
    })
}

fn device(object: &DeviceObject) -> SeenDevice {
    let counters = object.consumes_counters.iter().flatten().map(|of| of.counter_set.as_str().into()).collect();
    let bars = |taint: &&crate::kube::objects::Taint| matches!(&*taint.effect, "NoSchedule" | "NoExecute");
    let taint = object.taints.iter().flatten().find(bars).map(|taint| {
        let value = taint.value.as_ref().map_or_else(String::new, |value| format!("={value}"));
        format!("{}{value}:{}", taint.key, taint.effect).into()
    });
    let uuid = object.attributes.as_ref().and_then(|a| a.uuid.as_deref()).filter(|uuid| !uuid.is_empty());
    SeenDevice {
        name: object.name.as_str().into(),
        model: model(object).map_err(Box::from),
        uuid: uuid.map(Box::from),
        taint,
        counters,
    }
}

fn model(object: &DeviceObject) -> Result<Model, String> {
    let attributes = object.attributes.as_ref();
    let of = |value: Option<&String>| value.filter(|text| !text.is_empty()).cloned();
    let product = of(attributes.and_then(|a| a.product.as_ref())).ok_or("it has no attribute productName")?;
    let profile = of(attributes.and_then(|a| a.profile.as_ref()));
    if object.allow_multiple_allocations == Some(true) {
        return Err("several claims can have a part of it".to_owned());
    }
    let gpu = Sku::from_driver(&product);
    match (attributes.and_then(|a| a.kind.as_deref()), profile) {
        (Some("gpu"), _) => Ok(Model { sku: gpu, product: product.into(), profile: None }),
        (Some("mig"), _) if object.consumes_counters.as_ref().is_some_and(|c| !c.is_empty()) => {
            Err("it is a slice that is cut on demand; its GPU is counted".to_owned())
        }
        (Some("mig"), Some(text)) => {
            let profile = mig_profile(&text).ok_or_else(|| format!("its profile {text:?} is none"))?;
            Ok(Model { sku: gpu.slice(&profile), product: product.into(), profile: Some(text.into()) })
        }
        (Some("mig"), None) => Err("it has no attribute profile".to_owned()),
        (Some(other), _) => Err(format!("its type is {other:?}, and neither gpu nor mig")),
        (None, _) => Err("it has no attribute type".to_owned()),
    }
}

/// A claim as it is kept; none where it holds nothing of these devices.
pub(super) fn claim(object: &ClaimObject) -> Option<SeenClaim> {
    let status = object.status.as_ref()?;
    let results = status.allocation.as_ref()?.devices.results.iter().flatten();
    // What administers a device leaves it to whoever else has it.
    let held = results.filter(|given| given.driver == DRIVER && given.admin_access != Some(true));
    let devices: Box<[_]> = held.map(|given| (given.pool.as_str().into(), given.device.as_str().into())).collect();
    if devices.is_empty() {
        return None;
    }
    let is_pod = |user: &&super::objects::Consumer| {
        user.resource == "pods" && user.api_group.as_deref().unwrap_or_default().is_empty()
    };
    let pod = status.reserved_for.iter().flatten().find(is_pod);
    let attempt = object.metadata.labels.as_ref().and_then(|labels| labels.attempt.as_deref());
    Some(SeenClaim {
        namespace: object.metadata.namespace.as_deref().unwrap_or_default().into(),
        attempt: attempt.and_then(|text| text.parse().ok()),
        pod: pod.map(|pod| (pod.uid.as_str().into(), pod.name.as_str().into())),
        devices,
    })
}
