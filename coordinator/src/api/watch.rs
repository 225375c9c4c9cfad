//! Watches on workloads: newline-delimited events from a version on, or first everything and then what changes, with
//! bookmarks as heartbeats. Reads the ring; never misses an event, and says `410 Expired` where it would.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use protocol::api::{API_VERSION, WatchEvent};
use protocol::ids::{LogIndex, Namespace, WorkloadKey};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Api;
use super::errors::ApiError;
use super::ring::Expired;

/// Which workloads are watched or listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this namespace only.
    pub namespace: Option<Namespace>,
    /// Of this name only.
    pub name: Option<String>,
}

impl Filter {
    /// Whether the workload is meant.
    pub fn takes(&self, key: &WorkloadKey) -> bool {
        self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.name.as_ref().is_none_or(|n| n == key.name.as_str())
    }
}

/// Where a watch starts.
pub enum Start {
    /// After this version.
    After(LogIndex),
    /// With these lines, which show everything as of this version.
    With(String, LogIndex),
}

/// One line of a watch.
pub fn line<T: Serialize>(kind: &str, object: &T) -> Arc<str> {
    let mut text = serde_json::to_string(&WatchEvent { kind: kind.into(), object })
        .expect("the API's objects have text keys only, so they serialise");
    text.push('\n');
    text.into()
}

/// A bookmark: everything up to this version was sent. It has no name and no spec.
pub fn bookmark(version: LogIndex) -> Arc<str> {
    line(
        "BOOKMARK",
        &serde_json::json!({
            "apiVersion": API_VERSION,
            "kind": "Workload",
            "metadata": {"resourceVersion": version.to_string()},
        }),
    )
}

fn expired(since: LogIndex, e: Expired) -> ApiError {
    ApiError::Expired(format!(
        "changes since version {since} are not all kept (the oldest that can be watched from is {}): list again and \
         watch from the list's version",
        e.oldest
    ))
}

/// Answers a watch. It ends by itself after `for_at_most`, where given.
///
/// # Errors
/// [`ApiError::Expired`] where the start is older than the ring.
pub async fn answer(
    api: Api,
    filter: Filter,
    start: Start,
    for_at_most: Option<Duration>,
) -> Result<Response, ApiError> {
    let mut heads = api.ring().heads();
    let begun = tokio::time::timeout(api.settings().timeout, heads.wait_for(Option::is_some)).await;
    if !begun.is_ok_and(|seen| seen.is_ok()) {
        return Err(ApiError::Unavailable("this replica has not begun to follow changes yet: try again".into()));
    }
    let (pending, cursor, again) = match start {
        Start::With(lines, at) => (Some(lines), at, false),
        Start::After(at) => {
            api.ring().since(at, true).map_err(|e| expired(at, e))?;
            (None, at, true)
        }
    };
    let beat = Instant::now() + api.settings().heartbeat;
    let until = for_at_most.map(|d| Instant::now() + d);
    let watcher = Watcher { api, filter, heads, pending, cursor, again, beat, until, over: false };
    let body = Body::from_stream(stream::unfold(watcher, |mut w| async move {
        let chunk = w.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), w))
    }));
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response())
}

struct Watcher {
    api: Api,
    filter: Filter,
    heads: watch::Receiver<Option<LogIndex>>,
    pending: Option<String>,
    cursor: LogIndex,
    again: bool,
    beat: Instant,
    until: Option<Instant>,
    over: bool,
}

impl Watcher {
    /// The next lines; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(lines) = self.pending.take().filter(|l| !l.is_empty()) {
            return Some(lines.into());
        }
        while !self.over {
            self.heads.mark_unchanged();
            match self.api.ring().since(self.cursor, std::mem::take(&mut self.again)) {
                Ok((events, head)) => {
                    self.cursor = head;
                    let wanted = events.iter().filter(|e| self.filter.takes(&e.key));
                    let lines: String = wanted.map(|e| e.line()).fold(String::new(), |all, l| all + &l);
                    if !lines.is_empty() {
                        return Some(lines.into());
                    }
                }
                Err(e) => {
                    self.over = true;
                    return Some(Bytes::from(line("ERROR", &expired(self.cursor, e).status()).to_string()));
                }
            }
            let end = self.until.unwrap_or_else(|| self.beat + Duration::from_secs(1));
            let stopping = self.api.settings().stopping.clone();
            tokio::select! {
                changed = self.heads.changed() => self.over = changed.is_err(),
                () = stopping.cancelled() => self.over = true,
                () = tokio::time::sleep_until(self.beat) => {
                    self.beat = Instant::now() + self.api.settings().heartbeat;
                    return Some(Bytes::from(bookmark(self.cursor).to_string()));
                }
                () = tokio::time::sleep_until(end) => self.over = self.until.is_some(),
            }
        }
        None
    }
}
