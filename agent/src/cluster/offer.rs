//! How a Kubernetes node gives out its devices: under which resource, in how many parts, and whether they are slices of GPUs.
//!
//! One kind of devices of a node is counted. Pods ask for units of its resource: devices, or parts of them where the device plugin makes
//! several of each (`replicas`). Of slices and of shared devices Kubernetes alone says how many units are taken: which of them a pod got
//! makes no difference to what is left.
//!
//! Where claims give devices out (`resource.k8s.io`), the API server says which device who has, by a name that a device has for good: nothing is
//! counted or guessed there, be it of GPUs or of slices.

use protocol::capacity::Sharing;

/// The devices of a node as Kubernetes counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The resource of which pods ask for units, such as `nvidia.com/gpu`, `nvidia.com/gpu.shared` or `nvidia.com/mig-1g.10gb`; the class of
    /// devices, such as `gpu.nvidia.com`, where claims give them out.
    pub resource: Box<str>,
    /// Units that are given out there in all (`status.allocatable`; devices without a taint that bars everybody).
    pub units: u32,
    /// Whether a unit is a device or one part of so many: [`Sharing::Whole`] or [`Sharing::Parts`].
    pub sharing: Sharing,
    /// Whether the devices are MIG slices of GPUs.
    pub slices: bool,
    /// Where claims give them out: which they are.
    pub claims: Option<Box<ByClaims>>,
}

/// Devices that claims give out, all of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByClaims {
    /// The names that their driver has for their product: a claim's selector sees these.
    pub products: Box<[Box<str>]>,
    /// Their profile as their driver has it, where they are MIG slices.
    pub profile: Option<Box<str>>,
    /// All of them.
    pub devices: Box<[ClaimDevice]>,
}

/// A device that claims give out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimDevice {
    /// Its UUID; `POOL/NAME` where its driver gives none.
    pub id: Box<str>,
    /// Whether it is given to anybody: it has no taint that bars all.
    pub open: bool,
}

impl Offer {
    /// So many whole devices.
    pub fn whole(devices: u16) -> Self {
        let (resource, sharing) = (crate::kube::GPU.into(), Sharing::Whole);
        Self { resource, units: devices.into(), sharing, slices: false, claims: None }
    }

    /// Units of a device.
    pub fn parts(&self) -> u32 {
        match self.sharing {
            Sharing::Parts(parts) => u32::from(parts.max(1)),
            Sharing::Any | Sharing::Whole => 1,
        }
    }

    /// Devices, also those of which not all parts, or nothing, is given out.
    pub fn devices(&self) -> u16 {
        let listed = self.claims.as_ref().map(|claims| claims.devices.len());
        let counted = || usize::try_from(self.units.div_ceil(self.parts())).ok();
        listed.or_else(counted).and_then(|devices| u16::try_from(devices).ok()).unwrap_or(u16::MAX)
    }

    /// Whether units alone say what is left.
    pub fn is_counted(&self) -> bool {
        self.claims.is_none() && (self.slices || self.parts() > 1)
    }
}
