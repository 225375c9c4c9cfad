//! A coordinator's process, from top to bottom: open the store, start the core's thread, accept replicas and agents, serve
//! HTTP; stop in the other order.

mod core;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use protocol::ids::ReplicaId;
use protocol::quic::{
    AGENT_ALPN, Address, Credentials, Identity, IdentityError, PEER_ALPN, TlsError, client_config, endpoint_config,
    server_config,
};
use quinn::{Endpoint, TokioRuntime};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handle::Handle;
use crate::identity::workload_tokens::{self, Issuer, IssuerUrl, KeyError};
use crate::raft::{Driver, DriverConfig, Store, driver, store};
use crate::replica::{Fatal, Replica, Settings};
use crate::transport::{INBOX, PeerLinks, accept};

/// What a coordinator needs to start.
pub struct Config {
    /// Its id, never used by another disk.
    pub id: ReplicaId,
    /// Where its log lies.
    pub data_dir: PathBuf,
    /// Its certificate, and the CA.
    pub credentials: Credentials,
    /// Its QUIC socket, bound.
    pub quic: UdpSocket,
    /// Where the other replicas listen.
    pub peers: BTreeMap<ReplicaId, Address>,
    /// Its HTTP socket, bound.
    pub http: std::net::TcpListener,
    /// By which name it issues workload tokens; none: it issues none.
    pub workload_issuer: Option<IssuerUrl>,
}

/// Why a coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its store.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// Its driver.
    #[error(transparent)]
    Driver(#[from] driver::OpenError),
    /// Its state.
    #[error(transparent)]
    State(#[from] Fatal),
    /// Its key for workload tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its certificate says nobody.
    #[error("its certificate: {0}")]
    Identity(#[from] IdentityError),
    /// Its certificate is another's.
    #[error("this is replica {id}, but its certificate is for {identity}: give it the identity of replica {id}")]
    OtherIdentity {
        /// Who it is.
        id: ReplicaId,
        /// Whose certificate it has.
        identity: Identity,
    },
    /// Its sockets or thread.
    #[error("{what}: {cause}")]
    System {
        /// What could not be had.
        what: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A coordinator that runs.
pub struct Running {
    /// Its id.
    pub id: ReplicaId,
    /// The way to its core.
    pub handle: Handle,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where QUIC listens.
    pub quic: SocketAddr,
    endpoint: Endpoint,
    stop: CancellationToken,
    tasks: TaskTracker,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Starts a coordinator. Returns once it serves; a leader may not be known yet (`/readyz` says).
pub async fn start(config: Config) -> Result<Running, StartError> {
    let system = |what| move |cause| StartError::System { what, cause };
    let identity = config.credentials.identity()?;
    if identity != Identity::Replica(config.id) {
        return Err(StartError::OtherIdentity { id: config.id, identity });
    }
    let store = Store::open_dir(&config.data_dir, config.id)?;
    let mut voters: Vec<ReplicaId> = config.peers.keys().copied().chain([config.id]).collect();
    voters.sort_unstable();
    let driver_config = DriverConfig::new(config.id, voters.clone());
    let tick_ms = driver_config.tick_ms;
    let driver = Driver::open(driver_config, store)?;
    let boot = uuid::Uuid::new_v4().as_u64_pair().0;
    let replica = Replica::open(Settings::new(config.id, boot), driver)?;

    let quic = config.quic.local_addr().map_err(system("QUIC socket"))?;
    let endpoint = Endpoint::new(
        endpoint_config(&config.credentials),
        Some(server_config(&config.credentials, &[PEER_ALPN, AGENT_ALPN])?),
        config.quic,
        Arc::new(TokioRuntime),
    )
    .map_err(system("QUIC socket"))?;
    config.http.set_nonblocking(true).map_err(system("HTTP socket"))?;
    let listener = TcpListener::from_std(config.http).map_err(system("HTTP socket"))?;
    let http = listener.local_addr().map_err(system("HTTP socket"))?;

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let (inbox, events) = mpsc::channel(INBOX);
    let (handle, requests, changes) = Handle::new();
    let issuer = match &config.workload_issuer {
        Some(url) => Some(Issuer::open(url.clone(), config.id, &config.data_dir, handle.clone())?),
        None => None,
    };
    let peer_config = client_config(&config.credentials, PEER_ALPN)?;
    let peers = PeerLinks::start(&endpoint, &peer_config, &config.peers, &inbox, &tasks, &stop);
    let spawner = tokio::runtime::Handle::current();
    let core = core::Core::new(replica, events, requests, changes, peers, spawner, stop.clone());
    let thread = core.start(config.id, tick_ms).map_err(system("the core's thread"))?;
    match &issuer {
        Some(issuer) => drop(tasks.spawn(workload_tokens::keep(issuer.clone(), stop.clone()))),
        None => drop(tasks.spawn(workload_tokens::retire(config.id, handle.clone(), stop.clone()))),
    }
    let voters = voters.into_iter().collect();
    tasks.spawn(accept(endpoint.clone(), voters, inbox, issuer, tasks.clone(), stop.clone()));
    let router = crate::api::router(
        handle.clone(),
        crate::api::Settings {
            stopping: stop.clone(),
            issuer: config.workload_issuer,
            ..crate::api::Settings::default()
        },
    );
    tasks.spawn(crate::api::serve(listener, router, stop.clone()));
    tracing::info!(id = %config.id, %quic, %http, "coordinator runs");
    Ok(Running { id: config.id, handle, http, quic, endpoint, stop, tasks, thread: Some(thread) })
}

impl Running {
    /// Stops at once, without a word to the others: to them it looks like a crash. What was acknowledged is durable.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.endpoint.close(0u32.into(), b"stopped");
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(thread) = self.thread.take() {
            // The thread looks at the token within a tick.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
