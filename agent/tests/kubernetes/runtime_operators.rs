//! RayJobs and SparkApplications against their operators' own definitions: what is made is taken as it is, every field, and goes again. The
//! operators themselves do not run here: their words are written by the test. Before that a Spark application where there is no operator,
//! whose driver the test plays.

use std::sync::Arc;
use std::time::Duration;

use agent::runtime::Runtime;
use agent::runtime::kubernetes::KubernetesSettings;
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Resource};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::workload::Framework;
use serde_json::{Value, json};
use testbed::{Binaries, drivers_may_make_executors, make_namespace};

use super::runtime::limit;
use super::runtime_world::{Running, nothing_left, order, plane, settings, until};

pub async fn kinds(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 1).await?;
    let client = plane.client();
    let missing = frameworks(&client).await;
    ensure!(missing == [Some(true), None, None], "{missing:?}");
    without_spark_operator(&client).await?;
    plane.serve(&binaries.operators_resources()?).await?;
    until("the kinds are known", async || Ok(are_known(&client).await.then_some(()))).await?;
    ray_succeeds(&client).await?;
    spark_fails(&client).await?;
    objects_are_taken_as_they_are(&client).await?;
    plane.stop();
    Ok(())
}

/// Whether nothing is missing for any framework, and the objects of all are taken.
pub async fn are_known(client: &Client) -> bool {
    let checks = Running::new(client.clone(), settings(&[])).runtime.frameworks().await;
    checks.iter().all(|check| check.missing.is_none() && check.takes_manifests)
}

/// One of the operators' kinds.
pub fn kind(name: &str) -> ApiResource {
    let (group, version) = match name {
        "RayJob" => ("ray.io", "v1"),
        _ => ("sparkoperator.k8s.io", "v1beta2"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, name))
}

/// For Ray, Spark and batch: whether something is missing.
async fn frameworks(client: &Client) -> Vec<Option<bool>> {
    let checks = Running::new(client.clone(), settings(&[])).runtime.frameworks().await;
    let of = |framework| checks.iter().find(|check| check.framework == framework);
    let missing = |framework| of(framework).and_then(|check| check.missing.as_ref()).map(|why| why.contains("install"));
    [Framework::Ray, Framework::Spark, Framework::Batch].map(missing).to_vec()
}

/// An order of two groups of one member each.
fn of(uid: u128, namespace: &str, spec: Value, groups: [&str; 2]) -> anyhow::Result<LaunchOrder> {
    let like = order(uid, namespace, 1, 0)?;
    let mut made = serde_json::to_value(&like)?;
    made["spec"] = spec;
    let placement = groups.map(|group| {
        let mut placed = made["placement"][0].clone();
        placed["group"] = json!(group);
        placed
    });
    made["placement"] = json!(placement);
    Ok(serde_json::from_value(made)?)
}

/// The one object of a kind, with its operator's word on it.
async fn say(client: &Client, order: &LaunchOrder, kind: &ApiResource, status: Value) -> anyhow::Result<DynamicObject> {
    let all: Api<DynamicObject> = Api::namespaced_with(client.clone(), order.key.namespace.as_str(), kind);
    let name = until("it is made", async || {
        Ok(all.list(&ListParams::default()).await?.items.into_iter().find_map(|object| object.metadata.name))
    });
    let status = json!({"status": status});
    Ok(all.patch_status(&name.await?, &PatchParams::default(), &Patch::Merge(status)).await?)
}

/// With a head and one worker.
pub fn ray(uid: u128, namespace: &str) -> anyhow::Result<LaunchOrder> {
    let each = json!({"cpu": "1", "memory": "1Gi"});
    let spec = json!({"ray": {"image": "registry/ray:2.52.1", "entrypoint": "python t.py", "head": each,
        "workers": [{"name": "workers", "count": 1, "cpu": "1", "memory": "1Gi"}]}});
    of(uid, namespace, spec, ["head", "workers"])
}

async fn ray_succeeds(client: &Client) -> anyhow::Result<()> {
    let (kind, order) = (kind("RayJob"), ray(31, "ray")?);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    let job = say(client, &order, &kind, json!({"jobDeploymentStatus": "Running"})).await?;
    let spec = job.data.get("spec").context("a spec")?;
    // What its definition does not have would have been dropped.
    ensure!(spec["jobId"] == order.attempt.to_string() && spec["submitterConfig"]["backoffLimit"] == 0, "{spec}");
    ensure!(spec["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] == 1, "{spec}");
    ensure!(spec["rayClusterSpec"]["headGroupSpec"]["template"]["metadata"]["labels"]["tidewater.dev/group"] == "head");
    say(client, &order, &kind, json!({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Succeeded);
    nothing_left(client, order.attempt).await?;
    gone(client, &kind).await
}

/// With one driver and one executor.
pub fn spark(uid: u128, namespace: &str) -> anyhow::Result<LaunchOrder> {
    let each = json!({"cpu": "1", "memory": "1Gi"});
    let executors = json!({"name": "executors", "count": 1, "cpu": "1", "memory": "1Gi"});
    let spec =
        json!({"image": "registry/spark:4", "main": "local:///opt/pi.py", "driver": each, "executors": executors});
    of(uid, namespace, json!({"spark": spec}), ["driver", "executors"])
}

/// The agent makes the driver; the test makes the executor as the driver would, from the template that it finds.
async fn without_spark_operator(client: &Client) -> anyhow::Result<()> {
    let order = spark(33, "bare")?;
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "600s")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    running
        .until(order.attempt, "the missing right is named", |state| {
            matches!(state, AttemptState::Starting { waiting_for } if waiting_for.contains("account spark may not create pods"))
        })
        .await?;
    drivers_may_make_executors(client, "bare").await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "bare");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "bare");
    let of_attempt = ListParams::default().labels(&format!("tidewater.dev/attempt={}", order.attempt));
    let driver =
        until("the driver is made", async || Ok(pods.list(&of_attempt).await?.items.into_iter().next())).await?;
    let name = driver.metadata.name.clone().context("it has a name")?;
    let properties = maps.list(&of_attempt).await?.items.into_iter().next().and_then(|map| map.data);
    let properties = properties.context("it has properties")?;
    ensure!(properties["spark.properties"].contains(&format!("spark.kubernetes.driver.pod.name={name}\n")));
    running
        .until(order.attempt, "it waits for its executor", |state| {
            matches!(state, AttemptState::Starting { waiting_for } if waiting_for.starts_with("0 of 1 executors up"))
        })
        .await?;
    // The next agent finds what this one made, whatever operators came meanwhile.
    drop(running);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    let mut executor: Pod = serde_json::from_str(&properties["executor.yaml"])?;
    executor.metadata.name = Some(name.replace("-driver", "-exec-1"));
    executor.metadata.owner_references = Some(vec![driver.owner_ref(&()).context("a pod owns")?]);
    pods.create(&Default::default(), &executor).await?;
    running.until(order.attempt, "driver and executor run", |state| *state == AttemptState::Running).await?;
    running.runtime.stop(order.attempt, 1_000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    nothing_left(client, order.attempt).await?;
    let maps = maps.list(&of_attempt).await?.items.len();
    ensure!(maps == 0, "{maps} config maps are left");
    running.runtime.forget(order.attempt).await?;
    a_quota_without_room_for_executors(client).await?;
    ends_as_its_driver_does(client).await
}

/// The driver runs, and the quota of its namespace has no room for an executor: whatever the driver's log says, that is told.
async fn a_quota_without_room_for_executors(client: &Client) -> anyhow::Result<()> {
    let order = spark(37, "narrow")?;
    limit(client, "narrow", json!({"pods": "1"})).await?;
    drivers_may_make_executors(client, "narrow").await?;
    let patience = Duration::from_secs(5);
    let settings = KubernetesSettings { start_patience: patience, ..settings(&[("runs-for", "600s")]) };
    let mut running = Running::new(client.clone(), settings);
    running.runtime.recover().await?;
    running.start(&order).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::Capacity, message, .. } = &end else { anyhow::bail!("{end:?}") };
    ensure!(message.contains("exceeded quota: limit, used: pods=1, limited: pods=1"), "{message}");
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn ends_as_its_driver_does(client: &Client) -> anyhow::Result<()> {
    let order = spark(34, "bare")?;
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "1s"), ("exit-code", "5")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::User, message, exit_code: Some(5) } = &end else {
        anyhow::bail!("{end:?}")
    };
    ensure!(message.contains("spark-kubernetes-driver"), "{message}");
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn spark_fails(client: &Client) -> anyhow::Result<()> {
    let kind = kind("SparkApplication");
    let order = spark(32, "spark")?;
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    make_namespace(client, "spark").await?;
    drivers_may_make_executors(client, "spark").await?;
    running.start(&order).await?;
    let failed =
        json!({"driverInfo": {}, "applicationState": {"state": "FAILED", "errorMessage": "driver container failed"}});
    let application = say(client, &order, &kind, failed).await?;
    let spec = application.data.get("spec").context("a spec")?;
    ensure!(spec["restartPolicy"]["type"] == "Never" && spec["driver"]["podName"].is_string(), "{spec}");
    ensure!(spec["executor"]["instances"] == 1, "{spec}");
    ensure!(spec["executor"]["template"]["spec"]["affinity"].is_object(), "{spec}");
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::User, message, .. } = &end else { anyhow::bail!("{end:?}") };
    ensure!(message.contains("driver container failed"), "{message}");
    gone(client, &kind).await
}

/// With fields that Tidewater knows nothing of: they come through, and what is put in beside them is accepted too.
async fn objects_are_taken_as_they_are(client: &Client) -> anyhow::Result<()> {
    let takes = json!({"cpu": "1", "memory": "1Gi"});
    let template = |name: &str| {
        let resources = json!({"requests": takes, "limits": takes});
        let container = json!({"name": name, "image": "registry/ray:2.52.1", "resources": resources,
            "lifecycle": {"preStop": {"exec": {"command": ["ray", "stop"]}}}});
        json!({"spec": {"terminationGracePeriodSeconds": 7, "containers": [container]}})
    };
    let ray = json!({
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "theirs"},
        "spec": {
            "entrypoint": "python t.py", "runtimeEnvYAML": "env_vars: {A: b}\n", "suspend": true, "ttlSecondsAfterFinished": 60,
            "rayClusterSpec": {
                "rayVersion": "2.52.1",
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": template("head")},
                "workerGroupSpecs": [{
                    "groupName": "workers", "replicas": 1, "minReplicas": 0, "maxReplicas": 5, "rayStartParams": {},
                    "template": template("worker"),
                }],
            },
        },
    });
    let order = of(35, "native", json!({"manifest": ray}), ["head", "workers"])?;
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    let ray_jobs = kind("RayJob");
    let job = say(client, &order, &ray_jobs, json!({"jobDeploymentStatus": "Running"})).await?;
    let spec = job.data.get("spec").context("a spec")?;
    let head = &spec["rayClusterSpec"]["headGroupSpec"];
    ensure!(head["template"]["spec"]["terminationGracePeriodSeconds"] == 7, "{head}");
    ensure!(head["template"]["metadata"]["labels"]["tidewater.dev/group"] == "head", "{head}");
    ensure!(spec["suspend"].as_bool() != Some(true) && spec["runtimeEnvYAML"] == "env_vars: {A: b}\n", "{spec}");
    say(client, &order, &ray_jobs, json!({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Succeeded);
    nothing_left(client, order.attempt).await?;
    gone(client, &ray_jobs).await?;

    let part = json!({"cores": 1, "memory": "512m", "javaOptions": "-Dx=y", "serviceAccount": "spark"});
    let application = json!({
        "apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "metadata": {"name": "theirs"},
        "spec": {
            "type": "Scala", "mode": "cluster", "sparkVersion": "4.0.1", "image": "registry/spark:4", "mainClass": "Pi",
            "mainApplicationFile": "local:///pi.jar", "restartPolicy": {"type": "Always"}, "driver": part, "executor": part,
        },
    });
    let order = of(36, "spark", json!({"manifest": application}), ["driver", "executors"])?;
    running.start(&order).await?;
    let applications = kind("SparkApplication");
    let completed = json!({"driverInfo": {}, "applicationState": {"state": "COMPLETED"}});
    let application = say(client, &order, &applications, completed).await?;
    let spec = application.data.get("spec").context("a spec")?;
    ensure!(spec["restartPolicy"]["type"] == "Never" && spec["driver"]["javaOptions"] == "-Dx=y", "{spec}");
    ensure!(spec["executor"]["template"]["spec"]["affinity"].is_object(), "{spec}");
    ensure!(running.end(order.attempt).await? == AttemptState::Succeeded);
    gone(client, &applications).await
}

async fn gone(client: &Client, kind: &ApiResource) -> anyhow::Result<()> {
    let all: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let left = all.list(&ListParams::default()).await?.items.len();
    ensure!(left == 0, "{left} {} are left", kind.plural);
    Ok(())
}
