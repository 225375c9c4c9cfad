//! The node role over a `libnvidia-ml.so` that answers from a file: everything above NVML's C interface is the product's own
//! code and the real `nvml-wrapper`. Each test has its own copy of the library, and so its own driver.

#![allow(clippy::unwrap_used)] // a test that cannot go on ends

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::node::{NodeConfig, NodeSampler, run_once};
use protocol::ids::NodeName;
use protocol::node::{Activity, ActivitySource, DeviceHealth, DeviceReport, DriverState, GpuProcess, NodeFrame};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

const INTERVAL: Duration = Duration::from_millis(40);
const STALL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// A driver of one test.
struct Driver {
    folder: tempfile::TempDir,
}

impl Driver {
    fn new(state: Value) -> Self {
        let driver = Self { folder: tempfile::tempdir().unwrap() };
        driver.install();
        driver.set(state);
        driver
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    fn install(&self) {
        let part = self.folder.path().join("part");
        std::fs::copy(tests::fake_nvml::library().unwrap(), &part).unwrap();
        std::fs::rename(part, self.library()).unwrap();
    }

    fn set(&self, state: Value) {
        serde_json::from_value::<fake_nvml::State>(state.clone()).unwrap();
        write_whole(&self.folder.path().join("state.json"), &state);
    }

    fn config(&self) -> NodeConfig {
        NodeConfig {
            interval: INTERVAL,
            slow_interval: INTERVAL,
            stall_after: STALL,
            heartbeat: Duration::from_secs(600),
            driver_retry: (INTERVAL, INTERVAL * 4),
            lost_retry: (INTERVAL, INTERVAL * 4),
            ..NodeConfig::new(NodeName::new("gpu-1").unwrap(), Some(self.library()))
        }
    }

    fn once(&self) -> NodeFrame {
        run_once(self.config()).unwrap()
    }

    fn watch(&self) -> Reader {
        self.watch_with(self.config())
    }

    fn watch_with(&self, config: NodeConfig) -> Reader {
        let (sampler, frames) = NodeSampler::start(config).unwrap();
        Reader { sampler, frames, last: None, devices: BTreeMap::new() }
    }
}

fn write_whole(path: &Path, state: &Value) {
    let part = path.with_extension("part");
    std::fs::write(&part, state.to_string()).unwrap();
    std::fs::rename(part, path).unwrap();
}

/// What the cluster's agent would hold: frames applied one after the other, each with the next number.
struct Reader {
    sampler: NodeSampler,
    frames: Receiver<NodeFrame>,
    last: Option<NodeFrame>,
    devices: BTreeMap<u32, DeviceReport>,
}

impl Reader {
    fn next_within(&mut self, time: Duration) -> Option<NodeFrame> {
        let end = Instant::now() + time;
        loop {
            match self.frames.try_recv() {
                Ok(frame) => {
                    let expected = self.last.as_ref().map_or(1, |f| f.sequence + 1);
                    assert_eq!(frame.sequence, expected);
                    if frame.full {
                        self.devices.clear();
                    }
                    self.devices.extend(frame.devices.iter().map(|d| (d.index, d.clone())));
                    self.last = Some(frame.clone());
                    return Some(frame);
                }
                Err(TryRecvError::Empty) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => return None,
            }
        }
    }

    /// Applies frames until `done`.
    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while self.last.is_none() || !done(self) {
            let left = end.saturating_duration_since(Instant::now());
            if self.next_within(left).is_none() {
                panic!("never {what}; last: {:#?}; devices: {:#?}", self.last, self.devices);
            }
        }
    }

    fn driver(&self) -> &DriverState {
        &self.last.as_ref().unwrap().driver
    }

    fn ready(&self) -> bool {
        matches!(self.driver(), DriverState::Ready { .. })
    }

    fn health(&self, index: u32) -> &DeviceHealth {
        &self.devices[&index].health
    }

    fn sick(&self, index: u32, with: &str) -> bool {
        matches!(self.health(index), DeviceHealth::Sick { cause } if cause.contains(with))
    }

    fn lost(&self, index: u32) -> bool {
        matches!(self.health(index), DeviceHealth::Lost { .. })
    }
}

fn gpu(index: usize, more: Value) -> Value {
    let mut gpu = json!({"uuid": format!("GPU-{index}")});
    gpu.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gpu
}

fn one(more: Value) -> Value {
    json!({"devices": [gpu(0, more)]})
}

fn gpm(percent: u8) -> Option<Activity> {
    Some(Activity { percent, source: ActivitySource::GpmSm })
}

fn utilization(percent: u8) -> Option<Activity> {
    Some(Activity { percent, source: ActivitySource::Utilization })
}

fn no_readings(device: &DeviceReport) -> bool {
    (device.activity, device.memory_used_mib, &device.processes, device.temperature_c, device.power_mw)
        == (None, None, &None, None, None)
}

#[test]
fn an_idle_h100_reads_as_nvidia_smi_shows_it() {
    let frame = Driver::new(json!({})).once();
    assert_eq!(frame.driver, DriverState::Ready { version: "580.159.04".into() });
    assert_eq!((frame.sequence, frame.full), (1, true));
    let device = &frame.devices[0];
    assert_eq!(device.sku.as_str(), "H100");
    assert_eq!(device.uuid, "GPU-00000000-1111-2222-3333-444444444444");
    assert_eq!(device.activity, gpm(0));
    assert_eq!((device.memory_total_mib, device.memory_used_mib), (Some(81_559), Some(0)));
    assert_eq!((device.temperature_c, device.power_mw), (Some(33), Some(73_580)));
    assert_eq!(device.processes, Some(vec![]));
    assert_eq!((device.mig, &device.health), (Some(false), &DeviceHealth::Ok));
}

#[test]
fn under_load_activity_is_that_of_the_sms_and_follows_it() {
    let driver = Driver::new(one(json!({"sm_activity": 59.26, "utilization": 99})));
    let mut reader = driver.watch();
    reader.until("59%", |r| r.devices[&0].activity == gpm(59));
    driver.set(one(json!({"sm_activity": 11.32, "utilization": 35})));
    reader.until("11%", |r| r.devices[&0].activity == gpm(11));
}

#[test]
fn a_gpu_without_gpm_reports_utilization_and_says_so() {
    let a100 = json!({"name": "NVIDIA A100-SXM4-80GB", "architecture": 8, "gpm": false, "utilization": 35});
    let frame = Driver::new(one(a100)).once();
    assert_eq!(frame.devices[0].activity, utilization(35));
    assert_eq!(frame.devices[0].sku.as_str(), "A100-80GB");
}

#[test]
fn gpm_that_fails_for_a_while_is_replaced_by_utilization_and_comes_back() {
    let driver = Driver::new(one(json!({"sm_activity": 60.0, "utilization": 99})));
    let mut reader = driver.watch();
    reader.until("60%", |r| r.devices[&0].activity == gpm(60));
    driver.set(one(json!({"sm_activity": 60.0, "utilization": 99, "errors": {"nvmlGpmSampleGet": 999}})));
    reader.until("99% utilization", |r| r.devices[&0].activity == utilization(99));
    driver.set(one(json!({"sm_activity": 61.0, "utilization": 99})));
    reader.until("61%", |r| r.devices[&0].activity == gpm(61));
}

#[test]
fn a_reading_that_is_not_supported_is_unknown_and_not_0() {
    let errors = json!({
        "nvmlDeviceGetMemoryInfo_v2": 3, "nvmlDeviceGetTemperature": 3, "nvmlDeviceGetPowerUsage": 4,
        "nvmlDeviceGetComputeRunningProcesses_v3": 3, "nvmlGpmQueryDeviceSupport": 3,
        "nvmlDeviceGetUtilizationRates": 3, "nvmlDeviceGetTotalEccErrors": 3, "nvmlDeviceGetFieldValues": 3,
        "nvmlDeviceGetSupportedEventTypes": 3, "nvmlDeviceGetMigMode": 3,
    });
    let frame = Driver::new(one(json!({"errors": errors}))).once();
    assert!(no_readings(&frame.devices[0]), "{:#?}", frame.devices[0]);
    assert_eq!(frame.devices[0].memory_total_mib, None);
    assert_eq!((frame.devices[0].mig, &frame.devices[0].health), (Some(false), &DeviceHealth::Ok));
}

#[test]
fn activity_of_a_gpu_in_mig_mode_is_unknown_and_its_memory_is_not() {
    let frame = Driver::new(one(json!({"mig": true, "utilization": 0, "memory_used": 1 << 30}))).once();
    let device = &frame.devices[0];
    assert_eq!((device.mig, device.activity, device.memory_used_mib), (Some(true), None, Some(1024)));
    assert_eq!(device.health, DeviceHealth::Ok);
}

#[test]
fn a_driver_that_is_not_loaded_yet_is_missing_and_then_found() {
    let driver = Driver::new(json!({"init_error": 9}));
    let mut reader = driver.watch();
    reader.until("missing", |r| matches!(r.driver(), DriverState::Missing { cause } if cause.contains("not loaded")));
    assert!(reader.devices.is_empty());
    driver.set(json!({}));
    reader.until("ready", |r| r.ready() && r.devices[&0].activity == gpm(0));
}

#[test]
fn a_library_that_is_not_installed_yet_is_missing_and_then_found() {
    let driver = Driver::new(json!({}));
    std::fs::remove_file(driver.library()).unwrap();
    let mut reader = driver.watch();
    reader.until("missing", |r| matches!(r.driver(), DriverState::Missing { cause } if cause.contains("--nvml-lib")));
    driver.install();
    reader.until("ready", |r| r.ready() && r.devices[&0].health == DeviceHealth::Ok);
}

#[test]
fn a_driver_that_is_unloaded_takes_all_readings_along_and_brings_them_back() {
    let driver = Driver::new(one(json!({"sm_activity": 50.0})));
    let mut reader = driver.watch();
    reader.until("50%", |r| r.devices[&0].activity == gpm(50));
    driver.set(json!({"init_error": 9, "errors": {"nvmlDeviceGetMemoryInfo_v2": 1}, "devices": [gpu(0, json!({}))]}));
    reader.until("missing", |r| matches!(r.driver(), DriverState::Missing { .. }) && r.lost(0));
    assert!(no_readings(&reader.devices[&0]));
    driver.set(one(json!({"sm_activity": 51.0})));
    reader.until("back", |r| r.ready() && r.devices[&0].activity == gpm(51));
    assert_eq!(reader.health(0), &DeviceHealth::Ok);
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_lost_alone_and_found_again() {
    let two = |lost: bool, percent: f64, xids: Value| {
        let gpus = [gpu(0, json!({"sm_activity": percent})), gpu(1, json!({"sm_activity": 7.0, "lost": lost}))];
        json!({"devices": gpus, "xids": xids})
    };
    let fell = json!([{"device": 1, "xid": 79}]);
    let driver = Driver::new(two(false, 1.0, json!([])));
    let mut reader = driver.watch();
    reader.until("both", |r| r.devices.len() == 2 && r.devices[&1].activity == gpm(7));
    driver.set(two(true, 1.0, fell.clone()));
    reader.until("lost", |r| matches!(r.health(1), DeviceHealth::Lost { cause } if cause.contains("XID 79")));
    assert!(no_readings(&reader.devices[&1]));
    assert_eq!(reader.devices[&1].uuid, "GPU-1");
    // The driver is opened again and again to look for it; the other GPU goes on throughout.
    driver.set(two(true, 2.0, fell.clone()));
    reader.until("the other at 2%", |r| r.devices[&0].activity == gpm(2));
    assert!(reader.ready() && reader.lost(1));
    // It answers again, so it was reset: what took it out is in the past.
    driver.set(two(false, 2.0, fell));
    reader.until("found again", |r| r.devices[&1].activity == gpm(7));
    assert_eq!(reader.health(1), &DeviceHealth::Ok);
}

#[test]
fn a_gpu_that_was_lost_before_the_start_is_shown_until_it_has_a_name() {
    let two = |lost: bool| json!({"devices": [gpu(0, json!({})), gpu(1, json!({"lost": lost}))]});
    let driver = Driver::new(two(true));
    let mut reader = driver.watch();
    reader.until("lost", |r| r.devices.len() == 2 && r.lost(1));
    assert_eq!(reader.devices[&1].uuid, "index-1");
    driver.set(two(false));
    reader.until("named", |r| r.devices[&1].uuid == "GPU-1" && r.health(1) == &DeviceHealth::Ok);
    assert_eq!(reader.sampler.latest().unwrap().devices.len(), 2);
}

#[test]
fn a_gpu_that_the_driver_no_longer_lists_stays_known_as_lost() {
    let driver = Driver::new(json!({"devices": [gpu(0, json!({})), gpu(1, json!({}))]}));
    let mut reader = driver.watch();
    reader.until("both", |r| r.devices.len() == 2);
    driver.set(json!({"devices": [gpu(0, json!({"lost": true}))]}));
    reader.until("gone", |r| matches!(r.health(1), DeviceHealth::Lost { cause } if cause.contains("no longer lists")));
    driver.set(one(json!({})));
    reader.until("one back", |r| r.health(0) == &DeviceHealth::Ok);
    assert!(reader.lost(1));
    assert_eq!(reader.sampler.latest().unwrap().devices.len(), 2);
}

#[test]
fn a_call_that_blocks_is_named_and_readings_are_unknown_until_it_returns() {
    let blocked = |ms: u64| {
        json!({"devices": [gpu(0, json!({"sm_activity": 40.0, "memory_used": 1 << 30}))],
        "delays_ms": {"nvmlDeviceGetMemoryInfo_v2": ms}})
    };
    let driver = Driver::new(blocked(0));
    let mut reader = driver.watch();
    reader.until("40%", |r| r.devices[&0].activity == gpm(40));
    driver.set(blocked(600_000));
    reader.until("stalled", |r| {
        matches!(r.driver(), DriverState::Stalled { call, for_ms }
            if call == "nvmlDeviceGetMemoryInfo_v2" && u128::from(*for_ms) >= STALL.as_millis())
    });
    assert!(no_readings(&reader.devices[&0]));
    assert_eq!(reader.devices[&0].memory_total_mib, Some(81_559));
    assert_eq!(reader.health(0), &DeviceHealth::Ok);
    driver.set(blocked(0));
    reader.until("ready", |r| r.ready() && r.devices[&0].activity == gpm(40));
    assert_eq!(reader.devices[&0].memory_used_mib, Some(1024));
}

#[test]
fn a_call_that_blocks_holds_up_neither_the_first_reading_nor_the_end() {
    let driver = Driver::new(json!({"delays_ms": {"nvmlDeviceGetCount_v2": 15_000}}));
    let start = Instant::now();
    let frame = driver.once();
    assert!(matches!(frame.driver, DriverState::Stalled { ref call, .. } if call == "nvmlDeviceGetCount_v2"));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    driver.set(json!({}));
}

#[test]
fn an_xid_of_the_hardware_makes_its_gpu_sick_and_one_of_an_application_none() {
    let with = |xids: Value| json!({"devices": [gpu(0, json!({})), gpu(1, json!({}))], "xids": xids});
    // Older than our start: the driver does not deliver it.
    let driver = Driver::new(with(json!([{"device": 0, "xid": 48}])));
    let mut reader = driver.watch();
    reader.until("both", |r| r.devices.len() == 2);
    let old = json!({"device": 0, "xid": 48});
    driver.set(with(json!([old, {"device": 0, "xid": 31}, {"device": 1, "xid": 43}, {"device": 1, "xid": 79}])));
    reader.until("sick", |r| r.sick(1, "XID 79"));
    assert_eq!(reader.health(0), &DeviceHealth::Ok);
    reader.until("each of them told", |r| r.devices[&0].xids.last == [31] && r.devices[&1].xids.last == [43, 79]);
    // It stays sick, and its readings stay known.
    driver.set(json!({"devices": [gpu(0, json!({})), gpu(1, json!({"memory_used": 1 << 30}))],
        "xids": [old, {"device": 0, "xid": 31}, {"device": 1, "xid": 43}, {"device": 1, "xid": 79}]}));
    reader.until("1 GiB", |r| r.devices[&1].memory_used_mib == Some(1024));
    assert!(reader.sick(1, "XID 79"));
}

#[test]
fn an_xid_is_told_of_before_anything_else_is_read_again() {
    let driver = Driver::new(one(json!({"memory_used": 1 << 30})));
    let config = NodeConfig { interval: Duration::from_secs(4), xid_interval: INTERVAL, ..driver.config() };
    let mut reader = driver.watch_with(config);
    reader.until("first reading", |r| r.devices.get(&0).is_some_and(|device| device.memory_used_mib == Some(1024)));
    driver.set(json!({"devices": [gpu(0, json!({"memory_used": 2_u64 << 30}))], "xids": [{"device": 0, "xid": 79}]}));
    reader.until("sick", |r| r.sick(0, "XID 79"));
    assert_eq!(reader.devices[&0].memory_used_mib, Some(1024));
}

#[test]
fn an_xid_is_remembered_when_the_driver_is_opened_again_to_look_for_another_gpu() {
    let with = |lost: bool, used: u64| {
        json!({"devices": [gpu(0, json!({"memory_used": used << 20})), gpu(1, json!({"lost": lost}))],
            "xids": [{"device": 0, "xid": 95}]})
    };
    let driver = Driver::new(json!({"devices": [gpu(0, json!({})), gpu(1, json!({}))]}));
    let mut reader = driver.watch();
    reader.until("both", |r| r.devices.len() == 2);
    driver.set(with(true, 0));
    reader.until("sick and lost", |r| r.sick(0, "XID 95") && r.lost(1));
    driver.set(with(false, 3));
    reader.until("found", |r| r.health(1) == &DeviceHealth::Ok && r.devices[&0].memory_used_mib == Some(3));
    assert!(reader.sick(0, "XID 95"));
    assert_eq!((reader.devices[&0].xids.count, &reader.devices[&0].xids.last[..]), (1, &[95][..]));
}

#[test]
fn what_the_driver_counts_against_a_gpu_makes_it_sick_and_a_pending_remap_does_not() {
    let driver = Driver::new(one(json!({"remapped_rows": [1, 0, 1, 0]})));
    let mut reader = driver.watch();
    reader.until("ok", |r| r.health(0) == &DeviceHealth::Ok);
    for (bad, cause) in [
        (json!({"ecc_uncorrected": 2}), "uncorrectable ECC errors: 2"),
        (json!({"remapped_rows": [0, 9, 0, 1]}), "row remapping failed"),
        (json!({"recovery_action": 1}), "reset the GPU"),
        (json!({"retired_pages_pending": true}), "page retirement"),
        (json!({"throttle_reasons": 0x40}), "thermal"),
        (json!({"errors": {"nvmlDeviceGetMemoryInfo_v2": 16}}), "requires a reset"),
    ] {
        driver.set(one(bad));
        reader.until(cause, |r| r.sick(0, cause));
        driver.set(one(json!({})));
        reader.until("ok again", |r| r.health(0) == &DeviceHealth::Ok);
    }
}

#[test]
fn a_list_of_processes_that_grows_while_it_is_asked_for_is_read_whole() {
    let listed: Vec<Value> = (0..10).map(|n| json!({"pid": 400 + n, "memory": n << 20})).collect();
    let frame = Driver::new(one(json!({"processes": listed, "process_undercounts": 2}))).once();
    let expected: Vec<_> = (0..10).map(|n| GpuProcess { pid: 400 + n, memory_mib: Some(n.into()) }).collect();
    assert_eq!(frame.devices[0].processes, Some(expected));
}

#[test]
fn processes_of_all_kinds_are_one_list_and_memory_that_is_not_said_is_unknown() {
    let processes = json!({
        "processes": [{"pid": 416, "memory": 1_012_924_416u64}, {"pid": 7, "memory": null}],
        "mps_processes": [{"pid": 500, "memory": 1 << 20}],
        "graphics_processes": [{"pid": 416, "memory": 1_012_924_416u64}],
    });
    let frame = Driver::new(one(processes)).once();
    let expected = vec![
        GpuProcess { pid: 7, memory_mib: None },
        GpuProcess { pid: 416, memory_mib: Some(966) },
        GpuProcess { pid: 500, memory_mib: Some(1) },
    ];
    assert_eq!(frame.devices[0].processes, Some(expected));
}

#[test]
fn no_process_found_is_an_empty_list() {
    let errors = json!({"errors": {"nvmlDeviceGetComputeRunningProcesses_v3": 6}});
    assert_eq!(Driver::new(one(errors)).once().devices[0].processes, Some(vec![]));
}

#[test]
fn frames_have_only_what_changed_and_all_of_it_when_asked() {
    let eight = |busy: usize, percent: f64| {
        let gpus: Vec<_> =
            (0..8).map(|i| gpu(i, json!({"sm_activity": if i == busy { percent } else { 0.0 }}))).collect();
        json!({ "devices": gpus })
    };
    let driver = Driver::new(eight(5, 10.0));
    let mut reader = driver.watch();
    let first = reader.next_within(PATIENCE).unwrap();
    assert_eq!((first.full, first.devices.len(), first.sequence), (true, 8, 1));
    assert_eq!(reader.next_within(INTERVAL * 10), None);
    driver.set(eight(5, 80.0));
    let second = reader.next_within(PATIENCE).unwrap();
    let changed: Vec<_> = second.devices.iter().map(|d| (d.index, d.activity)).collect();
    assert_eq!((second.full, second.sequence, changed), (false, 2, vec![(5, gpm(80))]));
    reader.sampler.request_full();
    let third = reader.next_within(PATIENCE).unwrap();
    assert_eq!((third.full, third.devices.len(), third.sequence), (true, 8, 3));
    assert_eq!(reader.sampler.latest(), Some(third));
}
