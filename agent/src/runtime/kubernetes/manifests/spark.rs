//! Spark: a `SparkApplication` of the Spark operator.
//!
//! What pods are told and where they go stands in pod templates, which Spark itself reads, so that the operator needs no webhook. The
//! driver's pod has a name of its own, so that an application that is submitted a second time is refused by the API server.

use protocol::control::GroupPlacement;
use protocol::workload::Framework;
use serde_json::{Value, json};

use super::names::name;
use super::pod::{Container, literal};
use super::{Kind, Layout, Manifest, ManifestError, Manifests};

/// Spark appends to an application's name what it makes of it: `-driver-svc` and the like.
const APPLICATION_NAME: usize = 40;
/// The operator only compares it with 3.0.0, since when Spark knows pod templates; which Spark runs is the image's to say.
const SPARK_VERSION: &str = "4.0.0";
/// What a JVM needs beside its heap: Spark's own rule, a tenth and at least this.
const LEAST_OVERHEAD_MIB: u64 = 384;

pub(super) fn manifests(layout: &Layout<'_>) -> Result<Manifests, ManifestError> {
    let order = layout.order;
    let spec = order.spec.spark.as_ref().ok_or_else(|| ManifestError::NoPlacement("spark".into()))?;
    let image = spec.image.as_deref().ok_or(ManifestError::NoImage { field: "spec.spark.image" })?;
    let name = name(order, "", APPLICATION_NAME);
    let driver = layout.placement("driver")?;
    let executors = layout.placement(spec.executors.name.as_str())?;
    let driver_pod = format!("{name}-driver");
    let mut driver_template =
        layout.template(driver, Container::of_image("spark-kubernetes-driver", image, "driver"))?;
    // It makes its executors by the API.
    driver_template["spec"]["automountServiceAccountToken"] = json!(true);
    driver_template["spec"]["serviceAccountName"] = json!(layout.settings.spark_service_account);
    let group = executors.group.as_str();
    let executor_template =
        layout.template(executors, Container::of_image("spark-kubernetes-executor", image, group))?;
    let samples = vec![
        layout.sample(&driver_pod, &driver_template),
        layout.sample(&format!("{name}-exec-1"), &executor_template),
    ];
    let mut driver_spec = pod(driver, driver_template);
    driver_spec["podName"] = json!(driver_pod);
    driver_spec["serviceAccount"] = json!(layout.settings.spark_service_account);
    let mut executor_spec = pod(executors, executor_template);
    executor_spec["instances"] = json!(executors.members());
    let mut object = json!({
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": layout.metadata(&name, layout.labels()),
        "spec": {
            "type": language(&spec.main),
            "mode": "cluster",
            "sparkVersion": SPARK_VERSION,
            "image": image,
            "mainApplicationFile": spec.main,
            "sparkConf": spec.conf,
            "restartPolicy": {"type": "Never"},
            "driver": driver_spec,
            "executor": executor_spec,
        },
    });
    if let Some(class) = &spec.class {
        object["spec"]["mainClass"] = json!(class);
    }
    if !spec.arguments.is_empty() {
        // They end as arguments of the driver's container.
        object["spec"]["arguments"] = spec.arguments.iter().map(|argument| literal(argument)).collect();
    }
    if let Some(policy) = layout.settings.pull_policy {
        object["spec"]["imagePullPolicy"] = json!(policy.as_str());
    }
    let objects = vec![Manifest { kind: Kind::SparkApplication, name, object }];
    Ok(layout.finish(Framework::Spark, objects, samples))
}

fn language(main: &str) -> &'static str {
    match main.rsplit('.').next() {
        Some("py") => "Python",
        Some("R" | "r") => "R",
        _ => "Scala",
    }
}

/// What a driver or executor takes, as Spark asks for it: heap and the rest make up its memory.
fn pod(placement: &GroupPlacement, template: Value) -> Value {
    let each = placement.each;
    let overhead = (each.memory_mib / 10).max(LEAST_OVERHEAD_MIB).min(each.memory_mib);
    let cores = format!("{}m", each.cpu_milli);
    json!({
        "cores": each.cpu_milli.div_ceil(1000).max(1),
        "coreRequest": cores,
        "coreLimit": cores,
        "memory": format!("{}m", each.memory_mib - overhead),
        "memoryOverhead": format!("{overhead}m"),
        "template": template,
    })
}
