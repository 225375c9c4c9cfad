//! The HTTP API: routes, their shared state, and the layers that every request passes. It reads and proposes through
//! [`Handle`] alone and owns nothing but the ring of recent changes that watches read.
//!
//! Kubernetes' conventions where Kubernetes has one; JSON in and out, YAML in. Loopback HTTP in this version.

mod ahead;
pub mod body;
pub mod capacity;
pub mod clusters;
pub mod cordons;
pub mod dashboard;
pub mod data;
pub mod errors;
pub mod explain;
pub mod forget;
pub mod health;
pub mod issuer;
pub mod level_watch;
pub mod logs;
pub mod metrics;
pub mod ownership;
pub mod params;
pub mod pools;
pub mod reasons;
pub mod render;
pub mod ring;
pub mod supply;
pub mod watch;
pub mod words;
pub mod workloads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::errors::ApiError;
use self::metrics::HttpMetrics;
use self::reasons::Reasons;
use self::ring::Ring;
use crate::handle::{Consistency, Handle, View};
use crate::identity::workload_tokens::IssuerUrl;

/// The path below which Tidewater's kinds are.
pub const ROOT: &str = "/apis/tidewater.dev/v1";

/// What can be set about the API.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a proposal or a read may take in all, tries again included.
    pub timeout: Duration,
    /// Time between a watch's bookmarks.
    pub heartbeat: Duration,
    /// How many recent changes are kept for watches.
    pub ring: usize,
    /// The issuer of workload tokens; none: none are issued here.
    pub issuer: Option<IssuerUrl>,
    /// Long-lived answers (watches, logs, events, pages) end when this is cancelled.
    pub stopping: CancellationToken,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
            ring: 4096,
            issuer: None,
            stopping: CancellationToken::new(),
        }
    }
}

/// What every handler has. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    handle: Handle,
    settings: Settings,
    ring: Arc<Ring>,
    metrics: HttpMetrics,
    reasons: Arc<Reasons>,
    standings: Arc<pools::Standings>,
    pages: crate::pages::Live,
    visits: dashboard::Visits,
}

impl Api {
    /// The way to the core.
    pub fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Recent changes.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
    }

    /// What is counted.
    pub fn metrics(&self) -> &HttpMetrics {
        &self.0.metrics
    }

    /// Why each queued workload waits.
    pub fn reasons(&self) -> &Arc<Reasons> {
        &self.0.reasons
    }

    /// How the pools stand.
    pub fn standings(&self) -> &Arc<pools::Standings> {
        &self.0.standings
    }

    /// What the live pages share.
    pub fn pages(&self) -> &crate::pages::Live {
        &self.0.pages
    }

    /// The right to connections to attempts' own pages.
    pub fn visits(&self) -> &dashboard::Visits {
        &self.0.visits
    }

    /// Reads within the timeout.
    pub async fn read<T: Send + 'static>(
        &self,
        consistency: Consistency,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(self.settings().timeout, self.handle().read(consistency, look)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(crate::handle::ReadError::NoQuorum.into()),
        }
    }
}

/// The API and the pages over `handle`. Must be called within a tokio runtime: it starts the task that keeps recent changes
/// for watches, which ends with `settings.stopping` or with the router.
pub fn router(handle: Handle, settings: Settings) -> Router {
    let reasons = Arc::<Reasons>::default();
    let ring = Ring::follow(handle.clone(), &settings, reasons.clone());
    let api = Api(Arc::new(Inner {
        handle,
        settings,
        ring,
        metrics: HttpMetrics::default(),
        reasons,
        standings: Arc::default(),
        pages: crate::pages::Live::default(),
        visits: dashboard::Visits::default(),
    }));
    Router::new()
        .merge(resources())
        .route("/capacity", get(capacity::get))
        .route("/explain/{namespace}/{name}", get(explain::get))
        .route("/forecast/{namespace}/{name}", get(ahead::get_forecast))
        .route("/whatif", post(ahead::post_whatif))
        .route("/logs/{namespace}/{name}", get(logs::get))
        .route("/dashboard/{namespace}/{name}", post(dashboard::post))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::get))
        .route(issuer::CONFIGURATION, get(issuer::configuration))
        .route(issuer::KEYS, get(issuer::keys))
        .merge(crate::pages::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(api.clone(), around))
        .with_state(api)
}

fn resources() -> Router<Api> {
    let path = |rest: &str| format!("{ROOT}{rest}");
    Router::new()
        .route(&path("/workloads"), get(workloads::list_all))
        .route(&path("/namespaces/{namespace}/workloads"), get(workloads::list).post(workloads::create))
        .route(&path("/namespaces/{namespace}/workloads/{name}"), get(workloads::get).delete(workloads::delete))
        .route(&path("/namespaces/{namespace}/workloads/{name}/cancel"), post(workloads::cancel))
        .route(&path("/namespaces/{namespace}/workloads/{name}/forget"), post(forget::post))
        .route(&path("/resourcepools"), get(pools::list).post(pools::create))
        .route(&path("/resourcepools/{name}"), get(pools::get).put(pools::replace).delete(pools::delete))
        .route(&path("/ownershiprules"), get(ownership::list).post(ownership::create))
        .route(&path("/ownershiprules/{name}"), get(ownership::get).put(ownership::replace).delete(ownership::delete))
        .route(&path("/datalocations"), get(data::list).post(data::create))
        .route(&path("/datalocations/{name}"), get(data::get).put(data::replace).delete(data::delete))
        .route(&path("/clusters"), get(clusters::list))
        .route(&path("/clusters/{name}"), get(clusters::get).delete(cordons::remove))
        .route(&path("/clusters/{name}/cordon"), post(cordons::cordon))
        .route(&path("/clusters/{name}/uncordon"), post(cordons::uncordon))
        .route(&path("/clusters/{name}/drain"), post(cordons::drain))
        .route(&path("/clusters/{name}/nodes"), get(clusters::nodes))
}

/// Serves until `stop` is cancelled; then takes no more connections, lets short requests end and returns. The router's
/// `settings.stopping` should be `stop` or a child of it, so that long-lived answers end too.
///
/// # Errors
/// What the listener says.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    const GRACE: Duration = Duration::from_secs(2);
    set_options(&listener)?;
    let stopped = stop.clone();
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await }).into_future();
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        done = &mut serving => done,
        () = stop.cancelled() => match tokio::time::timeout(GRACE, serving).await {
            Ok(done) => done,
            // A client that keeps its connection busy does not keep the process.
            Err(_) => Ok(()),
        },
    }
}

/// What each connection has from its listener: what is written goes out at once, and the system asks clients that are silent for half a minute
/// whether they are still there. One that vanished without a word would else hold what it has of an answer for ever, as a connection to a page
/// to which nothing is written.
fn set_options(listener: &TcpListener) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_tcp_nodelay(listener, true)?;
    sockopt::set_tcp_keepidle(listener, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(listener, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(listener, 3)?;
    Ok(sockopt::set_socket_keepalive(listener, true)?)
}

/// What is around every answer: the body's size is bounded, the request counted, and the time to the answer's head bounded,
/// body upload included; a stream that began goes on. One layer for all three: each costs every request a copy of the service
/// behind it and a future on the heap.
async fn around(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    DefaultBodyLimit::max(body::MAX_BODY).apply(&mut request);
    let counted = metrics::Counted::begin(&request);
    let limit = api.settings().timeout * 2;
    let response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            ApiError::Unavailable(format!("no answer within {}", words::span(limit.as_millis() as u64))).into_response()
        }
    };
    counted.end(api.metrics(), &response);
    response
}

async fn no_such_path(uri: Uri) -> ApiError {
    ApiError::NotFound(format!(
        "there is nothing at {}; workloads are at {ROOT}/workloads, pools at {ROOT}/resourcepools, data at {ROOT}/datalocations",
        uri.path()
    ))
}

async fn no_such_method(method: axum::http::Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!("{method} is not possible on {}", uri.path()))
}
