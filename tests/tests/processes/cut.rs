//! The link between a Kubernetes cluster's agent and the coordinators is cut, while the agent, its API server and its nodes live on. kwok plays
//! the nodes; where a kubelet would start a pod's guard, this test starts the very program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{Api, ListParams};
use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::{ControlPlane, Settings};
use tokio::runtime::Runtime;

use super::api::{clusters_of, phase};
use super::federation::{CLUSTERS, Federation};
use super::planes::{gang, made, nothing_left, programs, runtime, with_h100_nodes};
use super::program::{Program, pod_guard};
use super::relay::Relay;
use super::world::{PATIENCE, World, wait_for};
use super::{api, fenced};
use crate::Done;

/// What the program of a member does: nothing, until somebody ends it.
const PROGRAM: [&str; 3] = ["sh", "-c", "while :; do sleep 0.2; done"];
/// Between two looks at what pods there are.
const TEND: Duration = Duration::from_millis(300);

/// One that may go on elsewhere ends itself and does, one that is to wait waits, and each is there once at any time. Before that all
/// coordinators are away for less than `failoverAfter`, and nothing ends.
pub fn of_a_living_agent(world: &World) -> anyhow::Result<Done> {
    let [north, south] = CLUSTERS;
    let (binaries, runtime) = (programs(&Settings::with_fake_nodes("").tools())?, runtime()?);
    let start =
        |name: &str| runtime.block_on(with_h100_nodes(&binaries, Settings::with_fake_nodes(world.path(name)), 2));
    let planes = [start("plane-north")?, start("plane-south")?];
    let mut federation = Federation::prepare(world, 1)?;
    federation.kubeconfigs = planes.iter().map(ControlPlane::kubeconfig).collect();
    let relay = Relay::to(federation.quic_port(1))?;
    federation.relays.insert(0, relay.port());
    federation.start_coordinator(1)?;
    for (place, plane) in planes.iter().enumerate() {
        let usual = ["--pod-annotation", "testbed.tidewater.dev/runs-for=1h"].map(str::to_owned);
        federation.agent_arguments = [usual.to_vec(), fenced::arguments(plane)?].concat();
        federation.start_agent(place)?;
    }
    CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;
    federation.until_free(2 * 2 * 8)?;
    let mut guards = Guards::new(world, &runtime, &planes)?;

    let moves = workload(
        "moves",
        json!({"onClusterLoss": "failover", "failoverAfter": "1m", "placement": {"regions": {"prefer": ["eu"]}}}),
    );
    let waits = workload("waits", json!({"placement": {"regions": {"require": ["eu"]}}}));
    [&moves, &waits].into_iter().try_for_each(|workload| federation.api.submit(workload))?;
    for name in ["moves", "waits"] {
        let runs = guards.until(&federation, name, |w| phase(w) == "Running")?;
        ensure!(clusters_of(&runs) == [north], "{name}: {}", runs["status"]);
    }
    ensure!(guards.running() == 2, "{} guards", guards.running());

    // Nobody lets anything go on for a while, which is shorter than a minute.
    federation.kill_coordinator(1);
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(12) {
        guards.tend()?;
        std::thread::sleep(TEND);
    }
    federation.start_coordinator(1)?;
    federation.until_cluster(north, "Ready")?;
    for name in ["moves", "waits"] {
        let runs = guards.until(&federation, name, |w| phase(w) == "Running")?;
        ensure!(clusters_of(&runs) == [north], "{name}: {}", runs["status"]);
    }
    ensure!(guards.running() == 2 && guards.ended.is_empty(), "something has ended: {:?}", guards.ended);

    relay.cut(true);
    let began = Instant::now();
    guards.until(&federation, "moves", |w| phase(w) == "Unknown")?;
    let moved = guards.until(&federation, "moves", |w| phase(w) == "Running" && clusters_of(w) == [north, south])?;
    let after = began.elapsed();
    ensure!(after >= Duration::from_secs(70), "it was started elsewhere after {:.1} s", after.as_secs_f64());
    let fences: Vec<&Ended> = guards.ended.iter().filter(|ended| ended.status.code() == Some(fenced::FENCED)).collect();
    ensure!(fences.len() == 2 && guards.ended.len() == 2, "ended: {:?}", guards.ended);
    let last = fences.iter().map(|ended| ended.at).max().context("two have ended")?;
    let elsewhere = made(&planes[1], "create", "jobs")?.pop().context("its Job elsewhere")?;
    let begun = guards.begun_last.context("its guards elsewhere")?;
    ensure!(last < begun, "a member began elsewhere before the last one here had ended");
    eprintln!(
        "    {} was made {:.1} s after the link was cut; its members had ended {:.1} s before others began",
        elsewhere.name,
        after.as_secs_f64(),
        begun.duration_since(last).unwrap_or_default().as_secs_f64()
    );
    let unknown = federation.api.workload("waits")?;
    ensure!(phase(&unknown) == "Unknown" && clusters_of(&unknown) == [north], "{}", unknown["status"]);

    // The old cluster is back: what is left there of the one goes, the other was never gone.
    relay.cut(false);
    federation.until_cluster(north, "Ready")?;
    guards.until(&federation, "waits", |w| phase(w) == "Running" && clusters_of(w) == [north])?;
    wait_for("the end of what is left", PATIENCE, || {
        guards.tend()?;
        Ok((guards.pods_of("moves", 0)? == 0).then_some(()))
    })?;
    let still = federation.api.workload("moves")?;
    ensure!(phase(&still) == "Running" && still["status"]["attempts"] == moved["status"]["attempts"], "{still:#}");
    for name in ["moves", "waits"] {
        federation.api.cancel(name)?;
        guards.until(&federation, name, |w| phase(w) == "Cancelled")?;
    }
    let jobs: Vec<usize> =
        planes.iter().map(|plane| made(plane, "create", "jobs").map(|jobs| jobs.len())).collect::<Result<_, _>>()?;
    ensure!(jobs == [2, 1], "Jobs made in each cluster: {jobs:?}");
    planes.iter().try_for_each(|plane| nothing_left(&runtime, plane))?;
    drop(guards);
    federation.stop()?;
    planes.into_iter().for_each(ControlPlane::stop);
    Ok(Done::Holds)
}

/// Two members with a GPU each, and what happens when their cluster is lost.
fn workload(name: &str, more: Value) -> Value {
    let mut workload = gang(name, (if name == "moves" { 2 } else { 1 }, 1));
    if let (Some(spec), Some(more)) = (workload["spec"].as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    workload
}

/// How a guard has ended by itself.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    at: SystemTime,
}

/// The guards of all pods of both clusters, as kubelets would start and end them. A pod without one runs as kwok plays it.
struct Guards<'a> {
    world: &'a World,
    runtime: &'a Runtime,
    planes: &'a [ControlPlane],
    program: PathBuf,
    /// By cluster and pod.
    running: BTreeMap<(usize, String), Program>,
    /// Pods whose guards have ended: each is started once.
    over: Vec<(usize, String)>,
    ended: Vec<Ended>,
    /// When the last one was started.
    begun_last: Option<SystemTime>,
}

impl<'a> Guards<'a> {
    fn new(world: &'a World, runtime: &'a Runtime, planes: &'a [ControlPlane]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(world.path("guards"))?;
        let (program, running) = (pod_guard()?, BTreeMap::new());
        Ok(Self { world, runtime, planes, program, running, over: vec![], ended: vec![], begun_last: None })
    }

    fn running(&self) -> usize {
        self.running.len()
    }

    /// Waits for a workload, and does meanwhile what kubelets do.
    fn until(&mut self, federation: &Federation<'_>, name: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        wait_for(&format!("{name} as awaited"), PATIENCE, || {
            self.tend()?;
            std::thread::sleep(TEND);
            last = federation.api.workload(name)?;
            ensure!(!api::is_terminal(&phase(&last)) || is(&last), "{last:#}");
            Ok(is(&last).then(|| last.clone()))
        })
        .with_context(|| format!("{name}: {}", last["status"]))
    }

    /// Starts the guards of new pods, ends those of pods that are gone, and sees which have ended by themselves.
    fn tend(&mut self) -> anyhow::Result<()> {
        let mut there = vec![];
        for (place, plane) in self.planes.iter().enumerate() {
            for pod in self.runtime.block_on(pods(plane))? {
                let Some(guarded) = guarded(&pod) else { continue };
                let key = (place, pod.metadata.name.clone().unwrap_or_default());
                let runs = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
                if runs && !self.running.contains_key(&key) && !self.over.contains(&key) {
                    let mut command = Command::new(&self.program);
                    command.args(["run", "--"]).args(PROGRAM);
                    let env = guarded.env.iter().flatten();
                    command.envs(env.filter_map(|variable| Some((&variable.name, variable.value.as_ref()?))));
                    self.running.insert(key.clone(), Program::start("guard", command, &self.world.path("guards"))?);
                    self.begun_last = Some(SystemTime::now());
                }
                there.push(key);
            }
        }
        let (over, ended, mut stays) = (&mut self.over, &mut self.ended, vec![]);
        self.running.retain(|key, guard| {
            if !there.contains(key) {
                // As a kubelet ends what is left of a pod.
                guard.signal(Signal::TERM);
                stays.extend(guard.until_ended(PATIENCE).err());
                return false;
            }
            let Ok(status) = guard.until_ended(Duration::ZERO) else { return true };
            ended.push(Ended { status, at: SystemTime::now() });
            over.push(key.clone());
            false
        });
        stays.pop().map_or(Ok(()), Err)
    }

    /// How many pods a workload has in a cluster.
    fn pods_of(&self, workload: &str, place: usize) -> anyhow::Result<usize> {
        let all = self.runtime.block_on(pods(&self.planes[place]))?;
        let of = |pod: &&Pod| {
            pod.metadata.labels.as_ref().is_some_and(|l| l.get("tidewater.dev/workload").is_some_and(|w| w == workload))
        };
        Ok(all.iter().filter(of).count())
    }
}

async fn pods(plane: &ControlPlane) -> anyhow::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(plane.client(), "default");
    Ok(pods.list(&ListParams::default().labels("tidewater.dev/attempt")).await?.items)
}

/// The container that a guard starts.
fn guarded(pod: &Pod) -> Option<&Container> {
    let containers = &pod.spec.as_ref()?.containers;
    containers
        .iter()
        .find(|c| c.command.as_ref().is_some_and(|words| words.first().is_some_and(|w| w == "/tidewater/guard")))
}
