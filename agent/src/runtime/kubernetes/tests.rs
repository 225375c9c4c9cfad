//! What pods and owners say, as states: whole gangs, what they wait for, and whose failure an end is.

use k8s_openapi::api::core::v1::Pod;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::ClusterName;
use serde_json::{Value, json};

use super::attempt::Place;
use super::failure;
use super::kinds::Kind;
use super::manifests::{Manifests, PodSecurity, SparkBy, workload_of};
use super::progress::{self, Progress};
use super::seen::{Objects, Thing};
use super::settings::KubernetesSettings;

fn order(spec: Value, groups: &[(&str, u32)]) -> LaunchOrder {
    let each = json!({"cpuMilli": 1000, "memoryMib": 1024, "gpuMilli": 0});
    let placement: Vec<Value> = groups
        .iter()
        .map(|(group, members)| json!({"group": group, "each": each, "nodes": [{"node": "n", "members": members}]}))
        .collect();
    let attempt = json!({"workload": "00000000-0000-0000-0000-00000000000a", "number": 1});
    let key = json!({"namespace": "a", "name": "b"});
    let order = json!({"attempt": attempt, "key": key, "spec": spec, "placement": placement});
    serde_json::from_value(order).unwrap()
}

fn batch(members: u32) -> Manifests {
    let group = json!({"count": members, "cpu": "1", "memory": "1Gi"});
    made(order(json!({"batch": {"image": "i", "command": ["c"], "groups": [group]}}), &[("workers", members)]))
}

fn made(order: LaunchOrder) -> Manifests {
    made_by(order, SparkBy::Operator)
}

fn made_by(order: LaunchOrder, spark_by: SparkBy) -> Manifests {
    let settings = KubernetesSettings::new(ClusterName::new("c").unwrap());
    Manifests::of(&order, &settings, spark_by, &Default::default(), None, PodSecurity::Usual).unwrap()
}

/// A pod of a group with this status.
fn pod(name: &str, group: &str, status: Value) -> Pod {
    let labels = json!({"tidewater.dev/group": group});
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels}, "spec": {"nodeName": "n", "containers": []}, "status": status,
    }))
    .unwrap()
}

fn running() -> Value {
    json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
    ]})
}

fn exited(code: i32, reason: &str, at: &str) -> Value {
    json!({"phase": if code == 0 { "Succeeded" } else { "Failed" }, "containerStatuses": [
        {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
         "state": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": at}}},
    ]})
}

fn objects(manifests: &Manifests, pods: Vec<Pod>, owner_status: Value) -> Objects {
    let pods = pods.into_iter().map(|pod| (pod.metadata.name.clone().unwrap(), pod)).collect();
    let mut objects = Objects { pods, ..Objects::default() };
    for owner in manifests.owners() {
        objects.owners.insert((owner.kind, owner.name.clone()), json!({"status": owner_status}));
    }
    objects
}

fn conditions(kind: &str, reason: &str) -> Value {
    json!({"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "it said so"}]})
}

#[test]
fn a_gang_runs_when_its_last_member_is_up() {
    let two = batch(2);
    let one_of_two = objects(&two, vec![pod("p0", "workers", running())], json!({}));
    let Progress::Starting { waiting_for, stuck: None } = progress::of(&two, &one_of_two) else { panic!() };
    assert_eq!(waiting_for, "1 of 2 workers up, waiting for pods that its controller has yet to make");
    let quick = exited(0, "Completed", "2026-01-01T00:00:00Z");
    let both = vec![pod("p0", "workers", running()), pod("p1", "workers", quick)];
    assert_eq!(progress::of(&two, &objects(&two, both, json!({}))), Progress::Running);
}

#[test]
fn what_a_pod_waits_for_is_in_the_words_of_who_makes_it_wait() {
    let one = batch(1);
    let said = |status: Value| match progress::of(&one, &objects(&one, vec![pod("p0", "workers", status)], json!({}))) {
        Progress::Starting { waiting_for, stuck } => (waiting_for, stuck),
        other => panic!("{other:?}"),
    };
    let no_node = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]});
    let (text, stuck) = said(no_node);
    assert_eq!(text, "0 of 1 workers up, waiting for a node for pod p0: 0/3 nodes are available");
    assert_eq!(stuck, Some(FailureClass::Capacity));
    let waiting = |reason: &str| {
        json!({"phase": "Pending", "containerStatuses": [
            {"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": reason, "message": "no such image"}}},
        ]})
    };
    let (text, stuck) = said(waiting("ImagePullBackOff"));
    assert_eq!(text, "0 of 1 workers up, waiting for container main of pod p0 (ImagePullBackOff) no such image");
    assert_eq!(stuck, Some(FailureClass::User));
    assert_eq!(said(waiting("ContainerCreating")).1, None, "what every pod does for a moment");
    // Why it takes longer, its node says in events only.
    let asked = |status| {
        let all = objects(&one, vec![pod("p0", "workers", status)], json!({}));
        progress::waits_on_its_node(&all).map(str::to_owned)
    };
    assert_eq!(asked(waiting("ContainerCreating")).as_deref(), Some("p0"));
    assert_eq!(asked(waiting("CreateContainerConfigError")), None);
    assert_eq!(asked(running()), None);
}

#[test]
fn a_batch_gang_ends_with_its_last_job_or_its_first_failure() {
    let one = batch(1);
    let ended = |pods: Vec<Pod>, status: Value| progress::of(&one, &objects(&one, pods, status));
    let done = vec![pod("p0", "workers", exited(0, "Completed", "2026-01-01T00:00:00Z"))];
    assert_eq!(ended(done, conditions("Complete", "CompletionsReached")), Progress::Ended(AttemptState::Succeeded));
    let failed = vec![pod("p0", "workers", exited(3, "Error", "2026-01-01T00:00:00Z"))];
    let Progress::Ended(AttemptState::Failed { class, message, exit_code }) =
        ended(failed, conditions("FailureTarget", "BackoffLimitExceeded"))
    else {
        panic!()
    };
    assert_eq!((class, exit_code), (FailureClass::User, Some(3)));
    assert_eq!(message, "container main of pod p0 on n exited with 3");
    let gone = ended(vec![], conditions("Failed", "BackoffLimitExceeded"));
    let Progress::Ended(AttemptState::Failed { class: FailureClass::Infrastructure, message, .. }) = gone else {
        panic!()
    };
    assert!(message.contains("its pods are not there any more"), "{message}");
}

#[test]
fn whose_failure_an_end_is() {
    let class = |status: Value| match failure::of_pod(&pod("p", "workers", status)) {
        Some(AttemptState::Failed { class, .. }) => Some(class),
        other => panic!("{other:?}"),
    };
    let at = "2026-01-01T00:00:00Z";
    assert_eq!(class(exited(1, "Error", at)), Some(FailureClass::User));
    assert_eq!(class(exited(137, "OOMKilled", at)), Some(FailureClass::User));
    assert_eq!(class(exited(137, "ContainerStatusUnknown", at)), Some(FailureClass::Infrastructure));
    assert_eq!(class(json!({"phase": "Failed", "reason": "Evicted"})), Some(FailureClass::Infrastructure));
    assert_eq!(class(json!({"phase": "Failed", "reason": "OutOfcpu"})), Some(FailureClass::Capacity));
    let mut taken = exited(143, "Error", at);
    taken["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]);
    assert_eq!(class(taken), Some(FailureClass::Infrastructure));
    assert!(failure::of_pod(&pod("p", "workers", running())).is_none());
}

#[test]
fn what_a_kubelet_said_last_of_a_pods_volumes_counts() {
    let event = |reason: &str, said: &str, at: &str| -> k8s_openapi::api::core::v1::Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "source": {"component": "kubelet"}, "reason": reason, "message": said,
            "lastTimestamp": at,
        }))
        .unwrap()
    };
    let missing = || event("FailedMount", "secret \"s\" not found", "2026-01-01T00:00:09Z");
    let storage = event("FailedMount", "timed out", "2026-01-01T00:00:08Z");
    let class = |events| failure::of_volumes(events).map(|(class, _)| class);
    assert_eq!(class(vec![storage.clone()]), Some(FailureClass::Infrastructure));
    assert_eq!(class(vec![missing(), storage]), Some(FailureClass::User));
    // It has its volumes by now: a large image is not its volumes' fault.
    assert_eq!(class(vec![missing(), event("Pulling", "Pulling image", "2026-01-01T00:00:09Z")]), None);
    let mut scheduler = event("Scheduled", "", "2026-01-01T00:10:00Z");
    scheduler.source = None;
    assert_eq!(class(vec![scheduler, missing()]), Some(FailureClass::User), "of another clock");
    assert_eq!(class(vec![]), None);
}

#[test]
fn who_makes_no_pods_says_why_last_of_all() {
    let event = |reason: &str, said: &str, at: &str| -> k8s_openapi::api::core::v1::Event {
        let event =
            json!({"metadata": {}, "involvedObject": {}, "reason": reason, "message": said, "lastTimestamp": at});
        serde_json::from_value(event).unwrap()
    };
    let quota = event("FailedToCreateWorkerPod", "pods is forbidden: exceeded quota: q", "2026-01-01T00:00:09Z");
    let policy = event("FailedToCreateHeadPod", "violates PodSecurity", "2026-01-01T00:00:08Z");
    let class = |events| failure::of_making(events).map(|(class, _)| class);
    assert_eq!(class(vec![quota.clone(), policy.clone()]), Some(FailureClass::Capacity));
    assert_eq!(class(vec![policy]), Some(FailureClass::User));
    assert_eq!(class(vec![event("FailedToCreateIngress", "no", "2026-01-01T00:00:09Z")]), None);
    let made = ray();
    assert_eq!(progress::makers(&made, &objects(&made, vec![], json!({}))), []);
    let named = objects(&made, vec![], json!({"rayClusterName": "w-raycluster-x"}));
    assert_eq!(progress::makers(&made, &named), [(Kind::RayCluster, "w-raycluster-x".to_owned())]);
}

#[test]
fn others_that_failed_after_a_member_was_taken_away_are_not_the_cause() {
    let mut taken = exited(143, "Error", "2026-01-01T00:05:00Z");
    taken["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]);
    let pods = [
        pod("p0", "workers", exited(1, "Error", "2026-01-01T00:01:00Z")),
        pod("p1", "workers", taken),
        pod("p2", "workers", exited(2, "Error", "2026-01-01T00:00:30Z")),
    ];
    let Some(AttemptState::Failed { class, message, .. }) = failure::first(pods.iter()) else { panic!() };
    assert_eq!(class, FailureClass::Infrastructure);
    assert!(message.contains("pod p1") && message.contains("DeletionByTaintManager"), "{message}");
    let Some(AttemptState::Failed { exit_code, .. }) = failure::first([&pods[0], &pods[2]].into_iter()) else {
        panic!()
    };
    assert_eq!(exit_code, Some(2), "the first that failed");
}

#[test]
fn a_ray_job_runs_once_it_is_submitted_and_ends_as_ray_says() {
    let ray = ray();
    let up = || vec![pod("h", "head", running()), pod("w", "workers", running())];
    let progress = |pods: Vec<Pod>, status: Value| progress::of(&ray, &objects(&ray, pods, status));
    let waits = progress(up(), json!({"jobDeploymentStatus": "Initializing"}));
    // Not for ever: Ray's dashboard may never answer.
    assert!(matches!(waits, Progress::Starting { stuck: Some(FailureClass::Infrastructure), .. }), "{waits:?}");
    assert_eq!(progress(up(), json!({"jobDeploymentStatus": "Running"})), Progress::Running);
    let done = json!({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"});
    assert_eq!(progress(vec![], done), Progress::Ended(AttemptState::Succeeded));
    let class = |pods, status| match progress(pods, status) {
        Progress::Ended(AttemptState::Failed { class, .. }) => class,
        other => panic!("{other:?}"),
    };
    let app = json!({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"});
    assert_eq!(class(up(), app), FailureClass::User);
    let lost = json!({"jobDeploymentStatus": "Failed", "reason": "SubmissionFailed"});
    assert_eq!(class(up(), lost), FailureClass::Infrastructure);
    let head = pod("h", "head", json!({"phase": "Failed", "reason": "Evicted"}));
    assert_eq!(class(vec![head], json!({"jobDeploymentStatus": "Running"})), FailureClass::Infrastructure);
}

fn ray() -> Manifests {
    let spec = json!({"ray": {"image": "i", "entrypoint": "e", "head": {"cpu": "1", "memory": "1Gi"},
        "workers": [{"count": 1, "cpu": "1", "memory": "1Gi"}]}});
    made(order(spec, &[("head", 1), ("workers", 1)]))
}

fn spark() -> LaunchOrder {
    let spec = json!({"spark": {"image": "i", "main": "local:///m.py", "driver": {"cpu": "1", "memory": "1Gi"},
        "executors": {"name": "executors", "count": 1, "cpu": "1", "memory": "1Gi"}}});
    order(spec, &[("driver", 1), ("executors", 1)])
}

#[test]
fn a_spark_application_ends_as_its_driver_does() {
    let spark = made(spark());
    let state = |name: &str| json!({"applicationState": {"state": name, "errorMessage": "it said"}});
    let up = || vec![pod("d", "driver", running()), pod("e", "executors", running())];
    let progress = |pods: Vec<Pod>, status: Value| progress::of(&spark, &objects(&spark, pods, status));
    assert!(matches!(progress(up(), state("SUBMITTED")), Progress::Starting { .. }));
    assert_eq!(progress(up(), state("RUNNING")), Progress::Running);
    assert_eq!(progress(vec![], state("COMPLETED")), Progress::Ended(AttemptState::Succeeded));
    let driver = pod("d", "driver", exited(7, "Error", "2026-01-01T00:00:00Z"));
    let Progress::Ended(AttemptState::Failed { class, exit_code, .. }) = progress(vec![driver], state("FAILED")) else {
        panic!()
    };
    assert_eq!((class, exit_code), (FailureClass::User, Some(7)));
}

#[test]
fn a_spark_driver_that_no_operator_made_runs_with_its_executors_and_ends_as_its_container_does() {
    let spark = made_by(spark(), SparkBy::Agent);
    let name = spark.driver().unwrap().name.clone();
    let progress = |pods: Vec<Pod>| progress::of(&spark, &objects(&spark, pods, json!({})));
    let driver = |mut status: Value| {
        status["containerStatuses"][0]["name"] = json!("spark-kubernetes-driver");
        pod(&name, "driver", status)
    };
    let Progress::Starting { waiting_for, .. } = progress(vec![driver(running())]) else { panic!() };
    assert_eq!(waiting_for, "0 of 1 executors up, waiting for pods that its driver has yet to make");
    assert_eq!(progress(vec![driver(running()), pod("e", "executors", running())]), Progress::Running);
    let at = "2026-01-01T00:00:00Z";
    // Executors go before their driver ends.
    assert_eq!(progress(vec![driver(exited(0, "Completed", at))]), Progress::Ended(AttemptState::Succeeded));
    let failed = |pod: Pod| match progress(vec![pod]) {
        Progress::Ended(AttemptState::Failed { class, exit_code, message }) => (class, exit_code, message),
        other => panic!("{other:?}"),
    };
    let (class, code, message) = failed(driver(exited(3, "Error", at)));
    assert_eq!((class, code), (FailureClass::User, Some(3)), "{message}");
    // A container beside the driver does not keep the application from ending.
    let beside = |code: i32| {
        let mut status = exited(code, "Error", at);
        status["phase"] = json!("Running");
        status["containerStatuses"].as_array_mut().unwrap().push(running()["containerStatuses"][0].clone());
        driver(status)
    };
    assert_eq!(progress(vec![beside(0)]), Progress::Ended(AttemptState::Succeeded));
    assert_eq!(failed(beside(4)).1, Some(4));
    let mut deleted = driver(exited(143, "Error", at));
    deleted.metadata.deletion_timestamp = serde_json::from_value(json!(at)).unwrap();
    assert_eq!(failed(deleted).0, FailureClass::Infrastructure, "not the program's own failure");
    let evicted = pod(&name, "driver", json!({"phase": "Failed", "reason": "Evicted"}));
    assert_eq!(failed(evicted).0, FailureClass::Infrastructure);
}

#[test]
fn the_secrets_of_an_attempts_tokens_are_known_by_name() {
    let group = json!({"count": 1, "cpu": "1", "memory": "1Gi"});
    let tokens =
        json!([{"audience": "sts", "mountPath": "/run/aws"}, {"audience": "vault", "mountPath": "/run/vault"}]);
    let spec = json!({"batch": {"image": "i", "command": ["c"], "groups": [group]}, "tokens": tokens});
    let order = order(spec, &[("workers", 1)]);
    let made = made(order.clone());
    let named: Vec<&String> = made.tokens.iter().map(|secret| &secret.name).collect();
    // By what is on record, and by what any other of its objects says.
    assert_eq!(Place::of(&order).secrets.iter().collect::<Vec<_>>(), named);
    for manifest in made.objects.iter().chain(&made.samples) {
        let metadata = serde_json::from_value(manifest.object["metadata"].clone()).unwrap();
        assert_eq!(workload_of(&metadata), Some(order.key.clone()), "{}", manifest.name);
    }
    assert_eq!(workload_of(&Default::default()), None);
}

#[test]
fn an_object_that_a_watch_told_of_is_found_by_its_kind_and_name() {
    let seen = super::seen::Seen::default();
    let attempt = "00000000-0000-0000-0000-00000000000a-1".parse().unwrap();
    seen.put(attempt, Thing::Owner(Kind::Job, "j".to_owned(), json!({"status": 1})));
    assert_eq!(seen.objects(attempt).owner(Kind::Job, "j"), Some(&json!({"status": 1})));
    assert!(seen.objects(attempt).owner(Kind::RayJob, "j").is_none());
}

#[test]
fn what_a_guard_ended_is_nobodys_fault_who_submitted_it() {
    let of = |container: &str, code: i32, message: &str| {
        let end =
            json!({"exitCode": code, "reason": "Error", "message": message, "finishedAt": "2026-01-01T00:00:00Z"});
        let status = json!({"phase": "Failed", "containerStatuses": [{
            "name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": end},
        }]});
        match failure::of_pod(&pod("p", "workers", status)) {
            Some(AttemptState::Failed { class, message, .. }) => (class, message),
            other => panic!("{other:?}"),
        }
    };
    let (class, message) =
        of("main", 75, "tidewater-pod-guard: nobody let attempt a-1 go on for 60 s, so that it ended\n");
    assert_eq!(class, FailureClass::Infrastructure);
    assert_eq!(message, "the guard of pod p on n ended it: nobody let attempt a-1 go on for 60 s, so that it ended");
    assert_eq!(of("main", 75, "the queue is full").0, FailureClass::User, "a program's own code");
    assert_eq!(of("tidewater-guard", 1, "no space").0, FailureClass::Infrastructure);
}
