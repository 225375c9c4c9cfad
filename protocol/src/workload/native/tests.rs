//! What objects ask for, and what is wrong with some.

use serde_json::{Value, json};

use super::*;
use crate::sku::Sku;

fn container(cpu: &str, memory: &str, more: Value) -> Value {
    let mut amounts = json!({"cpu": cpu, "memory": memory});
    if let (Some(amounts), Some(more)) = (amounts.as_object_mut(), more.as_object()) {
        amounts.extend(more.clone());
    }
    json!({"name": "main", "image": "i", "resources": {"requests": amounts, "limits": amounts}})
}

fn template(containers: Vec<Value>) -> Value {
    json!({"spec": {"containers": containers}})
}

fn ray_job() -> Value {
    let worker = |name: &str, replicas: u32| {
        let mut template = template(vec![container("8", "64Gi", json!({"nvidia.com/gpu": 4}))]);
        template["spec"]["nodeSelector"] = json!({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"});
        json!({"groupName": name, "replicas": replicas, "minReplicas": 0, "maxReplicas": 10, "rayStartParams": {}, "template": template})
    };
    let mut hosts = worker("wide", 2);
    hosts["numOfHosts"] = json!(2);
    json!({
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "train", "namespace": "vision"},
        "spec": {
            "entrypoint": "python train.py",
            "rayClusterSpec": {
                "rayVersion": "2.52.1",
                "headGroupSpec": {"rayStartParams": {}, "template": template(vec![container("2", "4Gi", json!({}))])},
                "workerGroupSpecs": [worker("train", 3), hosts, worker("none", 0)],
            },
        },
    })
}

fn spark() -> Value {
    json!({
        "apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "metadata": {"name": "etl"},
        "spec": {
            "type": "Python", "mode": "cluster", "sparkVersion": "4.0.1", "image": "spark", "mainApplicationFile": "local:///pi.py",
            "sparkConf": {"spark.executor.pyspark.memory": "512m"},
            "driver": {"cores": 1, "memory": "1g", "serviceAccount": "spark"},
            "executor": {"cores": 2, "instances": 3, "memory": "2g", "gpu": {"name": "nvidia.com/gpu", "quantity": 1}},
        },
    })
}

fn job() -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sweep"},
        "spec": {"parallelism": 4, "completions": 10, "template": template(vec![container("500m", "1Gi", json!({}))])},
    })
}

/// Groups as `name x count: cpu, memory, GPUs, models`.
fn asks(object: &Value) -> Vec<String> {
    let manifest = NativeManifest::new(object);
    assert_eq!(manifest.problems(), vec![]);
    let gang = manifest.gang().unwrap();
    let line = |g: &GroupNeed| {
        let skus: Vec<&str> = g.skus.iter().map(Sku::as_str).collect();
        let each = g.each;
        format!("{} x {}: {}m {}Mi {} {skus:?}", g.name, g.count, each.cpu_milli, each.memory_mib, each.gpu_milli)
    };
    gang.groups.iter().map(line).collect()
}

fn faults(object: &Value) -> Vec<String> {
    let manifest = NativeManifest::new(object);
    let found = manifest.problems().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(manifest.gang().is_none(), !found.is_empty());
    found
}

#[test]
fn a_ray_job_is_a_head_and_groups_of_as_many_pods_as_kuberay_makes() {
    let h100 = "[\"H100\"]";
    assert_eq!(
        asks(&ray_job()),
        [
            "head x 1: 2000m 4096Mi 0 []".to_owned(),
            format!("train x 3: 8000m 65536Mi 4000 {h100}"),
            format!("wide x 4: 8000m 65536Mi 4000 {h100}"),
        ]
    );
    let mut bounded = ray_job();
    bounded["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] = json!(2);
    bounded["spec"]["rayClusterSpec"]["workerGroupSpecs"][2]["minReplicas"] = json!(1);
    let lines = asks(&bounded);
    assert!(lines[1].starts_with("train x 2") && lines[3].starts_with("none x 1"), "{lines:?}");
}

#[test]
fn a_spark_application_takes_what_spark_asks_for() {
    // 1024 + 409.6 rounded up; 2048 + 819.2 rounded up + 512.
    assert_eq!(asks(&spark()), ["driver x 1: 1000m 1434Mi 0 []", "executors x 3: 2000m 3380Mi 1000 []"]);
    let mut scala = spark();
    scala["spec"]["type"] = json!("Scala");
    scala["spec"]["executor"]["coreRequest"] = json!("1500m");
    scala["spec"]["driver"]["memoryOverhead"] = json!("100");
    scala["spec"]["executor"]["sidecars"] = json!([container("100m", "100Mi", json!({}))]);
    assert_eq!(asks(&scala), ["driver x 1: 1000m 1124Mi 0 []", "executors x 3: 1600m 2532Mi 1000 []"]);
}

#[test]
fn a_job_is_as_many_pods_as_run_at_once() {
    assert_eq!(asks(&job()), ["workers x 4: 500m 1024Mi 0 []"]);
    let mut few = job();
    few["spec"]["completions"] = json!(2);
    assert_eq!(asks(&few), ["workers x 2: 500m 1024Mi 0 []"]);
    few["spec"] = json!({"template": few["spec"]["template"]});
    assert_eq!(asks(&few), ["workers x 1: 500m 1024Mi 0 []"]);
}

#[test]
fn a_pod_takes_what_kubernetes_counts() {
    let mut object = job();
    let spec = &mut object["spec"]["template"]["spec"];
    spec["containers"] = json!([
        {"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/mig-1g.10gb": "2"}}},
        {"name": "b", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "1Gi"}}},
    ]);
    spec["initContainers"] = json!([
        {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}},
        {"name": "first", "resources": {"requests": {"cpu": "4", "memory": "10Mi"}}},
    ]);
    spec["overhead"] = json!({"cpu": "10m"});
    spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}]},
    ]}}});
    assert_eq!(asks(&object), ["workers x 4: 4110m 2148Mi 2000 [\"H100-MIG-1g.10gb\"]"]);
    object["spec"]["template"]["spec"]["affinity"] = Value::Null;
    let found = faults(&object);
    assert!(found[0].contains("not for which GPU's slices") && found.len() == 1, "{found:?}");
}

#[test]
fn what_contradicts_the_decision_or_can_t_be_counted_is_refused_with_its_place() {
    let with = |mut object: Value, at: &str, value: Value| {
        let (parent, last) = at.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[last] = value;
        faults(&object)
    };
    let pod = "/spec/template/spec";
    let cases = [
        with(job(), &format!("{pod}/nodeName"), json!("n")),
        with(job(), &format!("{pod}/containers"), json!([])),
        with(job(), &format!("{pod}/containers"), json!([{"name": "a"}])),
        with(job(), &format!("{pod}/resourceClaims"), json!([{"name": "gpu"}])),
        with(job(), &format!("{pod}/containers/0/resources/requests/cpu").replace("/0/", "/0/"), json!("two")),
        with(job(), "/spec/parallelism", json!(0)),
        with(job(), "/spec/parallelism", json!(-1)),
        with(job(), "/spec/selector", json!({})),
        with(job(), "/kind", json!("CronJob")),
        with(job(), "/apiVersion", json!("batch/v1beta1")),
        with(job(), "/spec", Value::Null),
        with(ray_job(), "/spec/entrypoint", json!("")),
        with(ray_job(), "/spec/clusterSelector", json!({"ray.io/cluster": "c"})),
        with(ray_job(), "/spec/submissionMode", json!("InteractiveMode")),
        with(ray_job(), "/spec/rayClusterSpec/enableInTreeAutoscaling", json!(true)),
        with(ray_job(), "/spec/rayClusterSpec/workerGroupSpecs/1/groupName", json!("train")),
        with(ray_job(), "/spec/rayClusterSpec/workerGroupSpecs/1/groupName", json!("Not_A_Name")),
        with(ray_job(), "/spec/rayClusterSpec", Value::Null),
        with(spark(), "/spec/mode", json!("client")),
        with(spark(), "/spec/dynamicAllocation", json!({"enabled": true})),
        with(spark(), "/spec/driver/memory", json!("plenty")),
        with(spark(), "/spec/executor/instances", json!(0)),
        with(spark(), "/spec/executor/gpu/name", json!("amd.com/gpu")),
    ];
    let lines: Vec<String> = cases.iter().map(|found| found.join(" | ")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn an_object_is_kept_as_it_is_and_comes_back_so() {
    let spec: WorkloadSpec = serde_json::from_value(json!({"manifest": job()})).unwrap();
    assert_eq!(spec.problems(), vec![]);
    assert_eq!(spec.framework().unwrap(), Framework::Batch);
    assert_eq!(serde_json::to_value(&spec).unwrap()["manifest"], job());
    let bytes = bincode::encode_to_vec(&spec, bincode::config::standard()).unwrap();
    let (back, _): (WorkloadSpec, _) = bincode::decode_from_slice(&bytes, bincode::config::standard()).unwrap();
    assert_eq!(back, spec);
    let both: WorkloadSpec = serde_json::from_value(json!({
        "manifest": job(), "batch": {"command": ["a"], "groups": [{"cpu": 1, "memory": "1Gi"}]},
    }))
    .unwrap();
    assert_eq!(
        both.problems()[0].to_string(),
        "spec: only one of ray, spark, batch and manifest may be set, not batch and manifest"
    );
}

#[test]
fn an_object_alone_is_a_workload_of_its_name() {
    let mut object = ray_job();
    object["metadata"]["labels"] = json!({"tidewater.dev/pool": "research.vision"});
    object["metadata"]["annotations"] = json!({"tidewater.dev/priority": "-5"});
    let workload = workload_of(&object).unwrap();
    assert_eq!(workload.metadata.name.as_str(), "train");
    assert_eq!(workload.metadata.namespace.unwrap().as_str(), "vision");
    assert_eq!((workload.spec.pool.unwrap().as_str(), workload.spec.priority), ("research.vision", -5));
    object["metadata"]["annotations"]["tidewater.dev/priority"] = json!("high");
    object["metadata"]["name"] = Value::Null;
    let found: Vec<String> = workload_of(&object).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "metadata.name: it is not there: name it",
            "metadata.annotations[\"tidewater.dev/priority\"]: it is no whole number between -2^31 and 2^31",
        ]
    );
}
