//! Ours, as real processes on loopback: one or three `tidewater coordinator`, and agents where they are asked for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The clusters that `tidewater dev` declares, and so `tidewater agent` without a fleet file.
pub const CLUSTERS: [&str; 3] = ["eu-west-1", "eu-west-2", "us-east-1"];

/// How long anything may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Addresses on loopback that nobody listened on a moment ago, for TCP and UDP.
pub fn free_ports(count: usize) -> Result<Vec<SocketAddr>> {
    let mut held = Vec::new();
    while held.len() < count {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = tcp.local_addr()?;
        if let Ok(udp) = UdpSocket::bind(address) {
            held.push((address, tcp, udp));
        }
    }
    Ok(held.into_iter().map(|(address, ..)| address).collect())
}

/// One coordinator replica.
pub struct Replica {
    /// Its id.
    pub id: usize,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    quic: SocketAddr,
    process: Option<Child>,
}

/// The replicas and their agents; all end with this value.
pub struct Federation {
    program: PathBuf,
    folder: PathBuf,
    /// The replicas.
    pub replicas: Vec<Replica>,
    agents: Vec<Child>,
    http: reqwest::Client,
}

impl Federation {
    /// Starts three replicas with their data below `folder`, and waits for a leader.
    pub async fn start(program: &Path, folder: &Path) -> Result<Self> {
        Self::start_replicas(program, folder, 3).await
    }

    /// Starts so many replicas.
    pub async fn start_replicas(program: &Path, folder: &Path, count: usize) -> Result<Self> {
        let ports = free_ports(2 * count)?;
        let seat = |i: usize| Replica { id: i + 1, http: ports[i], quic: ports[i + count], process: None };
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        let mut federation = Self {
            program: program.to_path_buf(),
            folder: folder.to_path_buf(),
            replicas: (0..count).map(seat).collect(),
            agents: Vec::new(),
            http,
        };
        for i in 0..count {
            federation.identity("--replica", &(i + 1).to_string())?;
            federation.start_replica(i)?;
        }
        federation.leader().await?;
        Ok(federation)
    }

    fn identity(&self, whose: &str, name: &str) -> Result<PathBuf> {
        let mut command = Command::new(&self.program);
        command.args(["identity", "--ca"]).arg(self.folder.join("ca")).args([whose, name]);
        let output = command.output()?;
        if !output.status.success() {
            bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
    }

    fn spawn(&self, name: &str, command: &mut Command) -> Result<Child> {
        let log = std::fs::File::options().append(true).create(true).open(self.folder.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().with_context(|| format!("cannot start {command:?}"))
    }

    /// The process ids of the replicas that run.
    pub fn processes(&self) -> Vec<u32> {
        self.replicas.iter().filter_map(|replica| replica.process.as_ref().map(Child::id)).collect()
    }

    /// Starts a replica, again where it was killed.
    pub fn start_replica(&mut self, i: usize) -> Result<()> {
        let id = (i + 1).to_string();
        let identity = self.identity("--replica", &id)?;
        let mut command = Command::new(&self.program);
        command.args(["coordinator", "--id", &id, "--identity"]).arg(identity);
        command.arg("--data-dir").arg(self.folder.join(format!("coordinator-{id}")));
        command.args(["--listen", &self.replicas[i].quic.to_string(), "--http", &self.replicas[i].http.to_string()]);
        for peer in self.replicas.iter().filter(|peer| peer.id != i + 1) {
            command.arg("--peer").arg(format!("{}={}", peer.id, peer.quic));
        }
        self.replicas[i].process = Some(self.spawn(&format!("coordinator-{id}"), &mut command)?);
        Ok(())
    }

    /// `kill -9`, and nothing more.
    pub fn kill_replica(&mut self, i: usize) -> Result<()> {
        if let Some(mut process) = self.replicas[i].process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Starts the agents of all clusters, and waits until workloads can be placed on each.
    pub async fn start_agents(&mut self) -> Result<()> {
        self.start_agents_of(CLUSTERS.len(), |_, command| {
            command.arg("--end-attempts");
        })
        .await
    }

    /// Starts the agents of the first clusters, each of which is a Kubernetes cluster with this kubeconfig. They leave their attempts.
    pub async fn start_kubernetes_agents(&mut self, kubeconfigs: &[PathBuf]) -> Result<()> {
        self.start_agents_of(kubeconfigs.len(), |cluster, command| {
            command.arg("--kubernetes").arg("--kubeconfig").arg(&kubeconfigs[cluster]);
        })
        .await
    }

    /// The process ids of the agents.
    pub fn agents(&self) -> Vec<u32> {
        self.agents.iter().map(Child::id).collect()
    }

    async fn start_agents_of(&mut self, count: usize, more: impl Fn(usize, &mut Command)) -> Result<()> {
        for (place, cluster) in CLUSTERS.into_iter().enumerate().take(count) {
            let identity = self.identity("--cluster", cluster)?;
            let mut command = Command::new(&self.program);
            command.args(["agent", "--cluster", cluster, "--identity"]).arg(identity);
            more(place, &mut command);
            command.arg("--data-dir").arg(self.folder.join(format!("agent-{cluster}")));
            for replica in &self.replicas {
                command.arg("--coordinator").arg(format!("{}={}", replica.id, replica.quic));
            }
            let agent = self.spawn(&format!("agent-{cluster}"), &mut command)?;
            self.agents.push(agent);
        }
        self.clusters_ready().await
    }

    /// Waits until every replica is ready and, as each of them sees it, every cluster.
    pub async fn clusters_ready(&self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        for replica in self.replicas.iter().filter(|r| r.process.is_some()) {
            while !self.sees_all(replica.http).await {
                if Instant::now() > until {
                    bail!(
                        "replica {} does not see every cluster ready: logs are in {}",
                        replica.id,
                        self.folder.display()
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn sees_all(&self, http: SocketAddr) -> bool {
        if !self.is_ready(http).await {
            return false;
        }
        let Ok(text) = self.get(http, "/apis/tidewater.dev/v1/clusters?consistency=stale").await else { return false };
        let Ok(list) = serde_json::from_str::<serde_json::Value>(&text) else { return false };
        let ready = |one: &&serde_json::Value| one["status"]["phase"] == "Ready";
        list["items"].as_array().is_some_and(|all| all.iter().filter(ready).count() == self.agents.len())
    }

    async fn is_ready(&self, http: SocketAddr) -> bool {
        self.get(http, "/readyz").await.is_ok()
    }

    /// Whether the replica is ready and knows itself to lead.
    pub async fn leads(&self, replica: &Replica) -> bool {
        let Ok(text) = self.get(replica.http, "/readyz").await else { return false };
        text.contains(&format!("leader: replica {} ", replica.id))
    }

    /// A page's text.
    pub async fn get(&self, http: SocketAddr, path: &str) -> Result<String> {
        let answer = self.http.get(format!("http://{http}{path}")).send().await?.error_for_status()?;
        Ok(answer.text().await?)
    }

    /// Which replica leads; waits until one does and all that run are ready.
    pub async fn leader(&self) -> Result<usize> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            for (i, replica) in self.replicas.iter().enumerate().filter(|(_, r)| r.process.is_some()) {
                if self.leads(replica).await {
                    return Ok(i);
                }
            }
            if Instant::now() > until {
                bail!("no leader within {READY_WITHIN:?}: logs are in {}", self.folder.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        for agent in &self.agents {
            // SIGTERM: they end their attempts first.
            let _ = Command::new("kill").arg(agent.id().to_string()).status();
        }
        for agent in &mut self.agents {
            let _ = agent.wait();
        }
        for i in 0..self.replicas.len() {
            let _ = self.kill_replica(i);
        }
    }
}
