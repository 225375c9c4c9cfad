//! Resource pools and ownership rules, as people write them and as the log keeps them: how much of the fleet whose workloads
//! may use. Rules between pools are the engine's; here is only what one object says of itself.

pub mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize, de};

use crate::ids::{Namespace, PoolName};
use crate::resources::{BadAmount, Cpu, Gpus, Memory};
use crate::sku::Sku;
use crate::workload::SpecError;

/// The most resources that one pool may name.
pub const MAX_RESOURCES: usize = 64;
/// The largest share.
pub const MAX_SHARE: u32 = 1_000_000;
/// The most names in one list of an access rule.
pub const MAX_NAMES: usize = 1_000;

/// What is divided among pools.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Resource {
    /// Cores, in thousandths.
    Cpu,
    /// Memory, in MiB.
    Memory,
    /// GPUs of whatever model, in thousandths of a device.
    Gpu,
    /// GPUs of one model, in thousandths of a device.
    Model(Sku),
}

/// Why a text names no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadResource {
    /// It is none of them.
    #[error("{0:?} is no resource: write cpu, memory, gpu or gpu/MODEL, such as gpu/H100")]
    Unknown(String),
    /// Its model is unknown.
    #[error("gpu/…: {0}")]
    Model(#[from] crate::sku::UnknownSku),
}

impl Resource {
    /// Reads an amount of it, in its unit.
    ///
    /// # Errors
    /// [`BadAmount`] says what would be right.
    pub fn parse(&self, text: &str) -> Result<u64, BadAmount> {
        match self {
            Resource::Cpu => text.parse().map(|Cpu(milli)| milli),
            Resource::Memory => text.parse().map(|Memory(mib)| mib),
            Resource::Gpu | Resource::Model(_) => text.parse().map(|Gpus(milli)| milli),
        }
    }

    /// An amount of it as people write it.
    pub fn show(&self, amount: u64) -> String {
        match self {
            Resource::Cpu => Cpu(amount).to_string(),
            Resource::Memory => Memory(amount).to_string(),
            Resource::Gpu | Resource::Model(_) => Gpus(amount).to_string(),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Cpu => f.pad("cpu"),
            Resource::Memory => f.pad("memory"),
            Resource::Gpu => f.pad("gpu"),
            Resource::Model(sku) => f.pad(&format!("gpu/{sku}")),
        }
    }
}

impl FromStr for Resource {
    type Err = BadResource;
    fn from_str(text: &str) -> Result<Self, BadResource> {
        match text {
            "cpu" => Ok(Resource::Cpu),
            "memory" => Ok(Resource::Memory),
            "gpu" => Ok(Resource::Gpu),
            _ => match text.strip_prefix("gpu/") {
                Some(model) => Ok(Resource::Model(Sku::parse(model)?)),
                None => Err(BadResource::Unknown(text.chars().take(80).collect())),
            },
        }
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        // A model that a driver named, in what the server wrote, is read as it was written.
        match text.strip_prefix("gpu/") {
            Some(model) => Ok(Resource::Model(Sku::from_driver(model))),
            None => text.parse().map_err(de::Error::custom),
        }
    }
}

/// Amounts by resource, each in its unit; what is not there is 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Amounts(pub BTreeMap<Resource, u64>);

impl Amounts {
    /// How much of a resource.
    pub fn of(&self, resource: &Resource) -> u64 {
        self.0.get(resource).copied().unwrap_or(0)
    }

    /// Adds to a resource.
    pub fn add(&mut self, resource: Resource, amount: u64) {
        if amount > 0 {
            let sum = self.0.entry(resource).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &Amounts) {
        other.0.iter().for_each(|(resource, amount)| self.add(resource.clone(), *amount));
    }

    /// Takes all of `other` away, each resource no lower than 0.
    pub fn take_all(&mut self, other: &Amounts) {
        for (resource, amount) in &other.0 {
            if let Some(sum) = self.0.get_mut(resource) {
                *sum = sum.saturating_sub(*amount);
                if *sum == 0 {
                    self.0.remove(resource);
                }
            }
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its resources with their amounts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Resource, u64)> {
        self.0.iter().map(|(resource, amount)| (resource, *amount))
    }
}

impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.iter().map(|(r, amount)| format!("{} {r}", r.show(amount))).collect();
        f.pad(&if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") })
    }
}

impl Serialize for Amounts {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter().map(|(resource, amount)| (resource, resource.show(amount))))
    }
}

impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<Resource, Text>::deserialize(d)?;
        let parsed = texts.into_iter().map(|(r, text)| r.parse(&text.0).map(|amount| (r, amount)));
        parsed.collect::<Result<_, _>>().map(Self).map_err(de::Error::custom)
    }
}

/// Whether a pool's reservation is lent while it is not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "UPPERCASE")]
pub enum Lending {
    /// It is lent.
    #[default]
    Elastic,
    /// It is kept.
    Static,
}

/// A pool's part of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Quota {
    /// What it gets before any other is served, in the resource's unit.
    pub reservation: u64,
    /// What it never exceeds; none: no bound.
    pub limit: Option<u64>,
    /// Its weight among its siblings in what is left.
    pub share: u32,
    /// Whether the reservation is lent.
    pub lending: Lending,
}

impl Default for Quota {
    fn default() -> Self {
        Self { reservation: 0, limit: None, share: 1, lending: Lending::Elastic }
    }
}

impl Quota {
    /// The limit as a number: what is not bounded is bounded by `u64`.
    pub fn cap(&self) -> u64 {
        self.limit.unwrap_or(u64::MAX)
    }
}

/// A number or text.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Text, E> {
                Ok(Text(v.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
        }
        d.deserialize_any(Visitor)
    }
}

/// A quota as it is written: the units follow from the resource.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    reservation: Option<Text>,
    #[serde(default)]
    limit: Option<Text>,
    #[serde(default)]
    share: Option<u32>,
    #[serde(default, rename = "type")]
    lending: Lending,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    reservation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    share: u32,
    #[serde(rename = "type")]
    lending: Lending,
}

/// Quotas by resource. A resource that a pool does not name has no reservation, no limit and share 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Quotas(pub BTreeMap<Resource, Quota>);

impl Serialize for Quotas {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.0.iter().map(|(resource, quota)| {
            let shown = Shown {
                reservation: resource.show(quota.reservation),
                limit: quota.limit.map(|limit| resource.show(limit)),
                share: quota.share,
                lending: quota.lending,
            };
            (resource, shown)
        }))
    }
}

impl<'de> Deserialize<'de> for Quotas {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let written = BTreeMap::<String, Written>::deserialize(d)?;
        let mut quotas = BTreeMap::new();
        for (name, written) in written {
            let resource: Resource = name.parse().map_err(de::Error::custom)?;
            let amount = |field: &str, text: Option<Text>| {
                let parsed = text.map(|text| resource.parse(&text.0)).transpose();
                parsed.map_err(|e| de::Error::custom(format!("{resource}: {field}: {e}")))
            };
            let quota = Quota {
                reservation: amount("reservation", written.reservation)?.unwrap_or(0),
                limit: amount("limit", written.limit)?,
                share: written.share.unwrap_or(1),
                lending: written.lending,
            };
            if quotas.insert(resource, quota).is_some() {
                return Err(de::Error::custom(format!("{name}: this resource is named twice")));
            }
        }
        Ok(Self(quotas))
    }
}

/// Who may take whose room within one pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum WithinPool {
    /// Nobody: a higher priority only goes first in line.
    #[default]
    Never,
    /// A workload of higher priority may have running ones of lower priority ended.
    ByPriority,
}

/// Who goes first in a pool's line among those of one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub enum LineOrder {
    /// Whoever was submitted first.
    #[default]
    Submitted,
    /// Whoever has had the least GPU time, in steps of 1, 4, 16, … GPU-hours; one that declares how long it runs counts by what is
    /// left of that. Preemptible ones that have run for half an hour give way too. For each GPU-hour of its step a workload stands ten hours later in
    /// line: only those pass it that are submitted in that time.
    LeastServed,
}

/// Who may use a pool and who may change it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Access {
    /// Namespaces whose workloads it takes; empty: what the pool above it says, and all at the top.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub submit: BTreeSet<String>,
    /// May change it. Kept and shown; not enforced before users have identities.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub admin: BTreeSet<String>,
}

/// A pool's specification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PoolSpec {
    /// The pool above it; none: it stands at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<PoolName>,
    /// Its part of each resource.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Quotas,
    /// Who may take whose room within it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preemption_within: WithinPool,
    /// Who goes first in its line.
    #[serde(default, skip_serializing_if = "is_default")]
    pub order: LineOrder,
    /// Who may use and change it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub access: Access,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PoolSpec {
    /// Everything that is wrong with it, whatever other pools there are.
    pub fn problems(&self) -> Vec<SpecError> {
        let mut found = Vec::new();
        let mut bad = |field: String, problem: String| found.push(SpecError { field, problem });
        let named = self.resources.0.len();
        if named > MAX_RESOURCES {
            bad("spec.resources".into(), format!("{named} resources; at most {MAX_RESOURCES} are allowed"));
        }
        for (resource, quota) in &self.resources.0 {
            let at = |field: &str| format!("spec.resources[\"{resource}\"].{field}");
            if quota.reservation > quota.cap() {
                let (reservation, limit) = (resource.show(quota.reservation), resource.show(quota.cap()));
                let problem = format!("it is {reservation}, above the limit of {limit}: lower it, or raise the limit");
                bad(at("reservation"), problem);
            }
            if quota.share == 0 || quota.share > MAX_SHARE {
                bad(at("share"), format!("it is {}: write 1 to {MAX_SHARE}", quota.share));
            }
        }
        for (list, names) in [("submit", &self.access.submit), ("admin", &self.access.admin)] {
            if names.len() > MAX_NAMES || names.iter().any(|name| name.is_empty() || name.len() > 256) {
                bad(format!("spec.access.{list}"), format!("at most {MAX_NAMES} names of 1 to 256 bytes are allowed"));
            }
        }
        found
    }

    /// Whether running workloads may have to give way to others of the pool.
    pub fn gives_way_within(&self) -> bool {
        self.preemption_within == WithinPool::ByPriority || self.order == LineOrder::LeastServed
    }

    /// Its part of a resource.
    pub fn quota(&self, resource: &Resource) -> Quota {
        self.resources.0.get(resource).copied().unwrap_or_default()
    }
}

/// Where workloads of an owner go that name no pool. The owner is a namespace, until users have identities.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnershipSpec {
    /// The owner's own pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The owner above, whose pool serves where there is none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Namespace>,
}
