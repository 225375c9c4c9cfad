//! Where node roles connect: QUIC with mutual TLS, a certificate for each node, and one stream of frames one way and
//! orders the other. Nothing is decided here but who may come in; what frames mean is the cluster role's.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use protocol::ids::{ClusterName, NodeName};
use protocol::node::{NodeClosed, NodeFrame, NodeOrder};
use protocol::quic::{
    Credentials, FrameError, Identity, NODE_ALPN, TlsError, endpoint_config, peer_identity, read_frame, server_config,
    write_frame,
};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime, VarInt};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Event;
use crate::cluster::{Input, NodeInput, NodeSession};

/// More connections than this under way make a visitor prove its address first.
const RETRY_ABOVE: usize = 64;
/// Orders that may wait for a node. There is one kind, and one of it is as good as many.
const ORDERS: usize = 2;
/// Least time between two frames of one node, on average. A node reads its GPUs at most ten times a second; one that sends
/// more often is read no faster, and QUIC's flow control makes its changes gather at its own end.
const FRAME_EVERY: Duration = Duration::from_millis(50);

/// Why nodes can't connect.
pub enum ListenError {
    /// The certificates.
    Tls(TlsError),
    /// The socket.
    Socket(std::io::Error),
}

/// The way to one node.
pub struct NodeHandle {
    /// The node, by its certificate.
    pub node: NodeName,
    connection: Connection,
    orders: mpsc::Sender<NodeOrder>,
}

impl NodeHandle {
    /// Asks for a full frame.
    pub fn want_full_frame(&self) {
        // Where there is no room, as many are asked for already.
        let _ = self.orders.try_send(NodeOrder::FullFrame);
    }

    /// Ends its session and tells it why.
    pub fn end(&self, why: NodeClosed, reason: &str) {
        close(&self.connection, why, reason);
    }
}

fn close(connection: &Connection, why: NodeClosed, reason: &str) {
    connection.close(VarInt::from_u32(why.code()), reason.as_bytes());
}

/// Opens the socket for nodes.
pub fn listen(socket: UdpSocket, credentials: &Credentials) -> Result<Endpoint, ListenError> {
    let tls = server_config(credentials, &[NODE_ALPN]).map_err(ListenError::Tls)?;
    Endpoint::new(endpoint_config(credentials), Some(tls), socket, Arc::new(TokioRuntime)).map_err(ListenError::Socket)
}

/// Lets nodes of this cluster in until cancelled.
pub async fn accept(
    endpoint: Endpoint,
    cluster: ClusterName,
    inbox: mpsc::Sender<Event>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    for session in 1.. {
        let incoming = loop {
            let incoming = tokio::select! {
                incoming = endpoint.accept() => incoming,
                () = stop.cancelled() => None,
            };
            let Some(incoming) = incoming else { return };
            if incoming.remote_address_validated() || endpoint.open_connections() <= RETRY_ABOVE {
                break incoming;
            }
            // A visitor that can't answer at its address costs us one packet.
            let _ = incoming.retry();
        };
        let (cluster, inbox, stop) = (cluster.clone(), inbox.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = visit(incoming, &cluster, NodeSession(session), inbox) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn visit(incoming: Incoming, cluster: &ClusterName, session: NodeSession, inbox: mpsc::Sender<Event>) {
    let from = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%from, %error, "a node's connection was not made");
            return;
        }
    };
    let node = match peer_identity(&connection) {
        Ok(Identity::Node(of, node)) if of == *cluster => node,
        Ok(other) => return refuse(&connection, &format!("{other} is no node of cluster {cluster}")),
        Err(error) => return refuse(&connection, &error.to_string()),
    };
    tracing::info!(%node, %from, "a node connected");
    let ended = serve(&connection, &node, session, &inbox).await;
    tracing::info!(%node, reason = ended, "a node's connection ended");
    let _ = inbox.send(Event::Input(Input::Node { session, input: NodeInput::Closed })).await;
}

fn refuse(connection: &Connection, reason: &str) {
    tracing::error!(from = %connection.remote_address(), reason, "refused a node");
    close(connection, NodeClosed::NotWelcome, reason);
}

async fn serve(connection: &Connection, node: &NodeName, session: NodeSession, inbox: &mpsc::Sender<Event>) -> String {
    let (orders, waiting) = mpsc::channel(ORDERS);
    let handle = NodeHandle { node: node.clone(), connection: connection.clone(), orders };
    if inbox.send(Event::NodeUp(session, handle)).await.is_err() {
        return "shutting down".into();
    }
    let (send, receive) = match connection.accept_bi().await {
        Ok(streams) => streams,
        Err(error) => return error.to_string(),
    };
    tokio::select! {
        ended = read(receive, connection, session, inbox) => ended,
        ended = write(send, waiting) => ended,
    }
}

async fn read(
    mut stream: RecvStream,
    connection: &Connection,
    session: NodeSession,
    inbox: &mpsc::Sender<Event>,
) -> String {
    let mut pace = tokio::time::interval(FRAME_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        match read_frame::<NodeFrame>(&mut stream).await {
            Ok(Some(frame)) => {
                let input = Input::Node { session, input: NodeInput::Frame(frame) };
                if inbox.send(Event::Input(input)).await.is_err() {
                    return "shutting down".into();
                }
            }
            Ok(None) => {
                connection.close(0u32.into(), b"the node ended its stream");
                return "the node ended it".into();
            }
            Err(error) => {
                if let FrameError::Codec(wrong) = &error {
                    tracing::error!(from = %connection.remote_address(), %wrong, "a node sent what is no frame");
                    close(connection, NodeClosed::BadFrame, &wrong.to_string());
                }
                return error.to_string();
            }
        }
    }
}

async fn write(mut stream: SendStream, mut waiting: mpsc::Receiver<NodeOrder>) -> String {
    while let Some(order) = waiting.recv().await {
        if let Err(error) = write_frame(&mut stream, &order).await {
            return error.to_string();
        }
    }
    "the cluster role ended it".into()
}
