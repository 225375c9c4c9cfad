//! A question of capacity: how many gangs of a shape fit now.

use std::collections::BTreeMap;

use protocol::sku::Sku;
use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::placement::rooms::{Room, Rooms};
use crate::state::State;

/// A question of capacity: how many gangs of this shape fit now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GangQuestion {
    /// Nodes in the gang.
    pub nodes: u32,
    /// GPUs on each.
    pub gpus_per_node: u32,
    /// The model; any if none.
    pub sku: Option<Sku>,
}

/// How many such gangs fit, by cluster, and the largest that would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GangAnswer {
    /// Gangs that fit now, by cluster.
    pub fits: BTreeMap<String, u32>,
    /// The most nodes with that many free GPUs in one cluster: the largest gang that would start now.
    pub largest: u32,
}

/// Answers a question of capacity from what is free now, bindings in flight subtracted. Each of the gang's nodes counts once,
/// however many GPUs it has, and a gang sits on one model. Clusters that are lost or whose capacity is stale hold none.
pub fn gangs(state: &State, capacity: &Capacity, question: &GangQuestion) -> GangAnswer {
    let mut answer = GangAnswer { fits: BTreeMap::new(), largest: 0 };
    for (name, room) in Rooms::new(state, capacity).iter() {
        let usable =
            room.cluster.lost_since.is_none() && room.cluster.takes_members() && room.capacity.is_some_and(|c| c.fresh);
        let nodes = if usable { nodes_by_model(room, question) } else { BTreeMap::new() };
        let gangs: u64 = nodes.values().map(|n| n / u64::from(question.nodes.max(1))).sum();
        let largest = nodes.values().copied().max().unwrap_or(0);
        answer.fits.insert(name.to_string(), narrow(gangs));
        answer.largest = answer.largest.max(narrow(largest));
    }
    answer
}

/// Nodes with that many free GPUs, by model. Without GPUs asked for, every node counts under one heading.
fn nodes_by_model(room: &Room<'_>, question: &GangQuestion) -> BTreeMap<Option<u16>, u64> {
    let wanted = u64::from(question.gpus_per_node) * 1000;
    let mut nodes = BTreeMap::new();
    for (class, count) in room.holes.classes() {
        let model = room.sku(class.sku);
        let right = match &question.sku {
            Some(_) => model == question.sku.as_ref(),
            // Slices are asked for by their name.
            None => wanted == 0 || model.is_none_or(|sku| !sku.is_slice()),
        };
        let free = class.free();
        if right && free.sharing.takes(wanted).is_some() && free.devices() * 1000 >= wanted {
            let model = class.sku.filter(|_| wanted > 0);
            *nodes.entry(model).or_default() += count;
        }
    }
    nodes
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
