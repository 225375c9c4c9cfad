//! Watches on kinds of which there are few and which change rarely: pools, ownership rules and data locations. No history is kept: at each
//! change the kind is read again, and what differs from what was sent is sent. A watch that is to go on from a version before
//! the kind's last change is told `410 Expired`, and its client lists again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use protocol::api::API_VERSION;
use protocol::ids::LogIndex;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

use super::errors::ApiError;
use super::params::Params;
use super::{Api, watch};
use crate::handle::{Change, Consistency, View};

/// Everything of a kind by name: each object's version, and itself.
pub type Level = BTreeMap<String, (String, serde_json::Value)>;

/// Reads everything of a kind.
type Read = Arc<dyn Fn(&View<'_>) -> Level + Send + Sync>;

/// Answers a watch on `kind`.
///
/// # Errors
/// [`ApiError::Expired`] where the kind changed after the version that the watch is to go on from.
pub async fn answer(
    api: Api,
    kind: &'static str,
    params: &Params,
    read: impl Fn(&View<'_>) -> Level + Send + Sync + 'static,
) -> Result<Response, ApiError> {
    let read: Read = Arc::new(read);
    let changes = api.handle().watch();
    let first = read.clone();
    let found = api.read(params.consistency()?, move |view| (first(view), changed(view), view.state.applied));
    let (level, changed, applied) = found.await?;
    let pending = match params.parsed::<u64>("resourceVersion")?.filter(|v| *v > 0) {
        Some(since) if since < changed.0 => {
            return Err(ApiError::Expired(format!(
                "pools, ownership rules or data locations changed at version {changed}, after version {since}: list again and watch from the \
                 list's version"
            )));
        }
        Some(_) => String::new(),
        None => {
            let mut lines: String = level.values().map(|(_, o)| watch::line("ADDED", o).to_string()).collect();
            lines.push_str(&bookmark(kind, applied));
            lines
        }
    };
    let until = params.parsed::<u64>("timeoutSeconds")?.map(|s| Instant::now() + Duration::from_secs(s));
    let beat = Instant::now() + api.settings().heartbeat;
    let watcher = Watcher { api, kind, read, changes, level, applied, pending: Some(pending), beat, until };
    let body = Body::from_stream(stream::unfold(watcher, |mut w| async move {
        let chunk = w.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), w))
    }));
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// When any of these kinds changed last.
fn changed(view: &View<'_>) -> LogIndex {
    view.state.pools.version.max(view.state.data.version)
}

fn bookmark(kind: &str, version: LogIndex) -> Arc<str> {
    let metadata = serde_json::json!({"resourceVersion": version.to_string()});
    watch::line("BOOKMARK", &serde_json::json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}))
}

struct Watcher {
    api: Api,
    kind: &'static str,
    read: Read,
    changes: broadcast::Receiver<Change>,
    level: Level,
    applied: LogIndex,
    pending: Option<String>,
    beat: Instant,
    until: Option<Instant>,
}

impl Watcher {
    /// The next lines; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(lines) = self.pending.take().filter(|l| !l.is_empty()) {
            return Some(lines.into());
        }
        loop {
            let stopping = self.api.settings().stopping.clone();
            let end = self.until.unwrap_or_else(|| self.beat + Duration::from_secs(1));
            tokio::select! {
                changed = self.changes.recv() => match changed {
                    Ok(change) if change.pools.is_empty() && change.owners.is_empty() && change.data.is_empty() => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        let lines = self.look().await?;
                        if !lines.is_empty() {
                            return Some(lines.into());
                        }
                    }
                    Err(RecvError::Closed) => return None,
                },
                () = stopping.cancelled() => return None,
                () = tokio::time::sleep_until(self.beat) => {
                    self.beat = Instant::now() + self.api.settings().heartbeat;
                    return Some(Bytes::from(bookmark(self.kind, self.applied).to_string()));
                }
                () = tokio::time::sleep_until(end) => if self.until.is_some() { return None },
            }
        }
    }

    /// What differs from what was sent.
    async fn look(&mut self) -> Option<String> {
        let read = self.read.clone();
        let found = self.api.handle().read(Consistency::Stale, move |view| (read(view), view.state.applied)).await;
        let (level, applied) = found.ok()?;
        let mut lines = String::new();
        for (name, (version, object)) in &level {
            match self.level.get(name) {
                None => lines.push_str(&watch::line("ADDED", object)),
                Some((before, _)) if before != version => lines.push_str(&watch::line("MODIFIED", object)),
                Some(_) => {}
            }
        }
        for (_, (_, object)) in self.level.iter().filter(|(name, _)| !level.contains_key(*name)) {
            lines.push_str(&watch::line("DELETED", object));
        }
        (self.level, self.applied) = (level, applied);
        Some(lines)
    }
}
