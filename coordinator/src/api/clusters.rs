//! Member clusters and their nodes, as they are. What people do with them is in `cordons`.

use axum::Json;
use axum::extract::{Path, Query, State};
use engine::commands::Refusal;
use protocol::api::{API_VERSION, ClusterObject, List, ListMetadata, NodeStatus};
use protocol::ids::ClusterName;

use super::errors::ApiError;
use super::params::Params;
use super::{Api, render};

/// `GET /apis/tidewater.dev/v1/clusters`
pub async fn list(State(api): State<Api>, Query(params): Query<Params>) -> Result<Json<List<ClusterObject>>, ApiError> {
    if params.switch("watch")? {
        return Err(ApiError::MethodNotAllowed("clusters can't be watched in this version: list them".into()));
    }
    let (items, version) = api
        .read(params.consistency()?, |view| {
            let running = render::running_by_cluster(view);
            let clusters = view.state.clusters.values();
            (clusters.map(|c| render::cluster(view, c, &running)).collect(), view.state.applied)
        })
        .await?;
    Ok(Json(List {
        api_version: API_VERSION.into(),
        kind: "ClusterList".into(),
        metadata: ListMetadata { resource_version: version.to_string() },
        items,
    }))
}

fn no_cluster(cluster: ClusterName) -> ApiError {
    Refusal::NoCluster { cluster }.into()
}

/// `GET …/clusters/{name}`
pub async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<ClusterObject>, ApiError> {
    let name = ClusterName::new(name)?;
    let wanted = name.clone();
    let found = api.read(params.consistency()?, move |view| {
        let cluster = view.state.clusters.get(&wanted)?;
        Some(render::cluster(view, cluster, &render::running_by_cluster(view)))
    });
    found.await?.map(Json).ok_or_else(|| no_cluster(name))
}

/// `GET …/clusters/{name}/nodes`
pub async fn nodes(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<List<NodeStatus>>, ApiError> {
    let name = ClusterName::new(name)?;
    let limit = params.parsed::<usize>("limit")?.filter(|l| *l > 0).unwrap_or(usize::MAX);
    let wanted = name.clone();
    let found = api.read(params.consistency()?, move |view| {
        view.state.clusters.get(&wanted)?;
        Some((render::nodes(view, &wanted, limit), view.state.applied))
    });
    let (items, version) = found.await?.ok_or_else(|| no_cluster(name))?;
    Ok(Json(List {
        api_version: API_VERSION.into(),
        kind: "NodeStatusList".into(),
        metadata: ListMetadata { resource_version: version.to_string() },
        items,
    }))
}
