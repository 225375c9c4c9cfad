//! The form of the state file. Every field has a default: an empty object is a node with one idle H100.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the driver answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// Answer of `nvmlInit_v2` in place of success, such as 9 (driver not loaded).
    pub init_error: Option<u32>,
    pub driver_version: String,
    pub nvml_version: String,
    pub cuda_version: i32,
    pub devices: Vec<Device>,
    /// Answers in place of success, by function, for every device.
    pub errors: BTreeMap<String, u32>,
    /// How long a call blocks, in ms, by function. A call that blocks goes on at once when its entry is taken away.
    pub delays_ms: BTreeMap<String, u64>,
    /// Grows at its end: an event reaches the sets that were registered before it was added.
    pub xids: Vec<Xid>,
}

/// A critical XID error of one device.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xid {
    pub device: usize,
    pub xid: u64,
}

/// A process on a GPU; `memory` in bytes, none where the driver does not say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub pid: u32,
    pub memory: Option<u64>,
}

/// One GPU. Memory in bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub uuid: String,
    pub architecture: u32,
    pub compute_capability: (i32, i32),
    pub memory_total: u64,
    pub memory_reserved: u64,
    pub memory_used: u64,
    pub utilization: u32,
    pub memory_utilization: u32,
    /// Whether `nvmlGpmQueryDeviceSupport` says yes.
    pub gpm: bool,
    /// GPM's SM activity between the last two samples, in percent.
    pub sm_activity: f64,
    pub temperature: u32,
    pub power_mw: u32,
    /// Whether MIG is on; none where the GPU has no MIG.
    pub mig: Option<bool>,
    pub ecc_corrected: u64,
    pub ecc_uncorrected: u64,
    /// Rows remapped for correctable and uncorrectable errors, whether one is pending, whether one failed.
    pub remapped_rows: [u32; 4],
    /// None as on a GPU that remaps rows instead.
    pub retired_pages_pending: Option<bool>,
    /// `nvmlDeviceGpuRecoveryAction_t`; none as on a driver that does not know the field.
    pub recovery_action: Option<u32>,
    pub throttle_reasons: u64,
    pub processes: Vec<Process>,
    pub mps_processes: Vec<Process>,
    pub graphics_processes: Vec<Process>,
    /// How many times the list turns out longer than was said when its length was asked.
    pub process_undercounts: u32,
    /// Fallen off the bus: every call on it answers 15.
    pub lost: bool,
    /// Answers in place of success, by function.
    pub errors: BTreeMap<String, u32>,
    /// How long a call blocks, in ms, by function.
    pub delays_ms: BTreeMap<String, u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            init_error: None,
            driver_version: "580.159.04".into(),
            nvml_version: "13.580.159.04".into(),
            cuda_version: 13000,
            devices: vec![Device::default()],
            errors: BTreeMap::new(),
            delays_ms: BTreeMap::new(),
            xids: Vec::new(),
        }
    }
}

impl Default for Device {
    fn default() -> Self {
        Self {
            name: "NVIDIA H100 80GB HBM3".into(),
            uuid: "GPU-00000000-1111-2222-3333-444444444444".into(),
            architecture: 9,
            compute_capability: (9, 0),
            memory_total: 85_520_809_984,
            memory_reserved: 503_316_480,
            memory_used: 0,
            utilization: 0,
            memory_utilization: 0,
            gpm: true,
            sm_activity: 0.02,
            temperature: 33,
            power_mw: 73_580,
            mig: Some(false),
            ecc_corrected: 0,
            ecc_uncorrected: 0,
            remapped_rows: [0; 4],
            retired_pages_pending: None,
            recovery_action: Some(0),
            throttle_reasons: 1,
            processes: Vec::new(),
            mps_processes: Vec::new(),
            graphics_processes: Vec::new(),
            process_undercounts: 0,
            lost: false,
            errors: BTreeMap::new(),
            delays_ms: BTreeMap::new(),
        }
    }
}
