//! An agent's cluster role that hears of a real API server, without coordinators: the test is the one.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent::cluster::{Agent, AgentConfig, Input, Journal, Output};
use agent::kube::{Access, connect, run};
use anyhow::{Context, bail};
use kube::Client;
use protocol::capacity::{Columns, NodeState};
use protocol::control::{AgentMessage, AttemptState, ClusterInfo, CoordinatorMessage, LaunchOrder, Order};
use protocol::ids::{
    AttemptId, ClusterName, CommandNumber, Epoch, Incarnation, MonotonicMs, Region, ReplicaId, UnixMs,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::recount::{Own, Row, recount, rows};

/// How long anything may take on a busy machine that is not about time.
const PATIENCE: Duration = Duration::from_secs(90);
const REPLICA: ReplicaId = ReplicaId(1);

/// The cluster role, its feed and its clock.
pub struct Rig {
    agent: Arc<Mutex<Agent>>,
    started: Instant,
    commands: u64,
    stop: CancellationToken,
    _journal: tempfile::TempDir,
}

impl Rig {
    /// Starts to follow the API server of this kubeconfig.
    pub async fn start(kubeconfig: &Path) -> anyhow::Result<Self> {
        let journal = tempfile::tempdir()?;
        let file = std::fs::File::options().create_new(true).read(true).write(true).open(journal.path().join("j"))?;
        let opened = Journal::open(redb::backends::FileBackend::new(file)?, Incarnation(1))?;
        let cluster = ClusterInfo {
            name: ClusterName::new("here")?,
            region: Region::new("eu")?,
            frameworks: vec![],
            fences: false,
            secrets: true,
            manifests: vec![],
            prices: vec![],
        };
        let config = AgentConfig::new(cluster, vec![]);
        let (agent, _) = Agent::open(opened, config, vec![], MonotonicMs(0), UnixMs(1))?;
        let access = Access::Kubeconfig { file: kubeconfig.to_owned(), context: None };
        let client = connect(&access).await?;
        let (send, mut told) = mpsc::channel(4);
        let stop = CancellationToken::new();
        tokio::spawn(run(client, send, watch::channel(true).1, stop.clone()));
        let rig = Self {
            agent: Arc::new(Mutex::new(agent)),
            started: Instant::now(),
            commands: 0,
            stop: stop.clone(),
            _journal: journal,
        };
        let (agent, started) = (rig.agent.clone(), rig.started);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            loop {
                let input = tokio::select! {
                    _ = ticks.tick() => Input::Tick,
                    told = told.recv() => match told {
                        Some(told) => Input::Kubernetes(told),
                        None => return,
                    },
                    () = stop.cancelled() => return,
                };
                let now = MonotonicMs(started.elapsed().as_millis() as u64);
                agent.lock().expect("nothing panics").step(now, UnixMs(1), input).expect("its journal works");
            }
        });
        Ok(rig)
    }

    fn step(&self, input: Input) -> anyhow::Result<Vec<Output>> {
        let now = MonotonicMs(self.started.elapsed().as_millis() as u64);
        Ok(self.agent.lock().expect("nothing panics").step(now, UnixMs(1), input)?)
    }

    /// The table as it is sent to coordinators.
    pub fn columns(&self) -> Columns {
        self.agent.lock().expect("nothing panics").table().columns()
    }

    /// Launches an attempt, under a lease that outlives the test.
    pub fn launch(&mut self, order: LaunchOrder) -> anyhow::Result<()> {
        let (attempt, epoch) = (order.attempt, Epoch(1));
        let out = self.step(Input::Connected { replica: REPLICA })?;
        let nonce = out.iter().find_map(|output| match output {
            Output::Send { message: AgentMessage::LeaseRequest { nonce }, .. } => Some(*nonce),
            _ => None,
        });
        let from = |message| Input::FromCoordinator { replica: REPLICA, message };
        let nonce = nonce.context("it asks for a lease")?;
        self.step(from(CoordinatorMessage::Lease { nonce, epoch, ttl_ms: 1 << 40, attempts: vec![] }))?;
        self.commands += 1;
        let (number, order) = (CommandNumber(self.commands), Order::Launch(Box::new(order)));
        let out = self.step(from(CoordinatorMessage::Command { number, epoch, order }))?;
        if !out.iter().any(|o| matches!(o, Output::Start { order, .. } if order.attempt == attempt)) {
            bail!("it is not started: {out:?}");
        }
        Ok(())
    }

    /// The runtime says that nothing is left of an attempt.
    pub fn ended(&self, attempt: AttemptId) -> anyhow::Result<()> {
        self.step(Input::Runtime { attempt, state: AttemptState::Succeeded }).map(drop)
    }

    /// Waits until the table is what a recount gives, and says how long that took.
    pub async fn equals(&self, what: &str, client: &Client, own: &[Own]) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let expected = recount(client, own).await?;
            let found = rows(&self.columns());
            if found == expected {
                let gpus = |of: fn(&Row) -> usize| found.values().map(of).sum::<usize>();
                let (free, held, foreign) = (gpus(|r| r.free), gpus(|r| r.held), gpus(|r| r.foreign));
                eprintln!(
                    "    {what}: {} nodes, GPUs {free} free, {held} held, {foreign} of others; equal after {:.2} s",
                    found.len(),
                    began.elapsed().as_secs_f64()
                );
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                let differ: Vec<_> = expected
                    .iter()
                    .filter(|(name, row)| found.get(*name) != Some(row))
                    .map(|(name, row)| format!("{name}: counted {row:?}, table has {:?}", found.get(name)))
                    .chain(
                        found.keys().filter(|name| !expected.contains_key(*name)).map(|n| format!("{n} is too much")),
                    )
                    .take(3)
                    .collect();
                bail!("{what}: the table does not become what is counted:\n{}", differ.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every row is stale; returns how long that took.
    pub async fn until_stale(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !self.columns().state.iter().all(|state| *state == NodeState::Stale) {
            if began.elapsed() > PATIENCE {
                bail!("the table does not become stale");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(began.elapsed())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
