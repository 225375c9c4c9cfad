//! What the process runtime's tests share: a runtime over a temporary folder with the real guard, orders, and waiting.
#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of it.

pub mod listed;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use agent::guard::sweep;
use agent::runtime::process::{ProcessConfig, ProcessRuntime, default_cache_dir};
use agent::runtime::{Devices, RuntimeEvent};
use protocol::control::{AttemptState, GroupPlacement, LaunchOrder, NodeShare};
use protocol::ids::{AttemptId, AttemptNumber, NodeName, Uid, WorkloadKey};
use protocol::workload::WorkloadSpec;
use tokio::sync::mpsc;

/// A runtime and what it says.
pub struct Rig {
    pub runtime: ProcessRuntime,
    pub events: mpsc::Receiver<RuntimeEvent>,
}

pub fn config(data_dir: &Path) -> ProcessConfig {
    ProcessConfig {
        data_dir: data_dir.to_owned(),
        cache_dir: default_cache_dir(),
        runtime_dir: agent::runtime::process::default_runtime_dir(),
        guard: vec![env!("CARGO_BIN_EXE_tidewater-guard").into()],
        cluster: "test".parse().unwrap(),
        log_retention: Duration::from_secs(3600),
    }
}

impl Rig {
    pub fn new(data_dir: &Path) -> Self {
        let (sender, events) = mpsc::channel(64);
        Self { runtime: ProcessRuntime::new(config(data_dir), sender).unwrap(), events }
    }

    /// The next state of any attempt; panics after `patience`.
    pub async fn next(&mut self, patience: Duration) -> AttemptState {
        let event = tokio::time::timeout(patience, self.events.recv()).await.expect("an event in time");
        let state = event.expect("the runtime lives").state;
        println!("{state:?}");
        state
    }

    /// Every state up to the first that `wanted` holds for.
    pub async fn until(&mut self, wanted: impl Fn(&AttemptState) -> bool) -> AttemptState {
        loop {
            let state = self.next(Duration::from_secs(300)).await;
            if wanted(&state) {
                return state;
            }
            assert!(!state.is_final(), "ended early: {state:?}");
        }
    }

    pub async fn running(&mut self) {
        self.until(|state| *state == AttemptState::Running).await;
    }

    pub async fn ended(&mut self) -> AttemptState {
        self.until(AttemptState::is_final).await
    }

    pub async fn log(&self, attempt: AttemptId, member: Option<&str>) -> String {
        let mut stream = self.runtime.logs(attempt, member, false).unwrap();
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(all).unwrap()
    }
}

/// An order for one gang as its specification has it, on as many nodes as `per_node` members each make necessary.
pub fn order(spec: serde_json::Value, per_node: u32) -> LaunchOrder {
    let spec: WorkloadSpec = serde_json::from_value(spec).unwrap();
    assert_eq!(spec.problems(), vec![]);
    let placement = spec
        .gang()
        .into_iter()
        .map(|need| {
            let full = (0..need.count / per_node).map(|n| (n, per_node));
            let rest = (need.count % per_node != 0).then_some((need.count / per_node, need.count % per_node));
            let nodes = full
                .chain(rest)
                .map(|(n, members)| NodeShare { node: NodeName::new(format!("node-{n}")).unwrap(), members })
                .collect();
            GroupPlacement { group: need.name, each: need.each, sku: need.skus.first().cloned(), nodes }
        })
        .collect();
    let uid: Uid = Uid(uuid::Uuid::new_v4().as_u128());
    LaunchOrder {
        attempt: AttemptId { workload: uid, number: AttemptNumber(1) },
        key: WorkloadKey { namespace: "tests".parse().unwrap(), name: "w".parse().unwrap() },
        spec,
        placement,
    }
}

/// A batch gang of `count` members that run this Python program.
pub fn python(count: u32, program: &str) -> LaunchOrder {
    order(
        serde_json::json!({"batch": {
            "command": ["python3", "-c", program],
            "groups": [{"name": "workers", "count": count, "cpu": "1", "memory": "64Mi"}],
        }}),
        4,
    )
}

/// The declared GPUs from 0 up on every node, for the members of each group in turn.
pub fn devices(order: &LaunchOrder) -> Devices {
    let mut next: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut by_group = BTreeMap::new();
    for placement in &order.placement {
        let mut members = Vec::new();
        for share in &placement.nodes {
            for _ in 0..share.members {
                let first = next.entry(share.node.clone()).or_default();
                let count = placement.each.gpus() as u32;
                members.push((*first..*first + count).collect());
                *first += count;
            }
        }
        by_group.insert(placement.group.clone(), members);
    }
    Devices { by_group }
}

/// Processes of an attempt that live, found by their mark.
pub fn alive(attempt: AttemptId) -> Vec<i32> {
    sweep::leftovers(&attempt.to_string(), &[])
}

/// Waits for something that another process does.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The guard's process id.
pub fn guard_pid(data_dir: &Path, attempt: AttemptId) -> Option<u32> {
    let record = agent::guard::record::Record::at(data_dir.join("attempts").join(attempt.to_string()));
    record.started().unwrap().map(|started| started.guard_pid)
}
