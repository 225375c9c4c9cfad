//! A node role in a process of its own: streams what its sampler reads to its cluster's agent, for as long as the process
//! lives. The connection's first frame is full; after a reconnect, or where the agent asks for it, the next one is again.
//!
//! Nothing queues up behind a slow or absent agent: what the sampler has no room to hand on gathers as changes, of which the
//! last state counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use protocol::ids::{ClusterName, NodeName};
use protocol::node::{NodeClosed, NodeFrame, NodeOrder};
use protocol::quic::{
    Address, ConnectFailed, Credentials, Identity, IdentityError, NODE_ALPN, TlsError, agent_server_name,
    client_config, read_frame, write_frame,
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::node::NodeSampler;

/// First and longest time between two tries to connect; the time waited is drawn from its second half, so that a cluster's
/// nodes do not all come back at once.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After a newer connection took this node's place: two processes of one name must not take it from each other all the time.
const REPLACED: Duration = Duration::from_secs(60);
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
    /// No socket.
    #[error("QUIC socket: {0}")]
    Socket(#[from] std::io::Error),
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
    /// The cluster, by the certificate.
    pub cluster: ClusterName,
    /// The node, by the certificate.
    pub node: NodeName,
    tls: ClientConfig,
    agent: Address,
}

impl NodeLink {
    /// A link with these credentials to the agent.
    pub fn new(credentials: &Credentials, agent: Address) -> Result<Self, NodeLinkError> {
        let (cluster, node) = match credentials.identity()? {
            Identity::Node(cluster, node) => (cluster, node),
            other => return Err(NodeLinkError::NoNode(other)),
        };
        Ok(Self { cluster, node, tls: client_config(credentials, NODE_ALPN)?, agent })
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
                    match link.stream(sampler, &mut frames, &stop).await {
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
                () = tokio::time::sleep(if why.replaced { REPLACED } else { within(wait) }) => {}
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
        match self.open(&endpoint, address).await {
            Ok((connection, send, receive)) => Ok(Link { endpoint, connection, send, receive }),
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
    ) -> Result<(Connection, SendStream, RecvStream), ConnectFailed> {
        let name = agent_server_name(&self.cluster);
        let connection = endpoint.connect_with(self.tls.clone(), address, &name)?.await?;
        let (send, receive) = connection.open_bi().await?;
        Ok((connection, send, receive))
    }
}

/// A connection that stands.
struct Link {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    receive: RecvStream,
}

impl Link {
    /// Streams until the link ends; none where this process ends it.
    async fn stream(
        self,
        sampler: &NodeSampler,
        frames: &mut mpsc::Receiver<NodeFrame>,
        stop: &CancellationToken,
    ) -> Option<Down> {
        // What waits is from before, and the agent may have had part of it: all anew.
        while frames.try_recv().is_ok() {}
        sampler.request_full();
        let ended = tokio::select! {
            ended = write(self.send, frames) => ended,
            ended = read(self.receive, sampler) => Some(ended),
            error = self.connection.closed() => Some(error.to_string()),
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
    replaced: bool,
}

impl Down {
    fn because(words: String) -> Self {
        Self { words, replaced: false }
    }

    /// The other end's own words, where it said any.
    fn of(closed: Option<ConnectionError>, ended: String) -> Self {
        let Some(ConnectionError::ApplicationClosed(close)) = closed else {
            return Self::because(format!("the link ended: {ended}"));
        };
        let reason = String::from_utf8_lossy(&close.reason).into_owned();
        match NodeClosed::from_code(close.error_code.into()) {
            Some(why) => {
                Self { words: format!("the agent ended the link: {reason}"), replaced: why == NodeClosed::Replaced }
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
