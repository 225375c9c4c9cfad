//! Replicas of one cluster's agent on a real control plane: one acts, and another goes on where it ended, however it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ListParams};
use rustix::process::Signal;
use serde_json::Value;
use testbed::{ControlPlane, Settings};
use tokio::runtime::Runtime;

use super::api::phase;
use super::federation::{CLUSTERS, Federation};
use super::planes::{gang, made, nothing_left, programs, runtime, with_h100_nodes};
use super::program::Program;
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

const NODES: u32 = 24;
/// How long each gang runs: longer than all that happens to its agents.
const RUNS_FOR: &str = "90s";
/// The Lease's duration, and what is added for looking.
const TAKE_OVER: Duration = Duration::from_secs(16);
/// Who the agents are to the API server.
const AGENTS: &str = "admin";
/// What the agent ends with when it lost its Lease.
const LEASE_LOST: i32 = 5;

/// The leader is killed, the next one stands still for longer than the Lease, the third is asked to end: each time another takes over in
/// time, what runs goes on, and nothing is made twice.
pub fn moves(world: &World) -> anyhow::Result<Done> {
    let (binaries, runtime) = (programs(&Settings::with_fake_nodes("").tools())?, runtime()?);
    let settings = Settings::with_fake_nodes(world.path("plane"));
    let plane = runtime.block_on(with_h100_nodes(&binaries, settings, NODES))?;
    let cluster = Cluster { plane, runtime };
    let mut federation = Federation::prepare(world, 1)?;
    federation.kubeconfigs = vec![cluster.plane.kubeconfig()];
    federation.agent_arguments =
        vec!["--pod-annotation".to_owned(), format!("testbed.tidewater.dev/runs-for={RUNS_FOR}")];
    federation.start_coordinator(1)?;

    // Its own namespace is not there yet: one that may make none says so.
    federation.agent_arguments.push("--keep-namespaces".to_owned());
    let mut bare = federation.replica_of_agent(0, "bare")?;
    let status = bare.until_ended(PATIENCE)?;
    ensure!(status.code() == Some(1), "it ended with {status}: {}", bare.err());
    bare.says("kubectl create namespace tidewater", PATIENCE)?;
    federation.agent_arguments.pop();

    let mut first = federation.replica_of_agent(0, "first")?;
    first.says("leading: ", PATIENCE)?;
    let mut second = federation.replica_of_agent(0, "second")?;
    second.says("waiting: ", PATIENCE)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;

    // -- Killed, with some that run and some that are being made.
    (0..6).try_for_each(|n| federation.api.submit(&workload("before", n)))?;
    (0..6).try_for_each(|n| federation.api.until(&format!("before{n}"), &["Running"], PATIENCE).map(drop))?;
    let ran_before = cluster.jobs()?;
    (0..6).try_for_each(|n| federation.api.submit(&workload("killed", n)))?;
    first.kill();
    let after = takes_over(&mut second, Instant::now(), TAKE_OVER)?;
    eprintln!("    another leads {:.2} s after the leader was killed", after.as_secs_f64());
    goes_on(&federation, &cluster, &ran_before)?;

    // -- Stands still for longer than the Lease lasts, in the middle of launches.
    let mut third = federation.replica_of_agent(0, "third")?;
    third.says("waiting: ", PATIENCE)?;
    (0..6).try_for_each(|n| federation.api.submit(&workload("stopped", n)))?;
    second.signal(Signal::STOP);
    let after = takes_over(&mut third, Instant::now(), TAKE_OVER)?;
    eprintln!("    another leads {:.2} s after the leader stood still", after.as_secs_f64());
    goes_on(&federation, &cluster, &ran_before)?;
    let quiet = cluster.until_quiet()?;
    second.signal(Signal::CONT);
    let status = second.until_ended(Duration::from_secs(10))?;
    let said = second.err();
    ensure!(status.code() == Some(LEASE_LOST), "it ended with {status}: {said}");
    ensure!(said.matches("this replica of the agent ends").count() == 1, "not one line: {said}");
    std::thread::sleep(Duration::from_secs(1));
    ensure!(cluster.changes()? == quiet, "it changed something after its time: {:#?}", cluster.last_changes());

    // -- Asked to end.
    let mut fourth = federation.replica_of_agent(0, "fourth")?;
    fourth.says("waiting: ", PATIENCE)?;
    let began = Instant::now();
    third.signal(Signal::TERM);
    let after = takes_over(&mut fourth, began, Duration::from_secs(1))?;
    let status = third.until_ended(Duration::from_secs(10))?;
    ensure!(status.success(), "it ended with {status}: {}", third.err());
    eprintln!("    another leads {:.2} s after the leader was asked to end", after.as_secs_f64());
    goes_on(&federation, &cluster, &ran_before)?;

    let tried = ends_well(&federation)?;
    cluster.ran_once(tried)?;
    fourth.terminate()?;
    federation.stop()?;
    cluster.plane.stop();
    Ok(Done::Holds)
}

/// Waits until this replica leads; returns how long after `began` that was.
fn takes_over(replica: &mut Program, began: Instant, within: Duration) -> anyhow::Result<Duration> {
    replica.says("leading: ", PATIENCE)?;
    let after = began.elapsed();
    ensure!(after <= within, "it took over after {:.2} s: {}", after.as_secs_f64(), replica.err());
    // That it says so comes before that it acts.
    replica.line("ready: ")?;
    Ok(after)
}

/// What ran when the first leader was killed runs as it did, with the same objects, and its cluster was never lost.
fn goes_on(federation: &Federation<'_>, cluster: &Cluster, ran: &BTreeMap<String, String>) -> anyhow::Result<()> {
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        for (name, workload) in federation.api.workloads()? {
            ensure!(phase(&workload) != "Unknown", "{name}: {}", workload["status"]);
            if name.starts_with("before") {
                let attempts = workload["status"]["attempts"].as_array().map_or(0, Vec::len);
                ensure!(phase(&workload) == "Running" && attempts == 1, "{name}: {}", workload["status"]);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let jobs = cluster.jobs()?;
    let gone: Vec<&String> =
        ran.iter().filter(|(name, uid)| jobs.get(*name) != Some(uid)).map(|(name, _)| name).collect();
    ensure!(gone.is_empty(), "these ran and are not what they were: {gone:?}");
    Ok(())
}

/// Every workload succeeds; returns how many attempts that took. Another try is right only where a launch was cut off half way.
fn ends_well(federation: &Federation<'_>) -> anyhow::Result<usize> {
    let mut last = BTreeMap::new();
    wait_for("the end of every workload", PATIENCE * 3, || {
        last = federation.api.workloads()?;
        let failed = last.values().find(|w| matches!(&*phase(w), "Failed" | "Unknown"));
        ensure!(failed.is_none(), "{failed:?}");
        Ok(last.values().all(|w| phase(w) == "Succeeded").then_some(()))
    })
    .with_context(|| format!("{:?}", last.iter().map(|(n, w)| (n, phase(w))).collect::<Vec<_>>()))?;
    ensure!(last.len() == 18, "{} workloads", last.len());
    let (mut tried, mut cut_off) = (0, 0);
    for (name, workload) in last {
        let attempts = workload["status"]["attempts"].as_array().cloned().unwrap_or_default();
        tried += attempts.len();
        cut_off += attempts.len() - 1;
        let said = workload["status"].to_string();
        ensure!(attempts.len() <= 3, "{name} was tried {} times: {said}", attempts.len());
        ensure!(attempts.len() == 1 || !name.starts_with("before"), "{name} ran and was tried again: {said}");
        ensure!(attempts.len() == 1 || said.contains("nfrastructure"), "{name} was tried again: {said}");
    }
    eprintln!("    18 workloads, {tried} attempts; {cut_off} were cut off as they were made");
    Ok(tried)
}

/// Some need a GPU, some two nodes.
fn workload(name: &str, n: u32) -> Value {
    gang(&format!("{name}{n}"), [(1, 1), (2, 2), (2, 8)][(n % 3) as usize])
}

struct Cluster {
    plane: ControlPlane,
    runtime: Runtime,
}

impl Cluster {
    /// Every job's name and uid.
    fn jobs(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let jobs = Api::<Job>::all(self.plane.client());
        let jobs = self.runtime.block_on(jobs.list(&ListParams::default()))?.items;
        Ok(jobs.into_iter().filter_map(|job| Some((job.metadata.name?, job.metadata.uid?))).collect())
    }

    /// How many changes agents made or tried so far.
    fn changes(&self) -> anyhow::Result<usize> {
        Ok(self.plane.audited()?.into_iter().filter(|entry| entry.user == AGENTS).count())
    }

    fn last_changes(&self) -> Vec<String> {
        let all = self.plane.audited().unwrap_or_default().into_iter();
        let all: Vec<String> = all.filter(|entry| entry.user == AGENTS).map(|entry| format!("{entry:?}")).collect();
        all[all.len().saturating_sub(8)..].to_vec()
    }

    /// Waits until the agents change nothing any more for a while.
    fn until_quiet(&self) -> anyhow::Result<usize> {
        let (mut last, mut since) = (self.changes()?, Instant::now());
        wait_for("agents that have nothing to change", PATIENCE, || {
            let now = self.changes()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            Ok((since.elapsed() > Duration::from_secs(4)).then_some(last))
        })
    }

    /// Nothing is left of any attempt, and nothing was made twice.
    fn ran_once(&self, tried: usize) -> anyhow::Result<()> {
        nothing_left(&self.runtime, &self.plane)?;
        let done = |verb: &str, resource: &str| -> anyhow::Result<Vec<String>> {
            let by_agents = made(&self.plane, verb, resource)?.into_iter().filter(|entry| entry.user == AGENTS);
            Ok(by_agents.map(|entry| entry.name).collect())
        };
        for resource in ["jobs", "services", "configmaps"] {
            let made = done("create", resource)?;
            let names: BTreeSet<&String> = made.iter().collect();
            ensure!(names.len() == made.len(), "some {resource} were made twice: {made:?}");
        }
        // A create whose client was killed meanwhile may be carried out and not stand in the log as such.
        let jobs: BTreeSet<String> = done("create", "jobs")?.into_iter().chain(done("delete", "jobs")?).collect();
        ensure!((18..=tried).contains(&jobs.len()), "there were {} jobs of {tried} attempts", jobs.len());
        Ok(())
    }
}
