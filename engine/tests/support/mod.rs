//! A small world for the engine's tests: declared clusters, short names for workloads, and a script language in which a
//! test reads like a story. Shares nothing with the engine but its public types.
#![allow(dead_code, clippy::unwrap_used)]

pub mod cures;
pub mod fuzzed;
pub mod histories;
pub mod invariants;
pub mod operations;
pub mod questions;
pub mod script;
pub mod slow_line;
pub mod slow_pools;

use std::collections::BTreeMap;

use engine::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use protocol::capacity::Source;
use protocol::control::{AttemptReport, AttemptState, ClusterInfo, Price};
use protocol::ids::*;
use protocol::resources::{Cpu, Gpus, Memory, Resources};
use protocol::sku::Sku;
use protocol::workload::{BatchSpec, Framework, GroupSpec, HeadSpec, RaySpec, WorkloadSpec};

pub fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

/// `a~2` is another workload of the name `a`.
pub fn key(name: &str) -> WorkloadKey {
    let name = name.split('~').next().unwrap();
    WorkloadKey { namespace: Namespace::new("default").unwrap(), name: WorkloadName::new(name).unwrap() }
}

/// A workload's id made of its name, so that scripts need no ids.
pub fn uid(name: &str) -> Uid {
    Uid(name.bytes().fold(7, |a, b| a * 131 + u128::from(b)))
}

pub fn info(name: &str, region: &str) -> ClusterInfo {
    ClusterInfo {
        name: cluster(name),
        region: Region::new(region).unwrap(),
        frameworks: vec![Framework::Ray, Framework::Spark, Framework::Batch],
        fences: true,
        secrets: true,
        manifests: vec![],
        prices: vec![],
    }
}

pub fn price(sku: &str, milli: u64) -> Price {
    Price { sku: Sku::from_driver(sku), milli_per_gpu_hour: milli }
}

pub fn resources(cpu: u64, gib: u64, gpus: u64) -> Resources {
    Resources { cpu_milli: cpu * 1000, memory_mib: gib * 1024, gpu_milli: gpus * 1000 }
}

pub fn node(name: &str, sku: Option<&str>, total: Resources) -> NodeCapacity {
    NodeCapacity::untouched(NodeName::new(name).unwrap(), sku.map(Sku::from_driver), Source::Declared, total)
}

pub fn frame(nodes: Vec<NodeCapacity>) -> ClusterCapacity {
    ClusterCapacity { sequence: 1, watermark: CommandNumber(0), age_ms: 5, fresh: true, nodes: nodes.into() }
}

pub fn group(name: &str, count: u32, cpu: u64, gib: u64, gpus: u64, skus: &[&str]) -> GroupSpec {
    GroupSpec {
        name: GroupName::new(name).unwrap(),
        count: Some(count),
        min: None,
        max: None,
        cpu: Cpu(cpu * 1000),
        memory: Memory(gib * 1024),
        gpus: Gpus(gpus * 1000),
        gpu: skus.iter().map(|s| Sku::parse(s).unwrap()).collect(),
    }
}

pub fn batch(groups: Vec<GroupSpec>) -> WorkloadSpec {
    let batch = BatchSpec { command: vec!["true".into()], image: None, groups };
    WorkloadSpec { batch: Some(batch), ..WorkloadSpec::default() }
}

/// A Ray workload: a head that is next to nothing, and workers.
pub fn ray(head_milli: u64, workers: Vec<GroupSpec>) -> WorkloadSpec {
    let head = HeadSpec { cpu: Cpu(head_milli), memory: Memory(1) };
    let ray = RaySpec { entrypoint: "true".into(), image: None, head, workers };
    WorkloadSpec { ray: Some(ray), ..WorkloadSpec::default() }
}

/// The group that may grow to so many more members.
pub fn elastic(group: GroupSpec, more: u32) -> GroupSpec {
    let least = group.least();
    GroupSpec { count: None, min: Some(least), max: Some(least + more), ..group }
}

pub fn report(name: &str, attempt: u32, revision: u64, state: AttemptState) -> AttemptReport {
    let attempt = AttemptId { workload: uid(name), number: AttemptNumber(attempt) };
    AttemptReport { attempt, revision, state, resized: None, at: UnixMs(0) }
}

/// A fleet's capacity kept as an agent would: what its attempts hold is not free.
#[derive(Default, Clone)]
pub struct Fleet {
    pub capacity: Capacity,
}

impl Fleet {
    pub fn set(&mut self, name: &str, nodes: Vec<NodeCapacity>) {
        self.capacity.clusters.insert(cluster(name), frame(nodes));
    }

    /// Makes the cluster's frame include everything that is live in state now.
    pub fn catch_up(&mut self, state: &engine::State, name: &str) {
        let Some(there) = self.capacity.clusters.get_mut(&cluster(name)) else { return };
        let mut taken: BTreeMap<NodeName, Resources> = BTreeMap::new();
        for workload in state.workloads.values() {
            for attempt in workload.attempts.iter().filter(|a| a.ended_at.is_none() && a.cluster.as_str() == name) {
                there.watermark = there.watermark.max(attempt.launch);
                let leaving = attempt.resize.iter().flat_map(|resize| &resize.leaving);
                there.watermark = attempt.resize.iter().map(|r| r.number).fold(there.watermark, CommandNumber::max);
                for group in attempt.placement.iter().chain(leaving) {
                    for share in &group.nodes {
                        *taken.entry(share.node.clone()).or_default() += group.each.times(u64::from(share.members));
                    }
                }
            }
        }
        for node in &mut there.nodes {
            let bad = u64::from(node.ghosts + node.sick + node.foreign) * 1000;
            let whole = Resources { gpu_milli: node.total.gpu_milli - bad, ..node.total };
            node.free = whole.saturating_sub(taken.get(&node.name).unwrap_or(&Resources::ZERO));
        }
        there.sequence += 1;
    }
}
