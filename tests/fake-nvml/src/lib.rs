//! A stand-in for `libnvidia-ml.so.1`: the machines that run the tests have no GPU, so NVML's answers come from a JSON file.
//!
//! Everything above NVML's C interface is the product's own code and the real `nvml-wrapper`; this crate replaces the driver
//! alone. The numbers of a device that the file does not set are those that one idle H100 SXM gave (driver 580.159.04).
//!
//! The file is named by `FAKE_NVML_STATE`, else it is `state.json` beside the library: two copies of the library in two
//! folders are two drivers in one process. It is read again when it changes, so a test can break a GPU while it is watched.
//! `state` holds the file's form, `calls` the C functions on devices, `processes`, `events`, `gpm` and `links` theirs.

#![allow(unsafe_code)] // a C interface: pointers come from the caller, as nvml.h says
#![allow(missing_docs, clippy::missing_safety_doc)] // nvml.h documents these functions
#![allow(non_snake_case)] // the names are NVIDIA's

mod calls;
mod events;
mod gpm;
mod links;
mod live;
mod processes;
mod state;
mod system;

pub use state::{Device, Process, State, Xid};
