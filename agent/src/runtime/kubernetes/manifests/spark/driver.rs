//! Without the Spark operator: the driver's pod, its properties and the service under which executors reach it, as `spark-submit` in
//! cluster mode posts them. The driver makes its executors itself, from the template that lies beside its properties.
//!
//! The pod is made last, so that it never waits for its properties. Unlike `spark-submit`'s, the properties lie in a folder of their own,
//! so that what the image has in `/opt/spark/conf` counts; and executors get no copy of that folder, for nothing would see that it goes.

use serde_json::{Value, json};

use super::super::names::{ATTEMPT, GROUP};
use super::super::pod::{Access, Volume, field, variable};
use super::super::{Kind, Layout, Manifest, ManifestError};
use super::{Application, EXECUTOR_CONTAINER, Language, Takes, conf};

/// The driver's container, as Spark calls it. Its exit code is the application's.
pub(in crate::runtime::kubernetes) const DRIVER_CONTAINER: &str = "spark-kubernetes-driver";
/// Where the properties and the executors' template are in the driver's pod.
const FOLDER: &str = "/etc/tidewater/spark";
const PROPERTIES: &str = "spark.properties";
const EXECUTOR: &str = "executor.yaml";
/// Where drivers and executors spill: an empty volume of each pod's own.
const SCRATCH: &str = "/var/data/spark";
/// As `spark-submit` lays them out: those by which executors reach the driver, and Spark's own page.
const PORTS: [(&str, u16); 3] = [("driver-rpc-port", 7078), ("blockmanager", 7079), ("spark-ui", 4040)];

/// In the order in which they are made.
pub(super) fn objects(application: &Application<'_>, executor: &Value) -> Result<Vec<Manifest>, ManifestError> {
    conf::check(&application.spec.conf)?;
    let layout = application.layout;
    let service = format!("{}-driver-svc", application.name);
    let properties = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": layout.metadata(&application.name, layout.labels()),
        "immutable": true,
        "data": {PROPERTIES: properties(application, &service), EXECUTOR: pod_template(executor)},
    });
    Ok(vec![
        Manifest { kind: Kind::ConfigMap, name: application.name.clone(), object: properties },
        Manifest { kind: Kind::Service, name: service.clone(), object: a_service(layout, &service) },
        Manifest { kind: Kind::Pod, name: application.driver_pod(), object: driver(application)? },
    ])
}

/// Has no address of its own: its name is the driver's.
fn a_service(layout: &Layout<'_>, name: &str) -> Value {
    let ports = PORTS.map(|(name, port)| json!({"name": name, "port": port, "targetPort": port}));
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": layout.metadata(name, layout.labels()),
        "spec": {
            "clusterIP": "None",
            "selector": {ATTEMPT: layout.order.attempt.to_string(), GROUP: "driver"},
            "ports": ports,
        },
    })
}

fn driver(application: &Application<'_>) -> Result<Value, ManifestError> {
    let spec = application.spec;
    let template = application.driver_template(vec![
        variable("SPARK_APPLICATION_ID", &id(application.layout)),
        variable("SPARK_LOCAL_DIRS", SCRATCH),
        field("SPARK_DRIVER_BIND_ADDRESS", "status.podIP"),
    ])?;
    let mut pod = application.layout.sample(&application.driver_pod(), &template).object;
    let mut arguments = vec![json!("driver"), json!("--properties-file"), json!(format!("{FOLDER}/{PROPERTIES}"))];
    let class = match Language::of(&spec.main) {
        Language::Python => Some("org.apache.spark.deploy.PythonRunner"),
        Language::R => Some("org.apache.spark.deploy.RRunner"),
        // Where none is given, the jar names it.
        Language::Java => spec.class.as_deref(),
    };
    if let Some(class) = class {
        arguments.extend([json!("--class"), json!(class)]);
    }
    arguments.push(json!(super::literal(&spec.main)));
    arguments.extend(application.arguments());
    let of = json!({"configMap": {"name": application.name}});
    Volume { name: "spark-conf", of, path: FOLDER, access: Access::Read }.mount(&mut pod);
    let of = json!({"emptyDir": {}});
    Volume { name: "spark-local-dir-1", of, path: SCRATCH, access: Access::Write }.mount(&mut pod);
    let container = &mut pod["spec"]["containers"][0];
    container["args"] = json!(arguments);
    container["ports"] = json!(PORTS.map(|(name, port)| json!({"name": name, "containerPort": port})));
    conf::shape(&spec.conf, &mut pod);
    Ok(pod)
}

/// JSON is YAML.
fn pod_template(template: &Value) -> String {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
    pod["metadata"] = template["metadata"].clone();
    pod["spec"] = template["spec"].clone();
    pod.to_string()
}

/// Spark's own name of the application, also a label's value.
fn id(layout: &Layout<'_>) -> String {
    format!("spark-{}", layout.order.attempt)
}

/// The user's, but for what is Tidewater's to say: where the driver and its executors are, and what they take.
fn properties(application: &Application<'_>, service: &str) -> String {
    let Application { layout, spec, image, name, .. } = application;
    let (driver, executor) = (Takes::of(application.driver), Takes::of(application.executors));
    let language = Language::of(&spec.main);
    let mut own: Vec<(&str, String)> = vec![
        // The address is not asked: a driver in a cluster knows its API server.
        ("spark.master", "k8s://https://kubernetes.default.svc".to_owned()),
        ("spark.submit.deployMode", "cluster".to_owned()),
        ("spark.kubernetes.submitInDriver", "true".to_owned()),
        ("spark.app.id", id(layout)),
        ("spark.kubernetes.namespace", layout.namespace().to_owned()),
        ("spark.kubernetes.driver.pod.name", application.driver_pod()),
        ("spark.driver.host", format!("{service}.{}.svc", layout.namespace())),
        ("spark.driver.port", PORTS[0].1.to_string()),
        ("spark.driver.blockManager.port", PORTS[1].1.to_string()),
        ("spark.driver.cores", driver.cores.to_string()),
        ("spark.driver.memory", driver.heap),
        ("spark.driver.memoryOverhead", driver.overhead),
        ("spark.kubernetes.container.image", (*image).to_owned()),
        ("spark.kubernetes.executor.podNamePrefix", name.clone()),
        ("spark.kubernetes.executor.podTemplateFile", format!("{FOLDER}/{EXECUTOR}")),
        ("spark.kubernetes.executor.podTemplateContainerName", EXECUTOR_CONTAINER.to_owned()),
        ("spark.kubernetes.executor.disableConfigMap", "true".to_owned()),
        ("spark.kubernetes.executor.request.cores", executor.cpu.clone()),
        ("spark.kubernetes.executor.limit.cores", executor.cpu),
        ("spark.executor.instances", application.executors.members().to_string()),
        ("spark.executor.cores", executor.cores.to_string()),
        ("spark.executor.memory", executor.heap),
        ("spark.executor.memoryOverhead", executor.overhead),
    ];
    own.push((
        "spark.kubernetes.resource.type",
        match language {
            Language::Python => "python",
            Language::R => "r",
            Language::Java => "java",
        }
        .to_owned(),
    ));
    if let Some(policy) = layout.settings.pull_policy {
        own.push(("spark.kubernetes.container.image.pullPolicy", policy.as_str().to_owned()));
    }
    if language == Language::Java {
        // Executors load its classes from the driver.
        let others = spec.conf.get("spark.jars").filter(|jars| !jars.is_empty());
        let jars = others.map(String::as_str).into_iter().chain([spec.main.as_str()]).collect::<Vec<_>>();
        own.push(("spark.jars", jars.join(",")));
    }
    let mut all = spec.conf.clone();
    all.entry("spark.app.name".to_owned()).or_insert_with(|| layout.order.key.name.to_string());
    all.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value)));
    conf::file(all.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}
