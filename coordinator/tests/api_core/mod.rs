//! A stand-in for a replica's core, for tests of the API and the pages: one task that owns a real engine state and applies
//! commands directly. There is no Raft, no disk and no agent behind it; faults are switched on by hand.

#![allow(dead_code, clippy::unwrap_used)]

pub mod http;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use coordinator::handle::{
    Change, Consistency, Handle, NoPage, NodeSource, Page, ProposeError, ReadError, ReplicaStatus, Request, View,
};
use engine::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use engine::commands::Command;
use engine::plan;
use engine::state::State;
use protocol::capacity::Source;
use protocol::control::{AttemptReport, AttemptState, ClusterInfo, Price};
use protocol::ids::*;
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::Framework;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast;

/// What a log answers with.
pub type LogChunks = Vec<Result<Vec<u8>, String>>;

/// Faults and soft state, switched by the test.
#[derive(Default)]
pub struct Switches {
    /// Capacity as heard from agents.
    pub capacity: Capacity,
    /// So many proposals are not confirmed; the last of them is applied all the same where `applied_all_the_same` is set.
    pub unconfirmed: u32,
    /// Unconfirmed proposals take effect.
    pub applied_all_the_same: bool,
    /// Every proposal is refused for load.
    pub overloaded: bool,
    /// Linearizable reads find no quorum.
    pub no_quorum: bool,
    /// Nothing is answered at all.
    pub silent: bool,
    /// No leader is known; plans are not kept.
    pub leaderless: bool,
    /// What logs answer.
    pub log: LogChunks,
    /// What a page answers with before it says what it hears; none: its agent refuses.
    pub page: Option<&'static str>,
    /// Nodes with their devices.
    pub fleet: Option<Box<dyn NodeSource + Send>>,
}

/// The test's end of the core.
#[derive(Clone)]
pub struct Core {
    pub handle: Handle,
    pub switches: Arc<Mutex<Switches>>,
}

pub fn now() -> UnixMs {
    UnixMs(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

impl Core {
    /// Starts the task. Ends when every handle is gone.
    pub fn start() -> Core {
        Core::start_with(State::default())
    }

    /// Starts the task with a state.
    pub fn start_with(state: State) -> Core {
        let (handle, requests, changes) = Handle::new();
        let core = Core { handle, switches: Arc::default() };
        tokio::spawn(serve(state, core.switches.clone(), requests, changes));
        core
    }

    /// Switches something.
    pub fn set(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.switches.lock().unwrap());
    }

    /// A cluster joins and sends its capacity.
    pub async fn join(&self, info: ClusterInfo, nodes: Vec<NodeCapacity>) {
        let name = info.name.clone();
        self.handle
            .propose(Command::Join {
                info,
                incarnation: Incarnation(1),
                last_command: CommandNumber(0),
                attempts: vec![],
            })
            .await
            .unwrap();
        self.set(|s| {
            let capacity = ClusterCapacity {
                sequence: 1,
                watermark: CommandNumber(0),
                age_ms: 120,
                fresh: true,
                nodes: nodes.into(),
            };
            s.capacity.clusters.insert(name, capacity);
        });
    }

    /// Commits what the planner would do now.
    pub async fn place(&self) -> usize {
        let capacity = self.switches.lock().unwrap().capacity.clone();
        let bindings = self
            .handle
            .read(Consistency::Stale, move |v| plan::plan(v.state, &capacity, v.now, 1000).bindings)
            .await
            .unwrap();
        let count = bindings.len();
        for binding in bindings {
            self.handle.propose(Command::Bind(Box::new(binding))).await.unwrap();
        }
        count
    }

    /// The last attempt of a workload reports.
    pub async fn report(&self, workload: &str, state: AttemptState) {
        let key = key(workload);
        let (cluster, attempt, revision) = self
            .handle
            .read(Consistency::Stale, move |v| {
                let w = &v.state.workloads[&key];
                let a = w.attempts.last().unwrap();
                (a.cluster.clone(), w.attempt_id(a.number), a.revision + 1)
            })
            .await
            .unwrap();
        let report = AttemptReport { attempt, revision, state, resized: None, at: now() };
        self.handle.propose(Command::Report { cluster, report }).await.unwrap();
    }
}

async fn serve(
    mut state: State,
    switches: Arc<Mutex<Switches>>,
    mut requests: tokio::sync::mpsc::UnboundedReceiver<Request>,
    changes: broadcast::Sender<Change>,
) {
    let mut swallowed = Vec::new();
    let apply = |state: &mut State, command: &Command| {
        let index = LogIndex(state.applied.0 + 1);
        let applied = state.apply(index, command, now());
        let rules_changed = !applied.pools.is_empty() || !applied.owners.is_empty() || !applied.data.is_empty();
        if !applied.changed.is_empty() || !applied.clusters.is_empty() || rules_changed {
            let _ = changes.send(Change {
                index,
                workloads: applied.changed,
                clusters: applied.clusters,
                pools: applied.pools,
                owners: applied.owners,
                data: applied.data,
            });
        }
        applied.outcome
    };
    while let Some(request) = requests.recv().await {
        let mut switches = switches.lock().unwrap();
        if switches.silent {
            swallowed.push(request);
            continue;
        }
        let now = now();
        match request {
            Request::Propose { command, reply } => {
                let answer = if switches.overloaded {
                    Err(ProposeError::Overloaded)
                } else if switches.unconfirmed > 0 {
                    switches.unconfirmed -= 1;
                    if switches.applied_all_the_same {
                        let _ = apply(&mut state, &command);
                    }
                    Err(ProposeError::Unconfirmed)
                } else {
                    apply(&mut state, &command).map_err(ProposeError::from)
                };
                let (plan, status) = beside(&state, &switches, now);
                reply(answer, &view(&state, &switches, plan.as_ref(), &status, now));
            }
            Request::Read { consistency, job } => {
                if switches.no_quorum && consistency == Consistency::Linearizable {
                    job(Err(ReadError::NoQuorum));
                    continue;
                }
                let (plan, status) = beside(&state, &switches, now);
                job(Ok(&view(&state, &switches, plan.as_ref(), &status, now)));
            }
            Request::Logs { chunks, .. } => {
                let log = switches.log.clone();
                tokio::spawn(async move {
                    for chunk in log {
                        if chunks.send(chunk).await.is_err() {
                            return;
                        }
                    }
                });
            }
            Request::Page { answer, .. } => {
                let page = switches.page.map(echo).ok_or_else(|| NoPage::Refused("it is not up yet".into()));
                let _ = answer.send(page);
            }
        }
    }
}

/// A page that says this, then all that it is told, until it has been told the last.
fn echo(first: &'static str) -> Page {
    let (far, mut near) = tokio::io::duplex(64);
    tokio::spawn(async move {
        near.write_all(first.as_bytes()).await.unwrap();
        let (mut from, mut to) = tokio::io::split(near);
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    });
    Page { token: Some("secret".into()), bytes: Box::new(far) }
}

/// What a view has beside the state.
fn beside(state: &State, switches: &Switches, now: UnixMs) -> (Option<plan::Plan>, ReplicaStatus) {
    let plan = (!switches.leaderless).then(|| plan::plan(state, &switches.capacity, now, 1000));
    let status = ReplicaStatus {
        id: ReplicaId(1),
        leader: (!switches.leaderless).then_some(ReplicaId(1)),
        term: Epoch(3),
        applied: state.applied,
        committed: state.applied,
        voters: vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)],
    };
    (plan, status)
}

/// Its planner has planned nothing yet.
static NOTHING: LazyLock<plan::Memory> = LazyLock::new(plan::Memory::default);

fn view<'a>(
    state: &'a State,
    switches: &'a Switches,
    plan: Option<&'a plan::Plan>,
    status: &'a ReplicaStatus,
    now: UnixMs,
) -> View<'a> {
    let fleet = switches.fleet.as_deref().map(|f| f as &dyn NodeSource);
    View { state, capacity: &switches.capacity, plan, memory: &NOTHING, fleet, status, now }
}

pub fn key(text: &str) -> WorkloadKey {
    let (namespace, name) = text.split_once('/').unwrap();
    WorkloadKey { namespace: Namespace::new(namespace).unwrap(), name: WorkloadName::new(name).unwrap() }
}

/// A cluster that runs everything; its GPU-hours cost 3 of each model.
pub fn info(name: &str, region: &str, skus: &[&str]) -> ClusterInfo {
    ClusterInfo {
        name: ClusterName::new(name).unwrap(),
        region: Region::new(region).unwrap(),
        frameworks: vec![Framework::Ray, Framework::Spark, Framework::Batch],
        fences: true,
        secrets: true,
        manifests: vec![],
        prices: skus.iter().map(|s| Price { sku: Sku::parse(s).unwrap(), milli_per_gpu_hour: 3000 }).collect(),
    }
}

/// A free node.
pub fn node(name: &str, sku: Option<&str>, gpus: u64) -> NodeCapacity {
    let total = Resources { cpu_milli: 64_000, memory_mib: 512 * 1024, gpu_milli: gpus * 1000 };
    NodeCapacity::untouched(NodeName::new(name).unwrap(), sku.map(|s| Sku::parse(s).unwrap()), Source::Declared, total)
}

/// A batch workload of `count` members with `gpus` H100 each, as YAML.
pub fn batch(name: &str, count: u32, gpus: u32) -> String {
    let gpu = if gpus > 0 { format!(", gpus: {gpus}, gpu: [H100]") } else { String::new() };
    format!(
        "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata:\n  name: {name}\nspec:\n  batch:\n    command: [sleep, \"1\"]\n    groups:\n    - {{count: {count}, cpu: 1, memory: 1Gi{gpu}}}\n"
    )
}
