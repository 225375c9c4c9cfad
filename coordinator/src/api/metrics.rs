//! `/metrics` in OpenMetrics text. Counters of the API live here; gauges of the state are read at each scrape.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Api;
use super::errors::ApiError;
use super::supply::{self, ClusterPhase};
use crate::handle::{Consistency, ProposeError, ReplicaStatus, View};

type Labels = Vec<(&'static str, String)>;

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// What the API counts over its life.
#[derive(Debug)]
pub struct HttpMetrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    latency: Family<Labels, Histogram, fn() -> Histogram>,
    proposals: Family<Labels, Counter>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tidewater");
        let requests = Family::default();
        let latency = Family::new_with_constructor(histogram as fn() -> Histogram);
        let proposals = Family::default();
        registry.register("http_requests", "HTTP requests by method, route and status code", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its answer's head, by method and route",
            Unit::Seconds,
            latency.clone(),
        );
        registry.register("proposals", "Commands that this replica's API proposed, by result", proposals.clone());
        Self { registry, requests, latency, proposals }
    }
}

impl HttpMetrics {
    /// Counts what came of a proposal.
    pub fn proposal<T>(&self, answer: &Result<T, ProposeError>) {
        let result = match answer {
            Ok(_) => "committed",
            Err(ProposeError::Refused(_)) => "refused",
            Err(ProposeError::Unconfirmed) => "unconfirmed",
            Err(ProposeError::Overloaded) => "overloaded",
            Err(ProposeError::ShuttingDown) => "shutting_down",
        };
        self.proposals.get_or_create(&vec![("result", result.to_owned())]).inc();
    }
}

/// A request that is being answered. The route is the pattern, not the path, so that names make no new series.
pub struct Counted {
    labels: Labels,
    began: Instant,
}

impl Counted {
    /// Begins with the request's head.
    pub fn begin(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
        let method = request.method().as_str().to_owned();
        Self { labels: vec![("method", method), ("route", route)], began: Instant::now() }
    }

    /// Counts it and its time.
    pub fn end(self, metrics: &HttpMetrics, response: &Response) {
        let mut labels = self.labels;
        metrics.latency.get_or_create(&labels).observe(self.began.elapsed().as_secs_f64());
        labels.push(("code", response.status().as_str().to_owned()));
        metrics.requests.get_or_create(&labels).inc();
    }
}

/// `GET /metrics`
pub async fn get(State(api): State<Api>) -> Result<Response, ApiError> {
    let gauges = api.read(Consistency::Stale, Gauges::read).await?;
    let mut shown = String::new();
    gauges
        .encode(&mut shown)
        .and_then(|()| text::encode_registry(&mut shown, &api.metrics().registry))
        .and_then(|()| text::encode_eof(&mut shown))
        .map_err(|e| ApiError::Unavailable(format!("metrics could not be written: {e}")))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], shown).into_response())
}

/// The state in numbers.
struct Gauges {
    status: ReplicaStatus,
    workloads: BTreeMap<String, i64>,
    clusters: BTreeMap<String, i64>,
    gpus: Vec<(Labels, u64)>,
    ages: Vec<(Labels, f64)>,
}

impl Gauges {
    fn read(view: &View<'_>) -> Self {
        let mut workloads = BTreeMap::new();
        for workload in view.state.workloads.values() {
            *workloads.entry(workload.phase.to_string()).or_default() += 1;
        }
        let mut clusters = BTreeMap::new();
        let (mut gpus, mut ages) = (Vec::new(), Vec::new());
        for cluster in view.state.clusters.values() {
            *clusters.entry(ClusterPhase::of(view, cluster).as_str().to_owned()).or_default() += 1;
            let name = cluster.info.name.to_string();
            for (sku, supply) in supply::by_sku(view, cluster) {
                let Some(sku) = sku else { continue };
                let g = supply.gpus;
                let counts =
                    [("free", g.free), ("held", g.held), ("ghost", g.ghosts), ("sick", g.sick), ("foreign", g.foreign)];
                gpus.extend(counts.map(|(state, count)| {
                    (vec![("cluster", name.clone()), ("sku", sku.to_string()), ("state", state.to_owned())], count)
                }));
            }
            if let Some(age_ms) = supply::age_ms(view.capacity.clusters.get(&cluster.info.name)) {
                ages.push((vec![("cluster", name)], age_ms as f64 / 1000.0));
            }
        }
        Self { status: view.status.clone(), workloads, clusters, gpus, ages }
    }

    fn encode(&self, into: &mut String) -> std::fmt::Result {
        let mut registry = Registry::with_prefix("tidewater");
        let mut one = |name: &str, help: &str, value: u64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        };
        let status = &self.status;
        one("raft_is_leader", "1 where this replica leads, else 0", u64::from(status.leads()));
        one("raft_leader_id", "The leader's replica id; 0 where none is known", status.leader.map_or(0, |l| l.0));
        one("raft_term", "The Raft term", status.term.0);
        one("raft_applied_index", "The last log entry applied", status.applied.0);
        one("raft_committed_index", "The last log entry known to be committed", status.committed.0);
        let queued = self.workloads.get("Queued").copied().unwrap_or(0);
        one("queue_length", "Workloads that wait for a place", u64::try_from(queued).unwrap_or(0));

        let by_phase = |counts: &BTreeMap<String, i64>| {
            let family = Family::<Labels, Gauge>::default();
            for (phase, count) in counts {
                family.get_or_create(&vec![("phase", phase.clone())]).set(*count);
            }
            family
        };
        registry.register("workloads", "Workloads by phase", by_phase(&self.workloads));
        registry.register("clusters", "Member clusters by phase", by_phase(&self.clusters));
        let gpus = Family::<Labels, Gauge>::default();
        for (labels, count) in &self.gpus {
            gpus.get_or_create(labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        registry.register("gpus", "GPUs by cluster, model and what they are doing", gpus);
        let ages = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for (labels, age) in &self.ages {
            ages.get_or_create(labels).set(*age);
        }
        registry.register_with_unit("capacity_age", "Time since a cluster's last frame", Unit::Seconds, ages);
        text::encode_registry(into, &registry)
    }
}
