//! An agent before it acts. Where its cluster is Kubernetes it may have replicas: then it waits here until it leads, with its watches
//! running, so that it knows at once what runs.

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::quic::Visitors;
use quinn::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::nodes::{self, ListenError};
use super::{Config, INBOX, KUBERNETES_INBOX, Kubernetes, Running, StartError, begin};
use crate::cluster::KubernetesInput;
use crate::kube;
use crate::kube::leadership::Leadership;
use crate::kube::review::Reviewer;
use crate::runtime::any::AnyRuntime;
use crate::runtime::kubernetes::KubernetesRuntime;
use crate::runtime::process::{ProcessConfig, ProcessRuntime};
use crate::runtime::{LOG_RETENTION, RuntimeEvent};

/// An agent that is set up and does nothing yet.
pub struct Stand {
    pub(super) config: Config,
    pub(super) runtime: AnyRuntime,
    pub(super) events: mpsc::Receiver<RuntimeEvent>,
    /// What becomes known of the cluster's Kubernetes, once the sender says that it is to be told.
    pub(super) capacity: Option<(mpsc::Receiver<KubernetesInput>, watch::Sender<bool>)>,
    pub(super) leadership: Option<Leadership>,
    /// Where nodes connect, and by which it is known who shows a token.
    pub(super) listener: Option<Endpoint>,
    pub(super) reviewer: Option<Arc<Reviewer>>,
    /// Where guards in pods ask, once it leads.
    pub(super) listen_guards: Option<SocketAddr>,
    /// Nodes are sent away until this is cancelled.
    closed: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Sets an agent up: it is a candidate, where it may have replicas.
pub async fn stand(mut config: Config) -> Result<Stand, StartError> {
    let (told, events) = mpsc::channel(INBOX);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let visitors = if config.kubernetes.is_some() { Visitors::Anybody } else { Visitors::Certified };
    let listener = match config.listen_nodes.take() {
        Some(socket) => Some(nodes::listen(socket, &config.credentials, visitors).map_err(|error| match error {
            ListenError::Tls(error) => StartError::Tls(error),
            ListenError::Socket(cause) => StartError::System { what: "QUIC socket for nodes", cause },
        })?),
        None => None,
    };
    let closed = stop.child_token();
    if let Some(Kubernetes { access, settings, lease, nodes: tokens, listen_guards }) = config.kubernetes.take() {
        let leadership = Leadership::stand(kube::connect(&access).await?, lease)?;
        let client = kube::connect_behind(&access, leadership.gate()).await?;
        let runtime = AnyRuntime::Kubernetes(KubernetesRuntime::new(client.clone(), settings, told));
        let ((said, capacity), (tell, told)) = (mpsc::channel(KUBERNETES_INBOX), watch::channel(false));
        let reviewer = listener.is_some().then(|| Arc::new(Reviewer::new(client.clone(), tokens)));
        tasks.spawn(kube::run(client, said, told, stop.clone()));
        if let Some(endpoint) = &listener {
            tasks.spawn(nodes::send_away(endpoint.clone(), closed.clone()));
        }
        let (capacity, leadership) = (Some((capacity, tell)), Some(leadership));
        return Ok(Stand {
            config,
            runtime,
            events,
            capacity,
            leadership,
            listener,
            reviewer,
            listen_guards,
            closed,
            tasks,
            stop,
        });
    }
    let process = ProcessConfig {
        data_dir: config.data_dir.clone(),
        cache_dir: config.cache_dir.clone(),
        runtime_dir: config.runtime_dir.clone(),
        guard: config.guard.clone(),
        cluster: config.cluster.name.clone(),
        log_retention: LOG_RETENTION,
    };
    let runtime = AnyRuntime::Process(ProcessRuntime::new(process, told)?);
    Ok(Stand {
        config,
        runtime,
        events,
        capacity: None,
        leadership: None,
        listener,
        reviewer: None,
        listen_guards: None,
        closed,
        tasks,
        stop,
    })
}

impl Stand {
    /// Returns once it may act. May be dropped and called again.
    pub async fn leads(&mut self) -> Result<(), StartError> {
        if let Some(leadership) = &mut self.leadership {
            leadership.leads().await?;
        }
        Ok(())
    }

    /// Takes part no more.
    pub async fn withdraw(self) {
        self.stop.cancel();
        if let Some(leadership) = self.leadership {
            leadership.release().await;
        }
    }

    /// Starts it: what ran before is found again first. One that can't start lets go of what it leads by.
    pub async fn start(mut self) -> Result<Running, StartError> {
        let mut leadership = self.leadership.take();
        let reign = match &mut leadership {
            Some(leadership) => Some(leadership.leads().await?),
            None => None,
        };
        let epochs = leadership.as_ref().map(Leadership::epochs);
        self.closed.cancel();
        match Box::pin(begin(self, reign, epochs)).await {
            Ok(running) => Ok(Running { leadership, ..running }),
            Err(error) => {
                if let Some(leadership) = leadership {
                    leadership.release().await;
                }
                Err(error)
            }
        }
    }
}
