//! For the Spark operator: it submits the application, and says how it goes.

use protocol::control::GroupPlacement;
use serde_json::{Value, json};

use super::super::{Kind, Manifest};
use super::{Application, Language, Takes};

/// The operator only compares it with 3.0.0, since when Spark knows pod templates; which Spark runs is the image's to say.
const SPARK_VERSION: &str = "4.0.0";

pub(super) fn object(application: &Application<'_>, driver: Value, executor: Value) -> Manifest {
    let Application { layout, spec, image, name, .. } = application;
    let mut driver_spec = pod(application.driver, driver);
    driver_spec["podName"] = json!(application.driver_pod());
    driver_spec["serviceAccount"] = json!(layout.settings.spark_service_account);
    let mut executor_spec = pod(application.executors, executor);
    executor_spec["instances"] = json!(application.executors.members());
    let mut object = json!({
        "apiVersion": "sparkoperator.k8s.io/v1beta2",
        "kind": "SparkApplication",
        "metadata": layout.metadata(name, layout.labels()),
        "spec": {
            "type": match Language::of(&spec.main) {
                Language::Python => "Python",
                Language::R => "R",
                Language::Java => "Scala",
            },
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
        object["spec"]["arguments"] = application.arguments().collect();
    }
    layout.pull(&mut object["spec"]);
    Manifest { kind: Kind::SparkApplication, name: name.clone(), object }
}

fn pod(placement: &GroupPlacement, template: Value) -> Value {
    let Takes { cores, cpu, heap, overhead } = Takes::of(placement);
    json!({
        "cores": cores,
        "coreRequest": cpu,
        "coreLimit": cpu,
        "memory": heap,
        "memoryOverhead": overhead,
        "template": template,
    })
}
