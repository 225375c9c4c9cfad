//! Tests of the cluster role: each file says what must hold. Here is what they share: a disk in memory that can fail and
//! lose what was not synced, and small orders.
#![allow(clippy::unwrap_used)]

mod capacity;
mod claims;
mod commands;
mod counted;
mod crash;
mod faults;
mod holders;
mod kubernetes;
mod nodes;
mod replicas;
mod resize;
mod shares;
mod table;

use std::sync::{Arc, Mutex};

use protocol::control::*;
use protocol::errors::FailureClass;
use protocol::ids::*;
use protocol::resources::Resources;
use protocol::sku::Sku;
use protocol::workload::{Framework, WorkloadSpec};

use super::*;

/// A disk in memory: what is written is volatile until it is synced.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    now: Vec<u8>,
    durable: Vec<u8>,
    writes: u64,
    fail_from: Option<u64>,
}

impl Disk {
    /// Writes and syncs so far.
    pub fn writes(&self) -> u64 {
        self.0.lock().unwrap().writes
    }

    /// From this write or sync on, everything fails.
    pub fn fail_from(&self, write: u64) {
        self.0.lock().unwrap().fail_from = Some(write);
    }

    /// The disk after a power cut, with or without what was written and not synced.
    pub fn crash(&self, keep_unsynced: bool) -> Disk {
        let platter = self.0.lock().unwrap();
        let left = if keep_unsynced { &platter.now } else { &platter.durable };
        Disk(Arc::new(Mutex::new(Platter { now: left.clone(), durable: left.clone(), writes: 0, fail_from: None })))
    }

    fn write(&self, change: impl FnOnce(&mut Platter)) -> Result<(), std::io::Error> {
        let mut platter = self.0.lock().unwrap();
        if platter.fail_from.is_some_and(|n| platter.writes >= n) {
            return Err(std::io::Error::other("the disk failed"));
        }
        platter.writes += 1;
        change(&mut platter);
        Ok(())
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let from = offset as usize;
        out.copy_from_slice(&self.0.lock().unwrap().now[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.write(|p| p.now.resize(len as usize, 0))
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.write(|p| p.durable = p.now.clone())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        Disk::write(self, |p| p.now[offset as usize..offset as usize + data.len()].copy_from_slice(data))
    }
}

pub const R1: ReplicaId = ReplicaId(1);
pub const R2: ReplicaId = ReplicaId(2);
pub const UNIX: UnixMs = UnixMs(1_700_000_000_000);

pub fn attempt(workload: u128) -> AttemptId {
    AttemptId { workload: Uid(workload), number: AttemptNumber(1) }
}

pub fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// Two nodes of eight H100.
pub fn config() -> AgentConfig {
    let cluster = ClusterInfo {
        name: ClusterName::new("here").unwrap(),
        region: Region::new("eu").unwrap(),
        frameworks: vec![Framework::Batch],
        fences: true,
        secrets: true,
        manifests: vec![],
        prices: vec![],
    };
    let declared = |name| DeclaredNode {
        name: node(name),
        sku: Some(Sku::parse("H100").unwrap()),
        devices: 8,
        cpu_milli: 64_000,
        memory_mib: 512_000,
    };
    AgentConfig::new(cluster, vec![declared("a"), declared("b")])
}

/// A gang of `members` on node a, each with these GPUs.
pub fn launch(workload: u128, members: u32, gpus: u64) -> Order {
    Order::Launch(Box::new(LaunchOrder {
        attempt: attempt(workload),
        key: WorkloadKey {
            namespace: Namespace::new("default").unwrap(),
            name: WorkloadName::new(format!("w{workload}")).unwrap(),
        },
        spec: WorkloadSpec::default(),
        placement: vec![GroupPlacement {
            group: GroupName::new("workers").unwrap(),
            each: Resources { cpu_milli: 1_000, memory_mib: 1_000, gpu_milli: gpus * 1_000 },
            sku: Some(Sku::parse("H100").unwrap()),
            nodes: vec![NodeShare { node: node("a"), members }],
        }],
    }))
}

pub fn stop(workload: u128) -> Order {
    Order::Stop(StopOrder { attempt: attempt(workload), cause: StopCause::Cancelled, grace_ms: 1_000 })
}

pub fn open(disk: &Disk, recovered: Vec<(AttemptId, AttemptState)>) -> (Agent, Vec<Output>) {
    let journal = Journal::open(disk.clone(), Incarnation(7)).unwrap();
    Agent::open(journal, config(), recovered, MonotonicMs(0), UNIX).unwrap()
}

pub fn step(agent: &mut Agent, now: u64, input: Input) -> Vec<Output> {
    agent.step(MonotonicMs(now), UNIX, input).unwrap()
}

pub fn command(replica: ReplicaId, number: u64, epoch: u64, order: Order) -> Input {
    let message = CoordinatorMessage::Command { number: CommandNumber(number), epoch: Epoch(epoch), order };
    Input::FromCoordinator { replica, message }
}

pub fn nonce(out: &[Output]) -> u64 {
    out.iter()
        .find_map(|o| match o {
            Output::Send { message: AgentMessage::LeaseRequest { nonce }, .. } => Some(*nonce),
            _ => None,
        })
        .unwrap()
}

pub fn lease(replica: ReplicaId, nonce: u64, epoch: u64, ttl_ms: u64) -> Input {
    Input::FromCoordinator {
        replica,
        message: CoordinatorMessage::Lease { nonce, epoch: Epoch(epoch), ttl_ms, attempts: vec![] },
    }
}

/// Connects at `now` and grants a lease.
pub fn connect(agent: &mut Agent, now: u64, replica: ReplicaId, epoch: u64, ttl_ms: u64) {
    let out = step(agent, now, Input::Connected { replica });
    step(agent, now, lease(replica, nonce(&out), epoch, ttl_ms));
}

pub fn starts(out: &[Output]) -> Vec<AttemptId> {
    out.iter()
        .filter_map(|o| match o {
            Output::Start { order, .. } => Some(order.attempt),
            _ => None,
        })
        .collect()
}

pub fn reports(out: &[Output]) -> Vec<(ReplicaId, AttemptReport)> {
    out.iter()
        .filter_map(|o| match o {
            Output::Send { replica, message: AgentMessage::Report(r) } => Some((*replica, r.clone())),
            _ => None,
        })
        .collect()
}
