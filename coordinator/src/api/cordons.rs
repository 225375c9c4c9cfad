//! What a person does with a member cluster: cordons it, drains it, opens it again, or removes it. Each may safely be sent twice.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use engine::commands::{Command, Cordoning, MAX_REASON, Outcome};
use protocol::api::{ClusterObject, CordonRequest, DrainRequest, Status};
use protocol::ids::ClusterName;
use serde::de::DeserializeOwned;

use super::errors::ApiError;
use super::params::Params;
use super::workloads::{nothing, submit, unread};
use super::{Api, body, render};
use crate::handle::View;

/// `POST …/clusters/{name}/cordon`: nothing new is placed there; a drain of it ends nothing more.
pub async fn cordon(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked: CordonRequest = read(&headers, sent)?;
    set(&api, name, Cordoning::Cordon { reason: checked(asked.reason)? }).await
}

/// `POST …/clusters/{name}/drain`: nothing new is placed there, and what runs there is ended and goes on elsewhere.
pub async fn drain(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let DrainRequest { reason, force, max_at_once } = read(&headers, sent)?;
    if max_at_once == Some(0) {
        return Err(ApiError::Malformed("maxAtOnce: 0 would end nothing; leave it out to end all at once".into()));
    }
    set(&api, name, Cordoning::Drain { reason: checked(reason)?, force, max_at_once }).await
}

/// `POST …/clusters/{name}/uncordon`: it takes what fits again, or may join again where it was removed.
pub async fn uncordon(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, ApiError> {
    set(&api, name, Cordoning::Lift).await
}

/// `DELETE …/clusters/{name}?reason=TEXT&lostForGood=true`: it is gone from the list, and its agent is refused.
pub async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Status>, ApiError> {
    let cluster = ClusterName::new(name)?;
    let reason = checked(params.text("reason").map(str::to_owned))?.unwrap_or_default();
    let lost_for_good = params.switch("lostForGood")?;
    submit(&api, &Command::RemoveCluster { cluster: cluster.clone(), reason, lost_for_good }, nothing).await?;
    Ok(Json(Status::success(format!(
        "cluster {cluster} is removed; its agent is refused until `tidewater cluster uncordon {cluster}`"
    ))))
}

/// A body, which may be left out.
fn read<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    let sent = sent.map_err(unread)?;
    if sent.trim_ascii().is_empty() { Ok(T::default()) } else { body::parse(body::format(headers)?, &sent) }
}

/// A reason that can be kept whole, on one line.
fn checked(reason: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(reason) = reason else { return Ok(None) };
    let reason = reason.trim();
    if reason.chars().count() > MAX_REASON {
        return Err(ApiError::Malformed(format!("reason: at most {MAX_REASON} characters are kept")));
    }
    if reason.chars().any(char::is_control) {
        return Err(ApiError::Malformed("reason: write it on one line, without control characters".into()));
    }
    Ok(Some(reason.to_owned()))
}

/// The cluster as it is now; a `Status` where it may join again and has not.
async fn set(api: &Api, name: String, to: Cordoning) -> Result<Response, ApiError> {
    let cluster = ClusterName::new(name)?;
    let shown = cluster.clone();
    let look = move |_: &Outcome, view: &View<'_>| -> Option<ClusterObject> {
        let member = view.state.clusters.get(&shown)?;
        Some(render::cluster(view, member, &render::running_by_cluster(view)))
    };
    let (seen, _) = submit(api, &Command::Cordon { cluster: cluster.clone(), to }, look).await?;
    Ok(match seen {
        Some(object) => Json(object).into_response(),
        None => Json(Status::success(format!("cluster {cluster} may join again"))).into_response(),
    })
}
