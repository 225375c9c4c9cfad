//! From the engine's state to the API's objects. A read copies what it needs on the core's thread ([`Seen`]); the object is
//! made from the copy elsewhere.

use std::collections::BTreeMap;

use engine::lifecycle::Phase;
use engine::reasons::Waiting;
use engine::state::{Attempt, Cluster, Drain, Moment, UnderDrain, Workload};
use protocol::api::{
    API_VERSION, AttemptStatus, ClusterObject, ClusterStatus, CordonStatus, DeviceStatus, DrainStatus, Metadata,
    MomentStatus, NodeStatus, SizeStatus, WorkloadObject, WorkloadStatus,
};
use protocol::capacity::DeviceState;
use protocol::control::{AttemptState, GroupPlacement};
use protocol::ids::{ClusterName, Region, Uid, WorkloadKey, WorkloadName};
use protocol::placement::members;
use protocol::resources::Resources;
use protocol::workload::{Framework, WorkloadSpec};

use super::supply::{self, ClusterPhase};
use super::words;
use crate::handle::View;

/// How many workloads a drain's status names of each kind.
const NAMED: usize = 8;

/// A workload as one read saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The workload.
    pub workload: Workload,
    /// The region of its last attempt's cluster.
    pub region: Option<Region>,
    /// Its place in the queue, where the plan knows it.
    pub place: Option<u64>,
    /// Why it is in its phase, in one sentence.
    pub message: String,
}

impl Seen {
    /// Copies a workload out of a view.
    pub fn of(view: &View<'_>, workload: &Workload, waiting: &BTreeMap<Uid, Waiting>) -> Self {
        let waiting = waiting.get(&workload.uid).filter(|_| workload.phase == Phase::Queued);
        let cluster = workload.attempts.last().and_then(|a| view.state.clusters.get(&a.cluster));
        Self {
            workload: workload.clone(),
            region: cluster.map(|c| c.info.region.clone()),
            place: waiting.map(|w| w.place),
            message: words::message(workload, waiting),
        }
    }

    /// The API's object.
    pub fn object(&self) -> WorkloadObject {
        let workload = &self.workload;
        let deleted = workload.delete_requested.then(|| workload.timeline.last().map(|m| words::timestamp(m.at)));
        WorkloadObject {
            metadata: Metadata {
                resource_version: Some(workload.version.to_string()),
                creation_timestamp: Some(words::timestamp(workload.submitted_at)),
                deletion_timestamp: deleted.flatten(),
                ..metadata(&workload.key, workload.uid)
            },
            status: Some(self.status()),
            ..bare(&workload.key, workload.uid, &workload.spec)
        }
    }

    fn status(&self) -> WorkloadStatus {
        let workload = &self.workload;
        WorkloadStatus {
            phase: workload.phase.to_string(),
            message: self.message.clone(),
            // A committed workload has exactly one framework; batch stands in for a state that can't be.
            framework: workload.spec.framework().unwrap_or(Framework::Batch),
            resources: match workload.live_attempt().filter(|_| workload.size().is_some()) {
                Some(attempt) => placed_resources(attempt),
                None => gang_resources(&workload.spec),
            },
            size: workload.size().map(|(members, min, max)| SizeStatus { members, min, max }),
            place_in_queue: self.place,
            cluster: workload.attempts.last().map(|a| a.cluster.clone()),
            region: self.region.clone(),
            attempts: workload.attempts.iter().map(|a| attempt(workload, a)).collect(),
            timeline: workload.timeline.iter().map(moment).collect(),
        }
    }
}

/// A workload's object with its name and specification alone, such as for one that is gone.
pub fn bare(key: &WorkloadKey, uid: Uid, spec: &WorkloadSpec) -> WorkloadObject {
    WorkloadObject {
        api_version: API_VERSION.into(),
        kind: "Workload".into(),
        metadata: metadata(key, uid),
        spec: spec.clone(),
        status: None,
    }
}

fn metadata(key: &WorkloadKey, uid: Uid) -> Metadata {
    Metadata {
        name: key.name.clone(),
        namespace: Some(key.namespace.clone()),
        uid: Some(uid),
        resource_version: None,
        creation_timestamp: None,
        deletion_timestamp: None,
    }
}

/// What the whole gang takes.
pub fn gang_resources(spec: &WorkloadSpec) -> Resources {
    spec.gang().iter().fold(Resources::ZERO, |sum, group| sum + group.each.times(u64::from(group.count)))
}

/// What an attempt's members take.
fn placed_resources(attempt: &Attempt) -> Resources {
    let all = |group: &GroupPlacement| group.each.times(u64::from(members(group)));
    attempt.placement.iter().fold(Resources::ZERO, |sum, group| sum + all(group))
}

fn attempt(workload: &Workload, attempt: &Attempt) -> AttemptStatus {
    AttemptStatus {
        id: workload.attempt_id(attempt.number),
        cluster: attempt.cluster.clone(),
        placement: attempt.placement.iter().map(words::placement).collect(),
        state: words::attempt(attempt),
        bound_at: words::timestamp(attempt.bound_at),
        running_at: attempt.running_at.map(words::timestamp),
        ended_at: attempt.ended_at.map(words::timestamp),
        exit_code: match &attempt.reported {
            Some(AttemptState::Failed { exit_code, .. }) => *exit_code,
            Some(AttemptState::Succeeded) => Some(0),
            _ => None,
        },
    }
}

fn moment(moment: &Moment) -> MomentStatus {
    MomentStatus { at: words::timestamp(moment.at), phase: moment.phase.to_string(), message: moment.what.to_string() }
}

/// Live attempts by cluster: one pass over the workloads for any number of clusters.
pub fn running_by_cluster(view: &View<'_>) -> BTreeMap<ClusterName, usize> {
    let mut running = BTreeMap::<ClusterName, usize>::new();
    for attempt in view.state.workloads.values().filter_map(|w| w.live_attempt()) {
        *running.entry(attempt.cluster.clone()).or_default() += 1;
    }
    running
}

/// A cluster's object. `running` is from [`running_by_cluster`].
pub fn cluster(view: &View<'_>, cluster: &Cluster, running: &BTreeMap<ClusterName, usize>) -> ClusterObject {
    let supplies = supply::by_sku(view, cluster);
    let all = supply::all(&supplies);
    let name = &cluster.info.name;
    ClusterObject {
        api_version: API_VERSION.into(),
        kind: "Cluster".into(),
        metadata: Metadata {
            name: WorkloadName::new(name.as_str()).expect("a cluster's name is a workload's name without dots"),
            namespace: None,
            uid: None,
            resource_version: Some(cluster.version.to_string()),
            creation_timestamp: Some(words::timestamp(cluster.joined_at)),
            deletion_timestamp: None,
        },
        status: ClusterStatus {
            phase: ClusterPhase::of(view, cluster).as_str().into(),
            region: cluster.info.region.clone(),
            frameworks: cluster.info.frameworks.clone(),
            nodes: usize::try_from(all.nodes).unwrap_or(usize::MAX),
            gpus: supplies.iter().filter_map(|(sku, s)| Some((sku.clone()?, s.gpus))).collect(),
            total: all.total,
            free: all.free,
            age_ms: supply::age_ms(view.capacity.clusters.get(name)),
            running: running.get(name).copied().unwrap_or(0),
            cordon: cluster.cordon.as_ref().map(|cordon| CordonStatus {
                since: words::timestamp(cordon.since),
                reason: cordon.reason.clone(),
                message: words::cordoned(name, cordon),
                drain: cordon.drain.as_ref().map(|drain| drained(view, name, drain)),
            }),
        },
    }
}

/// How far a drain is.
fn drained(view: &View<'_>, cluster: &ClusterName, drain: &Drain) -> DrainStatus {
    let mut status = DrainStatus {
        since: words::timestamp(drain.since),
        force: drain.force,
        max_at_once: drain.max_at_once,
        to_end: 0,
        ending: 0,
        waits_for: vec![],
        waits_for_count: 0,
        unseen: vec![],
        unseen_count: 0,
    };
    for (workload, attempt) in view.state.live_in(cluster) {
        let (names, count) = match drain.means(workload, attempt) {
            UnderDrain::Ends => {
                status.to_end += 1;
                continue;
            }
            UnderDrain::Ending => {
                status.ending += 1;
                continue;
            }
            UnderDrain::WaitedFor => (&mut status.waits_for, &mut status.waits_for_count),
            UnderDrain::Unseen => (&mut status.unseen, &mut status.unseen_count),
        };
        *count += 1;
        if names.len() < NAMED {
            names.push(workload.key.to_string());
        }
    }
    status
}

/// The first `limit` nodes of a cluster with their devices. Where the replica keeps no devices, they are made from the
/// node's sums, with activity and memory unknown.
pub fn nodes(view: &View<'_>, cluster: &ClusterName, limit: usize) -> Vec<NodeStatus> {
    if let Some(fleet) = view.fleet {
        return fleet.first_nodes(cluster, limit);
    }
    let Some(capacity) = view.capacity.clusters.get(cluster) else { return vec![] };
    let nodes = capacity.nodes.iter().take(limit);
    nodes
        .map(|node| {
            let free = node.whole_devices();
            let [ghosts, sick, foreign] = [node.ghosts, node.sick, node.foreign].map(u64::from);
            let held = node.total.gpus().saturating_sub(free + ghosts + sick + foreign);
            let of = |state, count: u64| {
                (0..count).map(move |_| DeviceStatus { state, activity_percent: None, memory_used_mib: None })
            };
            NodeStatus {
                name: node.name.clone(),
                sku: node.sku.clone(),
                state: node.state,
                source: node.source,
                sharing: node.sharing,
                devices: of(DeviceState::Held, held)
                    .chain(of(DeviceState::Free, free))
                    .chain(of(DeviceState::Ghost, ghosts))
                    .chain(of(DeviceState::Sick, sick))
                    .chain(of(DeviceState::Foreign, foreign))
                    .collect(),
                free: node.free,
                total: node.total,
            }
        })
        .collect()
}
