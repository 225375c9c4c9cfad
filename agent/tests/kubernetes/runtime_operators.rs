//! RayJobs and SparkApplications against their operators' own definitions: what is made is taken as it is, every field, and goes again. The
//! operators themselves do not run here: their words are written by the test.

use std::sync::Arc;

use agent::runtime::Runtime;
use anyhow::{Context, ensure};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::workload::Framework;
use serde_json::{Value, json};
use testbed::{Binaries, make_namespace};

use super::runtime_world::{Running, nothing_left, order, plane, settings, until};

pub async fn kinds(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 1).await?;
    let client = plane.client();
    let missing = frameworks(&client).await;
    ensure!(missing == [Some(true), Some(true), None], "{missing:?}");
    plane.serve(&binaries.operators_resources()?).await?;
    until("the kinds are known", async || Ok(frameworks(&client).await.iter().all(Option::is_none).then_some(())))
        .await?;
    ray_succeeds(&client).await?;
    spark_fails(&client).await?;
    plane.stop();
    Ok(())
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

async fn ray_succeeds(client: &Client) -> anyhow::Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("ray.io", "v1", "RayJob"));
    let each = json!({"cpu": "1", "memory": "1Gi"});
    let spec = json!({"ray": {"image": "registry/ray:2.52.1", "entrypoint": "python t.py", "head": each,
        "workers": [{"name": "workers", "count": 1, "cpu": "1", "memory": "1Gi"}]}});
    let order = of(31, "ray", spec, ["head", "workers"])?;
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

async fn spark_fails(client: &Client) -> anyhow::Result<()> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("sparkoperator.k8s.io", "v1beta2", "SparkApplication"));
    let spec = json!({"spark": {"image": "registry/spark:4", "main": "local:///opt/pi.py", "driver": {"cpu": "1", "memory": "1Gi"},
        "executors": {"name": "executors", "count": 1, "cpu": "1", "memory": "1Gi"}}});
    let order = of(32, "spark", spec, ["driver", "executors"])?;
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    // The driver's account is the cluster's to make; without it the pod is not taken.
    make_namespace(client, "spark").await?;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), "spark");
    accounts.create(&Default::default(), &serde_json::from_value(json!({"metadata": {"name": "spark"}}))?).await?;
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

async fn gone(client: &Client, kind: &ApiResource) -> anyhow::Result<()> {
    let all: Api<DynamicObject> = Api::all_with(client.clone(), kind);
    let left = all.list(&ListParams::default()).await?.items.len();
    ensure!(left == 0, "{left} {} are left", kind.plural);
    Ok(())
}
