//! The time to come: `GET /forecast/{ns}/{name}` and `POST /whatif`. A copy of the state is taken on the core's thread; what happens to
//! it is worked out on a thread of its own, two questions at a time.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use engine::ahead::{Changes, Edit, Forecast, forecast, whatif};
use engine::capacity::Capacity;
use engine::plan::Memory;
use protocol::ids::UnixMs;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::errors::ApiError;
use super::params::Params;
use super::workloads::{key, no_workload, unread};
use super::{Api, body};
use crate::handle::Consistency;

/// Questions that are worked out at the same time.
const AT_ONCE: usize = 2;
/// The most edits of one question.
const MOST_EDITS: usize = 256;

static RUNNING: Semaphore = Semaphore::const_new(AT_ONCE);

/// What is imagined to be different.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// One after the other.
    edits: Vec<Edit>,
}

/// `GET /forecast/{ns}/{name}`: when a workload starts, and on what that rests.
pub async fn get_forecast(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Result<Json<Forecast>, ApiError> {
    let key = key(path)?;
    let wanted = key.clone();
    let found = work_out(&api, params.consistency()?, move |state, capacity, memory, now| {
        forecast(state, capacity, memory, now, &wanted)
    });
    found.await?.map(Json).ok_or_else(|| no_workload(&key))
}

/// `POST /whatif` with `{"edits": [...]}`: what becomes of workloads that would not become of them as things are.
pub async fn post_whatif(
    State(api): State<Api>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Json<Changes>, ApiError> {
    let Question { edits } = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    if edits.is_empty() || edits.len() > MOST_EDITS {
        let given = edits.len();
        return Err(ApiError::Malformed(format!("edits: {given} are given; from 1 to {MOST_EDITS} are taken")));
    }
    let changes = work_out(&api, Consistency::Linearizable, move |state, capacity, memory, now| {
        whatif(state, capacity, memory, now, &edits)
    });
    changes.await?.map(Json).map_err(|(edit, fault)| ApiError::Malformed(format!("edits[{edit}]: {fault}")))
}

async fn work_out<T: Send + 'static>(
    api: &Api,
    consistency: Consistency,
    question: impl FnOnce(engine::State, Capacity, Memory, UnixMs) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let stopping = || ApiError::Unavailable("this coordinator is shutting down".into());
    let turn = tokio::time::timeout(api.settings().timeout, RUNNING.acquire()).await;
    let turn = turn.map_err(|_| ApiError::Overloaded("other questions are being worked out: try again".into()))?;
    let _turn = turn.map_err(|_| stopping())?;
    let copy = api
        .read(consistency, |view| (view.state.clone(), view.capacity.clone(), view.memory.clone(), view.now))
        .await?;
    let (state, capacity, memory, now) = copy;
    tokio::task::spawn_blocking(move || question(state, capacity, memory, now)).await.map_err(|_| stopping())
}
