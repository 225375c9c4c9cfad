//! Answers that go on: raw bytes of logs, and the lines of a watch.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use protocol::api::{Status, WatchEvent, WorkloadObject};
use serde_json::Value;

use super::ClientError;

/// The longest line of a watch, in bytes; a longer one is no event of ours.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// The bytes of an answer as they come.
pub struct ByteStream {
    server: String,
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<Vec<u8>>> + Send>>,
}

impl ByteStream {
    pub(super) fn new(server: String, answer: reqwest::Response) -> Self {
        Self { server, chunks: Box::pin(answer.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec()))) }
    }

    /// The next bytes; none at the end. An error: the connection was lost before the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        self.chunks.next().await.transpose().map_err(|e| ClientError::Unreachable {
            server: self.server.clone(),
            cause: format!("the connection was lost: {}", ClientError::root(&e)),
        })
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A workload is new or has changed.
    Changed(Box<WorkloadObject>),
    /// A workload is gone; this is its last state.
    Deleted(Box<WorkloadObject>),
    /// Nothing; but a watch may go on from this version.
    Bookmark(String),
    /// The version is too old to go on from: list again.
    Expired,
}

/// One connection's worth of changes.
pub struct Watch {
    bytes: ByteStream,
    buffer: Vec<u8>,
}

impl Watch {
    pub(super) fn new(bytes: ByteStream) -> Self {
        Self { bytes, buffer: vec![] }
    }

    /// The next event; none when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return self.event(&line).map(Some);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(self.unintelligible(format!("a line of a watch is longer than {MAX_LINE} bytes")));
            }
            match self.bytes.next().await? {
                Some(more) => self.buffer.extend_from_slice(&more),
                None => return Ok(None),
            }
        }
    }

    fn event(&self, line: &[u8]) -> Result<Event, ClientError> {
        let bad = |e: serde_json::Error| self.unintelligible(format!("a line of a watch is no event: {e}"));
        let event: WatchEvent<Value> = serde_json::from_slice(line).map_err(bad)?;
        let workload = |object: Value| serde_json::from_value(object).map(Box::new).map_err(bad);
        match event.kind.as_str() {
            "ADDED" | "MODIFIED" => workload(event.object).map(Event::Changed),
            "DELETED" => workload(event.object).map(Event::Deleted),
            "BOOKMARK" => {
                let version = event.object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                Ok(Event::Bookmark(version.to_owned()))
            }
            "ERROR" => {
                let status: Status = serde_json::from_value(event.object).map_err(bad)?;
                match status.code {
                    410 => Ok(Event::Expired),
                    _ => Err(ClientError::Refused { status: Box::new(status), again: false }),
                }
            }
            other => Err(self.unintelligible(format!("a watch told of {other:?}"))),
        }
    }

    fn unintelligible(&self, problem: String) -> ClientError {
        ClientError::Unintelligible { server: self.bytes.server.clone(), problem }
    }
}
