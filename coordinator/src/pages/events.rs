//! `/events`: the parts of a page as server-sent events, rendered again at most once a second and sent where they changed.
//! Everyone who looks at the dashboard shares one rendering.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::api::Api;
use crate::api::errors::ApiError;
use crate::api::params::Params;
use crate::api::workloads::key;

/// Time between two renderings.
const PACE: Duration = Duration::from_secs(1);

/// Parts of a page by the id of the element that they fill.
pub type Parts = Arc<BTreeMap<&'static str, String>>;

/// The dashboard's last rendering.
#[derive(Debug, Default)]
pub struct Live {
    last: Mutex<Option<(Instant, Parts)>>,
}

impl Live {
    /// The dashboard's parts, at most [`PACE`] old.
    ///
    /// # Errors
    /// Where the core gives no answer.
    async fn dashboard(&self, api: &Api) -> Result<Parts, ApiError> {
        let mut last = self.last.lock().await;
        if let Some((made, parts)) = last.as_ref()
            && made.elapsed() < PACE * 9 / 10
        {
            return Ok(parts.clone());
        }
        let parts: Parts = Arc::new(super::dashboard::parts(api).await?);
        *last = Some((Instant::now(), parts.clone()));
        Ok(parts)
    }
}

/// What a page shows.
enum Page {
    Dashboard,
    Workload(protocol::ids::WorkloadKey),
}

/// `GET /events` for the dashboard, `GET /events?workload=NAMESPACE/NAME` for a workload's page.
pub async fn get(State(api): State<Api>, Query(params): Query<Params>) -> Result<Response, ApiError> {
    let page = match params.text("workload") {
        None => Page::Dashboard,
        Some(text) => {
            let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
            Page::Workload(key((namespace.to_owned(), name.to_owned()))?)
        }
    };
    let watcher = Watcher { api, page, sent: BTreeMap::new(), ready: Vec::new(), next: Instant::now() };
    let events = stream::unfold(watcher, |mut w| async move {
        let event = w.next().await?;
        Some((Ok::<_, Infallible>(event), w))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

struct Watcher {
    api: Api,
    page: Page,
    sent: BTreeMap<&'static str, String>,
    ready: Vec<Event>,
    next: Instant,
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.next) => {}
                () = self.api.settings().stopping.cancelled() => return None,
            }
            self.next = Instant::now() + PACE;
            // Where the core gives no answer now, the page keeps what it shows until it does.
            let Ok(parts) = self.render().await else { continue };
            for (id, text) in parts.iter() {
                if self.sent.get(id) != Some(text) {
                    self.sent.insert(id, text.clone());
                    self.ready.push(Event::default().event("part").data(format!("{id}\n{text}")));
                }
            }
        }
    }

    async fn render(&self) -> Result<Parts, ApiError> {
        match &self.page {
            Page::Dashboard => self.api.pages().dashboard(&self.api).await,
            Page::Workload(key) => Ok(Arc::new(super::workload::parts(&self.api, key.clone()).await?)),
        }
    }
}
