//! `GET /capacity`: what there is by cluster and model, and how many gangs of a shape would fit now.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use engine::capacity::Capacity;
use engine::plan::{self, GangQuestion};
use engine::state::Cluster;
use protocol::api::{CapacityAnswer, CapacityRow, GangFit};
use protocol::ids::Region;
use protocol::sku::Sku;

use super::errors::ApiError;
use super::params::Params;
use super::supply::Row;
use super::{Api, supply, words};
use crate::handle::{Consistency, View};

/// What is asked.
struct Question {
    sku: Option<Sku>,
    region: Option<Region>,
    gang: Option<u32>,
    gpus_per_node: Option<u32>,
}

impl Question {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let question = Self {
            sku: params.parsed("sku")?,
            region: params.parsed("region")?,
            gang: params.parsed("gang")?,
            gpus_per_node: params.parsed("gpus-per-node")?,
        };
        if question.gang == Some(0) {
            return Err(ApiError::Malformed("parameter gang=0: a gang has at least one node".into()));
        }
        if question.gang.is_none() && question.gpus_per_node.is_some() {
            return Err(ApiError::Malformed("parameter gpus-per-node says nothing without gang=N".into()));
        }
        Ok(question)
    }

    fn takes(&self, cluster: &Cluster) -> bool {
        self.region.as_ref().is_none_or(|r| *r == cluster.info.region)
    }
}

/// `GET /capacity?sku=&region=&gang=N&gpus-per-node=G`. Without `gpus-per-node` a gang's nodes are as large as the largest
/// node of that model. Answers from what this replica hears from the agents.
pub async fn get(State(api): State<Api>, Query(params): Query<Params>) -> Result<Json<CapacityAnswer>, ApiError> {
    let question = Question::read(&params)?;
    let answer = api.read(Consistency::Stale, move |view| answer(view, &question)).await?;
    Ok(Json(answer))
}

fn answer(view: &View<'_>, question: &Question) -> CapacityAnswer {
    let mut rows = Vec::new();
    for cluster in view.state.clusters.values().filter(|c| question.takes(c)) {
        rows.extend(cluster_rows(view, cluster, question.sku.as_ref()));
    }
    let gang = question.gang.map(|nodes| gang(view, question, nodes));
    let asked = view.state.clusters.iter().filter(|(_, c)| question.takes(c));
    let cordoned =
        asked.filter_map(|(name, c)| c.cordon.as_ref().map(|cordon| words::cordoned(name, cordon))).collect();
    CapacityAnswer { rows, gang, cordoned }
}

fn cluster_rows(view: &View<'_>, cluster: &Cluster, sku: Option<&Sku>) -> Vec<CapacityRow> {
    let age_ms = supply::age_ms(view.capacity.clusters.get(&cluster.info.name)).unwrap_or(0);
    let supplies = supply::by_row(view, cluster).into_iter();
    supplies
        .filter(|(row, _)| sku.is_none() || row.sku.as_ref() == sku)
        .map(|(Row { sku: model, source, sharing }, supply)| CapacityRow {
            cluster: cluster.info.name.clone(),
            region: cluster.info.region.clone(),
            price_milli: cluster
                .info
                .prices
                .iter()
                .find(|p| Some(&p.sku) == model.as_ref())
                .map(|p| p.milli_per_gpu_hour),
            sku: model,
            source,
            sharing,
            nodes: supply.nodes,
            gpus: supply.gpus,
            free_cpu_milli: supply.free.cpu_milli,
            free_memory_mib: supply.free.memory_mib,
            activity_percent: supply.activity_percent(),
            age_ms,
        })
        .collect()
}

fn gang(view: &View<'_>, question: &Question, nodes: u32) -> GangFit {
    let taken: BTreeMap<_, _> = view
        .capacity
        .clusters
        .iter()
        .filter(|(name, _)| view.state.clusters.get(*name).is_some_and(|c| question.takes(c)))
        .map(|(name, capacity)| (name.clone(), capacity.clone()))
        .collect();
    let capacity = Capacity { clusters: taken };
    let largest_node = capacity
        .clusters
        .values()
        .flat_map(|c| &c.nodes)
        .filter(|n| match &question.sku {
            Some(_) => n.sku == question.sku,
            None => n.sku.as_ref().is_none_or(|sku| !sku.is_slice()),
        })
        .map(|n| n.total.gpus())
        .max();
    let largest_node = largest_node.and_then(|g| u32::try_from(g).ok()).unwrap_or(1).max(1);
    let asked = GangQuestion {
        nodes,
        gpus_per_node: question.gpus_per_node.unwrap_or(largest_node),
        sku: question.sku.clone(),
    };
    let found = plan::gangs(view.state, &capacity, &asked);
    GangFit { nodes, gpus_per_node: asked.gpus_per_node, fits: found.fits, largest: found.largest }
}
