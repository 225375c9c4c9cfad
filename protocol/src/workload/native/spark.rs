//! A `SparkApplication`: a driver and its executors.
//!
//! What a pod takes is what Spark asks for: cores or `coreRequest`, and the heap with its overhead, of executors also the memory of Python
//! and what is off the heap. Sidecars and init containers come on top, as in any pod.

use serde_json::Value;

use super::place::{Faults, Place};
use super::pod;
use crate::kubernetes::{Quantity, Round, Takes};
use crate::workload::GroupNeed;

/// What a JVM needs beside its heap at least, in MiB.
const LEAST_OVERHEAD_MIB: u64 = 384;
/// The overhead in thousandths of the heap, of applications in Java or Scala and of others.
const OVERHEAD: [u64; 2] = [100, 400];
/// The heap where none is given, in MiB.
const HEAP_MIB: u64 = 1024;
/// The group of the executors, as where a workload names none.
const EXECUTORS: &str = "executors";

pub(super) fn groups(spec: &Place<'_>, faults: &mut Faults) -> Vec<GroupNeed> {
    let mode = spec.get("mode");
    if let Some(other) = mode.text(faults).filter(|mode| *mode != "cluster") {
        mode.fault(format!("{other} is not taken: the driver runs in the cluster (cluster)"), faults);
    }
    let main = spec.get("mainApplicationFile");
    if main.text(faults).is_none_or(|file| file.trim().is_empty()) {
        main.fault("it is empty: name the application's file", faults);
    }
    let conf = spec.get("sparkConf");
    let dynamic = [spec.get("dynamicAllocation").get("enabled"), conf.get("spark.dynamicAllocation.enabled")];
    for place in dynamic {
        if place.is_true() || place.value().and_then(Value::as_str) == Some("true") {
            let why = "an application is told at its start how many executors it has: leave it out, and set instances";
            place.fault(why, faults);
        }
    }
    let (driver, executor) = (spec.get("driver"), spec.get("executor"));
    let factor = factor(spec, faults);
    let mut groups = vec![];
    let takes = own(&driver, factor, faults);
    groups.extend(group(spec, &driver, takes, "driver", 1, faults));
    let mut takes = own(&executor, factor, faults);
    takes.memory_mib = takes.memory_mib.saturating_add(beside_heap(spec, faults));
    let by_conf = || conf.get("spark.executor.instances").value()?.as_str()?.trim().parse().ok();
    let instances = executor.get("instances");
    let count = instances.count(faults).or_else(by_conf).unwrap_or(1);
    if count == 0 {
        instances.fault("it is 0: an application has at least one executor", faults);
    }
    groups.extend(group(spec, &executor, takes, EXECUTORS, count.max(1), faults));
    groups
}

fn group(
    spec: &Place<'_>,
    part: &Place<'_>,
    own: Takes,
    name: &str,
    count: u32,
    faults: &mut Faults,
) -> Option<GroupNeed> {
    let template = part.get("template").get("spec");
    pod::check(&template, faults);
    let mut running = vec![own];
    // The first container of a template is Spark's, which says itself what that takes.
    let beside = template.get("containers").list(faults).into_iter().skip(1).chain(part.get("sidecars").list(faults));
    running.extend(beside.map(|container| pod::takes(&container, faults)));
    let first = template.get("initContainers").list(faults).into_iter().chain(part.get("initContainers").list(faults));
    let starting = pod::starting(first.collect::<Vec<_>>(), faults);
    pod::need(part, name, count, &Takes::together(running, starting), &[spec, part, &template], faults)
}

/// What Spark asks for, for the driver or an executor.
fn own(part: &Place<'_>, factor: u64, faults: &mut Faults) -> Takes {
    let cores = part.get("cores").count(faults).unwrap_or(1);
    let asked = part.get("coreRequest").amount(|q| q.milli(Round::Up), faults);
    let heap = memory(&part.get("memory"), faults).unwrap_or(HEAP_MIB);
    let by_factor = || heap.saturating_mul(factor).div_ceil(1000).max(LEAST_OVERHEAD_MIB);
    let overhead = memory(&part.get("memoryOverhead"), faults).unwrap_or_else(by_factor);
    let gpu = part.get("gpu");
    let mut gpus = vec![];
    if gpu.is_there() {
        let name = gpu.get("name").parsed(Ok::<_, String>, "name the resource", faults);
        let units = gpu.get("quantity").amount(|q| q.whole(Round::Up), faults).unwrap_or_default();
        if units > 0 {
            gpus.extend(name.map(|name| (name.into(), units)));
        }
    }
    let cpu_milli = asked.unwrap_or(u64::from(cores) * 1000);
    Takes { cpu_milli, memory_mib: heap.saturating_add(overhead), gpus }
}

/// The overhead in thousandths of the heap.
fn factor(spec: &Place<'_>, faults: &mut Faults) -> u64 {
    let said = [spec.get("memoryOverheadFactor"), spec.get("sparkConf").get("spark.kubernetes.memoryOverheadFactor")];
    let milli = said.iter().find_map(|place| place.amount(|q| q.milli(Round::Up), faults));
    let jvm = matches!(spec.get("type").value().and_then(Value::as_str), Some("Java" | "Scala"));
    milli.unwrap_or(OVERHEAD[usize::from(!jvm)])
}

/// What an executor takes beside its heap and the overhead, in MiB.
fn beside_heap(spec: &Place<'_>, faults: &mut Faults) -> u64 {
    let conf = spec.get("sparkConf");
    let is_python = spec.get("type").value().and_then(Value::as_str) == Some("Python");
    let python = is_python.then(|| memory(&conf.get("spark.executor.pyspark.memory"), faults)).flatten();
    let enabled = conf.get("spark.memory.offHeap.enabled").value().and_then(Value::as_str) == Some("true");
    let off_heap = enabled.then(|| bytes(&conf.get("spark.memory.offHeap.size"), faults)).flatten();
    python.unwrap_or_default().saturating_add(off_heap.unwrap_or_default())
}

/// As Java writes memory: `512m`, `2g`; a plain number is of MiB. In MiB.
fn memory(place: &Place<'_>, faults: &mut Faults) -> Option<u64> {
    java(place, "Mi", faults)
}

/// The same where a plain number is of bytes.
fn bytes(place: &Place<'_>, faults: &mut Faults) -> Option<u64> {
    java(place, "", faults)
}

fn java(place: &Place<'_>, plain: &str, faults: &mut Faults) -> Option<u64> {
    let text = place.text(faults)?.trim().to_ascii_lowercase();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let suffix = match unit {
        "" => plain,
        "b" => "",
        "k" | "kb" => "Ki",
        "m" | "mb" => "Mi",
        "g" | "gb" => "Gi",
        "t" | "tb" => "Ti",
        "p" | "pb" => "Pi",
        _ => "?",
    };
    let read = format!("{digits}{suffix}").parse::<Quantity>().and_then(|quantity| quantity.mib(Round::Up));
    match read {
        Ok(mib) => Some(mib),
        Err(_) => {
            place.fault(format!("{text:?} is no memory as Spark writes it: write 512m or 2g"), faults);
            None
        }
    }
}
