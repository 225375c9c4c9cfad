//! `POST /dashboard/{ns}/{name}`: one connection to the page that a workload's live attempt serves itself, Ray's dashboard or Spark's UI, as an
//! upgrade to a stream of bytes. The agent of its cluster makes the connection, and passes on what it hears.
//!
//! Whoever reaches Ray's dashboard can run programs in that attempt, and Spark's UI ends its jobs. So this is no way of reading, as logs are:
//! it asks for the right to change the workload, as its cancellation does. Until users have rights, it is a POST for that, so that whatever lets
//! others read only keeps them from it too. No page of a browser can send the header that it needs.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::lifecycle::Phase;
use engine::state::Workload;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use protocol::ids::{AttemptId, ClusterName, WorkloadKey};
use protocol::quic::relay;
use protocol::workload::Framework;
use tokio::sync::Semaphore;

use super::Api;
use super::errors::ApiError;
use super::workloads::{key, no_workload};
use crate::handle::{Consistency, NoPage};

/// What the connection is upgraded to.
pub const PROTOCOL: &str = "tidewater-bytes";
/// The answer's header with the attempt's number.
pub const ATTEMPT: &str = "tidewater-attempt";
/// That with the framework whose page it is.
pub const FRAMEWORK: &str = "tidewater-framework";
/// That with what the page asks its visitors for, where it does.
pub const TOKEN: &str = "tidewater-token";

/// Connections at once, to all pages through this replica: each holds some memory while one of its ends does not listen.
const AT_ONCE: usize = 256;
/// How long the agent may take to answer.
const OPEN: Duration = Duration::from_secs(8);
/// The agent knows better how long a page may be silent after its visitor's last word; this is for one that does not say.
const LINGER: Duration = Duration::from_secs(60);
/// The property by which a Spark application says that it has no page.
const SPARK_UI: &str = "spark.ui.enabled";

/// The right to connections, one each.
#[derive(Clone)]
pub struct Visits(Arc<Semaphore>);

impl Default for Visits {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// Where a page is.
struct Place {
    cluster: ClusterName,
    attempt: AttemptId,
    framework: Framework,
}

/// `POST /dashboard/{ns}/{name}` with `Connection: Upgrade` and `Upgrade: tidewater-bytes`. Answers 101 once the page is reached; from then on the
/// connection's bytes are the page's.
pub async fn post(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let key = key(path)?;
    let upgrade = request.extensions_mut().remove::<OnUpgrade>().filter(|_| asks_for_bytes(request.headers()));
    let upgrade = upgrade.ok_or_else(|| {
        ApiError::Malformed(format!(
            "a page is a stream of bytes: ask for it with the headers Connection: Upgrade and Upgrade: {PROTOCOL}, as `tidewater dashboard` does"
        ))
    })?;
    let asked = key.clone();
    let found = api.read(Consistency::Linearizable, move |view| view.state.workloads.get(&asked).map(place)).await?;
    let Place { cluster, attempt, framework } = found.ok_or_else(|| no_workload(&key))??;
    let visit = api.visits().0.clone().try_acquire_owned().map_err(|_| {
        ApiError::Overloaded(format!(
            "{AT_ONCE} connections to pages go through this replica, and no more: try again in a while"
        ))
    })?;
    let opening = tokio::time::timeout(OPEN, api.handle().page(cluster.clone(), attempt)).await;
    let too_late = |_| Err(NoPage::NoAgent(format!("its agent does not answer within {} s", OPEN.as_secs())));
    let page = opening.unwrap_or_else(too_late).map_err(|why| {
        let number = attempt.number;
        let text = format!("attempt {number} of workload {key} in cluster {cluster} shows no page now: {why}");
        match why {
            NoPage::NoAgent(_) => ApiError::Unavailable(text),
            NoPage::Refused(_) => ApiError::Conflict(text),
        }
    })?;

    let mut answer = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(ATTEMPT, HeaderValue::from(attempt.number.0));
    for (name, value) in [(FRAMEWORK, Some(framework.to_string())), (TOKEN, page.token)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    let stopping = api.settings().stopping.clone();
    tokio::spawn(async move {
        let _visit = visit;
        let passing = async {
            // One that went before it had the answer wants no page.
            let Ok(upgraded) = upgrade.await else { return };
            if let Err(error) = relay(TokioIo::new(upgraded), page.bytes, LINGER).await {
                tracing::debug!(%attempt, %error, "a connection to a page broke off");
            }
        };
        tokio::select! {
            () = passing => {}
            () = stopping.cancelled() => {}
        }
    });
    Ok(answer)
}

fn asks_for_bytes(headers: &HeaderMap) -> bool {
    let says = |name, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    says(header::CONNECTION, "upgrade") && says(header::UPGRADE, PROTOCOL)
}

/// Where a workload's page is, or why there is none.
fn place(workload: &Workload) -> Result<Place, ApiError> {
    let key: &WorkloadKey = &workload.key;
    let none = |why: String| Err(ApiError::Conflict(why));
    let framework = workload.spec.framework().map_err(|error| ApiError::Conflict(error.to_string()))?;
    if framework == Framework::Batch {
        return none(format!("workload {key} is of batch, which has no page of its own; Ray and Spark have"));
    }
    let conf = workload.spec.spark_property(SPARK_UI);
    if conf.is_some_and(|value| value.trim().eq_ignore_ascii_case("false")) {
        return none(format!("workload {key} has turned its page off: its conf has {SPARK_UI}=false"));
    }
    if workload.phase.is_terminal() {
        return none(format!("workload {key} has ended ({}), and its page with it", workload.phase));
    }
    let live = workload.attempts.last().filter(|attempt| attempt.ended_at.is_none());
    let Some(attempt) = live.filter(|_| workload.phase.is_live()) else {
        return none(format!(
            "workload {key} is waiting to be placed and has no page yet: `tidewater why {} -n {}` says for what",
            key.name, key.namespace
        ));
    };
    let (number, cluster) = (attempt.number, &attempt.cluster);
    match workload.phase {
        Phase::Bound | Phase::Launching => {
            none(format!("attempt {number} of workload {key} is on its way to cluster {cluster} and has no page yet"))
        }
        Phase::Unknown => Err(ApiError::Unavailable(format!(
            "cluster {cluster} is not heard from, so that the page of attempt {number} of workload {key} can't be reached now"
        ))),
        _ => Ok(Place { cluster: cluster.clone(), attempt: workload.attempt_id(number), framework }),
    }
}
