//! Real control planes for the tests: their nodes, what is handed in there, and what the API server's audit says was done.

use anyhow::{bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use testbed::control_plane::Audited;
use testbed::{Binaries, ControlPlane, FakeNodes, Settings, fake};
use tokio::runtime::Runtime;

use super::world::{PATIENCE, wait_for};

/// A runtime for what a test asks API servers.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// The programs of these control planes. What this machine lacks for them is an error by which the test counts as ignored.
pub fn programs(tools: &[testbed::Tool]) -> Result<Binaries, testbed::BuildError> {
    Binaries::provide(tools, &|line| eprintln!("    {line}"))
}

/// A control plane with so many nodes of 8 H100, all ready.
pub async fn with_h100_nodes(binaries: &Binaries, settings: Settings, nodes: u32) -> anyhow::Result<ControlPlane> {
    let plane = ControlPlane::start(binaries, settings).await?;
    let client = plane.client();
    FakeNodes::h100("gpu", nodes).make(&client).await?;
    if let Err(ready) = fake::until_ready(&client, nodes as usize, PATIENCE).await? {
        bail!("only {ready} of {nodes} nodes are ready");
    }
    Ok(plane)
}

/// A gang for kwok's nodes: so many members with so many H100 each.
pub fn gang(name: &str, (count, gpus): (u32, u32)) -> Value {
    json!({
        "apiVersion": "tidewater.dev/v1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"batch": {
            "image": "none", "command": ["work"],
            "groups": [{"name": "w", "count": count, "cpu": 1, "memory": "1Gi", "gpus": gpus, "gpu": ["H100"]}],
        }},
    })
}

/// The changes of this kind that were made, by the audit log. What was only tried was not made.
pub fn made(plane: &ControlPlane, verb: &str, resource: &str) -> std::io::Result<Vec<Audited>> {
    let all = plane.audited()?.into_iter().filter(|e| e.verb == verb && e.resource == resource);
    Ok(all.filter(|e| (200..300).contains(&e.code) && !e.dry_run).collect())
}

/// Neither jobs nor pods nor services of attempts are there, and records of them only until their ends are acknowledged.
pub fn nothing_left(runtime: &Runtime, plane: &ControlPlane) -> anyhow::Result<()> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=tidewater");
    let client = plane.client();
    wait_for("the end of all objects", PATIENCE, || {
        runtime.block_on(async {
            let jobs = Api::<Job>::all(client.clone()).list(&ours).await?.items.len();
            let pods = Api::<Pod>::all(client.clone()).list(&ours).await?.items.len();
            let services = Api::<Service>::all(client.clone()).list(&ours).await?.items.len();
            ensure!((jobs, pods, services) == (0, 0, 0), "{jobs} jobs, {pods} pods, {services} services are left");
            let records = Api::<ConfigMap>::all(client.clone()).list(&ours).await?.items.len();
            Ok((records == 0).then_some(()))
        })
    })
}
