//! What a cluster has, by GPU model: the frames' figures less the bindings that they do not include yet. Lists, capacity,
//! metrics and pages all count here, so that they agree.

use std::collections::BTreeMap;

use engine::capacity::ClusterCapacity;
use engine::state::{Cluster, State};
use protocol::api::GpuCounts;
use protocol::capacity::{NodeState, Sharing, Source};
use protocol::ids::{CommandNumber, NodeName};
use protocol::resources::Resources;
use protocol::sku::Sku;

use crate::handle::View;

/// Whether a cluster can be placed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterPhase {
    /// Heard from, capacity fresh.
    Ready,
    /// Heard from, but its capacity is too old to place on, or has not come yet.
    Stale,
    /// Nothing new is placed there, for a person said so.
    Cordoned,
    /// Cordoned, and what runs there is being ended.
    Draining,
    /// Cordoned, and nothing is left there.
    Drained,
    /// No word within a lease.
    Lost,
}

impl ClusterPhase {
    /// The phase of a cluster.
    pub fn of(view: &View<'_>, cluster: &Cluster) -> Self {
        if cluster.lost_since.is_some() {
            return ClusterPhase::Lost;
        }
        if let Some(cordon) = &cluster.cordon {
            let empty = view.state.live_in(&cluster.info.name).next().is_none();
            return match cordon.drain {
                None => ClusterPhase::Cordoned,
                Some(_) if empty => ClusterPhase::Drained,
                Some(_) => ClusterPhase::Draining,
            };
        }
        match view.capacity.clusters.get(&cluster.info.name) {
            Some(capacity) if capacity.fresh => ClusterPhase::Ready,
            _ => ClusterPhase::Stale,
        }
    }

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            ClusterPhase::Ready => "Ready",
            ClusterPhase::Stale => "Stale",
            ClusterPhase::Cordoned => "Cordoned",
            ClusterPhase::Draining => "Draining",
            ClusterPhase::Drained => "Drained",
            ClusterPhase::Lost => "Lost",
        }
    }
}

/// What a cluster has of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supply {
    /// Nodes.
    pub nodes: u64,
    /// GPUs by what they are doing. Those of nodes that take no members are in `total` alone, if nothing else holds them.
    pub gpus: GpuCounts,
    /// What can be given out in all.
    pub total: Resources,
    /// What can be given out now: nothing where the cluster can't be placed on.
    pub free: Resources,
    /// Where the figures come from: of several sources the one that is the least sure.
    pub source: Source,
    activity_sum: u64,
    activity_devices: u64,
}

impl Default for Supply {
    fn default() -> Self {
        Self {
            nodes: 0,
            gpus: GpuCounts::default(),
            total: Resources::ZERO,
            free: Resources::ZERO,
            source: Source::Measured,
            activity_sum: 0,
            activity_devices: 0,
        }
    }
}

impl Supply {
    /// Mean activity in percent of the devices of which it is known.
    pub fn activity_percent(&self) -> Option<u8> {
        let mean = self.activity_sum.checked_div(self.activity_devices)?;
        u8::try_from(mean).ok()
    }

    /// Takes in another supply.
    pub fn add(&mut self, other: &Supply) {
        self.nodes += other.nodes;
        self.gpus.total += other.gpus.total;
        self.gpus.free += other.gpus.free;
        self.gpus.held += other.gpus.held;
        self.gpus.ghosts += other.gpus.ghosts;
        self.gpus.sick += other.gpus.sick;
        self.gpus.foreign += other.gpus.foreign;
        self.total += other.total;
        self.free += other.free;
        self.source = less_sure(self.source, other.source);
        self.activity_sum += other.activity_sum;
        self.activity_devices += other.activity_devices;
    }
}

/// Of two sources the one that is less sure: what is written down, then what Kubernetes counts, then what is read.
fn less_sure(one: Source, other: Source) -> Source {
    let either = |source| one == source || other == source;
    [Source::Declared, Source::Label].into_iter().find(|source| either(*source)).unwrap_or(Source::Measured)
}

/// What a cluster has, by model; `None` is nodes without GPUs. Empty before its first frame.
pub fn by_sku(view: &View<'_>, cluster: &Cluster) -> BTreeMap<Option<Sku>, Supply> {
    let mut models = BTreeMap::<Option<Sku>, Supply>::new();
    for (Row { sku, .. }, supply) in by_row(view, cluster) {
        models.entry(sku).or_default().add(&supply);
    }
    models
}

/// What is told apart in the answer of `GET /capacity`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The model; none for nodes without GPUs.
    pub sku: Option<Sku>,
    /// Where the figures come from.
    pub source: Source,
    /// How devices are given out.
    pub sharing: Sharing,
}

/// The same, with what is measured apart from what is declared, and what is shared apart from what is not.
pub fn by_row(view: &View<'_>, cluster: &Cluster) -> BTreeMap<Row, Supply> {
    let mut supplies = BTreeMap::<Row, Supply>::new();
    let Some(capacity) = view.capacity.clusters.get(&cluster.info.name) else { return supplies };
    let placeable = ClusterPhase::of(view, cluster) == ClusterPhase::Ready;
    let in_flight = in_flight(view.state, cluster, capacity.watermark);
    for node in &capacity.nodes {
        let taken = in_flight.get(&node.name).copied().unwrap_or(Resources::ZERO);
        let free = node.free.saturating_sub(&taken);
        let [ghosts, sick, foreign] = [node.ghosts, node.sick, node.foreign].map(u64::from);
        let all = node.total.gpus();
        let unheld = node.whole_devices().saturating_sub(taken.gpus());
        let row = Row { sku: node.sku.clone(), source: node.source, sharing: node.sharing };
        let supply = supplies.entry(row).or_default();
        supply.nodes += 1;
        supply.total += node.total;
        supply.gpus.total += all;
        supply.gpus.ghosts += ghosts;
        supply.gpus.sick += sick;
        supply.gpus.foreign += foreign;
        supply.gpus.held += all.saturating_sub(unheld + ghosts + sick + foreign);
        if placeable && node.state == NodeState::Ready {
            supply.free += free;
            supply.gpus.free += unheld;
        }
        supply.source = less_sure(supply.source, node.source);
        if let Some(percent) = node.activity_percent {
            supply.activity_sum += u64::from(percent) * all;
            supply.activity_devices += all;
        }
    }
    supplies
}

/// All that a cluster has.
pub fn all(supplies: &BTreeMap<Option<Sku>, Supply>) -> Supply {
    let mut sum = Supply::default();
    supplies.values().for_each(|s| sum.add(s));
    sum
}

/// What live attempts take of each node beyond what the frame with this watermark says.
fn in_flight(state: &State, cluster: &Cluster, watermark: CommandNumber) -> BTreeMap<NodeName, Resources> {
    let mut taken = BTreeMap::<NodeName, Resources>::new();
    if cluster.last_command <= watermark {
        return taken;
    }
    let live = state.workloads.values().filter_map(|w| w.live_attempt());
    for attempt in live.filter(|a| a.cluster == cluster.info.name) {
        for group in attempt.unseen(watermark).flatten() {
            for share in &group.nodes {
                *taken.entry(share.node.clone()).or_default() += group.each.times(u64::from(share.members));
            }
        }
    }
    taken
}

/// Age of a cluster's capacity in ms; none before the first frame.
pub fn age_ms(capacity: Option<&ClusterCapacity>) -> Option<u64> {
    capacity.map(|c| c.age_ms)
}
