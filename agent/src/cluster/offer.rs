//! How a Kubernetes node gives out its devices: under which resource, in how many parts, and whether they are slices of GPUs.
//!
//! One kind of devices of a node is counted. Pods ask for units of its resource: devices, or parts of them where the device plugin makes
//! several of each (`replicas`). Of slices and of shared devices Kubernetes alone says how many units are taken: which of them a pod got
//! makes no difference to what is left.

use protocol::capacity::Sharing;

/// The devices of a node as Kubernetes counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The resource of which pods ask for units, such as `nvidia.com/gpu`, `nvidia.com/gpu.shared` or `nvidia.com/mig-1g.10gb`.
    pub resource: Box<str>,
    /// Units that are given out there in all (`status.allocatable`).
    pub units: u32,
    /// Whether a unit is a device or one part of so many: [`Sharing::Whole`] or [`Sharing::Parts`].
    pub sharing: Sharing,
    /// Whether the devices are MIG slices of GPUs.
    pub slices: bool,
}

impl Offer {
    /// So many whole devices.
    pub fn whole(devices: u16) -> Self {
        let (resource, sharing) = (crate::kube::GPU.into(), Sharing::Whole);
        Self { resource, units: devices.into(), sharing, slices: false }
    }

    /// Units of a device.
    pub fn parts(&self) -> u32 {
        match self.sharing {
            Sharing::Parts(parts) => u32::from(parts.max(1)),
            Sharing::Any | Sharing::Whole => 1,
        }
    }

    /// Devices, also one of which not all parts are given out.
    pub fn devices(&self) -> u16 {
        u16::try_from(self.units.div_ceil(self.parts())).unwrap_or(u16::MAX)
    }

    /// Whether units alone say what is left.
    pub fn is_counted(&self) -> bool {
        self.slices || self.parts() > 1
    }
}
