//! A federation of separate processes, as an operator starts it: three coordinators and two clusters' agents, each of which
//! can be killed and started again on its own folder and ports.

use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};
use serde_json::Value;

use super::api::Api;
use super::program::Program;
use super::world::{PATIENCE, World, wait_for};

/// The clusters of the test fleet.
pub const CLUSTERS: [&str; 2] = ["north", "south"];

const FLEET: &str = r#"
[[cluster]]
name = "north"
region = "eu"
nodes = [{ name = "n", count = 2, cpu = 8, memory = "16Gi" }]

[[cluster]]
name = "south"
region = "us"
nodes = [{ name = "s", count = 2, cpu = 8, memory = "16Gi" }]
"#;

/// A port for TCP and UDP that nothing listens on, below those that the system gives out by itself: so it is free again
/// when what listened there was killed and starts anew.
pub fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(131);
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (10_000 + start.wrapping_add(step) % 9_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free")
}

/// One coordinator's places.
struct Seat {
    quic: u16,
    http: u16,
    running: Option<Program>,
}

/// A federation of processes.
pub struct Federation<'w> {
    world: &'w World,
    fleet: String,
    seats: Vec<Seat>,
    agents: Vec<(&'static str, Option<Program>)>,
    /// The way to its coordinators.
    pub api: Api,
    /// Where the agent of the first cluster lets nodes in.
    pub listen_nodes: Option<u16>,
    /// Whether agents that are started from now on end their attempts as they end.
    pub end_attempts: bool,
    /// The clusters' kubeconfigs, where they are Kubernetes clusters.
    pub kubeconfigs: Vec<PathBuf>,
    /// Where the agent of a cluster finds the first coordinator on loopback, where that is not where it listens.
    pub relays: BTreeMap<usize, u16>,
    /// What agents are started with beyond that.
    pub agent_arguments: Vec<String>,
    /// What coordinators are started with beyond that.
    pub coordinator_arguments: Vec<String>,
}

/// Makes an identity of the authority in the test's folder `ca`; returns its folder.
pub fn identity<const N: usize>(world: &World, ca: &str, whose: [&str; N]) -> anyhow::Result<String> {
    let ca = world.path(ca).display().to_string();
    let made = world.run(&[&["identity", "--ca", &ca], &whose[..]].concat())?.with_code(0)?;
    Ok(made.out.trim().to_owned())
}

impl<'w> Federation<'w> {
    /// Coordinators alone, each of which is still to be started.
    pub fn prepare(world: &'w World, replicas: usize) -> anyhow::Result<Self> {
        Self::prepare_of(world, replicas, &CLUSTERS, FLEET)
    }

    /// The same, with these clusters of a fleet.
    pub fn prepare_of(
        world: &'w World,
        replicas: usize,
        clusters: &[&'static str],
        fleet: &str,
    ) -> anyhow::Result<Self> {
        let mut seats = Vec::new();
        for _ in 0..replicas {
            seats.push(Seat { quic: free_port()?, http: free_port()?, running: None });
        }
        let api = Api::new(seats.iter().map(|s| format!("http://127.0.0.1:{}", s.http)).collect())?;
        let agents = clusters.iter().map(|name| (*name, None)).collect();
        let fleet = world.write("fleet.toml", fleet)?;
        Ok(Self {
            world,
            fleet,
            seats,
            agents,
            api,
            listen_nodes: None,
            end_attempts: false,
            kubeconfigs: vec![],
            relays: BTreeMap::new(),
            agent_arguments: vec![],
            coordinator_arguments: vec![],
        })
    }

    /// Three coordinators and both agents, ready for workloads.
    pub fn start(world: &'w World) -> anyhow::Result<Self> {
        Self::start_on(world, FLEET)
    }

    /// The same, with clusters of these names that have other nodes.
    pub fn start_on(world: &'w World, fleet: &str) -> anyhow::Result<Self> {
        let mut federation = Self::prepare_of(world, 3, &CLUSTERS, fleet)?;
        (1..=3).try_for_each(|id| federation.start_coordinator(id))?;
        (0..CLUSTERS.len()).try_for_each(|place| federation.start_agent(place))?;
        CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;
        Ok(federation)
    }

    /// Another way to the coordinators, for another thread.
    pub fn another_api(&self) -> anyhow::Result<Api> {
        Api::new(self.seats.iter().map(|s| format!("http://127.0.0.1:{}", s.http)).collect())
    }

    /// Starts a replica with its own identity, and waits until it says that it runs.
    pub fn start_coordinator(&mut self, id: usize) -> anyhow::Result<()> {
        self.begin_coordinator(id)?;
        self.seats[id - 1].running.as_mut().context("just started")?.line("ready: ").map(drop)
    }

    /// Starts a replica with its own identity.
    pub fn begin_coordinator(&mut self, id: usize) -> anyhow::Result<()> {
        let identity = identity(self.world, "ca", ["--replica", &id.to_string()])?;
        self.begin_coordinator_as(id, &identity)
    }

    /// Starts a replica with this identity.
    pub fn begin_coordinator_as(&mut self, id: usize, identity: &str) -> anyhow::Result<()> {
        let seat = &self.seats[id - 1];
        let mut arguments: Vec<String> = ["coordinator", "--id"].map(str::to_owned).into();
        arguments.push(id.to_string());
        arguments.extend(["--data-dir".to_owned(), self.data_dir(id).display().to_string()]);
        arguments.extend(["--identity".to_owned(), identity.to_owned()]);
        arguments.extend(["--listen".to_owned(), format!("127.0.0.1:{}", seat.quic)]);
        arguments.extend(["--http".to_owned(), format!("127.0.0.1:{}", seat.http)]);
        for (place, peer) in self.seats.iter().enumerate().filter(|(place, _)| place + 1 != id) {
            arguments.extend(["--peer".to_owned(), format!("{}=127.0.0.1:{}", place + 1, peer.quic)]);
        }
        arguments.extend(self.coordinator_arguments.iter().cloned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let running = self.world.start(&format!("coordinator-{id}"), &arguments)?;
        self.seats[id - 1].running = Some(running);
        Ok(())
    }

    /// Where a replica keeps its log.
    pub fn data_dir(&self, id: usize) -> std::path::PathBuf {
        self.world.path(&format!("coordinator-{id}"))
    }

    /// Where an agent keeps its journal and attempts.
    pub fn agent_dir(&self, place: usize) -> std::path::PathBuf {
        self.world.path(&format!("agent-{}", self.agents[place].0))
    }

    /// Starts an agent with its own identity.
    pub fn start_agent(&mut self, place: usize) -> anyhow::Result<()> {
        let identity = identity(self.world, "ca", ["--cluster", self.agents[place].0])?;
        self.start_agent_as(place, &identity)
    }

    /// Starts an agent with this identity.
    pub fn start_agent_as(&mut self, place: usize, identity: &str) -> anyhow::Result<()> {
        let dir = self.agent_dir(place);
        self.agents[place].1 = Some(self.agent_on(place, identity, &dir)?);
        Ok(())
    }

    /// Starts a second agent of a cluster, with its certificate, on a folder of its own.
    pub fn twin_of_agent(&self, place: usize) -> anyhow::Result<Program> {
        let identity = identity(self.world, "ca", ["--cluster", self.agents[place].0])?;
        let mut twin = self.agent_on(place, &identity, &self.world.path("twin"))?;
        twin.line("ready: ")?;
        Ok(twin)
    }

    /// Starts one more agent of a cluster, which need not be ready: it may have to wait for another to end.
    pub fn replica_of_agent(&self, place: usize, name: &str) -> anyhow::Result<Program> {
        let identity = identity(self.world, "ca", ["--cluster", self.agents[place].0])?;
        self.agent_on(place, &identity, &self.world.path(name))
    }

    fn agent_on(&self, place: usize, identity: &str, dir: &std::path::Path) -> anyhow::Result<Program> {
        let (name, _) = self.agents[place];
        let mut arguments: Vec<String> = ["agent", "--cluster", name, "--fleet", &self.fleet].map(str::to_owned).into();
        arguments.extend(["--data-dir".to_owned(), dir.display().to_string()]);
        arguments.extend(["--identity".to_owned(), identity.to_owned()]);
        for (seat, Seat { quic, .. }) in self.seats.iter().enumerate() {
            let port = self.relays.get(&place).filter(|_| seat == 0).unwrap_or(quic);
            arguments.extend(["--coordinator".to_owned(), format!("{}=127.0.0.1:{port}", seat + 1)]);
        }
        if let Some(port) = self.listen_nodes.filter(|_| place == 0) {
            arguments.extend(["--listen-nodes".to_owned(), format!("127.0.0.1:{port}")]);
        }
        if let Some(file) = self.kubeconfigs.get(place) {
            arguments.extend(["--kubernetes", "--kubeconfig"].map(str::to_owned));
            arguments.push(file.display().to_string());
        }
        arguments.extend(self.agent_arguments.iter().cloned());
        arguments.extend(self.end_attempts.then(|| "--end-attempts".to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.world.start(&format!("agent-{name}"), &arguments)
    }

    /// Where a replica listens for agents and other replicas, on loopback.
    pub fn quic_port(&self, id: usize) -> u16 {
        self.seats[id - 1].quic
    }

    /// A replica's process.
    pub fn coordinator(&mut self, id: usize) -> anyhow::Result<&mut Program> {
        self.seats[id - 1].running.as_mut().with_context(|| format!("coordinator {id} does not run"))
    }

    /// An agent's process.
    pub fn agent(&mut self, place: usize) -> anyhow::Result<&mut Program> {
        let (name, running) = &mut self.agents[place];
        running.as_mut().with_context(|| format!("agent {name} does not run"))
    }

    /// Kills a replica as a power cut would.
    pub fn kill_coordinator(&mut self, id: usize) {
        self.seats[id - 1].running = None;
    }

    /// Kills an agent as a power cut would.
    pub fn kill_agent(&mut self, place: usize) {
        self.agents[place].1 = None;
    }

    /// Which processes are coordinators and agents.
    pub fn pids(&self) -> Vec<i32> {
        let seats = self.seats.iter().filter_map(|seat| seat.running.as_ref());
        seats.chain(self.agents.iter().filter_map(|(_, agent)| agent.as_ref())).map(Program::pid).collect()
    }

    /// Waits until a cluster is in this phase.
    pub fn until_cluster(&self, name: &str, phase: &str) -> anyhow::Result<()> {
        let mut last = String::new();
        wait_for(&format!("cluster {name} as {phase}"), PATIENCE, || {
            last = self.api.cluster_phase(name)?;
            Ok((last == phase).then_some(()))
        })
        .with_context(|| format!("it is {last:?}"))
    }

    /// Until so many GPUs are free in all clusters together: a cluster is ready before its first capacity has come.
    pub fn until_free(&self, gpus: u64) -> anyhow::Result<()> {
        let mut last = Value::Null;
        wait_for(&format!("{gpus} GPUs as free"), PATIENCE, || {
            last = self.api.get("/capacity")?;
            let rows = last["rows"].as_array().cloned().unwrap_or_default();
            let free: u64 = rows.iter().filter_map(|row| row["gpus"]["free"].as_u64()).sum();
            Ok((free == gpus).then_some(()))
        })
        .with_context(|| format!("{last:#}"))
    }

    /// Asks every process to end; all must end with 0.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let agents = self.agents.iter_mut().filter_map(|(_, agent)| agent.take());
        let seats = self.seats.iter_mut().filter_map(|seat| seat.running.take());
        agents.chain(seats).try_for_each(|mut running| running.terminate().map(drop))
    }
}
