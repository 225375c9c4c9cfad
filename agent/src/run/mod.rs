//! An agent's process, from top to bottom: lead, where there are replicas, open the journal, find what runs, read the GPUs, follow
//! Kubernetes, let nodes in, connect to every coordinator replica, step the cluster role for all that happens; stop in the other
//! order. [`node`] is the other end of a node's link, in a process of its own.

mod core;
mod entry;
mod link;
pub mod node;
mod nodes;
mod orders;
mod pages;
mod stand;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::control::{AttemptState, ClusterInfo};
use protocol::ids::{AttemptId, Incarnation, ReplicaId};
use protocol::quic::{AGENT_ALPN, Address, Credentials, TlsError, client_config};
use quinn::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{
    AgentConfig, DeclaredNode, Elsewhere, Input, Journal, JournalError, KnownAttempt, NodeInput, NodeSession, OpenError,
};
use crate::kube;
use crate::kube::leadership::{Epochs, Leadership, LeaseError, LeaseSettings, Reign};
use crate::kube::review::NodeTokens;
use crate::node::{NodeConfig, NodeSampler};
use crate::runtime::any::AnyRuntime;
use crate::runtime::kubernetes::KubernetesSettings;
use crate::runtime::tokens::TokenSource;
use crate::runtime::{Runtime, RuntimeError, RuntimeEvent};
pub use stand::{Stand, stand};

/// What an agent needs to start.
pub struct Config {
    /// What the cluster says of itself; `frameworks` are those wanted, of which only those that can run here are offered.
    pub cluster: ClusterInfo,
    /// Nodes that are declared, not measured.
    pub nodes: Vec<DeclaredNode>,
    /// Its certificate, and the CA.
    pub credentials: Credentials,
    /// Where the coordinators listen.
    pub coordinators: BTreeMap<ReplicaId, Address>,
    /// Where its journal and its attempts lie; in Kubernetes they lie there, and this is not used.
    pub data_dir: PathBuf,
    /// Where Python environments are kept.
    pub cache_dir: PathBuf,
    /// Where sockets with short paths go.
    pub runtime_dir: PathBuf,
    /// The guard's program and leading arguments.
    pub guard: Vec<OsString>,
    /// Reads this machine's GPUs as a node of the cluster.
    pub node: Option<NodeConfig>,
    /// Where node roles in processes of their own connect.
    pub listen_nodes: Option<UdpSocket>,
    /// The Kubernetes cluster that this is; none: attempts are processes of this machine, on declared and measured nodes.
    pub kubernetes: Option<Kubernetes>,
}

/// A Kubernetes cluster: its API server says which nodes there are and what pods leave of them, and runs the attempts.
pub struct Kubernetes {
    /// By which right it is asked.
    pub access: kube::Access,
    /// How attempts are run in it.
    pub settings: KubernetesSettings,
    /// By which its agent's replicas agree who acts.
    pub lease: LeaseSettings,
    /// By which tokens its nodes come in.
    pub nodes: NodeTokens,
    /// Where the guards of attempts ask that end themselves when they are cut off; none where there are none.
    pub listen_guards: Option<SocketAddr>,
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder.
    #[error("{place}: {cause}")]
    Folder {
        /// The file or folder.
        place: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Its journal's file is in use or damaged.
    #[error("{place}: {cause}")]
    Journal {
        /// The file.
        place: PathBuf,
        /// What is wrong with it.
        cause: JournalError,
    },
    /// Its journal could not be brought up to date.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its GPUs.
    #[error("reading GPUs: {0}")]
    Node(#[from] crate::node::StartError),
    /// Its access to Kubernetes.
    #[error(transparent)]
    Kubernetes(#[from] kube::ClientError),
    /// Its part in the election of a leader.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Its sockets or thread.
    #[error("{what}: {cause}")]
    System {
        /// What could not be had.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// An agent that runs.
pub struct Running {
    /// Its runtime, for provisioning ahead of time.
    pub runtime: AnyRuntime,
    /// What it offers.
    pub cluster: ClusterInfo,
    /// Where nodes connect, where they may.
    pub nodes: Option<SocketAddr>,
    /// What it can't run, and why.
    pub missing: Vec<(protocol::workload::Framework, String)>,
    stop: CancellationToken,
    tasks: TaskTracker,
    sampler: Option<Arc<NodeSampler>>,
    listener: Option<Endpoint>,
    thread: Option<std::thread::JoinHandle<()>>,
    leadership: Option<Leadership>,
}

/// How long an agent that is stopped waits for what it is making.
const SETTLE: Duration = Duration::from_millis(500);
/// Events of runtime and links that may wait for the core.
const INBOX: usize = 4096;
/// What is known of Kubernetes that may wait for the core: each may be many nodes.
const KUBERNETES_INBOX: usize = 4;

/// Starts an agent, once it leads: what ran before is found again first.
pub async fn start(config: Config) -> Result<Running, StartError> {
    stand(config).await?.start().await
}

/// Starts what was set up; what leads it stays in the caller's hand.
async fn begin(stand: Stand, reign: Option<Reign>, epochs: Option<Epochs>) -> Result<Running, StartError> {
    let Stand {
        mut config,
        runtime,
        events: runtime_events,
        capacity,
        reviewer,
        listener,
        listen_guards,
        tasks,
        stop,
        ..
    } = stand;
    let system = |what| move |cause| StartError::System { what, cause };
    let (source, token_asks) = TokenSource::new();
    // Before attempts are found: those that live go on with it.
    runtime.take_tokens_from(source);
    let (journal, recovered) = recover(&runtime, reign, &config.data_dir).await?;
    let mut missing = Vec::new();
    config.cluster.manifests.clear();
    for check in runtime.frameworks().await {
        if check.takes_manifests {
            config.cluster.manifests.push(check.framework);
        }
        if let Some(why) = check.missing {
            config.cluster.frameworks.retain(|f| *f != check.framework);
            missing.push((check.framework, why));
        }
    }
    config.cluster.fences = runtime.fences();
    config.cluster.secrets = runtime.has_secrets();
    let own_node = config.node.as_ref().map(|node| node.node.clone());
    let (sampler, frames) = match config.node.map(NodeSampler::start).transpose()? {
        Some((sampler, frames)) => (Some(Arc::new(sampler)), Some(frames)),
        None => (None, None),
    };
    let nodes = listener.as_ref().map(Endpoint::local_addr).transpose().map_err(system("QUIC socket for nodes"))?;

    let (inbox, inputs) = mpsc::channel(INBOX);
    let endpoint = link::endpoint(&config.coordinators).map_err(system("QUIC socket"))?;
    let client = client_config(&config.credentials, AGENT_ALPN)?;
    let pages = pages::Pages::default();
    let issuers = tokens::Issuers::default();
    for (replica, address) in &config.coordinators {
        let link = link::Link {
            endpoint: endpoint.clone(),
            config: client.clone(),
            replica: *replica,
            address: address.clone(),
            inbox: inbox.clone(),
            runtime: runtime.clone(),
            pages: pages.clone(),
            issuers: issuers.clone(),
            tasks: tasks.clone(),
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = link.run() => {}
                () = stop.cancelled() => {}
            }
        });
    }
    tasks.spawn(issuers.serve(token_asks, stop.clone()));
    let said = |RuntimeEvent { attempt, state, gone }| match gone.is_empty() {
        true => Input::Runtime { attempt, state },
        false => Input::Members { attempt, gone },
    };
    tasks.spawn(orders::forward(runtime_events, inbox.clone(), stop.clone(), said));
    if let (Some(frames), Some(node)) = (frames, own_node) {
        let own = |input| Input::Node { session: NodeSession::OWN, input };
        let opened = core::Event::Input(own(NodeInput::Opened { node }));
        inbox.try_send(opened).expect("the core's inbox is still empty but for links");
        let read = move |frame| own(NodeInput::Frame(frame));
        tasks.spawn(orders::forward(frames, inbox.clone(), stop.clone(), read));
    }
    let follows_kubernetes = capacity.is_some();
    if let Some((capacity, tell)) = capacity {
        tell.send_replace(true);
        tasks.spawn(orders::forward(capacity, inbox.clone(), stop.clone(), Input::Kubernetes));
    }
    if let Some(endpoint) = listener.clone() {
        let door = nodes::Door { cluster: config.cluster.name.clone(), reviewer, inbox: inbox.clone() };
        tasks.spawn(nodes::accept(endpoint, door, tasks.clone(), stop.clone()));
    }
    if let (AnyRuntime::Kubernetes(kubernetes), Some(address)) = (&runtime, listen_guards) {
        // Only now: whoever waits for its turn refuses guards, so that they find the one that leads.
        let door = TcpListener::bind(address).await.map_err(system("TCP socket for guards"))?;
        let (kubernetes, tracker, stop) = (kubernetes.clone(), tasks.clone(), stop.clone());
        tasks.spawn(async move { kubernetes.answer_guards(door, tracker, stop).await });
    }
    let (orders, waiting) = mpsc::unbounded_channel();
    tasks.spawn(orders::carry_out(runtime.clone(), waiting, inbox, sampler.clone(), stop.clone()));
    let cluster = config.cluster.clone();
    let agent = AgentConfig { follows_kubernetes, ..AgentConfig::new(config.cluster, config.nodes) };
    let core = core::Core::open(journal, agent, recovered, inputs, orders, epochs)?;
    let thread = core.start(stop.clone()).map_err(system("the core's thread"))?;
    tracing::info!(cluster = %cluster.name, "agent runs");
    let (leadership, thread) = (None, Some(thread));
    Ok(Running { runtime, cluster, nodes, missing, stop, tasks, sampler, listener, thread, leadership })
}

/// What the agent remembers, and what the runtime found: in Kubernetes both are the runtime's records, which all replicas share.
async fn recover(
    runtime: &AnyRuntime,
    reign: Option<Reign>,
    data_dir: &Path,
) -> Result<(Journal, Vec<(AttemptId, AttemptState)>), StartError> {
    let (AnyRuntime::Kubernetes(kubernetes), Some(reign)) = (runtime, reign) else {
        // Opened first: it keeps a second agent out.
        let journal = open_journal(&data_dir.join("agent.redb"))?;
        return Ok((journal, runtime.recover().await?));
    };
    let (attempts, states): (Vec<KnownAttempt>, Vec<AttemptState>) =
        kubernetes.recover_known().await?.into_iter().unzip();
    let found = attempts.iter().map(|known| known.attempt).zip(states).collect();
    // No leadership tells 2^32 revisions of an attempt: each begins above all that were told before.
    let revision = (u64::from(reign.number) << 32) + 1;
    let elsewhere = Elsewhere { incarnation: reign.life, epoch: reign.epoch, revision, attempts };
    Ok((Journal::rebuilt(elsewhere, core::unix_now()), found))
}

fn open_journal(place: &Path) -> Result<Journal, StartError> {
    let folder = |cause| StartError::Folder { place: place.to_owned(), cause };
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).map_err(folder)?;
    }
    let file =
        std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(place).map_err(folder)?;
    let backend = redb::backends::FileBackend::new(file).map_err(|e| folder(std::io::Error::other(e)))?;
    let incarnation = Incarnation(uuid::Uuid::new_v4().as_u128());
    Journal::open(backend, incarnation).map_err(|cause| StartError::Journal { place: place.to_owned(), cause })
}

impl Running {
    /// Stops the agent and leaves its attempts running: the next start, or the next replica, finds them again.
    pub async fn stop(mut self) {
        self.stop_roles().await;
        if let AnyRuntime::Kubernetes(runtime) = &self.runtime {
            runtime.settle(SETTLE).await;
        }
        self.let_go().await;
    }

    /// Ends every attempt, sees that all are gone, and stops.
    pub async fn stop_with_attempts(mut self, grace_ms: u64) -> Result<(), RuntimeError> {
        // First, so that no order that is under way starts anything new.
        self.stop_roles().await;
        let ended = self.runtime.shutdown(grace_ms).await;
        self.let_go().await;
        ended
    }

    /// Nothing is done any more: another replica may take over.
    async fn let_go(self) {
        drop(self.runtime);
        if let Some(leadership) = self.leadership {
            leadership.release().await;
        }
    }

    async fn stop_roles(&mut self) {
        self.stop.cancel();
        if let Some(listener) = self.listener.take() {
            // Nodes learn of it at once, and try again until an agent is back.
            listener.close(0u32.into(), b"the agent stopped");
        }
        self.tasks.close();
        self.tasks.wait().await;
        // The task that shared it has ended above.
        if let Some(sampler) = self.sampler.take().and_then(Arc::into_inner) {
            sampler.stop();
        }
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
