//! Two real control planes whose nodes are played by kwok, an agent of each, and a coordinator that places work on both.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use serde_json::Value;
use testbed::{ControlPlane, Settings};
use tokio::runtime::Runtime;

use super::api::{phase, phases, text};
use super::federation::{CLUSTERS, Federation};
use super::planes::{gang, made, nothing_left, programs, runtime, with_h100_nodes};
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

const NODES: u32 = 12;
const WORKLOADS: u32 = 40;

/// Workloads run in both clusters though an agent is killed meanwhile; each ran once, and nothing of them is left.
pub fn placed_once(world: &World) -> anyhow::Result<Done> {
    let binaries = programs(&Settings::with_fake_nodes("").tools())?;
    let runtime = runtime()?;
    let start = |name: &str| with_h100_nodes(&binaries, Settings::with_fake_nodes(world.path(name)), NODES);
    let planes = [runtime.block_on(start("plane-north"))?, runtime.block_on(start("plane-south"))?];
    let mut federation = Federation::prepare(world, 1)?;
    federation.kubeconfigs = planes.iter().map(ControlPlane::kubeconfig).collect();
    federation.start_coordinator(1)?;
    (0..CLUSTERS.len()).try_for_each(|place| federation.start_agent(place))?;
    CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;
    federation.until_free(u64::from(2 * NODES * 8))?;

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
    .with_context(|| format!("{:#?}", federation.api.workloads().map(|all| phases(&all))))?;
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
    ran_once(&runtime, &planes, tried)?;
    federation.until_free(u64::from(2 * NODES * 8))?;
    federation.stop()?;
    planes.into_iter().for_each(ControlPlane::stop);
    Ok(Done::Holds)
}

/// Some need a GPU, some a node, some two.
fn workload(n: u32) -> Value {
    gang(&format!("w{n}"), [(1, 1), (2, 2), (1, 8), (2, 8)][(n % 4) as usize])
}

/// Nothing is left of any attempt; and no job was made twice.
fn ran_once(runtime: &Runtime, planes: &[ControlPlane], tried: usize) -> anyhow::Result<()> {
    let (mut created, mut deleted) = (vec![], BTreeSet::new());
    for plane in planes {
        nothing_left(runtime, plane)?;
        created.extend(made(plane, "create", "jobs")?.into_iter().map(|entry| entry.name));
        deleted.extend(made(plane, "delete", "jobs")?.into_iter().map(|entry| entry.name));
    }
    let names: BTreeSet<&String> = created.iter().collect();
    ensure!(names.len() == created.len(), "a job was made twice: {created:?}");
    // A create whose client was killed meanwhile may be carried out and not stand in the log as such.
    let all: BTreeSet<&String> = names.into_iter().chain(&deleted).collect();
    let enough = (WORKLOADS as usize..=tried).contains(&all.len());
    ensure!(enough, "there were {} jobs of {tried} attempts: {all:?}", all.len());
    Ok(())
}
