//! A node role in a process of its own: streams what its sampler reads to its cluster's agent, for as long as the process
//! lives. The connection's first frame is full; after a reconnect, or where the agent asks for it, the next one is again.
//!
//! Nothing queues up behind a slow or absent agent: what the sampler has no room to hand on gathers as changes, of which the
//! last state counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::ids::{ClusterName, NodeName};
use protocol::node::{NodeClosed, NodeFrame, NodeOrder, NodeToken};
use protocol::quic::{
    Address, ConnectFailed, Credentials, Identity, IdentityError, NODE_ALPN, TlsError, agent_server_name,
    client_config, client_config_without_certificate, read_ca, read_frame, write_frame,
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportErrorCode};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::node::NodeSampler;

/// First and longest time between two tries to connect; the time waited is drawn from its second half, so that a cluster's
/// nodes do not all come back at once.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After a newer connection took this node's place: two processes of one name must not take it from each other all the time.
const REPLACED: Duration = Duration::from_secs(60);
/// After it was turned away: a person has to change something.
const TURNED_AWAY: Duration = Duration::from_secs(15);
/// How long a connection may take from its first packet until its node is let in.
const LET_IN: Duration = Duration::from_secs(30);
/// How often the token's file is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// A connection that lasted this long was a good one: the next tries begin quickly again.
const GOOD: Duration = Duration::from_secs(5);

/// Why a node can't stream.
#[derive(Debug, thiserror::Error)]
pub enum NodeLinkError {
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate names nobody.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It names somebody else.
    #[error(
        "its certificate is for {0}, which is no node; make one with `tidewater identity --cluster CLUSTER --node NODE`"
    )]
    NoNode(Identity),
}

/// How a node in a pod says who it is: it has no certificate.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The cluster whose agent it looks for.
    pub cluster: ClusterName,
    /// Its node's name; frames that say another one than the token are refused.
    pub node: NodeName,
    /// The file of its token, which its kubelet writes anew before it expires.
    pub token: PathBuf,
    /// The file of the federation's CA: its certificate.
    pub ca: PathBuf,
}

/// Where a node's link stands, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Frames go out.
    Connected(SocketAddr),
    /// They do not, for this reason; it is tried again.
    Down(String),
}

/// A node's link to its cluster's agent.
pub struct NodeLink {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    tls: ClientConfig,
    agent: Address,
    /// The file of its token, where it has no certificate.
    token: Option<PathBuf>,
}

impl NodeLink {
    /// A link with these credentials to the agent.
    pub fn new(credentials: &Credentials, agent: Address) -> Result<Self, NodeLinkError> {
        let (cluster, node) = match credentials.identity()? {
            Identity::Node(cluster, node) => (cluster, node),
            other => return Err(NodeLinkError::NoNode(other)),
        };
        Ok(Self { cluster, node, tls: client_config(credentials, NODE_ALPN)?, agent, token: None })
    }

    /// A link without a certificate. The token's file need not be there yet.
    pub fn with_token(pass: Pass, agent: Address) -> Result<Self, NodeLinkError> {
        let Pass { cluster, node, token, ca } = pass;
        let tls = client_config_without_certificate(&read_ca(&ca)?, NODE_ALPN)?;
        Ok(Self { cluster, node, tls, agent, token: Some(token) })
    }

    /// Streams until it is stopped, connecting again as often as it takes.
    pub async fn run(
        self,
        sampler: &NodeSampler,
        mut frames: mpsc::Receiver<NodeFrame>,
        stop: CancellationToken,
        mut notice: impl FnMut(Notice),
    ) {
        let mut wait = RETRY.0;
        let mut told = None;
        loop {
            let began = Instant::now();
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = stop.cancelled() => return,
            };
            let why = match connected {
                Ok(link) => {
                    notice(Notice::Connected(link.connection.remote_address()));
                    told = None;
                    let renewed = self.renew(link.connection.clone(), link.shown.clone(), &mut notice);
                    match link.stream(sampler, &mut frames, renewed, &stop).await {
                        Some(down) => down,
                        None => return,
                    }
                }
                Err(down) => down,
            };
            if told.as_ref() != Some(&why.words) {
                notice(Notice::Down(why.words.clone()));
                told = Some(why.words);
            }
            if began.elapsed() >= GOOD {
                wait = RETRY.0;
            }
            tokio::select! {
                () = tokio::time::sleep(why.wait.unwrap_or_else(|| within(wait))) => {}
                () = stop.cancelled() => return,
            }
            wait = (wait * 2).min(RETRY.1);
        }
    }

    async fn connect(&self) -> Result<Link, Down> {
        let down = |error: &dyn std::fmt::Display| Down::because(format!("no link to {}: {error}", self.agent));
        let address = self.agent.look_up(|_| true).await.map_err(|e| Down::because(format!("no link to {e}")))?;
        let own = match (address.ip().is_loopback(), address.is_ipv6()) {
            (true, true) => IpAddr::from(Ipv6Addr::LOCALHOST),
            (true, false) => IpAddr::from(Ipv4Addr::LOCALHOST),
            (false, true) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            (false, false) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        };
        let endpoint = Endpoint::client(SocketAddr::new(own, 0)).map_err(|e| down(&e))?;
        let shown = match &self.token {
            Some(file) => Some(read_token(file).map_err(Down::because)?),
            None => None,
        };
        let opened = tokio::time::timeout(LET_IN, self.open(&endpoint, address, shown.as_deref())).await;
        let late = || down(&format!("it has not let this node in within {} s", LET_IN.as_secs()));
        match opened.map_err(|_| late())? {
            Ok((connection, send, receive)) => Ok(Link { endpoint, connection, send, receive, shown }),
            Err(ConnectFailed::Ended(closed @ ConnectionError::ApplicationClosed(_))) => {
                Err(Down::of(Some(closed), String::new()))
            }
            Err(ConnectFailed::Ended(ConnectionError::ConnectionClosed(closed)))
                if closed.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                let why = "this replica of the agent waits for its turn, or has too many visitors at the moment";
                Err(down(&why))
            }
            Err(error) if error.is_refused_certificate() && self.token.is_some() => Err(Down::because(format!(
                "{} ({address}) is not the agent of cluster {} by the CA that was given, or it lets in no nodes by \
                     token ({error}): it must follow a Kubernetes cluster",
                self.agent, self.cluster
            ))),
            Err(error) if error.is_refused_certificate() => Err(Down::because(format!(
                "{} ({address}) and this node do not accept each other's certificate ({error}): it must be the agent of \
                 cluster {}, and both certificates must be made by one authority (tidewater identity --ca DIR)",
                self.agent, self.cluster
            ))),
            Err(error) => Err(down(&error)),
        }
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
        token: Option<&str>,
    ) -> Result<(Connection, SendStream, RecvStream), ConnectFailed> {
        let name = agent_server_name(&self.cluster);
        let connection = endpoint.connect_with(self.tls.clone(), address, &name)?.await?;
        if let Some(token) = token {
            show(&connection, token).await?;
        }
        // The agent allows it once it knows who this is.
        let (send, receive) = connection.open_bi().await?;
        Ok((connection, send, receive))
    }

    /// Shows each new token that its file has; never ends by itself.
    async fn renew(&self, connection: Connection, mut shown: Option<String>, notice: &mut impl FnMut(Notice)) {
        let Some(file) = &self.token else { return std::future::pending().await };
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK).await;
            match read_token(file) {
                Ok(token) if shown.as_ref() == Some(&token) => {}
                // Where it can't be shown the link has ended, which is seen elsewhere.
                Ok(token) => {
                    if show(&connection, &token).await.is_ok() {
                        (shown, told) = (Some(token), None);
                    }
                }
                Err(why) if told.as_ref() == Some(&why) => {}
                Err(why) => {
                    notice(Notice::Down(format!("{why}; the link lasts until the last token expires")));
                    told = Some(why);
                }
            }
        }
    }
}

fn read_token(file: &Path) -> Result<String, String> {
    let read = std::fs::read_to_string(file).map_err(|e| e.to_string());
    let token = read.map_err(|e| format!("no token of this pod in {}: {e}", file.display()))?;
    match token.trim() {
        "" => Err(format!("no token of this pod in {}: it is empty", file.display())),
        token => Ok(token.to_owned()),
    }
}

/// Shows a token on a stream of its own.
async fn show(connection: &Connection, token: &str) -> Result<(), ConnectFailed> {
    let mut stream = connection.open_uni().await?;
    // What breaks on the way ends the connection too, and is told by that.
    let _ = write_frame(&mut stream, &NodeToken { token: token.to_owned() }).await;
    let _ = stream.finish();
    Ok(())
}

/// A connection that stands.
struct Link {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
    /// The token that was shown.
    shown: Option<String>,
}

impl Link {
    /// Streams until the link ends; none where this process ends it.
    async fn stream(
        self,
        sampler: &NodeSampler,
        frames: &mut mpsc::Receiver<NodeFrame>,
        renewed: impl Future<Output = ()>,
        stop: &CancellationToken,
    ) -> Option<Down> {
        // What waits is from before, and the agent may have had part of it: all anew.
        while frames.try_recv().is_ok() {}
        sampler.request_full();
        let ended = tokio::select! {
            ended = write(self.send, frames) => ended,
            ended = read(self.receive, sampler) => Some(ended),
            error = self.connection.closed() => Some(error.to_string()),
            () = renewed => Some("the token is renewed no more".into()),
            () = stop.cancelled() => None,
        };
        match ended {
            Some(ended) => Some(Down::of(self.connection.close_reason(), ended)),
            None => {
                self.connection.close(0u32.into(), b"the node role stopped");
                // Until the agent heard of it, or will not.
                self.endpoint.wait_idle().await;
                None
            }
        }
    }
}

/// Why there is no link.
struct Down {
    words: String,
    /// How long to wait, where it is not as long as usual.
    wait: Option<Duration>,
}

impl Down {
    fn because(words: String) -> Self {
        Self { words, wait: None }
    }

    /// The other end's own words, where it said any.
    fn of(closed: Option<ConnectionError>, ended: String) -> Self {
        let Some(ConnectionError::ApplicationClosed(close)) = closed else {
            return Self::because(format!("the link ended: {ended}"));
        };
        let reason = String::from_utf8_lossy(&close.reason).into_owned();
        match NodeClosed::from_code(close.error_code.into()) {
            Some(why) => {
                let wait = match why {
                    NodeClosed::Replaced => Some(REPLACED),
                    NodeClosed::NotWelcome => Some(TURNED_AWAY),
                    NodeClosed::BadFrame | NodeClosed::NotNow | NodeClosed::Expired => None,
                };
                Self { words: format!("the agent ended the link: {reason}"), wait }
            }
            None => Self::because(format!("the link ended: {reason}")),
        }
    }
}

/// A time between half of `wait` and all of it.
fn within(wait: Duration) -> Duration {
    let half = wait.as_millis() as u64 / 2;
    let drawn = uuid::Uuid::new_v4().as_u64_pair().1 % (half + 1);
    Duration::from_millis(half + drawn)
}

/// Sends frames from the first full one on; none once the sampler ended.
async fn write(mut stream: SendStream, frames: &mut mpsc::Receiver<NodeFrame>) -> Option<String> {
    let mut whole = false;
    while let Some(frame) = frames.recv().await {
        whole |= frame.full;
        if whole && let Err(error) = write_frame(&mut stream, &frame).await {
            return Some(error.to_string());
        }
    }
    None
}

async fn read(mut stream: RecvStream, sampler: &NodeSampler) -> String {
    loop {
        match read_frame::<NodeOrder>(&mut stream).await {
            Ok(Some(NodeOrder::FullFrame)) => sampler.request_full(),
            Ok(None) => return "the agent ended its stream".into(),
            Err(error) => return error.to_string(),
        }
    }
}
