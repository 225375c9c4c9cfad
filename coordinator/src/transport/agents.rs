//! Sessions of agents: one control stream each way for the session's life, and a stream for each log that is read. Those of pages are in
//! `pages.rs`, those that agents open in `tokens.rs`.

use std::sync::Arc;

use protocol::control::{AgentMessage, CoordinatorMessage, LogRequest, NO_LOG, NO_WORKER_LOG, Opening};
use protocol::ids::ClusterName;
use protocol::quic::{read_frame, write_frame};
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc;

use super::{Event, Inbox, tokens};
use crate::identity::workload_tokens::Issuer;
use crate::replica::Input;
use crate::sessions::SessionId;

/// Messages to one agent that may wait. An agent so far behind is cut off: its next session is told what is outstanding.
const QUEUE: usize = 8192;
/// Close code for a session that ends for a reason given in words.
const ENDED: VarInt = VarInt::from_u32(2);

/// The way to one agent.
#[derive(Clone)]
pub struct AgentLink {
    connection: Connection,
    queue: mpsc::Sender<CoordinatorMessage>,
}

impl AgentLink {
    /// Sends, in order. A session that can't keep up is ended.
    pub fn send(&self, message: CoordinatorMessage) {
        if self.queue.try_send(message).is_err() {
            self.close("this session is too far behind; the next one begins anew");
        }
    }

    /// A stream of its own, opened for this.
    pub(super) async fn open(&self, opening: &Opening) -> Result<(SendStream, RecvStream), String> {
        let (mut send, receive) = self.connection.open_bi().await.map_err(|e| e.to_string())?;
        write_frame(&mut send, opening).await.map_err(|e| e.to_string())?;
        Ok((send, receive))
    }

    /// Ends the session.
    pub fn close(&self, reason: &str) {
        self.connection.close(ENDED, reason.as_bytes());
    }
}

/// Serves one agent's session until its connection ends.
pub(super) async fn serve(
    connection: Connection,
    id: SessionId,
    cluster: ClusterName,
    inbox: Inbox,
    issuer: Option<Arc<Issuer>>,
) {
    let Ok((send, receive)) = connection.accept_bi().await else { return };
    let (queue, waiting) = mpsc::channel(QUEUE);
    let link = AgentLink { connection: connection.clone(), queue };
    if inbox.send(Event::Agent(id, link)).await.is_err()
        || inbox.send(Event::Input(Input::AgentOpened(id, cluster.clone()))).await.is_err()
    {
        return;
    }
    tracing::info!(%cluster, session = id.0, "agent connected");
    let outcome = tokio::select! {
        outcome = read(receive, id, &inbox) => outcome,
        outcome = write(send, waiting) => outcome,
        ended = tokens::serve(connection.clone(), cluster.clone(), issuer) => Err(ended),
    };
    if let Err(error) = &outcome {
        connection.close(ENDED, error.as_bytes());
    }
    tracing::info!(%cluster, session = id.0, reason = outcome.err(), "agent's session ended");
    let _ = inbox.send(Event::Input(Input::AgentClosed(id))).await;
}

async fn read(mut stream: RecvStream, id: SessionId, inbox: &Inbox) -> Result<(), String> {
    loop {
        match read_frame::<AgentMessage>(&mut stream).await {
            Ok(Some(message)) => {
                inbox.send(Event::Input(Input::Agent(id, message))).await.map_err(|_| "shutting down".to_owned())?;
            }
            Ok(None) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn write(mut stream: SendStream, mut waiting: mpsc::Receiver<CoordinatorMessage>) -> Result<(), String> {
    while let Some(message) = waiting.recv().await {
        write_frame(&mut stream, &message).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn log_error(error: ReadError) -> String {
    match error {
        ReadError::Reset(code) if code == VarInt::from_u32(NO_LOG) => {
            "its cluster has no log of this attempt (yet, or any more)".into()
        }
        ReadError::Reset(code) if code == VarInt::from_u32(NO_WORKER_LOG) => {
            "its cluster has no log of this worker (yet, or any more): what is kept of an attempt that has ended is what speaks for its \
             program"
                .into()
        }
        error => format!("the log broke off: {error}"),
    }
}

/// Reads an attempt's log from its agent into `chunks`, until its end or until nobody listens.
pub async fn read_log(link: AgentLink, request: LogRequest, chunks: mpsc::Sender<Result<Vec<u8>, String>>) {
    let read = async {
        let (mut send, mut receive) = link.open(&Opening::Log(request)).await?;
        send.finish().map_err(|e| e.to_string())?;
        const CHUNK: usize = 64 * 1024;
        while let Some(chunk) = receive.read_chunk(CHUNK, true).await.map_err(log_error)? {
            if chunks.send(Ok(chunk.bytes.to_vec())).await.is_err() {
                break;
            }
        }
        Ok::<(), String>(())
    };
    if let Err(error) = read.await {
        let _ = chunks.send(Err(error)).await;
    }
}
