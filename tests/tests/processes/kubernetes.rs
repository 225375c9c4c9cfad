//! Two real control planes whose nodes are played by kwok, an agent of each, and a coordinator that places work on both.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use testbed::{Binaries, BuildError, ControlPlane, FakeNodes, Settings, fake};

use super::api::{phase, text};
use super::federation::{CLUSTERS, Federation};
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

const NODES: u32 = 12;
const WORKLOADS: u32 = 40;

/// Workloads run in both clusters though an agent is killed meanwhile; each ran once, and nothing of them is left.
pub fn placed_once(world: &World) -> anyhow::Result<Done> {
    let tools = Settings::with_fake_nodes("").tools();
    let binaries = match lack_of(Binaries::provide(&tools, &|line| eprintln!("    {line}")))? {
        Ok(binaries) => binaries,
        Err(lack) => return Ok(lack),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let start = async |name: &str| {
        let plane = ControlPlane::start(&binaries, Settings::with_fake_nodes(world.path(name))).await?;
        let client = plane.client();
        FakeNodes::h100("gpu", NODES).make(&client).await?;
        if let Err(ready) = fake::until_ready(&client, NODES as usize, PATIENCE).await? {
            bail!("only {ready} of {NODES} nodes are ready");
        }
        Ok(plane)
    };
    let planes = [runtime.block_on(start("plane-north"))?, runtime.block_on(start("plane-south"))?];
    let mut federation = Federation::prepare(world, 1)?;
    federation.kubeconfigs = planes.iter().map(ControlPlane::kubeconfig).collect();
    federation.start_coordinator(1)?;
    (0..CLUSTERS.len()).try_for_each(|place| federation.start_agent(place))?;
    CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;
    whole_fleet(&federation)?;

    let began = std::time::Instant::now();
    (0..WORKLOADS).try_for_each(|n| federation.api.submit(&workload(n)))?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    federation.kill_agent(0);
    federation.start_agent(0)?;
    wait_for("the end of every workload", PATIENCE * 2, || {
        let all = federation.api.workloads()?;
        let failed = all.values().find(|w| matches!(&*phase(w), "Failed" | "Unknown"));
        ensure!(failed.is_none(), "{failed:?}");
        Ok((all.values().filter(|w| phase(w) == "Succeeded").count() == WORKLOADS as usize).then_some(()))
    })
    .with_context(|| format!("{:#?}", federation.api.workloads().map(phases)))?;
    eprintln!("    {WORKLOADS} workloads on 2 clusters after {:.1} s", began.elapsed().as_secs_f64());

    let (mut places, mut tried): (BTreeMap<String, u32>, _) = (BTreeMap::new(), 0);
    for (name, workload) in federation.api.workloads()? {
        let attempts = workload["status"]["attempts"].as_array().cloned().unwrap_or_default();
        let (last, others) = attempts.split_last().with_context(|| format!("{name} was not tried"))?;
        // A launch that the kill cut off half way is ended by the next agent, and the workload tried again.
        let cut_off = |a: &Value| a["cluster"] == CLUSTERS[0] && a.to_string().contains("nfrastructure");
        // One that was let past a larger gang, on condition, gives that its room.
        let timeline = workload["status"]["timeline"].to_string();
        let gave_way = |a: &Value| {
            a["state"] == "stopped" && timeline.contains(&format!("attempt {} gives its room", a["id"]["number"]))
        };
        ensure!(others.iter().filter(|a| cut_off(a)).count() <= 1, "{name} was cut off twice: {workload:#}");
        ensure!(others.iter().all(|a| cut_off(a) || gave_way(a)), "{name} was tried again: {workload:#}");
        *places.entry(text(&last["cluster"])).or_default() += 1;
        tried += attempts.len();
    }
    ensure!(places.len() == 2, "all went to one cluster: {places:?}");
    eprintln!("    {tried} attempts");
    nothing_left(&runtime, &planes, tried)?;
    whole_fleet(&federation)?;
    federation.stop()?;
    planes.into_iter().for_each(ControlPlane::stop);
    Ok(Done::Holds)
}

/// What this machine lacks for a test, apart from other errors.
pub fn lack_of(provided: Result<Binaries, BuildError>) -> anyhow::Result<Result<Binaries, Done>> {
    match provided {
        Err(lack) if lack.is_lack() => Ok(Err(Done::CannotRunHere(lack.to_string()))),
        provided => Ok(Ok(provided?)),
    }
}

fn phases(workloads: BTreeMap<String, Value>) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    workloads.values().for_each(|w| *found.entry(phase(w)).or_default() += 1);
    found
}

/// Some need a GPU, some a node, some two.
fn workload(n: u32) -> Value {
    let (count, gpus) = [(1, 1), (2, 2), (1, 8), (2, 8)][(n % 4) as usize];
    json!({
        "apiVersion": "tidewater.dev/v1",
        "kind": "Workload",
        "metadata": {"name": format!("w{n}"), "namespace": "default"},
        "spec": {"batch": {
            "image": "none", "command": ["work"],
            "groups": [{"name": "w", "count": count, "cpu": 1, "memory": "1Gi", "gpus": gpus, "gpu": ["H100"]}],
        }},
    })
}

/// Every GPU of both clusters is free.
fn whole_fleet(federation: &Federation<'_>) -> anyhow::Result<()> {
    let mut last = Value::Null;
    wait_for("all GPUs as free", PATIENCE, || {
        last = federation.api.get("/capacity")?;
        let rows = last["rows"].as_array().cloned().unwrap_or_default();
        let free: u64 = rows.iter().filter_map(|row| row["gpus"]["free"].as_u64()).sum();
        Ok((free == u64::from(2 * NODES * 8)).then_some(()))
    })
    .with_context(|| format!("{last:#}"))
}

/// Neither jobs nor pods nor services, nor records of attempts; and no job was made twice.
fn nothing_left(runtime: &tokio::runtime::Runtime, planes: &[ControlPlane], tried: usize) -> anyhow::Result<()> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=tidewater");
    let (mut made, mut deleted) = (vec![], BTreeSet::new());
    for plane in planes {
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
        })?;
        made.extend(jobs(plane, "create")?);
        deleted.extend(jobs(plane, "delete")?);
    }
    let names: BTreeSet<&String> = made.iter().collect();
    ensure!(names.len() == made.len(), "a job was made twice: {made:?}");
    // A create whose client was killed meanwhile may be carried out and not stand in the log as such.
    let all: BTreeSet<&String> = names.into_iter().chain(&deleted).collect();
    let enough = (WORKLOADS as usize..=tried).contains(&all.len());
    ensure!(enough, "there were {} jobs of {tried} attempts: {all:?}", all.len());
    Ok(())
}

/// The names of the jobs to which this was done, by the audit log. What was only tried was not done.
fn jobs(plane: &ControlPlane, verb: &str) -> anyhow::Result<Vec<String>> {
    let done = plane.audited()?.into_iter().filter(|e| e.verb == verb && (200..300).contains(&e.code) && !e.dry_run);
    Ok(done.filter(|e| e.resource == "jobs").map(|e| e.name).collect())
}
