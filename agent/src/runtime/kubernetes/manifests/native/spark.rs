//! A `SparkApplication`: submitted by the operator, once.

use protocol::control::GroupPlacement;
use protocol::workload::{Framework, WorkloadSpec};
use serde_json::{Value, json};

use super::super::names::name;
use super::super::pod::{Starts, list};
use super::super::spark::{APPLICATION_NAME, DRIVER_CONTAINER, EXECUTOR_CONTAINER, STARTS};
use super::super::{Kind, Layout, Manifest, ManifestError, Manifests, SparkBy};
use super::{put, take_out};

/// What would start it again, or delete it before its end was seen.
const TAKEN_OUT: [&str; 4] = ["suspend", "timeToLiveSeconds", "failureRetries", "retryInterval"];

/// The service account of an application's driver, where the object names one.
pub(in super::super) fn driver_account(spec: &WorkloadSpec) -> Option<String> {
    let object = spec.manifest.as_ref()?.object();
    let driver = &object["spec"]["driver"];
    let named = [&driver["serviceAccount"], &driver["template"]["spec"]["serviceAccountName"]];
    named.into_iter().find_map(Value::as_str).map(str::to_owned)
}

pub(super) fn manifests(layout: &Layout<'_>, mut object: Value) -> Result<Manifests, ManifestError> {
    if layout.spark_by == SparkBy::Agent {
        return Err(ManifestError::NoOperator);
    }
    let order = layout.order;
    let application = name(order, "", APPLICATION_NAME);
    let (driver, executors) = (layout.placement("driver")?, layout.placement("executors")?);
    object["metadata"] = layout.native_metadata(&object, &application, layout.labels());
    let spec = &mut object["spec"];
    take_out(spec, &TAKEN_OUT);
    spec["restartPolicy"] = json!({"type": "Never"});
    spec["mode"] = json!("cluster");
    let pod = format!("{application}-driver");
    let account = driver_account(&order.spec).unwrap_or_else(|| layout.settings.spark_service_account.clone());
    put(&mut spec["driver"], json!({"podName": pod, "serviceAccount": account}));
    spec["executor"]["instances"] = json!(executors.members());
    let image = spec["image"].as_str().unwrap_or_default().to_owned();
    if spec["imagePullPolicy"].is_null() {
        layout.pull(spec);
    }
    let template = part(layout, &mut spec["driver"], driver, (DRIVER_CONTAINER, &image))?;
    let mut samples = vec![layout.sample(&pod, &template)];
    let template = part(layout, &mut spec["executor"], executors, (EXECUTOR_CONTAINER, &image))?;
    samples.push(layout.sample(&format!("{application}-exec-1"), &template));
    take_out(&mut object, &["status"]);
    let objects = vec![Manifest { kind: Kind::SparkApplication, name: application, object }];
    Ok(layout.finish(Framework::Spark, objects, samples))
}

/// The driver's or the executors' part: what makes it an attempt's stands in its template, which Spark itself reads, so that it holds
/// without the operator's webhook too. A pod as Spark will make it.
fn part(
    layout: &Layout<'_>,
    part: &mut Value,
    placement: &GroupPlacement,
    (container, image): (&str, &str),
) -> Result<Value, ManifestError> {
    let template = &mut part["template"];
    let containers = list(&mut template["spec"]["containers"]);
    if containers.is_empty() {
        containers.push(json!({"name": container}));
    }
    let main = &mut containers[0];
    if main["image"].is_null() {
        main["image"] = json!(image);
    }
    // What Spark itself says of these wins; devices are named here, as their nodes have them.
    if placement.each.gpu_milli > 0 {
        let takes = layout.resources(placement)?;
        for kind in ["requests", "limits"] {
            let mut devices = takes[kind].clone();
            take_out(&mut devices, &["cpu", "memory"]);
            put(&mut main["resources"][kind], devices);
        }
        put(&mut main["resources"], json!({"claims": takes["claims"]}));
    }
    layout.dress(template, placement, placement.group.as_str(), Starts::This(&STARTS), vec![])?;
    let template = template.clone();
    take_out(part, &["gpu"]);
    Ok(template)
}
