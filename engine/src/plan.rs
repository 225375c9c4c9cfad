//! From state and capacity to bindings, in named phases. Deterministic: the same inputs give the same plan.

use std::collections::BTreeMap;

use protocol::ids::{Uid, UnixMs, WorkloadKey};
use protocol::sku::Sku;
use protocol::workload::WorkloadSpec;
use serde::{Deserialize, Serialize};

use crate::capacity::Capacity;
use crate::commands::Binding;
use crate::reasons::{Explanation, Waiting};
use crate::state::State;

/// Frames older than this are not placed on, in ms.
pub const FRESH_MS: u64 = 10_000;

/// What the planner would do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Places, in the order in which they are to be committed.
    pub bindings: Vec<Binding>,
    /// Why each other queued workload waits.
    pub waiting: BTreeMap<Uid, Waiting>,
}

/// Plans at most `limit` bindings.
pub fn plan(_state: &State, _capacity: &Capacity, _at: UnixMs, _limit: usize) -> Plan {
    todo!()
}

/// The whole answer to "why", in any phase; none where there is no such workload.
pub fn explain(_state: &State, _capacity: &Capacity, _at: UnixMs, _key: &WorkloadKey) -> Option<Explanation> {
    todo!()
}

/// What to warn the submitter of: such as that no cluster could hold the gang even empty. The workload is accepted all the same.
pub fn warnings(_state: &State, _capacity: &Capacity, _spec: &WorkloadSpec) -> Vec<String> {
    todo!()
}

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

/// Answers a question of capacity from what is free now, bindings in flight subtracted.
pub fn gangs(_state: &State, _capacity: &Capacity, _question: &GangQuestion) -> GangAnswer {
    todo!()
}
