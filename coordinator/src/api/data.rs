//! Data locations: list, watch, get, create, replace, delete; each with who uses it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use engine::commands::{Command, Expect, Outcome, Refusal};
use engine::data::{DataFault, DataLocation};
use protocol::api::{API_VERSION, List, ListMetadata, Metadata, Status};
use protocol::data::{DATA_KIND, DataObject, DataSpec, DataStatus, NAMED_USERS};
use protocol::ids::{DataName, WorkloadName};

use super::errors::ApiError;
use super::params::Params;
use super::pools::{check_head, expected, to_json};
use super::workloads::{Failed, nothing, submit, unread};
use super::{Api, body, level_watch, words};
use crate::handle::View;

/// `GET /apis/tidewater.dev/v1/datalocations`
pub async fn list(State(api): State<Api>, Query(params): Query<Params>) -> Result<Response, ApiError> {
    let name = params.selected_name()?.map(str::to_owned);
    let read = move |view: &View<'_>| {
        let all = view.state.data.all().iter();
        let named = all.filter(|(data, _)| name.as_ref().is_none_or(|n| n == data.as_str()));
        named.map(|(name, data)| object(view, name, data)).collect::<Vec<_>>()
    };
    if params.switch("watch")? {
        return level_watch::answer(api, DATA_KIND, &params, move |view| {
            let version = |o: &DataObject| o.metadata.resource_version.clone().unwrap_or_default();
            let keyed = read(view).into_iter().map(|o| (o.metadata.name.to_string(), (version(&o), to_json(&o))));
            keyed.collect()
        })
        .await;
    }
    let (items, version) = api.read(params.consistency()?, move |view| (read(view), view.state.applied)).await?;
    let metadata = ListMetadata { resource_version: version.to_string() };
    Ok(Json(List { api_version: API_VERSION.into(), kind: "DataLocationList".into(), metadata, items }).into_response())
}

/// `GET …/datalocations/{name}`
pub async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<DataObject>, ApiError> {
    let name = DataName::new(name)?;
    let wanted = name.clone();
    let found = api
        .read(params.consistency()?, move |view| view.state.data.get(&wanted).map(|data| object(view, &wanted, data)));
    found.await?.map(Json).ok_or_else(|| Refusal::from(DataFault::NoData { name }).into())
}

/// `POST …/datalocations`
pub async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let object: DataObject = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let name = check_head(&object.api_version, &object.kind, DATA_KIND, &object.metadata, None)?;
    set(api, DataName::new(name)?, object.spec, Expect::Absent, StatusCode::CREATED).await
}

/// `PUT …/datalocations/{name}`: makes or replaces it; with a resourceVersion, only that version.
pub async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    sent: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let object: DataObject = body::parse(body::format(&headers)?, &sent.map_err(unread)?)?;
    let name = check_head(&object.api_version, &object.kind, DATA_KIND, &object.metadata, Some(&name))?;
    let expect = expected(&object.metadata)?;
    set(api, DataName::new(name)?, object.spec, expect, StatusCode::OK).await
}

async fn set(api: Api, name: DataName, spec: DataSpec, expect: Expect, code: StatusCode) -> Result<Response, ApiError> {
    let faults = spec.problems();
    if !faults.is_empty() {
        return Err(ApiError::Invalid { kind: DATA_KIND, name: name.to_string(), faults });
    }
    let command = Command::SetData { name: name.clone(), spec: Box::new(spec.clone()), expect };
    let look = move |outcome: &Outcome, view: &View<'_>| {
        let version = match outcome {
            Outcome::Set { version } => *version,
            _ => view.state.applied,
        };
        let created_at = view.state.data.get(&name).map_or(view.state.now, |data| data.created_at);
        object(view, &name, &DataLocation { spec: spec.clone(), created_at, version })
    };
    let (shown, _) = submit(&api, &command, look).await?;
    Ok((code, Json(shown)).into_response())
}

/// `DELETE …/datalocations/{name}`
pub async fn delete(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Status>, ApiError> {
    let name = DataName::new(name)?;
    match submit(&api, &Command::DeleteData { name: name.clone() }, nothing).await {
        // An earlier try of this request may have deleted it.
        Ok(_) | Err(Failed { error: ApiError::NotFound(_), tried_before: true }) => {}
        Err(e) => return Err(e.error),
    }
    Ok(Json(Status::success(format!("data location {name} is deleted"))))
}

fn object(view: &View<'_>, name: &DataName, data: &DataLocation) -> DataObject {
    let users = || view.state.readers(name);
    DataObject {
        api_version: API_VERSION.into(),
        kind: DATA_KIND.into(),
        metadata: Metadata {
            name: WorkloadName::new(name.as_str()).expect("data and workloads are named by the same rule"),
            namespace: None,
            uid: None,
            resource_version: Some(data.version.to_string()),
            creation_timestamp: Some(words::timestamp(data.created_at)),
            deletion_timestamp: None,
        },
        spec: data.spec.clone(),
        status: Some(DataStatus {
            used_by: users().count() as u64,
            users: users().take(NAMED_USERS).map(ToString::to_string).collect(),
        }),
    }
}
