//! Under which resource a group's pods get their devices. Whole GPUs are `nvidia.com/gpu` everywhere. What shares and slices are called its
//! nodes say, as they are when the attempt begins; it stands in the attempt's record from then on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use protocol::capacity::Sharing;
use protocol::control::{AttemptState, GroupPlacement, LaunchOrder};
use protocol::ids::GroupName;
use serde::{Deserialize, Serialize};

use super::attempt::{Refusal, Task};
use super::failure::infrastructure;
use crate::cluster::ClusterNode;
use crate::kube::read_node;

/// The resource of a group's devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupDevices {
    /// Its name.
    pub resource: String,
    /// In how many parts each device is given out, where a unit is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u16>,
}

/// By group; one that is not named has whole GPUs or none.
pub type GangDevices = BTreeMap<GroupName, GroupDevices>;

/// Whether what a group asks for has another name than `nvidia.com/gpu`.
fn is_special(placement: &GroupPlacement) -> bool {
    let slices = placement.sku.as_ref().is_some_and(|sku| sku.slice_profile().is_some());
    placement.each.gpu_milli > 0 && (slices || placement.each.gpu_milli < 1000)
}

/// What an order's groups ask for: as the first node of each says. Their pods go to nodes that are labelled alike.
pub(super) async fn devices(task: &Task, order: &LaunchOrder) -> Result<GangDevices, AttemptState> {
    let mut devices = GangDevices::new();
    for placement in order.placement.iter().filter(|placement| is_special(placement)) {
        let Some(first) = placement.nodes.first() else { continue };
        let what = format!("a look at node {}", first.node);
        let nodes: Api<Node> = Api::all(task.inner.calls.client());
        let only = ListParams::default().fields(&format!("metadata.name={}", first.node));
        let listed = match task.insist(&what, || task.inner.calls.ask(nodes.list(&only))).await {
            Ok(listed) => listed,
            Err(Refusal::Ends(state)) => return Err(state),
            Err(Refusal::Taken) => return Err(infrastructure(format!("{what}: the answer makes no sense"))),
        };
        let gone = || infrastructure(format!("node {} is not there any more", first.node));
        let node = listed.items.first().ok_or_else(gone)?;
        let seen = serde_json::to_value(node).map_err(|error| error.to_string()).and_then(read_node);
        let found = seen.and_then(|node| of_node(&node, placement)).map_err(infrastructure)?;
        devices.insert(placement.group.clone(), found);
    }
    Ok(devices)
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
    Ok(GroupDevices { resource: offer.resource.to_string(), parts })
}
