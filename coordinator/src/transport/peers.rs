//! Links between replicas. Each replica opens one connection to each other and sends on it; small messages share one
//! stream and keep their order, a message with a snapshot gets a stream of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::codec::encode_frame;
use protocol::ids::ReplicaId;
use protocol::quic::{Address, ConnectFailed, read_frame, replica_server_name, write_frame};
use quinn::{ClientConfig, Connection, Endpoint, SendStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Event, Inbox};
use crate::raft::driver::SnapshotOutcome;
use crate::replica::{Input, PeerFrame};

/// Messages to one peer that may wait; more are dropped, as on a network.
const QUEUE: usize = 4096;
/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(100);

/// The ways to all other replicas.
pub struct PeerLinks {
    queues: BTreeMap<ReplicaId, mpsc::Sender<PeerFrame>>,
}

/// What a link needs.
struct Link {
    endpoint: Endpoint,
    config: ClientConfig,
    to: ReplicaId,
    address: Address,
    inbox: Inbox,
    tasks: TaskTracker,
}

impl PeerLinks {
    /// Starts a task for each peer.
    pub fn start(
        endpoint: &Endpoint,
        config: &ClientConfig,
        peers: &BTreeMap<ReplicaId, Address>,
        inbox: &Inbox,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let mut queues = BTreeMap::new();
        for (to, address) in peers {
            let (sender, queue) = mpsc::channel(QUEUE);
            queues.insert(*to, sender);
            let link = Link {
                endpoint: endpoint.clone(),
                config: config.clone(),
                to: *to,
                address: address.clone(),
                inbox: inbox.clone(),
                tasks: tasks.clone(),
            };
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = link.run(queue) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Self { queues }
    }

    /// Sends, or drops where the queue is full or there is no such peer. False: dropped.
    pub fn send(&self, to: ReplicaId, frame: PeerFrame) -> bool {
        self.queues.get(&to).is_some_and(|queue| queue.try_send(frame).is_ok())
    }
}

impl Link {
    async fn run(self, mut queue: mpsc::Receiver<PeerFrame>) {
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((connection, stream)) => self.pump(&connection, stream, &mut queue).await,
                Err(error) if error.is_refused_certificate() && !told => {
                    // Once: it is tried again ten times a second.
                    told = true;
                    tracing::error!(
                        to = %self.to, address = %self.address, %error,
                        "a replica and this one do not accept each other's certificate: make both with one authority \
                         (tidewater identity --ca DIR)"
                    );
                }
                Err(error) => tracing::debug!(to = %self.to, %error, "no link to a peer"),
            }
            // What waits was meant for a link that is gone; Raft is told and sends anew.
            while queue.try_recv().is_ok() {}
            let _ = self.inbox.send(Event::Input(Input::PeerUnreachable(self.to))).await;
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn connect(&self) -> Result<(Connection, SendStream), ConnectFailed> {
        let name = replica_server_name(self.to);
        let address = self.address.look_up_for(&self.endpoint).await?;
        let connection = self.endpoint.connect_with(self.config.clone(), address, &name)?.await?;
        let stream = connection.open_uni().await?;
        Ok((connection, stream))
    }

    async fn pump(&self, connection: &Connection, mut stream: SendStream, queue: &mut mpsc::Receiver<PeerFrame>) {
        loop {
            let frame = tokio::select! {
                frame = queue.recv() => frame,
                _ = connection.closed() => return,
            };
            let Some(frame) = frame else { return };
            if frame.has_snapshot() {
                self.send_apart(connection.clone(), frame);
                continue;
            }
            if let Err(error) = write_all_waiting(&mut stream, frame, queue).await {
                tracing::debug!(to = %self.to, error, "a link to a peer broke");
                return;
            }
        }
    }

    fn send_apart(&self, connection: Connection, frame: PeerFrame) {
        let (to, inbox) = (self.to, self.inbox.clone());
        self.tasks.spawn(async move {
            let sent = async {
                let mut stream = connection.open_uni().await.map_err(|e| e.to_string())?;
                write_frame(&mut stream, &frame).await.map_err(|e| e.to_string())?;
                stream.finish().map_err(|e| e.to_string())?;
                stream.stopped().await.map_err(|e| e.to_string())
            };
            let outcome = match sent.await {
                Ok(_) => SnapshotOutcome::Sent,
                Err(error) => {
                    tracing::warn!(%to, error, "a snapshot was not sent");
                    SnapshotOutcome::Failed
                }
            };
            let _ = inbox.send(Event::Input(Input::SnapshotSent(to, outcome))).await;
        });
    }
}

/// Writes a frame and all that wait behind it in one go: fewer, fuller packets.
async fn write_all_waiting(
    stream: &mut SendStream,
    first: PeerFrame,
    queue: &mut mpsc::Receiver<PeerFrame>,
) -> Result<(), String> {
    const ENOUGH: usize = 256 * 1024;
    let mut bytes = encode_frame(&first).map_err(|e| e.to_string())?;
    while bytes.len() < ENOUGH {
        match queue.try_recv() {
            Ok(next) => bytes.extend(encode_frame(&next).map_err(|e| e.to_string())?),
            Err(_) => break,
        }
    }
    stream.write_all(&bytes).await.map_err(|e| e.to_string())
}

/// Reads what another replica sends, until its connection ends.
pub(super) async fn serve(connection: Connection, from: ReplicaId, inbox: Inbox) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let inbox = inbox.clone();
        let connection = connection.clone();
        tokio::spawn(async move {
            loop {
                match read_frame::<PeerFrame>(&mut stream).await {
                    Ok(Some(frame)) => {
                        if inbox.send(Event::Input(Input::Peer(from, frame))).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(%from, %error, "a peer's stream ended");
                        connection.close(0u32.into(), b"bad frame");
                        return;
                    }
                }
            }
        });
    }
}
