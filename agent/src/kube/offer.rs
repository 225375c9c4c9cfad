//! How a node gives out its GPUs, by what NVIDIA's device plugin and its GPU feature discovery write on it (0.17): resources among what
//! can be given out, and labels.
//!
//! | the node has | resource | labels |
//! |---|---|---|
//! | whole GPUs | `nvidia.com/gpu` | `nvidia.com/gpu.product` |
//! | GPUs in `n` parts | `nvidia.com/gpu`, `n` units each | that with `-SHARED` at its end, and `nvidia.com/gpu.replicas` |
//! | the same, renamed | `nvidia.com/gpu.shared` | `nvidia.com/gpu.product` as it is, and `nvidia.com/gpu.replicas` |
//! | slices of one profile (`single`) | `nvidia.com/gpu` | the product with `-MIG-1g.10gb` at its end |
//! | slices beside others (`mixed`) | `nvidia.com/mig-1g.10gb` | the GPU's own product |
//!
//! Slices can be in parts as well. Time-slicing and MPS look alike. Of several kinds on one node one is counted, GPUs before slices, then
//! that with the most units; of the others a person is told.

use protocol::capacity::Sharing;
pub(super) use protocol::kubernetes::PRODUCT;
use protocol::kubernetes::SLICE;
use protocol::sku::{Sku, mig_profile};

use super::GPU;
use super::objects::Labels;
use crate::cluster::{MAX_DEVICES, Offer};

/// What the device plugin adds to the name of a resource that it shares.
const RENAMED: &str = ".shared";
/// What it adds to the product where it does not rename the resource.
const SHARED: &str = "-SHARED";

/// Whether GPUs are offered under this resource, or slices or parts of them.
pub(super) fn is_gpu(resource: &str) -> bool {
    let own = own_name(resource);
    own == GPU || own.starts_with(SLICE)
}

/// What a node offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub sku: Option<Sku>,
    pub offer: Offer,
    pub passed_over: Option<String>,
}

/// What a node with these labels and these units by resource offers. An error is a figure that cannot be.
pub(super) fn offer(labels: Option<&Labels>, units: &[(Box<str>, u64)]) -> Result<Found, String> {
    let mut left_out = vec![];
    let mut kinds: Vec<Offer> = vec![];
    for (resource, units) in units {
        match kind(labels, resource, *units)? {
            Some(kind) => kinds.push(kind),
            None => left_out.push(format!(
                "{resource}: no label {}.replicas says in how many parts; GPU feature discovery writes it",
                own_name(resource)
            )),
        }
    }
    // Of equals the first by name.
    kinds.sort_by(|a, b| (a.slices, b.units, &a.resource).cmp(&(b.slices, a.units, &b.resource)));
    let mut kinds = kinds.into_iter();
    let offer = kinds.next().unwrap_or(Offer::whole(0));
    left_out.extend(kinds.map(|kind| format!("{} of {}: beside {}", kind.units, kind.resource, offer.resource)));
    let passed_over = (!left_out.is_empty()).then(|| format!("not counted are {}", left_out.join(", ")));
    Ok(Found { sku: sku(labels, &offer), offer, passed_over })
}

/// A resource's name before the device plugin renames it.
pub(crate) fn own_name(resource: &str) -> &str {
    resource.strip_suffix(RENAMED).unwrap_or(resource)
}

/// The product of devices that are given out in parts under this resource, as their label has it.
pub(crate) fn shared_product(product: &str, resource: &str) -> String {
    if own_name(resource) == resource { format!("{product}{SHARED}") } else { product.to_owned() }
}

/// One kind of devices; none where it is not known in how many parts they are.
fn kind(labels: Option<&Labels>, resource: &str, units: u64) -> Result<Option<Offer>, String> {
    let own = own_name(resource);
    let said = labels.and_then(|labels| labels.replicas.get(own));
    let replicas = match said.map(|text| text.parse::<u16>()) {
        // 0 is said of GPUs that are cut into slices.
        Some(Ok(0)) | None => 1,
        Some(Ok(replicas)) if replicas <= Sharing::MAX_PARTS => replicas,
        Some(_) => {
            let text: String = said.into_iter().flat_map(|text| text.chars()).take(40).collect();
            let most = Sharing::MAX_PARTS;
            return Err(format!("label {own}.replicas: {text:?} is no number of parts from 1 to {most}"));
        }
    };
    if replicas == 1 && own != resource {
        return Ok(None);
    }
    let sharing = if replicas > 1 { Sharing::Parts(replicas) } else { Sharing::Whole };
    let devices = units.div_ceil(u64::from(replicas));
    if devices > u64::from(MAX_DEVICES) {
        return Err(format!("status.allocatable.{resource}: {devices} GPUs; a node has at most {MAX_DEVICES}"));
    }
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    let in_slices = own.starts_with(SLICE) || product(labels).is_some_and(|sku| sku.slice_profile().is_some());
    Ok(Some(Offer { resource: resource.into(), units, sharing, slices: in_slices, claims: None }))
}

/// The model of a node's product.
fn product(labels: Option<&Labels>) -> Option<Sku> {
    let product = labels?.product.as_deref()?;
    let product = product.strip_suffix(SHARED).unwrap_or(product);
    (!product.is_empty()).then(|| Sku::from_driver(product))
}

fn sku(labels: Option<&Labels>, offer: &Offer) -> Option<Sku> {
    let product = product(labels)?;
    match own_name(&offer.resource).strip_prefix(SLICE) {
        Some(profile) => mig_profile(profile).map(|profile| product.slice(&profile)),
        None => Some(product),
    }
}
