//! Node roles as processes of their own, over a stand-in for the NVIDIA driver's library: what they measure is seen at the
//! coordinators, while they are silent it is stale, and nobody speaks for a node but itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::api::batch;
use super::federation::{CLUSTERS, Federation, free_port, identity};
use super::program::{Program, Ran};
use super::world::{MARK, PATIENCE, World, wait_for};
use crate::Done;

/// One machine with GPUs.
struct Machine<'w> {
    world: &'w World,
    name: &'static str,
    state: PathBuf,
    agent: String,
}

impl<'w> Machine<'w> {
    /// A machine of this name with two GPUs, whose agent listens at this port.
    fn new(world: &'w World, name: &'static str, port: u16) -> anyhow::Result<Self> {
        let machine =
            Self { world, name, state: world.path(&format!("{name}.json")), agent: format!("127.0.0.1:{port}") };
        machine.gpus(&[json!({}), json!({})])?;
        Ok(machine)
    }

    /// What its driver says of its GPUs from now on.
    fn gpus(&self, gpus: &[Value]) -> anyhow::Result<()> {
        self.gpus_after(gpus, &[])
    }

    /// The same, after these XIDs: each is a GPU and a number.
    fn gpus_after(&self, gpus: &[Value], xids: &[(usize, u64)]) -> anyhow::Result<()> {
        let named = gpus.iter().enumerate().map(|(at, gpu)| {
            let mut gpu = gpu.clone();
            gpu["uuid"] = format!("GPU-{at}-of-{}", self.name).into();
            gpu
        });
        let part = self.state.with_extension("part");
        let xids: Vec<Value> = xids.iter().map(|(device, xid)| json!({"device": device, "xid": xid})).collect();
        std::fs::write(&part, json!({"devices": named.collect::<Vec<_>>(), "xids": xids}).to_string())?;
        Ok(std::fs::rename(part, &self.state)?)
    }

    fn own_identity(&self) -> anyhow::Result<String> {
        identity(self.world, "ca", ["--cluster", CLUSTERS[0], "--node", self.name])
    }

    /// Starts its node role.
    fn start(&self) -> anyhow::Result<Program> {
        self.start_as(&self.own_identity()?)
    }

    fn start_as(&self, identity: &str) -> anyhow::Result<Program> {
        let library = tests::fake_nvml::library().context("libfake_nvml.so was not built with these tests")?;
        let library = library.display().to_string();
        let given = ["node", "--agent", &self.agent, "--identity", identity, "--nvml-lib", &library];
        let mut command = self.world.command(&given);
        command.env("FAKE_NVML_STATE", &self.state);
        Program::start(self.name, command, &self.world.path(""))
    }
}

/// One coordinator and one agent that lets nodes in.
fn federation(world: &World) -> anyhow::Result<(Federation<'_>, u16)> {
    let mut federation = Federation::prepare(world, 1)?;
    let port = free_port()?;
    federation.listen_nodes = Some(port);
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    Ok((federation, port))
}

/// What the coordinators know of a node; null where it is nothing.
fn seen(federation: &Federation<'_>, name: &str) -> anyhow::Result<Value> {
    let list = federation.api.get(&format!("/apis/tidewater.dev/v1/clusters/{}/nodes", CLUSTERS[0]))?;
    let nodes = list["items"].as_array().cloned().unwrap_or_default();
    Ok(nodes.into_iter().find(|node| node["name"] == name).unwrap_or_default())
}

/// Waits until the coordinators see a node so; returns how long that took.
fn until(federation: &Federation<'_>, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> anyhow::Result<Duration> {
    let (began, mut last) = (Instant::now(), Value::Null);
    wait_for(&format!("{name} {what}"), Duration::from_secs(60), || {
        last = seen(federation, name)?;
        Ok(so(&last).then(|| began.elapsed()))
    })
    .with_context(|| last.to_string())
}

fn ready(node: &Value) -> bool {
    node["source"] == "measured" && node["state"] == "ready"
}

fn stale(node: &Value) -> bool {
    node["state"] == "stale"
}

fn states(node: &Value) -> Vec<&str> {
    node["devices"].as_array().into_iter().flatten().filter_map(|device| device["state"].as_str()).collect()
}

fn command(world: &World, federation: &Federation<'_>, arguments: &[&str]) -> anyhow::Result<Ran> {
    world.run(&[&["--server", &federation.api.places()[0]], arguments].concat())?.with_code(0)
}

/// Two nodes stream: one that the fleet file declares too, one that it does not. One is killed and is back, its GPU is lost
/// and found, its agent is killed and is back.
pub fn stream(world: &World) -> anyhow::Result<Done> {
    let (mut federation, port) = federation(world)?;
    let declared = Machine::new(world, "n-1", port)?;
    let other = Machine::new(world, "gpu-7", port)?;
    let (mut first, mut second) = (declared.start()?, other.start()?);
    first.line("streams to the agent at ")?;
    until(&federation, "n-1", "measured", ready)?;
    until(&federation, "gpu-7", "measured", ready)?;
    let node = seen(&federation, "n-1")?;
    ensure!(states(&node) == ["free", "free"] && node["sku"] == "H100", "{node}");
    ensure!(node["total"]["cpuMilli"] == 8_000, "a declared node keeps its cpu: {node}");
    command(world, &federation, &["clusters", CLUSTERS[0]])?.prints("measured")?;
    command(world, &federation, &["get", "nodes", CLUSTERS[0]])?.prints("gpu-7")?;
    let capacity = command(world, &federation, &["capacity"])?;
    capacity.prints("H100")?;
    capacity.prints("measured")?;

    // Only what changed travels from here on: a GPU that somebody uses, one that falls off the bus and is found again.
    declared.gpus(&[json!({"sm_activity": 59.0, "memory_used": 8u64 << 30}), json!({"lost": true})])?;
    until(&federation, "n-1", "with a ghost and a lost GPU", |node| states(node) == ["ghost", "sick"])?;
    let node = seen(&federation, "n-1")?;
    ensure!(node["devices"][0]["activityPercent"] == 59, "{node}");
    ensure!(node["devices"][1]["activityPercent"].is_null(), "a lost GPU's activity is unknown: {node}");
    declared.gpus(&[json!({}), json!({})])?;
    until(&federation, "n-1", "whole again", |node| states(node) == ["free", "free"])?;

    second.kill();
    let silent = until(&federation, "gpu-7", "stale", stale)?;
    ensure!(silent >= Duration::from_secs(2), "stale after {silent:?} already: each pause would make it so");
    ensure!(ready(&seen(&federation, "n-1")?), "the other node is not worse off");
    let mut second = other.start()?;
    let back = until(&federation, "gpu-7", "back", ready)?;

    // It stands still, and goes on: over the same connection or the next.
    second.signal(Signal::STOP);
    until(&federation, "gpu-7", "stale", stale)?;
    second.signal(Signal::CONT);
    until(&federation, "gpu-7", "back", ready)?;

    federation.kill_agent(0);
    first.says("trying again", Duration::from_secs(30))?;
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    let again = until(&federation, "n-1", "measured by the agent's next life", ready)?;
    until(&federation, "gpu-7", "measured by the agent's next life", ready)?;
    eprintln!(
        "    stale {:.1} s after its end, back after {:.1} s; {:.1} s after its agent was",
        silent.as_secs_f64(),
        back.as_secs_f64(),
        again.as_secs_f64()
    );
    first.terminate()?;
    second.terminate()?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A GPU fails under an attempt, and then its program does: that is the cluster's failure, names the GPU, and costs none of its retries. The same
/// program's failure on a sound GPU is its own.
pub fn fault(world: &World) -> anyhow::Result<Done> {
    let (mut federation, port) = federation(world)?;
    let machine = Machine::new(world, "n-1", port)?;
    let mut node = machine.start()?;
    until(&federation, "n-1", "measured", ready)?;
    let go = world.path("go");
    let env = [("GO", go.display().to_string()), (MARK, world.mark().to_owned())];
    let workload = |name| {
        let mut workload = batch(name, &["sh", "-c", "until [ -e $GO ]; do sleep 0.1; done; exit 3"], 1, &env);
        workload["spec"]["batch"]["groups"][0]["gpus"] = json!(1);
        workload["spec"]["retries"] = json!({"limit": 0});
        workload
    };
    federation.api.submit(&workload("hit"))?;
    federation.api.until("hit", &["Running"], PATIENCE)?;
    until(&federation, "n-1", "with a GPU that is held", |node| states(node) == ["held", "free"])?;
    machine.gpus_after(&[json!({}), json!({})], &[(0, 79)])?;
    until(&federation, "n-1", "with a GPU that is sick", |node| states(node) == ["sick", "free"])?;
    std::fs::write(&go, "")?;
    let ended = federation.api.until("hit", &["Failed"], 3 * PATIENCE)?;
    let attempts = ended["status"]["attempts"].as_array().cloned().unwrap_or_default();
    ensure!(attempts.len() == 2, "{ended:#}");
    let (first, second) = (attempts[0].to_string(), attempts[1].to_string());
    let named = "while it ran these failed: GPU 0 of node n-1 (XID 79: GPU has fallen off the bus)";
    ensure!(first.contains(named) && first.contains("nfrastructure"), "{first}");
    ensure!(!second.contains("XID") && !second.contains("nfrastructure"), "{second}");
    command(world, &federation, &["why", "hit"])?.prints("attempt 2 in north failed (user, exit code 3)")?;

    // An XID that is a program's own doing is named, and leaves the failure the program's.
    std::fs::remove_file(&go)?;
    federation.api.submit(&workload("own"))?;
    federation.api.until("own", &["Running"], PATIENCE)?;
    machine.gpus_after(&[json!({}), json!({})], &[(0, 79), (1, 31)])?;
    // It is read within a second; nothing that the coordinator shows tells of it before the failure does.
    std::thread::sleep(Duration::from_secs(5));
    std::fs::write(&go, "")?;
    let ended = federation.api.until("own", &["Failed"], PATIENCE)?;
    let attempts = ended["status"]["attempts"].as_array().cloned().unwrap_or_default();
    let named = "failed (user, exit code 3): while it ran the driver told of: GPU 1 of node n-1 (XID 31: GPU memory page fault); ";
    ensure!(attempts.len() == 1 && attempts[0]["state"].as_str().is_some_and(|s| s.starts_with(named)), "{ended:#}");
    node.terminate()?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// Nodes with a certificate that does not make them a node of this cluster, and command lines that can't work.
pub fn refused(world: &World) -> anyhow::Result<Done> {
    let (mut federation, port) = federation(world)?;
    let machine = Machine::new(world, "gpu-7", port)?;
    let own = machine.own_identity()?;
    let foreign = identity(world, "another-ca", ["--cluster", CLUSTERS[0], "--node", "gpu-7"])?;
    let wrong = machine.start_as(&foreign)?;
    wrong.says("certificate", PATIENCE)?;
    wrong.says("tidewater identity --ca", PATIENCE)?;
    drop(wrong);
    // A node of the other cluster does not take this agent for its own.
    let elsewhere = identity(world, "ca", ["--cluster", CLUSTERS[1], "--node", "gpu-7"])?;
    let wrong = machine.start_as(&elsewhere)?;
    wrong.says(&format!("it must be the agent of cluster {}", CLUSTERS[1]), PATIENCE)?;
    drop(wrong);
    // A token says nothing to an agent that has no API server to ask.
    let (token, ca) = (world.write("token", "a.b.c")?, format!("{own}/ca.pem"));
    let who = ["--cluster", CLUSTERS[0], "--node-name", "gpu-7", "--ca", &ca, "--token", &token];
    let wrong = world.start("by-token", &[&["node", "--agent", &machine.agent][..], &who].concat())?;
    wrong.says("it must follow a Kubernetes cluster", PATIENCE)?;
    drop(wrong);
    ensure!(seen(&federation, "gpu-7")?.is_null(), "one of them was let in");

    let agent = identity(world, "ca", ["--cluster", CLUSTERS[0]])?;
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--agent", &machine.agent, "--identity", &agent], &["which is no node", "--node NODE"]),
        (&["--agent", &machine.agent, "--identity", "/nowhere"], &["/nowhere", "tidewater identity"]),
        (&["--agent", &machine.agent, "--identity", &own, "--node-name", "gpu-8"], &["gpu-8", "for node gpu-7"]),
        (&["--agent", "127.0.0.1", "--identity", &own], &["--agent 127.0.0.1", "HOST:PORT"]),
        (&["--agent", ":7700", "--identity", &own], &["--agent :7700", "HOST:PORT"]),
        (&["--interval", "1ms"], &["--interval", "at least 100ms"]),
    ];
    for (arguments, words) in cases {
        let ran = world.run(&[&["node"], arguments].concat())?.with_code(1)?;
        ensure!(ran.err.lines().count() == 1, "not one line: {}", ran.err);
        words.iter().try_for_each(|word| ran.says(word))?;
    }
    world.run(&["node", "--agent", &machine.agent])?.with_code(2)?.says("--identity")?;
    world.run(&["node", "--agent", &machine.agent, "--token", &token])?.with_code(2)?.says("--ca")?;
    world.run(&["node", "--agent", &machine.agent, "--identity", &own, "--once"])?.with_code(2)?.says("--once")?;

    // A name that nobody answers to is tried again, and said once.
    let nowhere = Machine { agent: format!("127.0.0.1:{}", free_port()?), ..Machine::new(world, "gpu-7", port)? };
    let mut lost = nowhere.start()?;
    lost.says("trying again", Duration::from_secs(30))?;
    lost.terminate()?;
    let mut right = machine.start()?;
    until(&federation, "gpu-7", "measured", ready)?;
    right.terminate()?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// Two processes with one node's certificate: the newer one speaks, the older one is told and leaves it at that.
pub fn twins(world: &World) -> anyhow::Result<Done> {
    let (mut federation, port) = federation(world)?;
    let machine = Machine::new(world, "gpu-7", port)?;
    let mut older = machine.start()?;
    until(&federation, "gpu-7", "measured", ready)?;
    let twin = Machine { state: world.path("twin.json"), ..Machine::new(world, "gpu-7", port)? };
    twin.gpus(&[json!({}), json!({}), json!({})])?;
    let mut newer = twin.start()?;
    until(&federation, "gpu-7", "as the newer one sees it", |node| states(node).len() == 3)?;
    older.says("a newer connection speaks for node gpu-7", PATIENCE)?;
    federation.agent(0)?.says("a newer connection speaks for node gpu-7", PATIENCE)?;
    std::thread::sleep(Duration::from_secs(5));
    let node = seen(&federation, "gpu-7")?;
    ensure!(ready(&node) && states(&node).len() == 3, "the older one came back: {node}");
    if newer.err().contains("newer") {
        bail!("both were sent away: {}", newer.err());
    }
    older.terminate()?;
    newer.terminate()?;
    federation.stop()?;
    Ok(Done::Holds)
}
