//! Pools and ownership rules as the HTTP API shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Lending, OwnershipSpec, PoolSpec, Resource};
use crate::api::Metadata;
use crate::ids::PoolName;

/// The kind of [`PoolObject`].
pub const POOL_KIND: &str = "ResourcePool";
/// The kind of [`OwnershipObject`].
pub const OWNERSHIP_KIND: &str = "OwnershipRule";

/// A pool as people write it and as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolObject {
    /// `tidewater.dev/v1`.
    pub api_version: String,
    /// `ResourcePool`.
    pub kind: String,
    /// Its name and so on.
    pub metadata: Metadata,
    /// What is asked for.
    #[serde(default)]
    pub spec: PoolSpec,
    /// How it is; ignored when a person sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<PoolStatus>,
}

/// How a pool is. Of an inner pool: all below it together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Its depth in the tree: 1 at the top.
    pub depth: u32,
    /// Whether it takes workloads.
    pub leaf: bool,
    /// Workloads that wait.
    pub queued: u64,
    /// Workloads with a live attempt.
    pub running: u64,
    /// By resource: those that the fleet has, that the pool names or that its workloads need.
    pub resources: BTreeMap<Resource, PoolPart>,
}

/// A pool's part of one resource, as people write amounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolPart {
    /// What it gets before any other is served.
    pub reservation: String,
    /// What it never exceeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Its weight in what is left.
    pub share: u32,
    /// Whether the reservation is lent while it is not asked for.
    #[serde(rename = "type")]
    pub lending: Lending,
    /// What it is entitled to now.
    pub entitlement: String,
    /// To what its part is raised for a while, for what it missed while a gang larger than its part was first in its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<Raised>,
    /// What its attempts hold, in clusters that can be used.
    pub allocated: String,
    /// What its queued workloads need.
    pub pending: String,
    /// What is held and not used, where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<String>,
}

/// A part that is raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Raised {
    /// To how much.
    pub to: String,
    /// Until when, as RFC 3339 has it: what the pool missed is made up for then.
    pub until: String,
}

/// An ownership rule as people write it and as the API shows it. Its name is the owner's: a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnershipObject {
    /// `tidewater.dev/v1`.
    pub api_version: String,
    /// `OwnershipRule`.
    pub kind: String,
    /// Its name and so on.
    pub metadata: Metadata,
    /// What is asked for.
    #[serde(default)]
    pub spec: OwnershipSpec,
    /// Where workloads of this owner go that name no pool; ignored when a person sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<OwnershipStatus>,
}

/// What a rule comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnershipStatus {
    /// The pool.
    pub pool: PoolName,
}
