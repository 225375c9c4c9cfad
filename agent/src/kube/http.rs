//! Requests to the API server that are read piece by piece: a page of a list whole, a watch line by line. kube's own calls
//! would lose the header that says when to try again.

use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes};
use kube::Client;
use kube::client::Body;
use serde::de::DeserializeOwned;

use super::client::with_causes;
use super::objects::Refusal;

/// The longest line of a watch: several times what etcd takes of one object.
const MAX_LINE: usize = 16 << 20;
/// The longest page: 500 objects of that largest size.
const MAX_PAGE: usize = 768 << 20;
/// The longest error.
const MAX_REFUSAL: usize = 64 << 10;

/// Why a request gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The version that was asked for is not kept any more: everything is to be listed anew.
    #[error("the API server does not keep that version any more")]
    Gone,
    /// The server refused.
    #[error("the API server answers {code}: {message}")]
    Refused {
        /// HTTP's code.
        code: u16,
        /// What it said.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer, half of one, or one that makes no sense.
    #[error("{0}")]
    Broken(String),
}

impl Failure {
    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Refused { retry_after, .. } => *retry_after,
            Failure::Gone | Failure::Broken(_) => None,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        if refusal.code == Some(410) || refusal.reason.as_deref() == Some("Expired") {
            return Failure::Gone;
        }
        Failure::Refused {
            code: refusal.code.unwrap_or(0),
            message: refusal.message.unwrap_or_else(|| "it gives no reason".to_owned()),
            retry_after: refusal.details.and_then(|d| d.retry_after_seconds).map(Duration::from_secs),
        }
    }
}

/// Sends a request; what is not a success is an error, with what its body says.
pub(super) async fn send(client: &Client, request: http::Request<Vec<u8>>) -> Result<Body, Failure> {
    let answer = client.send(request.map(Body::from)).await.map_err(|e| Failure::Broken(with_causes(&e)))?;
    let (head, body) = answer.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    // Its own overload comes as plain text, with the wait in a header only.
    let text = whole(body, MAX_REFUSAL).await.unwrap_or_default();
    let mut refusal: Refusal = serde_json::from_slice(&text).unwrap_or_default();
    refusal.code = Some(head.status.as_u16());
    refusal.message.get_or_insert_with(|| String::from_utf8_lossy(&text).trim().chars().take(200).collect());
    let header = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match (Failure::from(refusal), header) {
        (Failure::Refused { code, message, .. }, Some(seconds)) => {
            Err(Failure::Refused { code, message, retry_after: Some(Duration::from_secs(seconds)) })
        }
        (failure, _) => Err(failure),
    }
}

/// An answer that is one JSON text.
pub(super) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let bytes = whole(body, MAX_PAGE).await?;
    serde_json::from_slice(&bytes).map_err(|e| Failure::Broken(format!("the API server's answer makes no sense: {e}")))
}

async fn whole(body: Body, most: usize) -> Result<Vec<u8>, Failure> {
    let mut pieces = Pieces(body);
    let mut bytes = vec![];
    while let Some(piece) = pieces.next().await? {
        if bytes.len() + piece.len() > most {
            return Err(Failure::Broken(format!("the API server's answer is longer than {} MiB", most >> 20)));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

struct Pieces(Body);

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.0).poll_frame(cx)).await;
            match frame.transpose().map_err(|e| Failure::Broken(with_causes(&e)))? {
                None => return Ok(None),
                Some(frame) => {
                    // Anything else is a trailer.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// The lines of a watch.
pub(super) struct Lines {
    pieces: Pieces,
    read: Vec<u8>,
    /// Up to here `read` was given out.
    start: usize,
    /// Up to here `read` has no end of a line.
    searched: usize,
}

impl Lines {
    pub fn new(body: Body) -> Self {
        Self { pieces: Pieces(body), read: vec![], start: 0, searched: 0 }
    }

    /// The next line; none once the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            if let Some(at) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let (from, to) = (self.start, self.searched + at);
                (self.start, self.searched) = (to + 1, to + 1);
                if from < to {
                    return Ok(Some(&self.read[from..to]));
                }
                continue;
            }
            self.read.drain(..self.start);
            (self.start, self.searched) = (0, self.read.len());
            if self.read.len() > MAX_LINE {
                return Err(Failure::Broken(format!("an event of a watch is longer than {} MiB", MAX_LINE >> 20)));
            }
            match self.pieces.next().await? {
                Some(piece) => self.read.extend_from_slice(&piece),
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Failure::Broken("the API server's watch ended in mid-event".to_owned())),
            }
        }
    }
}
