//! Workloads: submit, list, watch, get, cancel, delete.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::commands::{Command, Outcome, Refusal};
use engine::plan;
use protocol::api::{API_VERSION, List, ListMetadata, Status, WorkloadObject};
use protocol::ids::{LogIndex, Namespace, Uid, WorkloadKey, WorkloadName};
use tokio::time::Instant;

use super::errors::ApiError;
use super::params::Params;
use super::reasons::Reasons;
use super::render::Seen;
use super::watch::{self, Filter, Start};
use super::{Api, body, issuer, words};
use crate::handle::{Consistency, ProposeError, View};

/// Time before a proposal is tried again, at first: a new leader is there already when it is known that the old one is lost.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// Time between two tries at most; it doubles from the first.
const TRY_AGAIN_AT_MOST: Duration = Duration::from_millis(100);

/// `GET /apis/tidewater.dev/v1/workloads`
pub async fn list_all(State(api): State<Api>, Query(params): Query<Params>) -> Result<Response, ApiError> {
    list_or_watch(api, None, params).await
}

/// `GET …/namespaces/{ns}/workloads`
pub async fn list(
    State(api): State<Api>,
    Path(namespace): Path<String>,
    Query(params): Query<Params>,
) -> Result<Response, ApiError> {
    list_or_watch(api, Some(Namespace::new(namespace)?), params).await
}

async fn list_or_watch(api: Api, namespace: Option<Namespace>, params: Params) -> Result<Response, ApiError> {
    let filter = Filter { namespace, name: params.selected_name()?.map(str::to_owned) };
    let consistency = params.consistency()?;
    if !params.switch("watch")? {
        let (seen, version) = read_all(&api, filter, consistency).await?;
        return Ok(Json(as_list(&seen, version)).into_response());
    }
    let for_at_most = params.parsed::<u64>("timeoutSeconds")?.map(Duration::from_secs);
    // As in Kubernetes, 0 and nothing both mean: whatever there is, first.
    let start = match params.parsed::<u64>("resourceVersion")?.filter(|v| *v > 0) {
        Some(version) => Start::After(LogIndex(version)),
        None => {
            let (seen, version) = read_all(&api, filter.clone(), consistency).await?;
            let mut lines: String = seen.iter().map(|s| watch::line("ADDED", &s.object()).to_string()).collect();
            lines.push_str(&watch::bookmark(version));
            Start::With(lines, version)
        }
    };
    watch::answer(api, filter, start, for_at_most).await
}

async fn read_all(api: &Api, filter: Filter, consistency: Consistency) -> Result<(Vec<Seen>, LogIndex), ApiError> {
    let reasons = api.reasons().clone();
    api.read(consistency, move |view| {
        let wanted = view.state.workloads.iter().filter(|(key, _)| filter.takes(key));
        let seen = reasons.with(view, |waiting| wanted.map(|(_, w)| Seen::of(view, w, waiting)).collect());
        (seen, view.state.applied)
    })
    .await
}

fn as_list(seen: &[Seen], version: LogIndex) -> List<WorkloadObject> {
    List {
        api_version: API_VERSION.into(),
        kind: "WorkloadList".into(),
        metadata: ListMetadata { resource_version: version.to_string() },
        items: seen.iter().map(Seen::object).collect(),
    }
}

/// A path's namespace and name as a key.
///
/// # Errors
/// [`ApiError::Malformed`] where either is no name.
pub fn key(path: (String, String)) -> Result<WorkloadKey, ApiError> {
    Ok(WorkloadKey { namespace: Namespace::new(path.0)?, name: WorkloadName::new(path.1)? })
}

/// The error for a workload that is not there.
pub fn no_workload(key: &WorkloadKey) -> ApiError {
    Refusal::NoWorkload { key: key.clone() }.into()
}

/// `GET …/namespaces/{ns}/workloads/{name}`
pub async fn get(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
    Query(params): Query<Params>,
) -> Result<Json<WorkloadObject>, ApiError> {
    let key = key(path)?;
    let seen = look_up(&api, key.clone(), params.consistency()?).await?;
    Ok(Json(seen.ok_or_else(|| no_workload(&key))?.object()))
}

/// One workload, as a read of this consistency sees it.
pub async fn look_up(api: &Api, key: WorkloadKey, consistency: Consistency) -> Result<Option<Seen>, ApiError> {
    let reasons = api.reasons().clone();
    api.read(consistency, move |view| {
        let workload = view.state.workloads.get(&key)?;
        Some(reasons.with(view, |waiting| Seen::of(view, workload, waiting)))
    })
    .await
}

/// `POST …/namespaces/{ns}/workloads`
pub async fn create(
    State(api): State<Api>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    // The body goes as soon as it is read: what it lies in is the connection's buffer, which is then free for the next request.
    let mut object: WorkloadObject = {
        let sent = sent.map_err(unread)?;
        body::parse(body::format(&headers)?, &sent)?
    };
    drop(headers);
    let key = check_head(&object, Namespace::new(namespace)?)?;
    let mut faults = object.spec.problems();
    faults.extend(issuer::unissued(&api, &object.spec));
    if !faults.is_empty() {
        return Err(ApiError::Invalid { kind: "Workload", name: key.to_string(), faults });
    }
    let uid = object.metadata.uid.unwrap_or_else(|| Uid(uuid::Uuid::now_v7().as_u128()));
    // The specification goes where it is kept, and is copied for that alone.
    let spec = Box::new(std::mem::take(&mut object.spec));
    let command = Command::Submit { key: key.clone(), uid, spec };
    let (about, reasons) = (Arc::new(key.clone()), api.reasons().clone());
    let look = move |outcome: &Outcome, view: &View<'_>| (outcome.clone(), created(view, &reasons, &about, uid));
    let (outcome, seen) = match submit(&api, &command, look).await {
        Ok((answer, _)) => answer,
        Err(Failed { error: ApiError::AlreadyExists(text), .. }) => return Err(taken(&api, &key, text).await),
        Err(failed) => return Err(failed.error),
    };
    let (version, existed) = match outcome {
        Outcome::Submitted { version, existed } => (version, existed),
        other => return Err(ApiError::Unavailable(format!("unexpected answer to a submission: {other:?}"))),
    };
    let (shown, warnings) = match seen {
        Some((seen, warnings)) => (seen.object(), warnings),
        // This replica has not applied it yet: what was accepted is told, not what became of it.
        None => {
            if let Command::Submit { spec, .. } = command {
                object.spec = *spec;
            }
            object.metadata.namespace = Some(key.namespace);
            object.metadata.uid = Some(uid);
            object.metadata.resource_version = Some(version.to_string());
            object.status = None;
            (object, vec![])
        }
    };
    let code = if existed { StatusCode::OK } else { StatusCode::CREATED };
    Ok((code, warning_headers(&warnings), body::Shown(&shown)).into_response())
}

/// The error of a name that is taken: that it becomes free, where its workload is being deleted.
async fn taken(api: &Api, key: &WorkloadKey, text: String) -> ApiError {
    let wanted = key.clone();
    let deleted = move |view: &View<'_>| view.state.workloads.get(&wanted).is_some_and(|w| w.delete_requested);
    ApiError::AlreadyExists(match api.read(Consistency::Stale, deleted).await {
        Ok(true) => format!("workload {key} is being deleted: once its attempt has ended the name is free"),
        _ => text,
    })
}

/// The error of a body that could not be read.
pub fn unread(e: BytesRejection) -> ApiError {
    if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::TooLarge(format!("the body is over {} bytes", body::MAX_BODY));
    }
    ApiError::Malformed(format!("the body could not be read: {}", e.body_text()))
}

/// Checks everything of an object but its spec, and gives its key.
fn check_head(object: &WorkloadObject, namespace: Namespace) -> Result<WorkloadKey, ApiError> {
    if object.api_version != API_VERSION {
        return Err(ApiError::Malformed(format!("apiVersion is {:?}: write {API_VERSION}", object.api_version)));
    }
    if object.kind != "Workload" {
        return Err(ApiError::Malformed(format!("kind is {:?}: write Workload", object.kind)));
    }
    if let Some(other) = object.metadata.namespace.as_ref().filter(|n| **n != namespace) {
        return Err(ApiError::Malformed(format!(
            "metadata.namespace is {other}, but the request's path says {namespace}: make them the same"
        )));
    }
    Ok(WorkloadKey { namespace, name: object.metadata.name.clone() })
}

/// The workload as this replica has it now, and what to warn of; none where it has not.
fn created(view: &View<'_>, reasons: &Reasons, key: &WorkloadKey, uid: Uid) -> Option<(Seen, Vec<String>)> {
    let workload = view.state.workloads.get(key).filter(|w| w.uid == uid)?;
    let seen = reasons.with(view, |waiting| Seen::of(view, workload, waiting));
    Some((seen, plan::warnings(view.state, view.capacity, &workload.spec)))
}

/// `Warning: 299 - "…"`, one header a warning, as Kubernetes sends them.
pub(super) fn warning_headers(warnings: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for warning in warnings {
        let plain: String = warning
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{plain}\"")) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
    headers
}

/// `POST …/namespaces/{ns}/workloads/{name}/cancel`
pub async fn cancel(
    State(api): State<Api>,
    Path(path): Path<(String, String)>,
) -> Result<Json<WorkloadObject>, ApiError> {
    let key = key(path)?;
    submit(&api, &Command::Cancel { key: key.clone() }, nothing).await?;
    let seen = look_up(&api, key.clone(), Consistency::Linearizable).await?;
    Ok(Json(seen.ok_or_else(|| no_workload(&key))?.object()))
}

/// `DELETE …/namespaces/{ns}/workloads/{name}`: the object while its attempt is being ended, else a `Status`.
pub async fn delete(State(api): State<Api>, Path(path): Path<(String, String)>) -> Result<Response, ApiError> {
    let key = key(path)?;
    match submit(&api, &Command::Delete { key: key.clone() }, nothing).await {
        Ok(_) => {}
        // An earlier try of this request may have deleted it.
        Err(Failed { error: ApiError::NotFound(_), tried_before: true }) => {}
        Err(e) => return Err(e.error),
    }
    Ok(match look_up(&api, key.clone(), Consistency::Linearizable).await? {
        Some(seen) => Json(seen.object()).into_response(),
        None => Json(Status::success(format!("workload {key} is deleted"))).into_response(),
    })
}

/// A proposal that failed, and whether an earlier try of it may have taken effect.
pub struct Failed {
    /// Why.
    pub error: ApiError,
    /// Whether an earlier try may have taken effect.
    pub tried_before: bool,
}

impl From<Failed> for ApiError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// Who looks at nothing once a command is committed.
pub fn nothing(_: &Outcome, _: &View<'_>) {}

/// Proposes a command, again where nobody confirmed it, while the time lasts: every command sent here is safe to repeat. Looks
/// at the state with the command in it, in the same turn of the core.
///
/// # Errors
/// [`Failed`] says why, and whether an earlier try may have taken effect.
pub async fn submit<T: Send + 'static>(
    api: &Api,
    command: &Command,
    look: impl Fn(&Outcome, &View<'_>) -> T + Clone + Send + 'static,
) -> Result<(T, bool), Failed> {
    let limit = api.settings().timeout;
    let deadline = Instant::now() + limit;
    let (mut tried_before, mut pause) = (false, TRY_AGAIN);
    loop {
        let answer =
            tokio::time::timeout_at(deadline, api.handle().propose_and_look(command.clone(), look.clone())).await;
        let answer = answer.unwrap_or(Err(ProposeError::Unconfirmed));
        api.metrics().proposal(&answer);
        match answer {
            Ok(outcome) => return Ok((outcome, tried_before)),
            Err(ProposeError::Unconfirmed) if Instant::now() + pause < deadline => {
                tried_before = true;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(TRY_AGAIN_AT_MOST);
            }
            Err(ProposeError::Unconfirmed) => {
                let waited = words::span(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
                let text = format!(
                    "no leader confirmed it within {waited}; it may still take effect, and sending it again with the \
                     same uid is safe"
                );
                return Err(Failed { error: ApiError::Unavailable(text), tried_before });
            }
            Err(e) => return Err(Failed { error: e.into(), tried_before }),
        }
    }
}
