//! Ownership rules: list, watch, get, create, replace, delete; each with the pool to which it leads.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::commands::{Command, Expect, Outcome, Refusal};
use engine::pools::{Owner, PoolFault, Pools};
use protocol::api::{API_VERSION, List, ListMetadata, Metadata, Status};
use protocol::ids::{Namespace, WorkloadName};
use protocol::pool::OwnershipSpec;
use protocol::pool::objects::{OWNERSHIP_KIND, OwnershipObject, OwnershipStatus};

use super::errors::ApiError;
use super::params::Params;
use super::pools::{check_head, expected, to_json};
use super::workloads::{Failed, nothing, submit, unread};
use super::{Api, body, level_watch, words};
use crate::handle::View;

/// `GET /apis/tidewater.dev/v1/ownershiprules`
pub async fn list(State(api): State<Api>, Query(params): Query<Params>) -> Result<Response, ApiError> {
    let name = params.selected_name()?.map(str::to_owned);
    let read = move |view: &View<'_>| {
        let pools = &view.state.pools;
        let all = pools.owners().iter().filter(|(owner, _)| name.as_ref().is_none_or(|n| n == owner.as_str()));
        all.map(|(owner, rule)| object(pools, owner, rule)).collect::<Vec<_>>()
    };
    if params.switch("watch")? {
        return level_watch::answer(api, OWNERSHIP_KIND, &params, move |view| {
            let version = |o: &OwnershipObject| o.metadata.resource_version.clone().unwrap_or_default();
            let keyed = read(view).into_iter().map(|o| (o.metadata.name.to_string(), (version(&o), to_json(&o))));
            keyed.collect()
        })
        .await;
    }
    let (items, version) = api.read(params.consistency()?, move |view| (read(view), view.state.applied)).await?;
    let metadata = ListMetadata { resource_version: version.to_string() };
    Ok(Json(List { api_version: API_VERSION.into(), kind: "OwnershipRuleList".into(), metadata, items })
        .into_response())
}

/// `GET …/ownershiprules/{name}`
pub async fn get(
    State(api): State<Api>,
    Path(owner): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<OwnershipObject>, ApiError> {
    let owner = Namespace::new(owner)?;
    let wanted = owner.clone();
    let found = api.read(params.consistency()?, move |view| {
        let pools = &view.state.pools;
        pools.owners().get(&wanted).map(|rule| object(pools, &wanted, rule))
    });
    found.await?.map(Json).ok_or_else(|| Refusal::from(PoolFault::NoRule { owner }).into())
}

/// `POST …/ownershiprules`
pub async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let object: OwnershipObject = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let name = check_head(&object.api_version, &object.kind, OWNERSHIP_KIND, &object.metadata, None)?;
    set(api, Namespace::new(name)?, object.spec, Expect::Absent, StatusCode::CREATED).await
}

/// `PUT …/ownershiprules/{name}`: makes or replaces it; with a resourceVersion, only that version.
pub async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let object: OwnershipObject = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let name = check_head(&object.api_version, &object.kind, OWNERSHIP_KIND, &object.metadata, Some(&name))?;
    let expect = expected(&object.metadata)?;
    set(api, Namespace::new(name)?, object.spec, expect, StatusCode::OK).await
}

async fn set(
    api: Api,
    owner: Namespace,
    spec: OwnershipSpec,
    expect: Expect,
    code: StatusCode,
) -> Result<Response, ApiError> {
    let command = Command::SetOwnershipRule { owner: owner.clone(), spec: spec.clone(), expect };
    let look = move |outcome: &Outcome, view: &View<'_>| {
        let version = match outcome {
            Outcome::Set { version } => *version,
            _ => view.state.applied,
        };
        let pools = &view.state.pools;
        let created_at = pools.owners().get(&owner).map_or(view.state.now, |rule| rule.created_at);
        object(pools, &owner, &Owner { spec: spec.clone(), created_at, version })
    };
    let (shown, _) = submit(&api, &command, look).await?;
    Ok((code, Json(shown)).into_response())
}

/// `DELETE …/ownershiprules/{name}`
pub async fn delete(State(api): State<Api>, Path(owner): Path<String>) -> Result<Json<Status>, ApiError> {
    let owner = Namespace::new(owner)?;
    match submit(&api, &Command::DeleteOwnershipRule { owner: owner.clone() }, nothing).await {
        // An earlier try of this request may have deleted it.
        Ok(_) | Err(Failed { error: ApiError::NotFound(_), tried_before: true }) => {}
        Err(e) => return Err(e.error),
    }
    Ok(Json(Status::success(format!("the ownership rule of {owner} is deleted"))))
}

fn object(pools: &Pools, owner: &Namespace, rule: &Owner) -> OwnershipObject {
    OwnershipObject {
        api_version: API_VERSION.into(),
        kind: OWNERSHIP_KIND.into(),
        metadata: Metadata {
            name: WorkloadName::new(owner.as_str()).expect("a namespace's name is a workload's name without dots"),
            namespace: None,
            uid: None,
            resource_version: Some(rule.version.to_string()),
            creation_timestamp: Some(words::timestamp(rule.created_at)),
            deletion_timestamp: None,
        },
        spec: rule.spec.clone(),
        status: Some(OwnershipStatus { pool: pools.route(owner) }),
    }
}
