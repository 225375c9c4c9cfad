//! Fake nodes, and what runs on them.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::{FakeNodes, Settings, fake};

use super::world::{PATIENCE, World, no_process_in, until};

const NODES: u32 = 200;
const JOB_PODS: i32 = 40;

pub async fn jobs(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = world.start(Settings::with_fake_nodes(dir.path())).await?;
    let client = plane.client();
    fleet(&client).await?;
    runs_to_its_end(&client).await?;
    fails_as_it_is_told(&client).await?;
    waits_for_gpus_that_no_node_has(&client).await?;
    waits_runs_and_goes(&client).await?;
    let deleted =
        plane.audited()?.iter().filter(|a| a.verb == "delete" && a.name == "serves" && a.user == "admin").count();
    ensure!(deleted == 1, "the delete is audited once, not {deleted} times");
    plane.stop();
    no_process_in(dir.path())
}

async fn fleet(client: &Client) -> anyhow::Result<()> {
    let fleet = FakeNodes::h100("gpu", NODES);
    let began = Instant::now();
    fleet.make(client).await?;
    let made = began.elapsed().as_secs_f64();
    if let Err(ready) = fake::until_ready(client, NODES as usize, PATIENCE).await? {
        bail!("only {ready} of {NODES} nodes are ready");
    }
    let ready = began.elapsed().as_secs_f64();
    eprintln!(
        "    {NODES} nodes made in {made:.1} s ({:.0} a second), ready after {ready:.1} s",
        f64::from(NODES) / made
    );
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    ensure!(nodes.len() == NODES as usize);
    for node in &nodes {
        let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref()).context("a status")?;
        ensure!(allocatable.get("nvidia.com/gpu").is_some_and(|q| q.0 == "8"), "{allocatable:?}");
        let labels = node.metadata.labels.as_ref().context("labels")?;
        ensure!(labels.get("nvidia.com/gpu.product").is_some_and(|p| p == "NVIDIA-H100-80GB-HBM3"), "{labels:?}");
    }
    Ok(())
}

/// A container that takes GPUs.
fn container(gpus: u32) -> Value {
    json!([{"name": "main", "image": "none", "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": gpus}}}])
}

fn job(name: &str, pods: i32, annotations: Value) -> anyhow::Result<Job> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "parallelism": pods, "completions": pods, "completionMode": "Indexed", "backoffLimit": 0,
            "template": {
                "metadata": {"annotations": annotations},
                "spec": {"restartPolicy": "Never", "containers": container(8)},
            },
        },
    }))?)
}

async fn finished(jobs: &Api<Job>, name: &str) -> anyhow::Result<Job> {
    until("the job is finished", async || {
        let job = jobs.get(name).await?;
        let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref());
        let done = conditions
            .is_some_and(|c| c.iter().any(|c| c.status == "True" && matches!(&*c.type_, "Complete" | "Failed")));
        Ok(done.then_some(job))
    })
    .await
}

async fn runs_to_its_end(client: &Client) -> anyhow::Result<()> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), "default");
    let began = Instant::now();
    jobs.create(&PostParams::default(), &job("works", JOB_PODS, json!({}))?).await?;
    let status = finished(&jobs, "works").await?.status.context("a status")?;
    ensure!(status.succeeded == Some(JOB_PODS), "{status:?}");
    eprintln!("    a job of {JOB_PODS} pods ended after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn fails_as_it_is_told(client: &Client) -> anyhow::Result<()> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), "default");
    let told = json!({"testbed.tidewater.dev/exit-code": "3"});
    jobs.create(&PostParams::default(), &job("fails", 1, told)?).await?;
    let status = finished(&jobs, "fails").await?.status.context("a status")?;
    ensure!(status.failed == Some(1) && status.succeeded.is_none(), "{status:?}");
    let pods =
        Api::<Pod>::namespaced(client.clone(), "default").list(&ListParams::default().labels("job-name=fails")).await?;
    let code = pods.items.first().and_then(|pod| {
        let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
        Some(state.terminated.as_ref()?.exit_code)
    });
    ensure!(code == Some(3), "{code:?}");
    Ok(())
}

async fn waits_for_gpus_that_no_node_has(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = json!({"metadata": {"name": "too-large"}, "spec": {"containers": container(9)}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let said = until("the scheduler says that no node fits", async || {
        let conditions = pods.get("too-large").await?.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False").and_then(|c| c.message))
    });
    let said = said.await?;
    ensure!(said.contains(&format!("{NODES} Insufficient nvidia.com/gpu")), "{said}");
    pods.delete("too-large", &DeleteParams::default()).await?;
    Ok(())
}

async fn waits_runs_and_goes(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let annotations = json!({"testbed.tidewater.dev/starts-after": "2s", "testbed.tidewater.dev/ends-after": "1s"});
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "serves", "annotations": annotations},
        "spec": {"containers": container(1)},
    }))?;
    pods.create(&PostParams::default(), &pod).await?;
    let bound = until("the pod is bound", async || {
        let pod = pods.get("serves").await?;
        Ok(pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()).map(|_| Instant::now()))
    });
    let bound = bound.await?;
    let runs = until("the pod runs", async || {
        let pod = pods.get("serves").await?;
        Ok(pod.status.filter(|status| status.phase.as_deref() == Some("Running")).map(|_| Instant::now()))
    });
    // Less the looks, a tenth of a second each.
    ensure!(runs.await?.duration_since(bound) > Duration::from_millis(1_500), "it did not wait before it ran");
    pods.delete("serves", &DeleteParams::default()).await?;
    let going = pods.get_opt("serves").await?.context("it goes at once, though it was to stay a second")?;
    ensure!(going.metadata.deletion_timestamp.is_some());
    until("the pod is gone", async || Ok(pods.get_opt("serves").await?.is_none().then_some(()))).await
}
