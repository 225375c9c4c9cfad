//! The agent's link to one coordinator replica: one control stream each way, and a stream for each log and for each connection to a page
//! that it asks for. Streams on which this end asks are in `tokens.rs`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use protocol::control::{AgentMessage, CoordinatorMessage, LogRequest, NO_LOG, NO_WORKER_LOG, Opening};
use protocol::ids::ReplicaId;
use protocol::quic::{Address, ConnectFailed, read_frame, replica_server_name, write_frame};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::core::Event;
use super::pages::Pages;
use super::tokens::Issuers;
use crate::cluster::Input;
use crate::runtime::any::{AnyLog, AnyLogError, AnyRuntime};

/// Messages that may wait for a link.
const QUEUE: usize = 1024;
/// First and longest time between two tries to connect.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What a link needs.
pub struct Link {
    /// The socket.
    pub endpoint: Endpoint,
    /// TLS.
    pub config: ClientConfig,
    /// The replica.
    pub replica: ReplicaId,
    /// Where it listens.
    pub address: Address,
    /// The way to the core.
    pub inbox: mpsc::Sender<Event>,
    /// Whose logs are read, and whose pages are visited.
    pub runtime: AnyRuntime,
    /// The connections to pages, of all links.
    pub pages: Pages,
    /// The coordinators that are asked for tokens.
    pub issuers: Issuers,
    /// Where these run.
    pub tasks: TaskTracker,
}

/// How often, and how long apart, a log that is to be followed is looked for.
const LOG_TRIES: u32 = 100;
const LOG_WAIT: Duration = Duration::from_millis(100);

/// A socket from which all of these can be reached. What a name will mean is not known yet, so that it is of both kinds where the
/// machine has both.
pub fn endpoint(coordinators: &BTreeMap<ReplicaId, Address>) -> std::io::Result<Endpoint> {
    let (four, six) = (SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
    let all = |are: fn(SocketAddr) -> bool| coordinators.values().all(|address| address.number().is_some_and(are));
    if all(|number| number.is_ipv4() && number.ip().is_loopback()) {
        return Endpoint::client((Ipv4Addr::LOCALHOST, 0).into());
    }
    if all(|number| number.is_ipv4()) {
        return Endpoint::client(four);
    }
    Endpoint::client(six).or_else(|_| Endpoint::client(four))
}

impl Link {
    /// Connects, serves, and connects again, for ever.
    pub async fn run(self) {
        let mut wait = RETRY.0;
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((connection, send, receive)) => {
                    let began = Instant::now();
                    self.serve(connection, send, receive).await;
                    // One that ended at once was refused, or soon would be again.
                    if began.elapsed() > RETRY.1 {
                        wait = RETRY.0;
                    }
                    let _ = self.inbox.send(Event::Input(Input::Disconnected { replica: self.replica })).await;
                }
                Err(error) if error.is_refused_certificate() && !told => {
                    told = true;
                    tracing::error!(
                        replica = %self.replica, address = %self.address, %error,
                        "a coordinator and this agent do not accept each other's certificate: make both with one \
                         authority (tidewater identity --ca DIR)"
                    );
                }
                Err(error) => tracing::debug!(replica = %self.replica, %error, "no link to a coordinator"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    async fn connect(&self) -> Result<(Connection, SendStream, RecvStream), ConnectFailed> {
        let name = replica_server_name(self.replica);
        let address = self.address.look_up_for(&self.endpoint).await?;
        let connection = self.endpoint.connect_with(self.config.clone(), address, &name)?.await?;
        let (send, receive) = connection.open_bi().await?;
        Ok((connection, send, receive))
    }

    async fn serve(&self, connection: Connection, send: SendStream, receive: RecvStream) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        // Also where this agent is stopped: what reads a log or visits a page over it ends with it.
        let _closed_in_the_end = Closed(connection.clone());
        let _asked = self.issuers.add(self.replica, connection.clone());
        if self.inbox.send(Event::LinkUp(self.replica, queue)).await.is_err() {
            return;
        }
        let ended = tokio::select! {
            ended = self.read(receive) => ended,
            ended = write(send, waiting) => ended,
            ended = self.serve_streams(&connection) => ended,
        };
        tracing::debug!(replica = %self.replica, reason = ended, "a link to a coordinator ended");
        // What closes a link may overtake the message that says why.
        if let Some(ConnectionError::ApplicationClosed(close)) = connection.close_reason()
            && !close.reason.is_empty()
        {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            tracing::warn!(replica = %self.replica, reason, "the coordinator ended this agent's session");
        }
    }

    async fn read(&self, mut stream: RecvStream) -> String {
        loop {
            match read_frame::<CoordinatorMessage>(&mut stream).await {
                Ok(Some(message)) => {
                    if let CoordinatorMessage::Refused { reason } = &message {
                        tracing::error!(replica = %self.replica, reason, "the coordinator refused this agent");
                    }
                    let input = Input::FromCoordinator { replica: self.replica, message };
                    if self.inbox.send(Event::Input(input)).await.is_err() {
                        return "shutting down".into();
                    }
                }
                Ok(None) => return "the coordinator ended it".into(),
                Err(error) => return error.to_string(),
            }
        }
    }

    async fn serve_streams(&self, connection: &Connection) -> String {
        loop {
            match connection.accept_bi().await {
                Ok((send, mut receive)) => {
                    let (runtime, pages, connection) = (self.runtime.clone(), self.pages.clone(), connection.clone());
                    self.tasks.spawn(async move {
                        match read_frame::<Opening>(&mut receive).await {
                            Ok(Some(Opening::Log(request))) => serve_log(runtime, connection, request, send).await,
                            Ok(Some(Opening::Page(request))) => {
                                pages.serve(runtime, connection, request, send, receive).await;
                            }
                            // Dropped, both ways end.
                            Ok(None) | Err(_) => {}
                        }
                    });
                }
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// Closes a connection as it is dropped.
struct Closed(Connection);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.close(0u32.into(), b"ended");
    }
}

async fn write(mut stream: SendStream, mut waiting: mpsc::Receiver<AgentMessage>) -> String {
    while let Some(message) = waiting.recv().await {
        if let Err(error) = write_frame(&mut stream, &message).await {
            return error.to_string();
        }
    }
    "this end was too far behind".into()
}

/// Opens a log; one that is to be followed may come a little after its attempt was accepted.
async fn open_log(runtime: &AnyRuntime, request: &LogRequest) -> Result<AnyLog, AnyLogError> {
    let mut tries = if request.follow { LOG_TRIES } else { 0 };
    loop {
        match runtime.logs(request.attempt, request.worker, request.follow).await {
            Err(_) if tries > 0 => tries -= 1,
            opened => return opened,
        }
        tokio::time::sleep(LOG_WAIT).await;
    }
}

/// Answers one request for a log, until its end or until the coordinator stops reading.
async fn serve_log(runtime: AnyRuntime, connection: Connection, request: LogRequest, mut send: SendStream) {
    let mut stream = match open_log(&runtime, &request).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(attempt = %request.attempt, %error, "no log");
            let _ = send.reset(VarInt::from_u32(if error.is_of_worker() { NO_WORKER_LOG } else { NO_LOG }));
            return;
        }
    };
    loop {
        let piece = tokio::select! {
            piece = stream.next() => piece,
            _ = send.stopped() => return,
            _ = connection.closed() => return,
        };
        match piece {
            None => break,
            Some(Ok(bytes)) => {
                if send.write_chunk(bytes).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => {
                tracing::warn!(attempt = %request.attempt, %error, "a log broke off");
                let _ = send.reset(1u32.into());
                return;
            }
        }
    }
    let _ = send.finish();
    // The stream is delivered, or the connection is gone; either way it may be dropped now.
    let _ = send.stopped().await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_reaches_whatever_the_addresses_may_mean() {
        let of = |addresses: &[&str]| {
            let all = addresses.iter().zip(1..).map(|(address, id)| (ReplicaId(id), address.parse().unwrap()));
            endpoint(&all.collect()).unwrap().local_addr().unwrap()
        };
        assert!(of(&["127.0.0.1:1", "127.0.0.2:1"]).ip().is_loopback());
        let four = of(&["127.0.0.1:1", "10.0.0.1:1"]);
        assert!(four.is_ipv4() && four.ip().is_unspecified());
        // A name may turn out to be of either kind.
        let six = Endpoint::client("[::]:0".parse().unwrap()).is_ok();
        for named in [&["10.0.0.1:1", "coordinator-2:1"], &["10.0.0.1:1", "[fd00::1]:1"]] {
            let own = of(named);
            assert!(own.ip().is_unspecified() && own.is_ipv6() == six, "{own}");
        }
    }
}
