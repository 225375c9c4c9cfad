//! One GPU while the driver is open: its readings into a report. A GPU that is lost is not asked again until the driver was
//! opened anew.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_FAILURE};
use nvml_wrapper::{Device, EventSet, Nvml};
use protocol::node::{Activity, ActivitySource, DeviceHealth, DeviceReport, GpuProcess};
use protocol::sku::Sku;

use crate::node::gpm::SmActivity;
use crate::node::health::{HealthFacts, XidClass, classify, judge};
use crate::node::known::{Known, forget_readings};
use crate::node::nvml::{Fault, ask, ask_list};
use crate::node::watch::CallWatch;

const MIB: u64 = 1 << 20;

/// No GPU is cut into more MIG devices.
const MAX_SLICES: u32 = 16;

/// More events than this in one turn wait for the next.
const EVENTS_A_TURN: usize = 16;

/// One GPU that the driver lists.
pub struct OpenDevice<'n> {
    nvml: &'n Nvml,
    device: Device<'n>,
    // A set of its own: an event then names this GPU also where the handle in it no longer answers.
    events: Option<EventSet<'n>>,
    activity: SmActivity<'n>,
    facts: HealthFacts,
    /// What is known of it.
    pub report: DeviceReport,
}

impl<'n> OpenDevice<'n> {
    /// Finds the GPU at `index` and starts measuring. `known` is what earlier lives of the driver left of it.
    pub fn open(watch: &CallWatch, nvml: &'n Nvml, index: u32, known: &Known) -> Result<Self, Fault> {
        let must = |call: &str| Fault::Lost(format!("{call}: no answer"));
        let call = "nvmlDeviceGetHandleByIndex_v2";
        let device = ask(watch, call, || nvml.device_by_index(index))?.ok_or_else(|| must(call))?;
        let uuid = ask(watch, "nvmlDeviceGetUUID", || device.uuid())?.ok_or_else(|| must("nvmlDeviceGetUUID"))?;
        let name = ask(watch, "nvmlDeviceGetName", || device.name())?.unwrap_or_else(|| "unknown".into());
        let mig = mig(watch, &device)?;
        let activity = if mig == Some(true) { SmActivity::Unsupported } else { SmActivity::open(watch, &device)? };
        let events = xid_events(watch, nvml, &device)?;
        let facts = HealthFacts { xid: known.sick_xid(&uuid), ..HealthFacts::default() };
        let xids = known.xids(&uuid);
        let unread = DeviceReport::unread(index, uuid, Sku::from_driver(&name), judge(&facts));
        let report = DeviceReport { mig, xids, ..unread };
        Ok(Self { nvml, device, events, activity, facts, report })
    }

    /// The XID that makes it sick. A GPU that was lost and answers again was reset: its XID is in the past, and what is still
    /// wrong with it the driver says anew.
    pub fn sick_xid(&self) -> Option<u64> {
        self.facts.xid.filter(|_| !matches!(self.report.health, DeviceHealth::Lost { .. }))
    }

    /// One turn: events, activity and memory, and with `slow` all the rest. `Err` is the driver's end.
    pub fn turn(&mut self, watch: &CallWatch, slow: bool) -> Result<(), String> {
        self.judged(|device| device.read(watch, slow))
    }

    /// Events alone, between two turns: whether there were any. `Err` is the driver's end.
    pub fn listen(&mut self, watch: &CallWatch) -> Result<bool, String> {
        let before = self.report.xids.count;
        self.judged(|device| device.read_events(watch))?;
        Ok(self.report.xids.count != before)
    }

    /// Reads something, and says anew how the GPU is.
    fn judged(&mut self, read: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<(), String> {
        if matches!(self.report.health, DeviceHealth::Lost { .. }) {
            return Ok(());
        }
        let read = read(self);
        self.report.health = judge(&self.facts);
        match read {
            Ok(()) => Ok(()),
            Err(Fault::Driver(cause)) => Err(cause),
            Err(Fault::ResetRequired(_)) => {
                self.facts.reset_required = true;
                self.report.health = judge(&self.facts);
                forget_readings(&mut self.report);
                Ok(())
            }
            Err(Fault::Lost(cause)) => {
                let after = self.facts.xid.map(|xid| format!(" (after XID {xid})")).unwrap_or_default();
                tracing::warn!(gpu = %self.report.uuid, %cause, "GPU lost");
                forget_readings(&mut self.report);
                self.report.health = DeviceHealth::Lost { cause: format!("{cause}{after}") };
                Ok(())
            }
        }
    }

    fn read(&mut self, watch: &CallWatch, slow: bool) -> Result<(), Fault> {
        self.read_events(watch)?;
        if slow {
            self.facts.reset_required = false;
            self.read_slow(watch)?;
        }
        let memory = ask(watch, "nvmlDeviceGetMemoryInfo_v2", || self.device.memory_info())?;
        self.report.memory_used_mib = memory.as_ref().map(|m| m.used / MIB);
        // The size does not change; a passing error does not make it unknown.
        self.report.memory_total_mib = memory.map(|m| m.total / MIB).or(self.report.memory_total_mib);
        self.report.activity = self.read_activity(watch)?;
        Ok(())
    }

    fn read_activity(&mut self, watch: &CallWatch) -> Result<Option<Activity>, Fault> {
        if self.report.mig == Some(true) {
            return Ok(None);
        }
        if let Some(percent) = self.activity.measure(watch, self.nvml, &self.device)? {
            return Ok(Some(Activity { percent, source: ActivitySource::GpmSm }));
        }
        let rates = ask(watch, "nvmlDeviceGetUtilizationRates", || self.device.utilization_rates())?;
        Ok(rates.map(|r| Activity { percent: r.gpu.min(100) as u8, source: ActivitySource::Utilization }))
    }

    fn read_slow(&mut self, watch: &CallWatch) -> Result<(), Fault> {
        let device = &self.device;
        self.report.mig = mig(watch, device)?;
        self.report.slices = if self.report.mig == Some(true) { slices(watch, device)? } else { vec![] };
        self.report.processes = processes(watch, device)?;
        let sensor = TemperatureSensor::Gpu;
        self.report.temperature_c = ask(watch, "nvmlDeviceGetTemperature", || device.temperature(sensor))?;
        self.report.power_mw = ask(watch, "nvmlDeviceGetPowerUsage", || device.power_usage())?;
        self.facts.ecc_uncorrectable = ask(watch, "nvmlDeviceGetTotalEccErrors", || {
            device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        })?;
        self.facts.retirement_pending =
            ask(watch, "nvmlDeviceGetRetiredPagesPendingStatus", || device.are_pages_pending_retired())?;
        self.facts.thermal_slowdown = ask(watch, "nvmlDeviceGetCurrentClocksThrottleReasons", || {
            Ok(device.current_throttle_reasons()?.contains(ThrottleReasons::HW_THERMAL_SLOWDOWN))
        })?;
        let fields = [FieldId(NVML_FI_DEV_REMAPPED_FAILURE), FieldId(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)];
        let values = ask(watch, "nvmlDeviceGetFieldValues", || device.field_values_for(&fields))?.unwrap_or_default();
        let mut numbers = values.into_iter().map(|sample| number(&sample.ok()?.value.ok()?));
        self.facts.remap_failed = numbers.next().flatten().map(|failed| failed != 0);
        self.facts.recovery_action = numbers.next().flatten().and_then(|action| u32::try_from(action).ok());
        Ok(())
    }

    fn read_events(&mut self, watch: &CallWatch) -> Result<(), Fault> {
        let Some(events) = &self.events else { return Ok(()) };
        for _ in 0..EVENTS_A_TURN {
            let event = ask(watch, "nvmlEventSetWait_v2", || match events.wait(0) {
                Err(NvmlError::Timeout) => Ok(None),
                other => other.map(Some),
            })?;
            let Some(Some(event)) = event else { break };
            let Some(XidError::Value(xid)) = event.event_data else { continue };
            let class = classify(xid);
            tracing::warn!(gpu = %self.report.uuid, xid, ?class, "XID");
            self.report.xids.add(xid);
            if matches!(class, XidClass::Sick(_)) {
                self.facts.xid = Some(xid);
            }
        }
        Ok(())
    }
}

/// Whether MIG is on. A GPU that has no MIG has it off.
fn mig(watch: &CallWatch, device: &Device<'_>) -> Result<Option<bool>, Fault> {
    ask(watch, "nvmlDeviceGetMigMode", || match device.mig_mode() {
        Ok(mode) => Ok(mode.current == 1),
        Err(NvmlError::NotSupported) => Ok(false),
        Err(other) => Err(other),
    })
}

/// The UUIDs of the MIG devices that it is cut into.
fn slices(watch: &CallWatch, device: &Device<'_>) -> Result<Vec<String>, Fault> {
    let most = ask(watch, "nvmlDeviceGetMaxMigDeviceCount", || device.mig_device_count())?.unwrap_or(0);
    let mut uuids = vec![];
    for index in 0..most.min(MAX_SLICES) {
        // A place that is not in use is no fault of the GPU's.
        let uuid = ask(watch, "nvmlDeviceGetMigDeviceHandleByIndex", || device.mig_device_by_index(index)?.uuid())?;
        uuids.extend(uuid);
    }
    Ok(uuids)
}

/// A set in which the driver puts this GPU's XIDs; none where it has no such events.
fn xid_events<'n>(watch: &CallWatch, nvml: &'n Nvml, device: &Device<'n>) -> Result<Option<EventSet<'n>>, Fault> {
    let types = ask(watch, "nvmlDeviceGetSupportedEventTypes", || device.supported_event_types())?;
    if !types.is_some_and(|t| t.contains(EventTypes::CRITICAL_XID_ERROR)) {
        return Ok(None);
    }
    let Some(set) = ask(watch, "nvmlEventSetCreate", || nvml.create_event_set())? else { return Ok(None) };
    ask(watch, "nvmlDeviceRegisterEvents", || {
        device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|e| e.error)
    })
}

/// Every process that holds memory on the GPU, in order of pid. Unknown where the driver does not list those that compute.
fn processes(watch: &CallWatch, device: &Device<'_>) -> Result<Option<Vec<GpuProcess>>, Fault> {
    let compute = ask_list(watch, "nvmlDeviceGetComputeRunningProcesses_v3", || device.running_compute_processes())?;
    let mps = ask_list(watch, "nvmlDeviceGetMPSComputeRunningProcesses_v3", || device.mps_running_compute_processes())?;
    let graphics = ask_list(watch, "nvmlDeviceGetGraphicsRunningProcesses_v3", || device.running_graphics_processes())?;
    Ok(compute.map(|compute| {
        merge(compute.into_iter().chain(mps.into_iter().flatten()).chain(graphics.into_iter().flatten()))
    }))
}

/// One entry a pid: a process that both computes and draws is in two lists with the same memory.
fn merge(infos: impl Iterator<Item = ProcessInfo>) -> Vec<GpuProcess> {
    let mut all: Vec<GpuProcess> = infos
        .map(|info| GpuProcess {
            pid: info.pid,
            memory_mib: match info.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes / MIB),
                UsedGpuMemory::Unavailable => None,
            },
        })
        .collect();
    all.sort_by_key(|p| (p.pid, std::cmp::Reverse(p.memory_mib)));
    all.dedup_by_key(|p| p.pid);
    all
}

fn number(value: &SampleValue) -> Option<u64> {
    match *value {
        SampleValue::U32(n) => Some(n.into()),
        SampleValue::U64(n) => Some(n),
        SampleValue::I64(n) => u64::try_from(n).ok(),
        SampleValue::F64(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, used_gpu_memory: UsedGpuMemory) -> ProcessInfo {
        ProcessInfo { pid, used_gpu_memory, gpu_instance_id: None, compute_instance_id: None }
    }

    #[test]
    fn a_process_in_two_lists_is_one_and_keeps_the_memory_that_is_known() {
        let infos = [
            process(9, UsedGpuMemory::Used(3 * MIB)),
            process(4, UsedGpuMemory::Unavailable),
            process(4, UsedGpuMemory::Used(7 * MIB)),
        ];
        let merged = merge(infos.into_iter());
        let expected = [GpuProcess { pid: 4, memory_mib: Some(7) }, GpuProcess { pid: 9, memory_mib: Some(3) }];
        assert_eq!(merged, expected);
    }
}
