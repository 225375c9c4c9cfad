//! What system tests share: the simulation, and where the stand-in for the NVIDIA driver's library lies.

pub mod fake_nvml;
pub mod simulation;
