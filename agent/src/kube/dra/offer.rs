//! What a node offers by claims: the devices of its complete pools, of one model, as the table has them.

use std::collections::{BTreeMap, BTreeSet};

use protocol::capacity::Sharing;
use serde_json::Value;

use super::seen::{Model, SeenDevice, SeenSlice};
use super::{DRIVER, GPU_CLASS, NodeSlices, SLICE_CLASS};
use crate::cluster::{ByClaims, ClaimDevice, ClusterNode, MAX_DEVICES, Offer};
use crate::kube::seen::node;

/// A device of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advertised<'a> {
    pub pool: &'a str,
    pub device: &'a SeenDevice,
}

impl Advertised<'_> {
    /// What the table calls it: its UUID, by which a node role's readings are found to be of it.
    fn id(&self) -> Box<str> {
        let own = || format!("{}/{}", self.pool, self.device.name).into();
        self.device.uuid.clone().unwrap_or_else(own)
    }

    /// Whether one of both is a part of the other.
    pub fn overlaps(&self, other: &Advertised<'_>) -> bool {
        let counters = &other.device.counters;
        self.pool == other.pool && self.device.counters.iter().any(|counter| counters.contains(counter))
    }
}

/// A node with what its slices add to it.
pub(super) struct Joined<'a> {
    pub node: ClusterNode,
    /// The devices that count, as the table calls them; empty where the device plugin's do.
    pub counted: Vec<(Box<str>, Advertised<'a>)>,
}

/// The slices of each pool's newest generation.
pub(super) fn newest<'a>(slices: &[&'a SeenSlice]) -> BTreeMap<&'a str, Vec<&'a SeenSlice>> {
    let mut pools: BTreeMap<&str, Vec<&SeenSlice>> = BTreeMap::new();
    for slice in slices {
        let pool = pools.entry(&slice.pool).or_default();
        match pool.first().map_or(slice.generation, |first| first.generation) {
            known if known == slice.generation => pool.push(slice),
            known if known < slice.generation => *pool = vec![slice],
            _ => {}
        }
    }
    pools
}

/// All devices of these slices.
pub(super) fn devices<'a>(slices: &[&'a SeenSlice]) -> impl Iterator<Item = Advertised<'a>> {
    slices.iter().flat_map(|slice| slice.devices.iter().map(|device| Advertised { pool: &slice.pool, device }))
}

/// Those of the node's pools that can be relied on. A pool that is written anew is not for a moment, which is not worth a word.
fn complete<'a>(slices: &[&'a SeenSlice]) -> Vec<Advertised<'a>> {
    let mut found = vec![];
    for slices in newest(slices).into_values() {
        let all: Vec<_> = devices(&slices).collect();
        let names: BTreeSet<&str> = all.iter().map(|at| &*at.device.name).collect();
        let is_whole = slices.first().is_some_and(|first| i64::try_from(slices.len()) == Ok(first.slices));
        if is_whole && names.len() == all.len() {
            found.extend(all);
        }
    }
    found
}

/// The devices of a node by model, GPUs before slices; and of the others why they are not counted, with how many there are.
type Kinds<'a> = BTreeMap<(bool, &'a Model), Vec<Advertised<'a>>>;

fn kinds<'a>(all: &[Advertised<'a>]) -> (Kinds<'a>, BTreeMap<&'a str, usize>) {
    let (mut kinds, mut others): (Kinds<'_>, BTreeMap<&str, usize>) = Default::default();
    for at in all {
        match &at.device.model {
            Ok(model) => {
                // A model may have several names on one node.
                let alike = kinds.keys().find(|(_, known)| known.sku == model.sku).copied();
                kinds.entry(alike.unwrap_or((model.sku.is_slice(), model))).or_default().push(*at);
            }
            Err(why) => *others.entry(why).or_default() += 1,
        }
    }
    (kinds, others)
}

/// What becomes of a node by these slices. An error is a figure that cannot be.
pub(super) fn join<'a>(node: &ClusterNode, slices: &[&'a SeenSlice]) -> Result<Joined<'a>, String> {
    let all = complete(slices);
    let mut node = node.clone();
    if all.is_empty() {
        return Ok(Joined { node, counted: vec![] });
    }
    if node.offer.units > 0 {
        let beside = format!("{} of {DRIVER}: beside {}", all.len(), node.offer.resource);
        node.passed_over = told(node.passed_over, vec![beside], &[]);
        return Ok(Joined { node, counted: vec![] });
    }
    let (kinds, others) = kinds(&all);
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|((in_slices, _), devices)| (*in_slices, std::cmp::Reverse(devices.len())));
    let mut left_out: Vec<String> = others.iter().map(|(why, n)| format!("{n} of {DRIVER}: {why}")).collect();
    let mut kinds = kinds.into_iter();
    let Some(((in_slices, model), devices)) = kinds.next() else {
        node.passed_over = told(node.passed_over, left_out, &[]);
        return Ok(Joined { node, counted: vec![] });
    };
    left_out
        .extend(kinds.map(|((_, other), devices)| format!("{} of {}: beside {}", devices.len(), other.sku, model.sku)));
    // One that is described twice is one.
    let counted: BTreeMap<Box<str>, Advertised<'_>> = devices.into_iter().map(|at| (at.id(), at)).collect();
    if counted.len() > MAX_DEVICES as usize {
        return Err(format!("{} devices of {DRIVER}; a node has at most {MAX_DEVICES}", counted.len()));
    }
    let products: BTreeSet<&str> =
        counted.values().filter_map(|at| Some(&*at.device.model.as_ref().ok()?.product)).collect();
    let barred: Vec<_> =
        counted.values().filter_map(|at| Some((&*at.device.name, at.device.taint.as_deref()?))).collect();
    let claims = ByClaims {
        products: products.into_iter().map(Box::from).collect(),
        profile: model.profile.clone(),
        devices: counted
            .iter()
            .map(|(id, at)| ClaimDevice { id: id.clone(), open: at.device.taint.is_none() })
            .collect(),
    };
    node.sku = Some(model.sku.clone());
    node.offer = Offer {
        resource: if in_slices { SLICE_CLASS } else { GPU_CLASS }.into(),
        units: u32::try_from(counted.len() - barred.len()).unwrap_or(u32::MAX),
        sharing: Sharing::Whole,
        slices: in_slices,
        claims: Some(Box::new(claims)),
    };
    node.passed_over = told(node.passed_over, left_out, &barred);
    Ok(Joined { node, counted: counted.into_iter().collect() })
}

/// What a person should know of a node's devices.
fn told(before: Option<String>, left_out: Vec<String>, barred: &[(&str, &str)]) -> Option<String> {
    let mut texts: Vec<String> = before.into_iter().collect();
    if !left_out.is_empty() {
        texts.push(format!("not counted are {}", left_out.join(", ")));
    }
    if !barred.is_empty() {
        let barred: Vec<String> = barred.iter().map(|(name, taint)| format!("{name} (taint {taint})")).collect();
        texts.push(format!("given to nobody are {}", barred.join(", ")));
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// A whole object of a node with its slices, as it is kept.
pub(crate) fn read_node(object: Value, slices: &NodeSlices) -> Result<ClusterNode, String> {
    let seen = node(&serde_json::from_value(object).map_err(|error| error.to_string())?)?;
    let slices = slices.seen();
    Ok(join(&seen, &slices.iter().collect::<Vec<_>>())?.node)
}
