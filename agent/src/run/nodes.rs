//! Where node roles connect: QUIC, and one stream of frames one way and orders the other. Who may come in [`Entry`] decides, what frames mean the
//! cluster role. A replica that waits for its turn sends nodes away at once, so that they find the one that leads.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use protocol::ids::{ClusterName, NodeName};
use protocol::node::{NodeClosed, NodeFrame, NodeOrder};
use protocol::quic::{
    Credentials, FrameError, TlsError, Visitors, endpoint_config, node_server_config, read_frame, write_frame,
};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Event;
use super::entry::{Entry, Refused};
use crate::cluster::{Input, NodeInput, NodeSession};
use crate::kube::review::Reviewer;

/// More connections than this under way make a visitor prove its address first.
const RETRY_ABOVE: usize = 64;
/// Visitors of whom it is not known yet who they are.
const STRANGERS: usize = 512;
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
    /// The node, by its certificate or token.
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
pub fn listen(socket: UdpSocket, credentials: &Credentials, visitors: Visitors) -> Result<Endpoint, ListenError> {
    let tls = node_server_config(credentials, visitors).map_err(ListenError::Tls)?;
    Endpoint::new(endpoint_config(credentials), Some(tls), socket, Arc::new(TokioRuntime)).map_err(ListenError::Socket)
}

/// Sends every visitor away until cancelled.
pub async fn send_away(endpoint: Endpoint, stop: CancellationToken) {
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming.refuse(),
                None => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Where nodes come in.
pub struct Door {
    /// The cluster whose nodes they are.
    pub cluster: ClusterName,
    /// By which it is known who shows a token; none where nobody may.
    pub reviewer: Option<Arc<Reviewer>>,
    /// Where what they say goes.
    pub inbox: mpsc::Sender<Event>,
}

/// Lets nodes in until cancelled.
pub async fn accept(endpoint: Endpoint, door: Door, tasks: TaskTracker, stop: CancellationToken) {
    let (door, strangers) = (Arc::new(door), Arc::new(Semaphore::new(STRANGERS)));
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
        let Ok(stranger) = strangers.clone().try_acquire_owned() else {
            // It tries again.
            incoming.refuse();
            continue;
        };
        let (door, stop) = (door.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = visit(incoming, &door, NodeSession(session), stranger) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn visit(incoming: Incoming, door: &Door, session: NodeSession, stranger: OwnedSemaphorePermit) {
    let from = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%from, %error, "a node's connection was not made");
            return;
        }
    };
    let entry = match Entry::of(&connection, &door.cluster, door.reviewer.as_ref()).await {
        Ok(entry) => entry,
        Err(Refused { why, reason }) => {
            tracing::error!(%from, reason, "refused a node");
            return close(&connection, why, &reason);
        }
    };
    drop(stranger);
    let node = entry.node();
    tracing::info!(%node, %from, "a node connected");
    let ended = tokio::select! {
        ended = serve(&connection, node, session, &door.inbox) => ended,
        Refused { why, reason } = entry.over(&connection) => {
            close(&connection, why, &reason);
            reason
        }
    };
    tracing::info!(%node, reason = ended, "a node's connection ended");
    let _ = door.inbox.send(Event::Input(Input::Node { session, input: NodeInput::Closed })).await;
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
