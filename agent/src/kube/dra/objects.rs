//! Of ResourceSlices and ResourceClaims the fields that count; everything else is passed over while it is read.

use serde::Deserialize;
use serde::de::Deserializer;

use super::DRIVER;
use super::seen::{self, SeenClaim, SeenSlice};
use crate::kube::follow::Kind;
use crate::kube::objects::{Metadata, Taint, entries};

/// What a driver says of some of a pool's devices.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kube) struct SliceObject {
    pub metadata: Metadata,
    pub spec: SliceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct SliceSpec {
    pub driver: String,
    pub pool: Pool,
    /// None where the devices are not one node's own.
    pub node_name: Option<String>,
    pub devices: Option<Vec<DeviceObject>>,
}

/// The devices that a driver manages together.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct Pool {
    pub name: String,
    pub generation: i64,
    /// How many slices there are of this generation.
    pub resource_slice_count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct DeviceObject {
    pub name: String,
    pub attributes: Option<Attributes>,
    pub consumes_counters: Option<Vec<Consumption>>,
    pub taints: Option<Vec<Taint>>,
    pub allow_multiple_allocations: Option<bool>,
}

/// Of what a device takes something that others may take as well.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct Consumption {
    pub counter_set: String,
}

/// Those that mean something here.
#[derive(Debug, Default)]
pub(in crate::kube) struct Attributes {
    /// `gpu` or `mig`.
    pub kind: Option<String>,
    pub uuid: Option<String>,
    /// As NVML names it; of a MIG slice that of its GPU.
    pub product: Option<String>,
    /// Of a MIG slice.
    pub profile: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AttributeValue {
    string: Option<String>,
}

/// An attribute's name without the driver's domain, which may be left out.
fn own_name(name: &str) -> &str {
    name.strip_prefix(DRIVER).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut attributes = Attributes::default();
        let wanted = |name: &str| matches!(own_name(name), "type" | "uuid" | "productName" | "profile");
        for (name, value) in entries::<_, AttributeValue>(d, wanted)? {
            let text = value.and_then(|value| value.string);
            match own_name(&name) {
                "type" => attributes.kind = text,
                "uuid" => attributes.uuid = text,
                "productName" => attributes.product = text,
                _ => attributes.profile = text,
            }
        }
        Ok(attributes)
    }
}

/// What somebody asks for of devices.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kube) struct ClaimObject {
    pub metadata: Metadata,
    pub status: Option<ClaimStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct ClaimStatus {
    pub allocation: Option<Allocation>,
    pub reserved_for: Option<Vec<Consumer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kube) struct Allocation {
    pub devices: AllocatedDevices,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::kube) struct AllocatedDevices {
    pub results: Option<Vec<Allocated>>,
}

/// A device that a claim was given.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct Allocated {
    pub driver: String,
    pub pool: String,
    pub device: String,
    pub admin_access: Option<bool>,
}

/// Who uses a claim.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::kube) struct Consumer {
    pub api_group: Option<String>,
    pub resource: String,
    pub name: String,
    pub uid: String,
}

impl Kind for SliceObject {
    type Seen = SeenSlice;
    const NAME: &'static str = "resourceslices";
    const PATH: &'static str = "/apis/resource.k8s.io/v1/resourceslices";
    const FIELDS: Option<&'static str> = Some("spec.driver=gpu.nvidia.com");
    const ALWAYS_SERVED: bool = false;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }

    fn seen(&self) -> Option<SeenSlice> {
        seen::slice(self)
    }
}

impl Kind for ClaimObject {
    type Seen = SeenClaim;
    const NAME: &'static str = "resourceclaims";
    const PATH: &'static str = "/apis/resource.k8s.io/v1/resourceclaims";
    const FIELDS: Option<&'static str> = None;
    const ALWAYS_SERVED: bool = false;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    fn seen(&self) -> Option<SeenClaim> {
        seen::claim(self)
    }
}
