//! Under which resource, or by which claims, a group's pods get their devices. Whole GPUs are `nvidia.com/gpu` where the device plugin offers
//! them. What shares and slices are called, and whether claims give the devices out, its nodes say, as they are when the attempt begins; it stands
//! in the attempt's record from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use protocol::capacity::Sharing;
use protocol::control::{AttemptState, GroupPlacement, LaunchOrder};
use protocol::ids::{GroupName, NodeName};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::attempt::{Refusal, Task};
use super::calls::CallError;
use super::failure::infrastructure;
use crate::cluster::ClusterNode;
use crate::kube::{NodeSlices, any_slice, read_node, slices_of};

/// How long it counts that a cluster gives out no devices by claims: less than a driver's first word on its devices takes to bring a gang there.
const NONE_COUNTS: Duration = Duration::from_secs(1);

/// The resource of a group's devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupDevices {
    /// Its name; where claims give the devices out their class.
    pub resource: String,
    /// In how many parts each device is given out, where a unit is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u16>,
    /// What a claim asks for, where claims give them out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<GroupClaim>,
}

/// What tells a group's devices from others of their class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupClaim {
    /// Names of their product, as their driver has them.
    pub products: Vec<String>,
    /// Their profile, where they are MIG slices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// By group; one that is not named has whole GPUs or none.
pub type GangDevices = BTreeMap<GroupName, GroupDevices>;

/// Whether what a group asks for has another name than `nvidia.com/gpu` wherever the device plugin offers it.
fn is_special(placement: &GroupPlacement) -> bool {
    let slices = placement.sku.as_ref().is_some_and(|sku| sku.slice_profile().is_some());
    slices || placement.each.gpu_milli < 1000
}

/// What an order's groups ask for: as the first node of each says. Their pods go to nodes that offer alike.
pub(super) async fn devices(task: &Task, order: &LaunchOrder) -> Result<GangDevices, AttemptState> {
    let mut devices = GangDevices::new();
    for placement in order.placement.iter().filter(|placement| placement.each.gpu_milli > 0) {
        let Some(first) = placement.nodes.first() else { continue };
        let slices = match may_be_by_claims(task).await? {
            true => slices(task, &first.node).await?,
            false => NodeSlices::default(),
        };
        if slices.is_empty() && !is_special(placement) {
            continue;
        }
        let node = look_at(task, &first.node, &slices).await?;
        if node.offer.claims.is_none() && !is_special(placement) {
            continue;
        }
        let found = of_node(&node, placement).map_err(infrastructure)?;
        devices.insert(placement.group.clone(), found);
    }
    Ok(devices)
}

async fn look_at(task: &Task, name: &NodeName, slices: &NodeSlices) -> Result<ClusterNode, AttemptState> {
    let what = format!("a look at node {name}");
    let nodes: Api<Node> = Api::all(task.inner.calls.client());
    let only = ListParams::default().fields(&format!("metadata.name={name}"));
    let listed = answered(&what, task.insist(&what, || task.inner.calls.ask(nodes.list(&only))).await)?;
    let node = listed.items.first().ok_or_else(|| infrastructure(format!("node {name} is not there any more")))?;
    let node = serde_json::to_value(node).map_err(|error| error.to_string());
    node.and_then(|node| read_node(node, slices)).map_err(infrastructure)
}

async fn slices(task: &Task, node: &NodeName) -> Result<NodeSlices, AttemptState> {
    let what = format!("a look at the slices of devices of node {node}");
    let request = slices_of(node).map_err(infrastructure)?;
    answered(&what, task.insist(&what, || look(task, &request)).await)
}

/// Slices; a cluster that does not know such a thing has none.
async fn look(task: &Task, request: &http::Request<Vec<u8>>) -> Result<NodeSlices, CallError> {
    let calls = &task.inner.calls;
    match calls.ask(calls.client().request(request.clone())).await {
        Err(error) if error.is_not_found() => Ok(NodeSlices::default()),
        answer => answer,
    }
}

fn answered<T>(what: &str, answer: Result<T, Refusal>) -> Result<T, AttemptState> {
    answer.map_err(|refusal| match refusal {
        Refusal::Ends(state) => state,
        Refusal::Taken => infrastructure(format!("{what}: the answer makes no sense")),
    })
}

/// Whether the cluster gives out any devices by claims: one that does is not asked again, one that does not now and then, so that launches there
/// cost no request more.
#[derive(Default)]
pub(super) struct ByClaims(Mutex<Option<(Instant, bool)>>);

impl ByClaims {
    fn known(&self) -> Option<bool> {
        let known = *self.0.lock().expect("no holder of this lock panics");
        known.filter(|(at, any)| *any || at.elapsed() < NONE_COUNTS).map(|(_, any)| any)
    }

    fn learn(&self, any: bool) {
        *self.0.lock().expect("no holder of this lock panics") = Some((Instant::now(), any));
    }
}

async fn may_be_by_claims(task: &Task) -> Result<bool, AttemptState> {
    if let Some(any) = task.inner.by_claims.known() {
        return Ok(any);
    }
    let what = "a look for slices of devices";
    let request = any_slice().map_err(infrastructure)?;
    let any = !answered(what, task.insist(what, || look(task, &request)).await)?.is_empty();
    task.inner.by_claims.learn(any);
    Ok(any)
}

/// How a node gives out what a group was placed on it for; an error where it does not, or not any more.
pub(super) fn of_node(node: &ClusterNode, placement: &GroupPlacement) -> Result<GroupDevices, String> {
    let ClusterNode { name, sku, offer, .. } = node;
    let (group, asked) = (&placement.group, protocol::resources::Gpus(placement.each.gpu_milli));
    if *sku != placement.sku {
        let has = sku.as_ref().map_or("no GPUs", |sku| sku.as_str());
        let wants = placement.sku.as_ref().map_or("", |sku| sku.as_str());
        return Err(format!("node {name} has {has} now, and group {group} is placed on {wants}"));
    }
    if offer.sharing.takes(placement.each.gpu_milli).is_none() {
        return Err(format!(
            "node {name} gives out {} now (shares: {}), and group {group} asks for {asked}",
            offer.resource, offer.sharing
        ));
    }
    let parts = match offer.sharing {
        Sharing::Parts(parts) => Some(parts),
        Sharing::Any | Sharing::Whole => None,
    };
    let claim = offer.claims.as_ref().map(|claims| {
        // Other nodes of the group may have the model under another of its names.
        let known = sku.iter().flat_map(|sku| sku.product_names());
        let here = claims.products.iter().map(|product| product.to_string());
        let products: BTreeSet<String> = here.chain(known).collect();
        GroupClaim {
            products: products.into_iter().collect(),
            profile: claims.profile.as_ref().map(|profile| profile.to_string()),
        }
    });
    Ok(GroupDevices { resource: offer.resource.to_string(), parts, claim })
}
