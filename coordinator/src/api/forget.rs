//! `POST …/workloads/{name}/forget`: a person says that an attempt is gone which nobody can see any more.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use engine::commands::{Command, MAX_REASON};
use protocol::api::{ForgetRequest, Status};
use protocol::ids::AttemptId;

use super::errors::ApiError;
use super::workloads::{Failed, key, look_up, no_workload, nothing, submit, unread, warning_headers};
use super::{Api, body};
use crate::handle::Consistency;

/// `POST …/namespaces/{ns}/workloads/{name}/forget`: the workload, with a warning of what was said by it.
pub async fn post(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let key = key(path)?;
    let asked: ForgetRequest = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let reason = asked.reason.trim();
    if reason.is_empty() {
        return Err(ApiError::Malformed("reason: it is empty; say how you know that the attempt is gone".into()));
    }
    if reason.chars().count() > MAX_REASON {
        return Err(ApiError::Malformed(format!("reason: at most {MAX_REASON} characters are kept")));
    }
    let wanted = key.clone();
    // The attempt that the person means is settled now: a try of this request that comes late must not end a later one.
    let found = api.read(Consistency::Linearizable, move |view| {
        let workload = view.state.workloads.get(&wanted)?;
        Some((workload.uid, workload.attempts.last().map(|a| (a.number, a.cluster.clone()))))
    });
    let (uid, last) = found.await?.ok_or_else(|| no_workload(&key))?;
    let Some((last, cluster)) = last else {
        return Err(ApiError::Conflict(format!("workload {key} was never placed: there is no attempt to forget")));
    };
    let attempt = AttemptId { workload: uid, number: asked.attempt.unwrap_or(last) };
    let command = Command::Forget { key: key.clone(), attempt, reason: reason.to_owned() };
    match submit(&api, &command, nothing).await {
        Ok(_) => {}
        // An earlier try of this request may have ended a workload that was to be deleted.
        Err(Failed { error: ApiError::NotFound(_), tried_before: true }) => {}
        Err(e) => return Err(e.error),
    }
    let warning = format!(
        "attempt {} of {key} counts as gone on your word. If anything of it still runs in {cluster}, it goes on beside the \
         next attempt, and on GPUs that are given out again",
        attempt.number
    );
    let headers = warning_headers(&[warning]);
    Ok(match look_up(&api, key.clone(), Consistency::Linearizable).await? {
        Some(seen) => (headers, Json(seen.object())).into_response(),
        None => (headers, Json(Status::success(format!("workload {key} is deleted")))).into_response(),
    })
}
