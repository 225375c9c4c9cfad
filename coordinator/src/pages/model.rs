//! What the dashboard shows, copied out of the core in one short read. Big fleets are cut here: a page shows so many devices
//! and no more, the rest as sums.

use std::collections::BTreeMap;

use engine::lifecycle::Phase;
use engine::reasons::Waiting;
use engine::state::{Attempt, Cluster, Workload};
use protocol::api::NodeStatus;
use protocol::ids::{ClusterName, Region, ReplicaId, UnixMs, WorkloadKey};
use protocol::sku::Sku;

use crate::api::reasons::Reasons;
use crate::api::render;
use crate::api::supply::{self, ClusterPhase, Supply};
use crate::api::words;
use crate::handle::View;

/// Nodes shown one by one, at most, of one cluster.
const NODES: usize = 64;
/// Devices shown one by one, at most, on the whole page: at about 70 bytes each they stay well below 200 KB.
const DEVICES: usize = 1600;
/// Queued workloads shown.
const QUEUED: usize = 50;
/// Clusters shown with what is in a queued workload's way there.
const OBSTACLES: usize = 3;
/// Running and recent workloads shown.
const RECENT: usize = 30;

/// Everything on the dashboard.
pub struct Model {
    pub now: UnixMs,
    pub replica: ReplicaId,
    pub leader: Option<ReplicaId>,
    pub voters: usize,
    pub clusters: Vec<ClusterCard>,
    pub queue: Vec<Row>,
    pub queued: usize,
    pub recent: Vec<Row>,
    pub running: usize,
}

/// One cluster.
pub struct ClusterCard {
    pub name: ClusterName,
    pub region: Region,
    pub phase: ClusterPhase,
    pub age_ms: Option<u64>,
    /// Why nothing new is placed there, where a person said so.
    pub cordon: Option<String>,
    pub supply: Supply,
    pub models: BTreeMap<Sku, Supply>,
    pub running: usize,
    /// The first nodes, with their devices.
    pub nodes: Vec<NodeStatus>,
    /// How many more there are.
    pub more_nodes: usize,
}

/// One workload in a table.
pub struct Row {
    pub key: WorkloadKey,
    pub framework: String,
    pub asks: String,
    pub phase: Phase,
    pub submitted_at: UnixMs,
    pub place: Option<u64>,
    pub message: String,
    /// Where it waits: each cluster with what is in the way there, and how many more there are.
    pub obstacles: (Vec<String>, usize),
    pub cluster: Option<ClusterName>,
    pub began_at: Option<UnixMs>,
    pub ended_at: Option<UnixMs>,
}

impl Model {
    /// Copies what the dashboard shows.
    pub fn read(view: &View<'_>, reasons: &Reasons) -> Self {
        let (queue, queued, recent, running) = workloads(view, reasons);
        Self {
            now: view.now,
            replica: view.status.id,
            leader: view.status.leader,
            voters: view.status.voters.len(),
            clusters: clusters(view),
            queue,
            queued,
            recent,
            running,
        }
    }

    /// All clusters' supply.
    pub fn total(&self) -> Supply {
        let mut sum = Supply::default();
        self.clusters.iter().for_each(|c| sum.add(&c.supply));
        sum
    }

    /// Clusters by region, in order.
    pub fn regions(&self) -> BTreeMap<&Region, Vec<&ClusterCard>> {
        let mut regions = BTreeMap::<&Region, Vec<&ClusterCard>>::new();
        for cluster in &self.clusters {
            regions.entry(&cluster.region).or_default().push(cluster);
        }
        regions
    }
}

fn clusters(view: &View<'_>) -> Vec<ClusterCard> {
    let running = render::running_by_cluster(view);
    let count = view.state.clusters.len().max(1);
    let mut cards = Vec::new();
    for cluster in view.state.clusters.values() {
        cards.push(card(view, cluster, &running, DEVICES / count));
    }
    cards
}

fn card(view: &View<'_>, cluster: &Cluster, running: &BTreeMap<ClusterName, usize>, devices: usize) -> ClusterCard {
    let name = &cluster.info.name;
    let supplies = supply::by_sku(view, cluster);
    let supply = supply::all(&supplies);
    let mut nodes = render::nodes(view, name, NODES);
    let mut shown = 0;
    let fitting = nodes.iter().take_while(|n| {
        shown += n.devices.len().max(1);
        shown <= devices
    });
    let fitting = fitting.count();
    nodes.truncate(fitting);
    let all = usize::try_from(supply.nodes).unwrap_or(usize::MAX);
    ClusterCard {
        name: name.clone(),
        region: cluster.info.region.clone(),
        phase: ClusterPhase::of(view, cluster),
        age_ms: supply::age_ms(view.capacity.clusters.get(name)),
        cordon: cluster.cordon.as_ref().map(|cordon| words::cordoned(name, cordon)),
        running: running.get(name).copied().unwrap_or(0),
        more_nodes: all.saturating_sub(nodes.len()),
        models: supplies.into_iter().filter_map(|(sku, s)| Some((sku?, s))).collect(),
        supply,
        nodes,
    }
}

fn workloads(view: &View<'_>, reasons: &Reasons) -> (Vec<Row>, usize, Vec<Row>, usize) {
    let all = view.state.workloads.values();
    let (queued, others): (Vec<&Workload>, Vec<&Workload>) = all.partition(|w| w.phase == Phase::Queued);
    let running = others.iter().filter(|w| w.phase.is_live()).count();
    reasons.with(view, |waiting| {
        let row = |w: &&Workload| row(w, waiting.get(&w.uid));
        let queue = first(queued.clone(), QUEUED, |w| (std::cmp::Reverse(w.spec.priority), w.order));
        // Live ones first, then by when they last changed.
        let recent = first(others, RECENT, |w| (w.phase.is_terminal(), std::cmp::Reverse(w.version)));
        (queue.iter().map(row).collect(), queued.len(), recent.iter().map(row).collect(), running)
    })
}

/// The first `count` in order, without sorting the rest.
fn first<K: Ord>(mut all: Vec<&Workload>, count: usize, key: impl Fn(&Workload) -> K) -> Vec<&Workload> {
    if all.len() > count {
        all.select_nth_unstable_by_key(count, |w| key(w));
        all.truncate(count);
    }
    all.sort_by_key(|w| key(w));
    all
}

fn row(workload: &Workload, waiting: Option<&Waiting>) -> Row {
    let last = workload.attempts.last();
    let waiting = waiting.filter(|_| workload.phase == Phase::Queued);
    Row {
        key: workload.key.clone(),
        framework: workload.spec.framework().map(|f| f.to_string()).unwrap_or_default(),
        asks: asks(workload),
        phase: workload.phase,
        submitted_at: workload.submitted_at,
        place: waiting.map(|w| w.place),
        message: waiting.map_or_else(|| words::message(workload, None), |w| words::cause(&w.cause)),
        obstacles: waiting.map_or_else(Default::default, obstacles),
        cluster: last.map(|a| a.cluster.clone()),
        began_at: last.map(began_at),
        ended_at: last.and_then(|a| a.ended_at),
    }
}

fn obstacles(waiting: &Waiting) -> (Vec<String>, usize) {
    let all = waiting.candidates.iter().filter(|c| c.obstacle.is_some());
    let shown = all.clone().take(OBSTACLES).map(ToString::to_string).collect();
    (shown, all.count().saturating_sub(OBSTACLES))
}

/// When an attempt ran, or else when it was bound.
fn began_at(attempt: &Attempt) -> UnixMs {
    attempt.running_at.unwrap_or(attempt.bound_at)
}

/// The gang in short, such as `4 × 8 H100`.
pub fn asks(workload: &Workload) -> String {
    let gang = workload.spec.gang();
    let with_gpus = gang.iter().filter(|g| g.each.gpu_milli > 0);
    let shown: Vec<String> = with_gpus
        .map(|g| {
            let models: Vec<&str> = g.skus.iter().map(Sku::as_str).collect();
            let model = if models.is_empty() { "GPU".to_owned() } else { models.join(" or ") };
            format!("{} × {} {model}", g.count, g.each.gpus())
        })
        .collect();
    if shown.is_empty() { render::gang_resources(&workload.spec).to_string() } else { shown.join(" + ") }
}

/// A workload's key as its page's path.
pub fn path(key: &WorkloadKey) -> String {
    format!("/workloads/{}/{}", key.namespace, key.name)
}
