//! The embedded federation: coordinators and agents of one process, over real sockets on loopback.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use coordinator::handle::{Consistency, Handle};
use coordinator::identity::ca::Ca;
use protocol::ids::{ClusterName, ReplicaId};
use protocol::quic::{Credentials, Identity};

use super::fleet::{Cluster, Fleet};
use super::place::{Lock, write_kubeconfig};

/// How many coordinator replicas.
const REPLICAS: u64 = 3;
/// How long the federation may take to get ready.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long attempts get to end by themselves, in ms.
const GRACE_MS: u64 = 5_000;

/// What an embedded federation needs.
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The first coordinator's HTTP port; 0 for any.
    pub port: u16,
    /// The clusters.
    pub fleet: Fleet,
    /// The NVML library, if not the system's.
    pub nvml_lib: Option<PathBuf>,
}

/// Where a replica lives, for its next start too.
struct Seat {
    quic: SocketAddr,
    http: SocketAddr,
    running: Option<coordinator::run::Running>,
}

/// A federation that runs.
pub struct Federation {
    data_dir: PathBuf,
    seats: BTreeMap<ReplicaId, Seat>,
    agents: Vec<agent::run::Running>,
    ca: Ca,
    _lock: Lock,
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Federation {
    /// Starts everything and waits until workloads can be placed on every cluster.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(&settings.data_dir)?;
        let lock = Lock::take(&data_dir)?;
        let ca = Ca::open(&data_dir.join("ca"))?;
        let mut seats = BTreeMap::new();
        let mut sockets = BTreeMap::new();
        for id in (1..=REPLICAS).map(ReplicaId) {
            let port = if id == ReplicaId(1) { settings.port } else { 0 };
            let http = TcpListener::bind(loopback(port))
                .with_context(|| format!("port {port} of 127.0.0.1 cannot be had: choose another with --port"))?;
            let quic = UdpSocket::bind(loopback(0)).context("a UDP port on 127.0.0.1")?;
            seats.insert(id, Seat { quic: quic.local_addr()?, http: http.local_addr()?, running: None });
            sockets.insert(id, (quic, http));
        }
        let mut federation = Self { data_dir, seats, agents: Vec::new(), ca, _lock: lock };
        let started = federation.start_all(sockets, settings.fleet, settings.nvml_lib).await;
        if let Err(error) = started {
            // What did start ends before the error is told.
            let _ = federation.stop().await;
            return Err(error);
        }
        write_kubeconfig(&federation.data_dir, &federation.url())?;
        Ok(federation)
    }

    async fn start_all(
        &mut self,
        sockets: BTreeMap<ReplicaId, (UdpSocket, TcpListener)>,
        fleet: Fleet,
        nvml_lib: Option<PathBuf>,
    ) -> anyhow::Result<()> {
        for (id, (quic, http)) in sockets {
            self.start_coordinator(id, quic, http).await?;
        }
        let mut gpus = tokio::task::spawn_blocking(move || super::gpus::find(nvml_lib)).await??;
        for cluster in &fleet.clusters {
            self.start_agent(cluster, gpus.take()).await?;
        }
        let names: Vec<ClusterName> = fleet.clusters.iter().map(|c| c.name.clone()).collect();
        let ready = async {
            while !self.is_ready(&names).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(START_WITHIN, ready).await.with_context(|| {
            format!("not ready within {} s; run with RUST_LOG=info to see why", START_WITHIN.as_secs())
        })
    }

    async fn start_coordinator(&mut self, id: ReplicaId, quic: UdpSocket, http: TcpListener) -> anyhow::Result<()> {
        let credentials = Credentials::load(&self.ca.issue(&Identity::Replica(id))?)?;
        let peers =
            self.seats.iter().filter(|(peer, _)| **peer != id).map(|(peer, seat)| (*peer, seat.quic.into())).collect();
        let data_dir = self.data_dir.join(format!("coordinator-{id}"));
        // Whoever tries things out can verify tokens on this machine.
        let workload_issuer = Some(self.url().parse()?);
        let config = coordinator::run::Config { id, data_dir, credentials, quic, peers, http, workload_issuer };
        let running = coordinator::run::start(config).await.with_context(|| format!("coordinator {id}"))?;
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.running = Some(running);
        }
        Ok(())
    }

    async fn start_agent(
        &mut self,
        cluster: &Cluster,
        gpus: Option<(agent::node::NodeConfig, agent::cluster::DeclaredNode)>,
    ) -> anyhow::Result<()> {
        let mut nodes = cluster.declared()?;
        let (node, own) = gpus.unzip();
        nodes.extend(own);
        let config = agent::run::Config {
            cluster: cluster.info()?,
            nodes,
            credentials: Credentials::load(&self.ca.issue(&Identity::Cluster(cluster.name.clone()))?)?,
            coordinators: self.seats.iter().map(|(id, seat)| (*id, seat.quic.into())).collect(),
            data_dir: self.data_dir.join(format!("agent-{}", cluster.name)),
            cache_dir: agent::runtime::process::default_cache_dir(),
            runtime_dir: agent::runtime::process::default_runtime_dir(),
            guard: guard()?,
            node,
            listen_nodes: None,
            kubernetes: None,
        };
        let running = agent::run::start(config).await.with_context(|| format!("agent of cluster {}", cluster.name))?;
        self.agents.push(running);
        Ok(())
    }

    /// Whether some replica leads and every cluster can be placed on.
    async fn is_ready(&self, clusters: &[ClusterName]) -> bool {
        let Some((_, leader)) = self.leader().await else { return false };
        let clusters = clusters.to_vec();
        leader
            .read(Consistency::Linearizable, move |view| {
                clusters.iter().all(|name| {
                    view.state.clusters.get(name).is_some_and(|c| c.lost_since.is_none())
                        && view.capacity.clusters.get(name).is_some_and(|c| c.fresh)
                })
            })
            .await
            .unwrap_or(false)
    }

    /// The replica that leads, and the way to it.
    pub async fn leader(&self) -> Option<(ReplicaId, Handle)> {
        for seat in self.seats.values() {
            let Some(running) = &seat.running else { continue };
            let leads = running.handle.read(Consistency::Stale, |view| view.status.leads()).await;
            if leads == Ok(true) {
                return Some((running.id, running.handle.clone()));
            }
        }
        None
    }

    /// Takes a replica out, to be stopped as a crash would: no word to the others, nothing written that was not acknowledged.
    pub fn take_coordinator(&mut self, id: ReplicaId) -> Option<coordinator::run::Running> {
        self.seats.get_mut(&id).and_then(|seat| seat.running.take())
    }

    /// Starts a killed replica again, on its own disk and addresses.
    pub async fn restart_coordinator(&mut self, id: ReplicaId) -> anyhow::Result<()> {
        let Some(seat) = self.seats.get(&id) else { bail!("there is no coordinator {id}") };
        let quic = UdpSocket::bind(seat.quic).with_context(|| format!("coordinator {id}'s UDP port"))?;
        let http = TcpListener::bind(seat.http).with_context(|| format!("coordinator {id}'s HTTP port"))?;
        self.start_coordinator(id, quic, http).await
    }

    /// The first coordinator's URL.
    pub fn url(&self) -> String {
        self.seats.values().next().map(|seat| format!("http://{}", seat.http)).unwrap_or_default()
    }

    /// Every coordinator's URL, with commas between them.
    pub fn urls(&self) -> String {
        self.seats.values().map(|seat| format!("http://{}", seat.http)).collect::<Vec<_>>().join(",")
    }

    /// Where the kubeconfig lies.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// The agents.
    pub fn agents(&self) -> &[agent::run::Running] {
        &self.agents
    }

    /// Tells a person where everything is.
    pub fn print_ready(&self) {
        let mut told: Vec<&str> = Vec::new();
        for (framework, why) in self.agents.iter().flat_map(|a| &a.missing) {
            if !told.contains(&why.as_str()) {
                tell!("{framework} workloads can't run here: {why}");
                told.push(why);
            }
        }
        say!("page: {}/", self.url());
        say!("kubeconfig: {}", self.kubeconfig().display());
        say!("ready: {}", self.url());
    }

    /// Ends every attempt, then everything else.
    pub async fn stop(self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let ends: Vec<_> =
            self.agents.into_iter().map(|agent| tokio::spawn(agent.stop_with_attempts(GRACE_MS))).collect();
        for end in ends {
            if let Err(error) = end.await? {
                outcome = Err(error.into());
            }
        }
        for running in self.seats.into_values().filter_map(|seat| seat.running) {
            running.stop().await;
        }
        outcome
    }
}

/// This program, as a guard.
pub fn guard() -> anyhow::Result<Vec<OsString>> {
    let program = std::env::current_exe().context("this program's own file cannot be found")?;
    Ok(vec![program.into_os_string(), "guard".into()])
}

/// The file of an identity's folder is there: for roles that are given one.
pub fn credentials(folder: &Path) -> anyhow::Result<Credentials> {
    Credentials::load(folder)
        .with_context(|| format!("--identity {}: make one with `tidewater identity --ca DIR …`", folder.display()))
}
