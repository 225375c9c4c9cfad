//! Resource pools: list, watch, get, create, replace, delete; each with how it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::commands::{Command, Expect, Outcome, Refusal};
use engine::plan::{self, Standing};
use engine::pools::Pools;
use protocol::api::{API_VERSION, List, ListMetadata, Metadata, Status};
use protocol::ids::{LogIndex, PoolName, WorkloadName};
use protocol::pool::objects::{POOL_KIND, PoolObject, PoolPart, PoolStatus, Raised};
use protocol::pool::{PoolSpec, Resource};

use super::errors::ApiError;
use super::params::Params;
use super::workloads::{Failed, nothing, submit, unread};
use super::{Api, body, level_watch, words};
use crate::handle::View;

/// How old the standing of pools may be in an answer: finding it looks at every node.
const KEPT: Duration = Duration::from_millis(200);

type Kept = Arc<BTreeMap<PoolName, Standing>>;

/// How the pools stand, kept for a moment.
#[derive(Debug, Default)]
pub struct Standings(Mutex<Option<(Instant, LogIndex, Kept)>>);

impl Standings {
    fn of(&self, view: &View<'_>) -> Kept {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = view.state.pools.version;
        if let Some((made, of, standing)) = kept.as_ref()
            && made.elapsed() < KEPT
            && *of == version
        {
            return standing.clone();
        }
        let standing = Arc::new(plan::pools(view.state, view.capacity, view.now));
        *kept = Some((Instant::now(), version, standing.clone()));
        standing
    }
}

/// `GET /apis/tidewater.dev/v1/resourcepools`
pub async fn list(State(api): State<Api>, Query(params): Query<Params>) -> Result<Response, ApiError> {
    let name = params.selected_name()?.map(str::to_owned);
    let standings = api.standings().clone();
    let read = move |view: &View<'_>| {
        let all = objects(view, &standings.of(view));
        all.into_iter().filter(|o| name.as_ref().is_none_or(|n| n == o.metadata.name.as_str())).collect::<Vec<_>>()
    };
    if params.switch("watch")? {
        return level_watch::answer(api, POOL_KIND, &params, move |view| {
            let version = |o: &PoolObject| o.metadata.resource_version.clone().unwrap_or_default();
            let keyed = read(view).into_iter().map(|o| (o.metadata.name.to_string(), (version(&o), to_json(&o))));
            keyed.collect()
        })
        .await;
    }
    let (items, version) = api.read(params.consistency()?, move |view| (read(view), view.state.applied)).await?;
    let metadata = ListMetadata { resource_version: version.to_string() };
    Ok(Json(List { api_version: API_VERSION.into(), kind: "ResourcePoolList".into(), metadata, items }).into_response())
}

/// An object for a watch's line.
pub fn to_json<T: serde::Serialize>(object: &T) -> serde_json::Value {
    serde_json::to_value(object).expect("the API's objects have text keys only, so they serialise")
}

/// `GET …/resourcepools/{name}`
pub async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<PoolObject>, ApiError> {
    let name = PoolName::new(name)?;
    let standings = api.standings().clone();
    let found = api.read(params.consistency()?, move |view| {
        let spec = view.state.pools.spec(&name).ok_or_else(|| view.state.pools.no_pool(&name))?;
        Ok::<_, engine::pools::PoolFault>(object(&view.state.pools, &name, spec, standings.of(view).get(&name)))
    });
    found.await?.map(Json).map_err(|fault| Refusal::from(fault).into())
}

/// `POST …/resourcepools`
pub async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let object: PoolObject = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let name = check_head(&object.api_version, &object.kind, POOL_KIND, &object.metadata, None)?;
    set(api, PoolName::new(name)?, object.spec, Expect::Absent, StatusCode::CREATED).await
}

/// `PUT …/resourcepools/{name}`: makes or replaces it; with a resourceVersion, only that version.
pub async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let object: PoolObject = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let name = check_head(&object.api_version, &object.kind, POOL_KIND, &object.metadata, Some(&name))?;
    let expect = expected(&object.metadata)?;
    set(api, PoolName::new(name)?, object.spec, expect, StatusCode::OK).await
}

async fn set(api: Api, name: PoolName, spec: PoolSpec, expect: Expect, code: StatusCode) -> Result<Response, ApiError> {
    let faults = spec.problems();
    if !faults.is_empty() {
        return Err(ApiError::Invalid { kind: POOL_KIND, name: name.to_string(), faults });
    }
    let command = Command::SetPool { name: name.clone(), spec: Box::new(spec.clone()), expect };
    let standings = api.standings().clone();
    let look = move |outcome: &Outcome, view: &View<'_>| {
        let mut shown = object(&view.state.pools, &name, &spec, standings.of(view).get(&name));
        if let Outcome::Set { version } = outcome {
            shown.metadata.resource_version = Some(version.to_string());
        }
        shown
    };
    let (shown, _) = submit(&api, &command, look).await?;
    Ok((code, Json(shown)).into_response())
}

/// `DELETE …/resourcepools/{name}`
pub async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Status>, ApiError> {
    let name = PoolName::new(name)?;
    match submit(&api, &Command::DeletePool { name: name.clone() }, nothing).await {
        // An earlier try of this request may have deleted it.
        Ok(_) | Err(Failed { error: ApiError::NotFound(_), tried_before: true }) => {}
        Err(e) => return Err(e.error),
    }
    Ok(Json(Status::success(format!("pool {name} is deleted"))))
}

/// Checks everything of an object but its spec, and gives its name. `path` is the name that the path says.
///
/// # Errors
/// [`ApiError::Malformed`] names the field and what would be right.
pub fn check_head(
    api_version: &str,
    kind: &str,
    expected: &str,
    metadata: &Metadata,
    path: Option<&str>,
) -> Result<String, ApiError> {
    if api_version != API_VERSION {
        return Err(ApiError::Malformed(format!("apiVersion is {api_version:?}: write {API_VERSION}")));
    }
    if kind != expected {
        return Err(ApiError::Malformed(format!("kind is {kind:?}: write {expected}")));
    }
    if metadata.namespace.is_some() {
        return Err(ApiError::Malformed(format!("metadata.namespace: a {expected} is in no namespace: leave it out")));
    }
    let name = metadata.name.to_string();
    match path {
        Some(path) if path != name => Err(ApiError::Malformed(format!(
            "metadata.name is {name}, but the request's path says {path}: make them the same"
        ))),
        _ => Ok(name),
    }
}

/// What must be there before, by the object's resourceVersion.
///
/// # Errors
/// [`ApiError::Malformed`] where that is no version.
pub fn expected(metadata: &Metadata) -> Result<Expect, ApiError> {
    let Some(version) = &metadata.resource_version else { return Ok(Expect::Any) };
    let version = version.parse().map_err(|_| {
        ApiError::Malformed(format!("metadata.resourceVersion: {version:?} is no version: leave it out to replace any"))
    })?;
    Ok(if version == 0 { Expect::Any } else { Expect::Version(LogIndex(version)) })
}

fn objects(view: &View<'_>, standings: &BTreeMap<PoolName, Standing>) -> Vec<PoolObject> {
    let pools = &view.state.pools;
    pools.all().into_iter().map(|(name, spec)| object(pools, name, spec, standings.get(name))).collect()
}

fn object(pools: &Pools, name: &PoolName, spec: &PoolSpec, standing: Option<&Standing>) -> PoolObject {
    let made = pools.get(name);
    PoolObject {
        api_version: API_VERSION.into(),
        kind: POOL_KIND.into(),
        metadata: Metadata {
            name: WorkloadName::new(name.as_str()).expect("pools and workloads are named by the same rule"),
            namespace: None,
            uid: None,
            resource_version: Some(made.map_or(0, |pool| pool.version.0).to_string()),
            creation_timestamp: made.map(|pool| words::timestamp(pool.created_at)),
            deletion_timestamp: None,
        },
        spec: spec.clone(),
        status: standing.map(|standing| status(pools, name, spec, standing)),
    }
}

fn status(pools: &Pools, name: &PoolName, spec: &PoolSpec, standing: &Standing) -> PoolStatus {
    let amounts = [&standing.entitled, &standing.held, &standing.pending];
    let resources: BTreeSet<&Resource> =
        amounts.iter().flat_map(|a| a.0.keys()).chain(spec.resources.0.keys()).collect();
    let part = |resource: &Resource| {
        let quota = spec.quota(resource);
        PoolPart {
            reservation: resource.show(quota.reservation),
            limit: quota.limit.map(|limit| resource.show(limit)),
            share: quota.share,
            lending: quota.lending,
            entitlement: resource.show(standing.entitled.of(resource)),
            raised: standing
                .raised
                .as_ref()
                .filter(|raise| raise.to.of(resource) > 0)
                .map(|raise| Raised { to: resource.show(raise.to.of(resource)), until: words::timestamp(raise.until) }),
            allocated: resource.show(standing.held.of(resource)),
            pending: resource.show(standing.pending.of(resource)),
            idle: Some(standing.idle.of(resource)).filter(|idle| *idle > 0).map(|idle| resource.show(idle)),
        }
    };
    PoolStatus {
        depth: u32::try_from(pools.line_up(name).count()).unwrap_or(u32::MAX),
        leaf: pools.is_leaf(name),
        queued: standing.queued,
        running: standing.running,
        resources: resources.into_iter().map(|r| (r.clone(), part(r))).collect(),
    }
}
