//! What pods ask for, as Kubernetes writes and adds it up: both ends count alike, the agent what runs and the coordinator what is asked.

mod quantity;
mod takes;

pub use quantity::{BadQuantity, Quantity, Round};
pub use takes::Takes;

/// The resource under which NVIDIA's device plugin offers whole GPUs; the taint of nodes that have some goes by the same name.
pub const GPU: &str = "nvidia.com/gpu";
/// The label with a node's GPU product.
pub const PRODUCT: &str = "nvidia.com/gpu.product";
/// Of the resource of a MIG slice what is before its profile.
pub const SLICE: &str = "nvidia.com/mig-";
