//! Batch gangs from their order to the end, and what can't start.

use std::sync::Arc;
use std::time::Duration;

use agent::runtime::Runtime;
use agent::runtime::kubernetes::{GuardSettings, KubernetesSettings};
use anyhow::{Context, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::CommandNumber;
use protocol::workload::OnClusterLoss;
use serde_json::json;
use testbed::{Binaries, ControlPlane, make_namespace};

use super::runtime_world::{Running, job, made, nothing_left, order, plane, records, settings, until};

pub async fn batch(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 3).await?;
    runs_to_its_end(&plane).await?;
    a_job_as_it_is_runs_in_waves(&plane).await?;
    fails_as_its_program_does(&plane).await?;
    stops_while_it_runs(&plane).await?;
    a_stop_that_comes_first_stays(&plane).await?;
    what_nobody_owns_is_ended(&plane).await?;
    a_job_that_somebody_deletes_is_not_made_again(&plane).await?;
    a_job_that_goes_while_no_agent_looks_is_not_made_again(&plane).await?;
    plane.stop();
    Ok(())
}

/// Suspended and tried again, as somebody wrote it for another queue: it runs, once, and all its completions are waited for.
async fn a_job_as_it_is_runs_in_waves(plane: &ControlPlane) -> anyhow::Result<()> {
    let client = plane.client();
    let takes = json!({"cpu": "1", "memory": "1Gi"});
    let container = json!({"name": "main", "image": "registry/x:1", "resources": {"requests": takes, "limits": takes}});
    let object = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "theirs", "labels": {"team": "vision"}},
        "spec": {
            "parallelism": 2, "completions": 3, "suspend": true, "backoffLimit": 6, "ttlSecondsAfterFinished": 0,
            "template": {"spec": {"restartPolicy": "OnFailure", "containers": [container]}},
        },
    });
    let mut made_up = serde_json::to_value(order(21, "native", 2, 0)?)?;
    made_up["spec"] = json!({"manifest": object});
    made_up["placement"][0]["group"] = json!("workers");
    let order = serde_json::from_value(made_up)?;
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "2s")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    running.until(order.attempt, "two of three run", is_running).await?;
    let job = job(&client, "native").await?;
    let labels = job.metadata.labels.context("it has labels")?;
    ensure!(labels["team"] == "vision" && labels["tidewater.dev/attempt"] == order.attempt.to_string(), "{labels:?}");
    ensure!(running.end(order.attempt).await? == AttemptState::Succeeded);
    nothing_left(&client, order.attempt).await?;
    ensure!(made(plane, "jobs", "native")?.len() == 1, "{:?}", made(plane, "jobs", "native")?);
    let pods = made(plane, "pods", "native")?;
    ensure!(pods.len() == 3, "{pods:?}");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

fn is_running(state: &AttemptState) -> bool {
    *state == AttemptState::Running
}

async fn runs_to_its_end(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(1, "ends", 3, 8)?);
    let mut running = Running::new(client.clone(), settings(&[("starts-after", "1s"), ("runs-for", "3s")]));
    ensure!(running.runtime.recover().await?.is_empty());
    running.start(&order).await?;
    running.start(&order).await?;
    running.until(order.attempt, "the gang runs", is_running).await?;
    // Each on the node that was chosen for it if it is free, and told its rank.
    let pods = Api::<Pod>::namespaced(client.clone(), "ends").list(&ListParams::default()).await?.items;
    ensure!(pods.len() == 3, "{} pods", pods.len());
    ensure!(records(&client).await? == 1);
    ensure!(running.end(order.attempt).await? == AttemptState::Succeeded);
    nothing_left(&client, order.attempt).await?;
    let said = &running.said[&order.attempt];
    ensure!(said.contains(&AttemptState::Accepted), "{said:?}");
    ensure!(said.iter().any(|s| matches!(s, AttemptState::Starting { .. })), "{said:?}");
    ensure!(made(plane, "jobs", "ends")?.len() == 1, "{:?}", made(plane, "jobs", "ends")?);
    ensure!(made(plane, "services", "ends")?.len() == 1);

    // The next agent knows how it ended and what it was given, until it is acknowledged.
    drop(running);
    let running = Running::new(client.clone(), settings(&[]));
    let found = running.runtime.recover_known().await?;
    let [(known, AttemptState::Succeeded)] = &found[..] else { anyhow::bail!("{found:?}") };
    let launch = known.launch.as_ref().context("it was launched")?;
    ensure!(launch.order == order && launch.number == CommandNumber(1), "{launch:?}");
    let given: Vec<(u32, &[u16])> = launch.assignment.members.iter().map(|m| (m.rank, &*m.devices)).collect();
    ensure!(given == [(0, &[0, 1][..]), (1, &[2, 3]), (2, &[])], "{given:?}");
    running.runtime.forget(order.attempt).await?;
    ensure!(records(&client).await? == 0);
    Ok(())
}

async fn fails_as_its_program_does(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(2, "fails", 2, 0)?);
    let mut running = Running::new(client.clone(), settings(&[("exit-code", "3")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::User, message, exit_code: Some(3) } = &end else {
        anyhow::bail!("{end:?}")
    };
    ensure!(message.contains("exited with 3"), "{message}");
    nothing_left(&client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn stops_while_it_runs(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(3, "stops", 2, 1)?);
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "600s"), ("ends-after", "2s")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    running.until(order.attempt, "the gang runs", is_running).await?;
    running.runtime.stop(order.attempt, 1_000).await?;
    running.runtime.stop(order.attempt, 1_000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    nothing_left(&client, order.attempt).await?;
    // Said again to whoever asks again.
    running.runtime.stop(order.attempt, 1_000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn a_stop_that_comes_first_stays(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(4, "never", 1, 0)?);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    running.runtime.stop(order.attempt, 1_000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    drop(running);
    let mut running = Running::new(client.clone(), settings(&[]));
    ensure!(running.runtime.recover().await? == [(order.attempt, AttemptState::Stopped)]);
    running.start(&order).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    ensure!(made(plane, "jobs", "never")?.is_empty(), "it was begun after it was stopped");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn what_nobody_owns_is_ended(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(5, "orphan", 1, 0)?);
    make_namespace(&client, "orphan").await?;
    let labels = json!({
        "app.kubernetes.io/managed-by": "tidewater", "tidewater.dev/cluster": "eu-1",
        "tidewater.dev/attempt": order.attempt.to_string(),
    });
    let object = json!({
        "metadata": {"name": "left", "labels": labels},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}],
        }}},
    });
    let jobs = Api::<Job>::namespaced(client.clone(), "orphan");
    jobs.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let mut running = Running::new(client.clone(), settings(&[]));
    ensure!(running.runtime.recover().await?.len() == 1, "the orphan is found");
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    nothing_left(&client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn a_job_that_somebody_deletes_is_not_made_again(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(6, "deleted", 1, 0)?);
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "600s")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    running.until(order.attempt, "the gang runs", is_running).await?;
    let name = job(&client, "deleted").await?.metadata.name.unwrap_or_default();
    Api::<Job>::namespaced(client.clone(), "deleted").delete(&name, &DeleteParams::foreground()).await?;
    let end = running.end(order.attempt).await?;
    ensure!(matches!(&end, AttemptState::Failed { class: FailureClass::Infrastructure, .. }), "{end:?}");
    nothing_left(&client, order.attempt).await?;
    ensure!(made(plane, "jobs", "deleted")?.len() == 1);
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn a_job_that_goes_while_no_agent_looks_is_not_made_again(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(7, "unseen", 1, 0)?);
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "600s")]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    running.until(order.attempt, "the gang runs", is_running).await?;
    drop(running);
    let jobs = Api::<Job>::namespaced(client.clone(), "unseen");
    let name = job(&client, "unseen").await?.metadata.name.unwrap_or_default();
    jobs.delete(&name, &DeleteParams::foreground()).await?;
    until("the job is gone", async || Ok(jobs.get_opt(&name).await?.is_none().then_some(()))).await?;
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    let end = running.end(order.attempt).await?;
    ensure!(matches!(&end, AttemptState::Failed { class: FailureClass::Infrastructure, .. }), "{end:?}");
    nothing_left(&client, order.attempt).await?;
    ensure!(made(plane, "jobs", "unseen")?.len() == 1, "it was begun twice");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

pub async fn refusals(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 2).await?;
    a_name_that_another_has(&plane).await?;
    a_quota_of_jobs(&plane.client()).await?;
    a_quota_of_pods(&plane.client()).await?;
    a_node_that_there_is_not(&plane.client()).await?;
    a_namespace_that_may_not_be_made(&plane.client()).await?;
    a_secret_that_is_missing(&plane.client()).await?;
    a_namespace_that_restricts_its_pods(&plane.client()).await?;
    plane.stop();
    Ok(())
}

async fn a_name_that_another_has(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), order(11, "taken", 1, 0)?);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    // Run once to learn the name.
    running.start(&order).await?;
    running.end(order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    let name = made(plane, "jobs", "taken")?.remove(0);
    let theirs: Job = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "somebody"}},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}],
        }}},
    }))?;
    let jobs = Api::<Job>::namespaced(client.clone(), "taken");
    let theirs = jobs.create(&PostParams::default(), &theirs).await?;
    running.start(&order).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::Infrastructure, message, .. } = &end else {
        anyhow::bail!("{end:?}")
    };
    ensure!(message.contains("is taken by what somebody made"), "{message}");
    nothing_left(&client, order.attempt).await?;
    ensure!(jobs.get(&name).await?.metadata.uid == theirs.metadata.uid, "theirs was touched");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

/// Makes a namespace with this quota, which counts already.
pub async fn limit(client: &Client, namespace: &str, hard: serde_json::Value) -> anyhow::Result<()> {
    make_namespace(client, namespace).await?;
    let quota: ResourceQuota = serde_json::from_value(json!({"metadata": {"name": "limit"}, "spec": {"hard": hard}}))?;
    let quotas = Api::<ResourceQuota>::namespaced(client.clone(), namespace);
    quotas.create(&PostParams::default(), &quota).await?;
    until("the quota is counted", async || {
        let status = quotas.get("limit").await?.status;
        Ok(status.and_then(|status| status.used).map(drop))
    })
    .await
}

async fn a_quota_of_jobs(client: &Client) -> anyhow::Result<()> {
    let order = order(12, "nojobs", 1, 0)?;
    limit(client, "nojobs", json!({"count/jobs.batch": "0"})).await?;
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover().await?;
    running.start(&order).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::Capacity, message, .. } = &end else { anyhow::bail!("{end:?}") };
    ensure!(message.contains("exceeded quota: limit"), "{message}");
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn a_quota_of_pods(client: &Client) -> anyhow::Result<()> {
    let order = order(13, "onepod", 3, 0)?;
    limit(client, "onepod", json!({"pods": "1"})).await?;
    let patience = Duration::from_secs(6);
    let settings = KubernetesSettings { start_patience: patience, ..settings(&[("runs-for", "600s")]) };
    let mut running = Running::new(client.clone(), settings);
    running.runtime.recover().await?;
    running.start(&order).await?;
    let says = |state: &AttemptState| matches!(state, AttemptState::Starting { waiting_for } if waiting_for.contains("exceeded quota: limit"));
    running.until(order.attempt, "the quota is named", says).await?;
    let end = running.end(order.attempt).await?;
    ensure!(matches!(&end, AttemptState::Failed { class: FailureClass::Capacity, .. }), "{end:?}");
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn a_node_that_there_is_not(client: &Client) -> anyhow::Result<()> {
    let order = order(14, "large", 1, 9)?;
    let settings = KubernetesSettings { start_patience: Duration::from_secs(3), ..settings(&[]) };
    let mut running = Running::new(client.clone(), settings);
    running.runtime.recover().await?;
    running.start(&order).await?;
    let says = |state: &AttemptState| matches!(state, AttemptState::Starting { waiting_for } if waiting_for.contains("2 Insufficient nvidia.com/gpu"));
    running.until(order.attempt, "the scheduler's word is told", says).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::Capacity, message, .. } = &end else { anyhow::bail!("{end:?}") };
    ensure!(message.contains("Insufficient nvidia.com/gpu"), "{message}");
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

async fn a_namespace_that_may_not_be_made(client: &Client) -> anyhow::Result<()> {
    let order = order(15, "absent", 1, 0)?;
    let settings = KubernetesSettings { make_namespaces: false, ..settings(&[]) };
    let mut running = Running::new(client.clone(), settings);
    running.runtime.recover().await?;
    running.start(&order).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::Infrastructure, message, .. } = &end else {
        anyhow::bail!("{end:?}")
    };
    ensure!(message.contains("no namespace absent") && message.contains("settings"), "{message}");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

/// It enforces the profile `restricted`, which the API server checks of each pod: those that are made there keep to it, guard and all.
async fn a_namespace_that_restricts_its_pods(client: &Client) -> anyhow::Result<()> {
    make_namespace(client, "strict").await?;
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.patch("strict", &PatchParams::default(), &Patch::Merge(enforce)).await?;
    let mut order = order(17, "strict", 2, 1)?;
    order.spec.on_cluster_loss = OnClusterLoss::Failover;
    let guards = GuardSettings { image: "registry/guard:1".into(), address: "127.0.0.1:9".parse()? };
    let settings = KubernetesSettings { guards: Some(guards), ..settings(&[("runs-for", "600s")]) };
    let mut running = Running::new(client.clone(), settings);
    running.runtime.recover().await?;
    running.start(&order).await?;
    // Both pods run; nobody lets their guards begin, for kwok starts none.
    let says = |state: &AttemptState| matches!(state, AttemptState::Starting { waiting_for } if waiting_for.contains("0 of 2 guards"));
    running.until(order.attempt, "its pods are let in", says).await?;
    running.runtime.stop(order.attempt, 1_000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

/// The node's kubelet can't mount it, and says so: here by the test's mouth.
async fn a_secret_that_is_missing(client: &Client) -> anyhow::Result<()> {
    let mut order = order(16, "secrets", 1, 0)?;
    order.spec.secrets = serde_json::from_value(json!([{"name": "hf-token", "mountPath": "/run/hf"}]))?;
    let patience = Duration::from_secs(4);
    let settings = KubernetesSettings { start_patience: patience, ..settings(&[("starts-after", "600s")]) };
    let mut running = Running::new(client.clone(), settings);
    running.runtime.recover().await?;
    running.start(&order).await?;
    let pods = Api::<Pod>::namespaced(client.clone(), "secrets");
    let pod = until("its pod has a node", async || {
        let all = pods.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())))
    });
    let pod = pod.await?;
    let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
    let secrets: Vec<_> = volumes.into_iter().filter_map(|volume| volume.secret?.secret_name).collect();
    ensure!(secrets == ["hf-token"], "{secrets:?}");
    let said = "MountVolume.SetUp failed for volume \"secret-0\" : secret \"hf-token\" not found";
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "said"}, "reason": "FailedMount", "message": said, "source": {"component": "kubelet"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "secrets", "name": pod.metadata.name},
    }))?;
    Api::<Event>::namespaced(client.clone(), "secrets").create(&PostParams::default(), &event).await?;
    let says = |state: &AttemptState| matches!(state, AttemptState::Starting { waiting_for } if waiting_for.contains("secret \"hf-token\" not found"));
    running.until(order.attempt, "the missing Secret is named", says).await?;
    let end = running.end(order.attempt).await?;
    let AttemptState::Failed { class: FailureClass::User, message, .. } = &end else { anyhow::bail!("{end:?}") };
    ensure!(message.contains("\"hf-token\" not found"), "{message}");
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}
