//! Fleets and mixes from a seed, so that no result depends on one trace alone: nodes of a few makes with their own cpu for each GPU,
//! pods of a few share sizes, whole devices, multi-GPU pods, pods that need no GPU and pods that accept some models only.

use std::collections::BTreeSet;

use crate::chance::Chance;
use crate::fleet::{NodeRow, Pod};

/// Nodes and pods.
#[derive(Debug, Clone)]
pub struct Made {
    /// The fleet.
    pub nodes: Vec<NodeRow>,
    /// Pods that ask for about as many GPUs as there are.
    pub pods: Vec<Pod>,
}

/// Makes a fleet of about this many nodes.
pub fn make(nodes: usize, seed: u64) -> Made {
    let mut chance = Chance::new(seed, Chance::GENERATOR);
    let makes = 2 + chance.below(5);
    let mut rows = vec![];
    for make in 0..makes {
        let devices = chance.one_of(&[1u16, 2, 4, 8, 8]);
        let cpu_a_device = chance.one_of(&[6_000u64, 8_000, 12_000, 16_000, 24_000, 48_000]);
        let count = 1 + chance.below((2 * nodes / makes).max(1));
        for _ in 0..count {
            let cpu_milli = cpu_a_device * u64::from(devices);
            let name = format!("made-{}", rows.len());
            let model = Some(format!("MODEL-{make}"));
            rows.push(NodeRow { name, model, cpu_milli, memory_mib: cpu_milli * 6, devices, cluster: None });
        }
    }
    let gpus: u64 = rows.iter().map(|r| u64::from(r.devices)).sum();
    let cpu: u64 = rows.iter().map(|r| r.cpu_milli).sum();
    let shapes = shapes(&mut chance, makes, cpu / gpus.max(1));
    let (mut pods, mut asked) = (vec![], 0);
    while asked < gpus * 1000 {
        let pod = shapes[chance.below(shapes.len())].clone();
        asked += pod.gpu_milli();
        pods.push(pod);
    }
    Made { nodes: rows, pods }
}

/// The fleet on which the Philly trace is replayed: three clusters with 16, 12 and 9 nodes of eight GPUs.
pub fn three_clusters() -> Vec<NodeRow> {
    let node = |cluster: &str, number: usize| NodeRow {
        name: format!("{cluster}-{number}"),
        model: Some("V100".into()),
        cpu_milli: 64_000,
        memory_mib: 524_288,
        devices: 8,
        cluster: Some(cluster.to_owned()),
    };
    [("east", 16), ("north", 12), ("west", 9)].iter().flat_map(|(c, n)| (0..*n).map(move |i| node(c, i))).collect()
}

/// What pods ask for, each as often as it is to come.
fn shapes(chance: &mut Chance, makes: usize, cpu_a_gpu: u64) -> Vec<Pod> {
    let mut shapes = vec![];
    let kinds = 6 + chance.below(12);
    for _ in 0..kinds {
        let (devices, milli) = match chance.below(10) {
            0 => (0u16, 0u16),
            1 => (chance.one_of(&[2u16, 4, 8]), 1000),
            2..=4 => (1, 1000),
            _ => (1, 10 * (5 + chance.below(90)) as u16),
        };
        let gpus = (u64::from(devices) * u64::from(milli)).max(500);
        let cpu_milli = (cpu_a_gpu * gpus / 1000 * (20 + chance.below(100) as u64) / 100).max(500);
        let models: BTreeSet<String> = match chance.below(8) {
            0 if devices > 0 => [format!("MODEL-{}", chance.below(makes))].into(),
            _ => BTreeSet::new(),
        };
        let pod = Pod { cpu_milli, memory_mib: cpu_milli * 3, devices, milli, models };
        let often = if devices > 1 { 1 } else { 1 + chance.below(8) };
        shapes.extend(std::iter::repeat_n(pod, often));
    }
    shapes.push(Pod {
        cpu_milli: cpu_a_gpu / 2,
        memory_mib: cpu_a_gpu,
        devices: 1,
        milli: 1000,
        models: BTreeSet::new(),
    });
    shapes
}
