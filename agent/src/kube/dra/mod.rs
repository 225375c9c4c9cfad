//! GPUs that Kubernetes gives out by claims (dynamic resource allocation, `resource.k8s.io/v1`): what NVIDIA's driver says in ResourceSlices of
//! the devices that a node has, and which of them ResourceClaims hold.
//!
//! | what | is |
//! |---|---|
//! | the slices of a pool that are not of its newest generation, or not all of that | passed over, as the scheduler does |
//! | a device of type `gpu`, or of type `mig` that is cut for good | counted |
//! | a GPU of which slices are cut on demand (`consumesCounters`) | counted whole; a slice of it that is held holds all of it |
//! | those slices | not counted: they and their GPU are the same device |
//! | a device that several claims can have a part of (`allowMultipleAllocations`) | not counted |
//! | a device with a taint `NoSchedule` or `NoExecute` | counted, and given to nobody |
//! | a claim that is allocated, whoever has reserved it, also nobody | holds its devices, each once |
//! | what it was allocated for administration (`adminAccess`) | holds nothing |
//! | devices that are no node's own | passed over |
//!
//! Where the device plugin offers something on a node as well, its resource counts and the slices do not: they describe the same GPUs, and what
//! was launched there goes on as before. Devices that claims hold are taken there all the same.

mod known;
mod objects;
mod offer;
mod seen;
mod served;

pub(super) use known::Known;
pub(super) use objects::{ClaimObject, SliceObject};
pub(crate) use offer::read_node;
pub(super) use served::follow_where_served;
pub(crate) use served::{NodeSlices, any_slice, slices_of};

/// NVIDIA's driver, which is also the domain of its devices' attributes.
pub(crate) const DRIVER: &str = "gpu.nvidia.com";
/// The classes of devices that it comes with: whole GPUs, and MIG slices.
const GPU_CLASS: &str = "gpu.nvidia.com";
const SLICE_CLASS: &str = "mig.nvidia.com";
