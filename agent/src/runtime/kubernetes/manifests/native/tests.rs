//! Golden texts of objects that were handed in, and the rules that no golden text shows.

use protocol::control::LaunchOrder;
use serde_json::{Value, json};

use super::super::tests::{guarded, of, order, settings, text};
use super::super::{ManifestError, Manifests, PodSecurity, SparkBy};
use super::*;
use crate::runtime::kubernetes::offers::{GangDevices, GroupClaim, GroupDevices};
use crate::runtime::kubernetes::settings::{KubernetesSettings, Pin};

fn container(name: &str, gpus: u32) -> Value {
    let mut amounts = json!({"cpu": "1", "memory": "2Gi"});
    if gpus > 0 {
        amounts["nvidia.com/gpu"] = json!(gpus.to_string());
    }
    json!({"name": name, "image": "registry/x:1", "command": ["run", "$(WHO)"], "resources": {"requests": amounts, "limits": amounts}})
}

/// As people write them for a cluster with a queue: suspended, tried again, deleted after a while.
fn job() -> Value {
    let mut main = container("main", 1);
    main["env"] = json!([{"name": "TIDEWATER_POOL", "value": "mine"}, {"name": "WHO", "value": "me"}, {"name": "LR", "value": "0.1"}]);
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": "sweep", "namespace": "elsewhere", "uid": "1", "resourceVersion": "7", "finalizers": ["x/y"],
            "labels": {"team": "vision", "tidewater.dev/attempt": "forged"}, "annotations": {"note": "n"},
        },
        "spec": {
            "parallelism": 2, "completions": 5, "backoffLimit": 6, "suspend": true, "ttlSecondsAfterFinished": 10,
            "activeDeadlineSeconds": 3600, "managedBy": "kueue.x-k8s.io/multikueue",
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
            "template": {
                "metadata": {"labels": {"team": "vision"}},
                "spec": {
                    "restartPolicy": "OnFailure", "priorityClassName": "mine",
                    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]},
                    ]}}},
                    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                    "initContainers": [{"name": "fetch", "image": "registry/fetch:1", "command": ["fetch"]}],
                    "containers": [main, container("beside", 0)],
                },
            },
        },
        "status": {"succeeded": 3},
    })
}

fn ray_job() -> Value {
    let template = |gpus| {
        let mut container = container("ray", gpus);
        take_out(&mut container, &["command"]);
        json!({"spec": {"containers": [container]}})
    };
    json!({
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "train"},
        "spec": {
            "entrypoint": "python train.py --lr $LR", "suspend": true, "backoffLimit": 3, "ttlSecondsAfterFinished": 60,
            "rayClusterSpec": {
                "rayVersion": "2.52.1",
                "headGroupSpec": {"rayStartParams": {}, "template": template(0)},
                "workerGroupSpecs": [
                    {"groupName": "train", "replicas": 2, "minReplicas": 1, "maxReplicas": 4, "numOfHosts": 2, "rayStartParams": {}, "template": template(4)},
                    {"groupName": "spare", "replicas": 0, "minReplicas": 0, "maxReplicas": 4, "rayStartParams": {}, "template": template(4)},
                ],
            },
        },
    })
}

fn application() -> Value {
    json!({
        "apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "metadata": {"name": "etl"},
        "spec": {
            "type": "Python", "mode": "cluster", "sparkVersion": "4.0.1", "image": "registry/spark:4", "mainApplicationFile": "local:///pi.py",
            "restartPolicy": {"type": "OnFailure", "onFailureRetries": 3}, "timeToLiveSeconds": 60,
            "driver": {"cores": 1, "memory": "1g", "serviceAccount": "etl", "labels": {"team": "etl"}},
            "executor": {"cores": 2, "instances": 3, "memory": "2g", "gpu": {"name": "nvidia.com/gpu", "quantity": 1}},
        },
    })
}

fn ordered(object: Value, places: &[(&str, &[(&str, u32)])]) -> LaunchOrder {
    order("mine", json!({"manifest": object, "pool": "research", "env": {"LR": "0.2"}}), places)
}

fn a_job() -> LaunchOrder {
    ordered(job(), &[("workers", &[("n1", 2)])])
}

fn a_ray_job() -> LaunchOrder {
    ordered(ray_job(), &[("head", &[("n1", 1)]), ("train", &[("n1", 2), ("n2", 2)])])
}

fn an_application() -> LaunchOrder {
    ordered(application(), &[("driver", &[("n1", 1)]), ("executors", &[("n1", 3)])])
}

#[test]
fn a_job_as_it_is() {
    let settings = KubernetesSettings { pin: Pin::Required, priority_class: Some("usual".into()), ..settings() };
    insta::assert_snapshot!(text(&of(&a_job(), &settings).unwrap()));
}

#[test]
fn a_ray_job_as_it_is() {
    insta::assert_snapshot!(text(&of(&a_ray_job(), &settings()).unwrap()));
}

#[test]
fn a_spark_application_as_it_is() {
    let made = of(&an_application(), &settings()).unwrap();
    assert_eq!(made.driver_account.as_deref(), Some("etl"));
    insta::assert_snapshot!(text(&made));
}

#[test]
fn each_container_of_a_guarded_pod_is_started_by_a_guard() {
    let made = guarded(a_job(), SparkBy::Operator).unwrap();
    let pod = &made.samples[0].object["spec"];
    let guards: Vec<String> = ["initContainers", "containers"]
        .iter()
        .flat_map(|kind| pod[kind].as_array().unwrap())
        .map(|c| format!("{}: {} {}", c["name"], c["command"], c["volumeMounts"]))
        .collect();
    insta::assert_snapshot!(guards.join("\n"));
    assert_eq!(made.guards.values().copied().collect::<Vec<_>>(), [3]);
    let made = guarded(a_ray_job(), SparkBy::Operator).unwrap();
    assert_eq!(made.objects[0].object["metadata"]["annotations"]["ray.io/overwrite-container-cmd"], "true");
    assert_eq!(made.guards.values().copied().collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn what_a_guard_can_t_start_is_refused_with_the_reason() {
    let refused = |order: LaunchOrder| guarded(order, SparkBy::Operator).unwrap_err().to_string();
    let mut object = job();
    take_out(&mut object["spec"]["template"]["spec"]["initContainers"][0], &["command"]);
    let said = refused(ordered(object, &[("workers", &[("n1", 2)])]));
    assert!(said.contains("the command of a container in spec.manifest is not set"), "{said}");
    let mut object = ray_job();
    object["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["args"] =
        json!(["sleep 1"]);
    let said = refused(ordered(object, &[("head", &[("n1", 1)]), ("train", &[("n1", 4)])]));
    assert!(said.contains("the first container of train has a command of its own"), "{said}");
    let no_operator =
        Manifests::of(&an_application(), &settings(), SparkBy::Agent, &GangDevices::new(), None, PodSecurity::Usual);
    assert!(matches!(no_operator, Err(ManifestError::NoOperator)));
}

#[test]
fn devices_are_asked_for_under_the_name_that_their_nodes_have_for_them() {
    let order = a_job();
    let devices = GroupDevices { resource: "nvidia.com/gpu.shared".into(), parts: None, claim: None };
    let devices: GangDevices = [(order.placement[0].group.clone(), devices)].into();
    let made = Manifests::of(&order, &settings(), SparkBy::Operator, &devices, None, PodSecurity::Usual).unwrap();
    let limits = &made.samples[0].object["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(*limits, json!({"cpu": "1", "memory": "2Gi", "nvidia.com/gpu.shared": "1"}));
}

#[test]
fn devices_that_claims_give_out_are_claimed_in_place_of_what_the_object_asks_for() {
    for order in [a_job(), an_application()] {
        let group = order.placement.last().unwrap().group.clone();
        let claim = Some(GroupClaim { products: vec!["H100".into()], profile: None });
        let devices = GroupDevices { resource: "gpu.nvidia.com".into(), parts: None, claim };
        let made =
            Manifests::of(&order, &settings(), SparkBy::Operator, &[(group, devices)].into(), None, PodSecurity::Usual)
                .unwrap();
        let pod = &made.samples.last().unwrap().object["spec"];
        assert_eq!(pod["resourceClaims"][0]["resourceClaimTemplateName"], made.objects[0].name);
        let resources = &pod["containers"][0]["resources"];
        assert_eq!(resources["claims"], json!([{"name": "gpus"}]));
        assert!(!resources.to_string().contains("nvidia.com/gpu"), "{resources}");
        assert_eq!(pod["containers"][1]["resources"]["claims"], Value::Null);
    }
}

#[test]
fn a_job_that_counts_no_completions_stays_so() {
    let mut object = job();
    take_out(&mut object["spec"], &["completions"]);
    let made = of(&ordered(object, &[("workers", &[("n1", 2)])]), &settings()).unwrap();
    let spec = &made.objects[0].object["spec"];
    assert_eq!(
        (&spec["completionMode"], &spec["completions"], &spec["parallelism"]),
        (&Value::Null, &Value::Null, &json!(2))
    );
}
