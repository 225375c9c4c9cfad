//! What a device's report says of it.

use protocol::capacity::{ACTIVITY_UNKNOWN, DeviceState, MEMORY_UNKNOWN};
use protocol::node::{DeviceHealth, DeviceReport};

use super::{Device, IDLE_MEMORY_MIB};

/// What a device's report says. Its state follows once it is known who holds it.
pub(super) fn reading(report: &DeviceReport) -> Device {
    let lost = matches!(report.health, DeviceHealth::Lost { .. });
    // Under MIG the whole device's activity means nothing, and a lost device's last reading is over: unknown, not 0.
    let activity = match report.activity {
        Some(a) if !lost && report.mig != Some(true) => a.percent.min(100),
        _ => ACTIVITY_UNKNOWN,
    };
    let memory = report.memory_used_mib.filter(|_| !lost);
    // Memory is read each second, processes each ten: what an attempt's processes held is gone with it, and so is not
    // taken for a ghost by an old list. The list decides only where memory is not known.
    let used = match memory {
        Some(mib) => mib > IDLE_MEMORY_MIB,
        None => report.processes.as_ref().is_some_and(|p| !p.is_empty()),
    };
    Device {
        state: DeviceState::Free,
        activity,
        memory_used_mib: memory.map_or(MEMORY_UNKNOWN, |mib| u32::try_from(mib).unwrap_or(MEMORY_UNKNOWN - 1)),
        left_milli: 0,
        sick: !matches!(report.health, DeviceHealth::Ok),
        used,
        // These of a device change so seldom that they are entered by themselves.
        barred: false,
        names: None,
    }
}
