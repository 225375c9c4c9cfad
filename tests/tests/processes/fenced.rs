//! Guards in pods: a Kubernetes cluster's agent is killed, and what is to go on elsewhere ends itself on its node first, with nobody there to
//! end it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams};
use serde_json::json;
use testbed::images::program::{ProgramImage, pack};
use testbed::{ControlPlane, Image};
use tokio::runtime::Runtime;

use super::api::clusters_of;
use super::federation::{CLUSTERS, Federation, free_port};
use super::program::pod_guard;
use super::world::{PATIENCE, World, wait_for};

const NAME: &str = "moves";
/// What the pods of its guards are copied from.
const IMAGE: &str = "localhost/tidewater-pod-guard:1";
/// The guard's exit code when its end came by the fence.
pub const FENCED: i32 = 75;

/// Makes the guard's image known to the real node of a cluster.
pub fn load_guard(world: &World, plane: &ControlPlane) -> anyhow::Result<()> {
    let (guard, licence) = (pod_guard()?, std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../LICENSE"));
    let image = ProgramImage { reference: IMAGE, program: &guard, beside: &[], licence: &licence };
    let packed = pack(&image, &world.path("guard-image"))?;
    eprintln!("    the guard's image: {} KiB", packed.bytes >> 10);
    Ok(plane.load_image(&packed.archive)?)
}

/// What an agent on this machine is started with, so that pods of this cluster reach it: at the end of the node's link that is the host's.
pub fn arguments(plane: &ControlPlane) -> anyhow::Result<Vec<String>> {
    let host = plane.link().map_or("127.0.0.1".to_owned(), |link| link.host().to_string());
    let address = format!("{host}:{}", free_port()?);
    Ok(["--listen-guards", &address, "--guard-address", &address, "--guard-image", IMAGE].map(str::to_owned).into())
}

/// The agent of the first cluster, which was started with these arguments, is killed while a workload runs there.
pub fn moves_once(
    federation: &mut Federation<'_>,
    runtime: &Runtime,
    planes: &[ControlPlane],
    arguments: Vec<String>,
) -> anyhow::Result<()> {
    let [north, south] = CLUSTERS;
    let command = "trap 'echo asked to end; exit 0' TERM; echo begun; while :; do sleep 0.2; done";
    let workload = json!({
        "apiVersion": "tidewater.dev/v1", "kind": "Workload",
        "metadata": {"name": NAME, "namespace": "default"},
        "spec": {
            "onClusterLoss": "failover", "failoverAfter": "1m", "placement": {"regions": {"prefer": ["eu"]}},
            "batch": {
                "image": Image::Batch.reference(), "command": ["sh", "-c", command],
                "groups": [{"name": "w", "count": 1, "cpu": "100m", "memory": "64Mi"}],
            },
        },
    });
    federation.api.submit(&workload)?;
    let runs = federation.api.until(NAME, &["Running"], PATIENCE)?;
    ensure!(clusters_of(&runs) == [north], "{}", runs["status"]);

    federation.kill_agent(0);
    let began = Instant::now();
    federation.api.until(NAME, &["Unknown"], PATIENCE)?;
    wait_for("its second attempt", PATIENCE, || {
        Ok((clusters_of(&federation.api.workload(NAME)?) == [north, south]).then_some(()))
    })?;
    let after = began.elapsed();
    // There nothing of it begins: kwok plays pods without guards, and nobody but a guard can say that it was let.
    wait_for("what it waits for there", PATIENCE, || {
        let says = federation.api.get(&format!("/explain/default/{NAME}"))?.to_string();
        Ok(says.contains("leave to begin: 0 of 1 guards in its pods have it").then_some(()))
    })?;
    ensure!(after >= Duration::from_secs(70), "it was started elsewhere after {:.1} s", after.as_secs_f64());
    // Nobody has touched what is left of it.
    let (ended, made) = runtime.block_on(async { anyhow::Ok((ended(&planes[0]).await?, made(&planes[1]).await?)) })?;
    let said = ended.message.unwrap_or_default();
    ensure!(ended.exit_code == FENCED && said.contains("nobody let attempt"), "{} {said}", ended.exit_code);
    let at = ended.finished_at.context("it has ended")?;
    ensure!(at <= made, "it ended there at {}, and was made anew here at {}", at.0, made.0);
    eprintln!(
        "    it ended itself {:.1} s before it was made elsewhere, {:.1} s after its agent was killed",
        made.0.duration_since(at.0).as_secs_f64(),
        after.as_secs_f64()
    );

    // The old cluster is back: what is left there goes, and it is where it is.
    federation.agent_arguments = arguments;
    federation.start_agent(0)?;
    federation.until_cluster(north, "Ready")?;
    wait_for("the end of what is left", PATIENCE, || Ok(runtime.block_on(jobs(&planes[0]))?.is_empty().then_some(())))?;
    let still = federation.api.workload(NAME)?;
    ensure!(clusters_of(&still) == [north, south], "{}", still["status"]);
    federation.api.cancel(NAME)?;
    federation.api.until(NAME, &["Cancelled"], PATIENCE).map(drop)
}

/// How the only container ended.
async fn ended(plane: &ControlPlane) -> anyhow::Result<ContainerStateTerminated> {
    let pods: Api<Pod> = Api::namespaced(plane.client(), "default");
    let labels = ListParams::default().labels(&format!("tidewater.dev/workload={NAME}"));
    let pod = pods.list(&labels).await?.items.pop().context("its pod is not there any more")?;
    let status = pod.status.context("it has a status")?;
    let container = status.container_statuses.and_then(|all| all.into_iter().next()).context("it had a container")?;
    container.state.and_then(|state| state.terminated).with_context(|| format!("it runs on: {:?}", status.phase))
}

/// When its Job was made.
async fn made(plane: &ControlPlane) -> anyhow::Result<Time> {
    let job = jobs(plane).await?.pop().context("it has a Job")?;
    job.metadata.creation_timestamp.context("it was made")
}

async fn jobs(plane: &ControlPlane) -> anyhow::Result<Vec<Job>> {
    let jobs: Api<Job> = Api::namespaced(plane.client(), "default");
    Ok(jobs.list(&ListParams::default().labels(&format!("tidewater.dev/workload={NAME}"))).await?.items)
}
