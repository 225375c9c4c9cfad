//! How fast the planner decides: on busy fleets of 1,000, 10,000 and 125,000 nodes of 8 GPUs in clusters of 1,250, with four models
//! and holes of every size, and asks like those of a real mix of shares, whole GPUs, nodes and gangs of nodes.
//!
//! Four things: a plan from nothing over a line of waiting workloads; a plan as the coordinator makes it, with what the last one kept,
//! after one node of one cluster changed; decisions one after the other by the placer, with its index
//! kept (each with the room it takes, and an ended pod's room given back after it, so that the fleet stays as full); and one
//! decision after one node changed. Time is CPU time of the one thread that decides, so that other programs on the machine do not count.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator::planner::most_bindings;
use engine::capacity::{Capacity, ClusterCapacity, NodeCapacity};
use engine::plan::{Bounds, Kept, LASTING_MS, Memory as Remembered, plan, plan_again};
use engine::{Command, Order, Placer, State};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use protocol::capacity::{NodeState, Sharing, Source};
use protocol::control::ClusterInfo;
use protocol::ids::{
    ClusterName, CommandNumber, GroupName, Incarnation, LogIndex, Namespace, NodeName, Region, Uid, UnixMs,
    WorkloadKey, WorkloadName,
};
use protocol::resources::{Cpu, Gpus, Memory, Resources};
use protocol::sku::Sku;
use protocol::workload::{BatchSpec, Framework, GroupNeed, GroupSpec, Spread, WorkloadSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::result::{Figures, load_average, table};

const SKUS: [&str; 4] = ["H100", "H200", "A100-80GB", "L40S"];
const GPUS: u64 = 8;
const CLUSTER: usize = 1_250;
/// Bindings of one plan, as the coordinator asks for.
const BINDINGS: usize = 256;
/// Asks of one member: thousandths of a GPU, and how often of 1,000. Shares as a large shared fleet has them (openb's list).
const ASKS: [(u64, u64); 14] = [
    (1000, 470),
    (810, 132),
    (0, 133),
    (470, 92),
    (320, 40),
    (650, 31),
    (230, 17),
    (460, 16),
    (160, 9),
    (590, 9),
    (550, 9),
    (220, 8),
    (2000, 14),
    (4000, 12),
];

/// A fleet and what is asked of it, from a seed.
struct World {
    rng: ChaCha8Rng,
    state: State,
    capacity: Capacity,
}

fn need(rng: &mut ChaCha8Rng) -> GroupNeed {
    // The rest of the thousand: whole nodes, half of them as gangs of 2 to 8 nodes of one model.
    let mut lot = rng.random_range(0..1000u64);
    let milli = ASKS.iter().find_map(|(milli, often)| match lot.checked_sub(*often) {
        None => Some(*milli),
        Some(left) => {
            lot = left;
            None
        }
    });
    let (milli, count) = match milli {
        Some(milli) => (milli, 1),
        None if rng.random_range(0..2) == 0 => (GPUS * 1000, 1),
        None => (GPUS * 1000, rng.random_range(2..9)),
    };
    let cores = [2, 4, 6, 8, 10, 12][rng.random_range(0..6)] * milli.max(700).div_ceil(1000);
    let one_model = milli >= GPUS * 1000;
    let sku = SKUS[rng.random_range(0..SKUS.len())];
    GroupNeed {
        name: GroupName::new("workers").expect("a constant name is valid"),
        count,
        each: Resources { cpu_milli: cores * 1000, memory_mib: cores * 4096, gpu_milli: milli },
        skus: if one_model && milli > 0 { vec![Sku::from_driver(sku)] } else { vec![] },
        spread: Spread::None,
    }
}

fn node(rng: &mut ChaCha8Rng, row: usize) -> Result<NodeCapacity> {
    let total = Resources { cpu_milli: 128_000, memory_mib: 2_000_000, gpu_milli: GPUS * 1000 };
    // Six of ten nodes are full, one in ten is empty, the others have holes.
    let (whole, shares) = match rng.random_range(0..10) {
        0..6 => (0, 0),
        6 => (GPUS, 0),
        _ => (rng.random_range(0..5), rng.random_range(0..3)),
    };
    let shares: Vec<u16> = (0..shares).map(|_| 10 * rng.random_range(5..95u16)).collect();
    let gpu_milli = whole * 1000 + shares.iter().map(|s| u64::from(*s)).sum::<u64>();
    let cpu_milli = if whole == GPUS { 128_000 } else { (gpu_milli * 14).min(100_000) + 500 * rng.random_range(0..40) };
    Ok(NodeCapacity {
        name: NodeName::new(format!("gpu-{row}"))?,
        sku: Some(Sku::from_driver(SKUS[rng.random_range(0..SKUS.len())])),
        state: NodeState::Ready,
        source: Source::Measured,
        sharing: Sharing::Any,
        total,
        free: Resources { cpu_milli, memory_mib: cpu_milli * 12, gpu_milli },
        shares,
        ghosts: 0,
        sick: 0,
        foreign: 0,
        activity_percent: None,
        held_activity: None,
    })
}

impl World {
    fn new(nodes: usize) -> Result<Self> {
        let mut world = Self {
            rng: ChaCha8Rng::seed_from_u64(nodes as u64),
            state: State::default(),
            capacity: Capacity::default(),
        };
        for (cluster, first) in (0..nodes).step_by(CLUSTER).enumerate() {
            let name = ClusterName::new(format!("cluster-{cluster:03}"))?;
            let info = ClusterInfo {
                name: name.clone(),
                region: Region::new("here")?,
                frameworks: vec![Framework::Batch],
                fences: true,
                secrets: true,
                manifests: vec![],
                prices: vec![],
            };
            let (incarnation, last_command) = (Incarnation(1), CommandNumber(0));
            world.apply(&Command::Join { info, incarnation, last_command, attempts: vec![] })?;
            let rows = 0..CLUSTER.min(nodes - first);
            let nodes = rows.map(|row| node(&mut world.rng, row)).collect::<Result<_>>()?;
            let frame = ClusterCapacity { sequence: 1, watermark: last_command, age_ms: 0, fresh: true, nodes };
            world.capacity.clusters.insert(name, frame);
        }
        Ok(world)
    }

    fn apply(&mut self, command: &Command) -> Result<()> {
        let applied = self.state.apply(LogIndex(self.state.applied.0 + 1), command, UnixMs(0));
        applied.outcome.map(|_| ()).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    }

    fn wait(&mut self, workloads: usize) -> Result<()> {
        for number in self.state.workloads.len()..workloads {
            let need = need(&mut self.rng);
            let group = GroupSpec {
                name: need.name,
                count: Some(need.count),
                min: None,
                max: None,
                cpu: Cpu(need.each.cpu_milli),
                memory: Memory(need.each.memory_mib),
                gpus: Gpus(need.each.gpu_milli),
                gpu: need.skus,
            };
            let batch = BatchSpec { command: vec!["true".into()], image: None, groups: vec![group] };
            let key =
                WorkloadKey { namespace: Namespace::new("default")?, name: WorkloadName::new(format!("w{number}"))? };
            let spec = Box::new(WorkloadSpec { batch: Some(batch), ..WorkloadSpec::default() });
            self.apply(&Command::Submit { key, uid: Uid(number as u128 + 1), spec })?;
        }
        Ok(())
    }
}

/// A plan from nothing, in ms: the best of three, by waiting workloads.
fn cold_plans(world: &mut World, waiting: &[usize]) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for count in waiting {
        world.wait(*count)?;
        let mut best = Duration::MAX;
        let mut bound = 0;
        for _ in 0..3 {
            let start = cpu();
            bound = std::hint::black_box(plan(&world.state, &world.capacity, UnixMs(0), BINDINGS)).bindings.len();
            best = best.min(cpu().saturating_sub(start));
            if best > Duration::from_secs(20) {
                break;
            }
        }
        let ms = (best.as_secs_f64() * 10_000.0).round() / 10.0;
        found.insert(format!("{count}_waiting"), json!({ "plan_ms": ms, "bindings": bound }));
    }
    Ok(found)
}

/// How often a plan is made after a change.
const CHANGES: usize = 100;

/// A whole plan as the coordinator makes it after one node of one cluster changed and nothing else did, in ms: the median, and the
/// first, which has nothing kept.
fn plan_after_one_change(world: &mut World) -> Result<(f64, f64)> {
    let clusters: Vec<ClusterName> = world.capacity.clusters.keys().cloned().collect();
    let nodes = world.capacity.clusters.values().map(|c| c.nodes.len()).sum();
    let bounds = Bounds::of(most_bindings(nodes));
    let (mut memory, mut kept) = (Remembered::new(LASTING_MS), Kept::default());
    let mut took = vec![];
    for change in 0..=CHANGES {
        let frame = world.capacity.clusters.get_mut(&clusters[change % clusters.len()]).context("a cluster is gone")?;
        let row = change * 7 % frame.nodes.len();
        frame.nodes[row].free.cpu_milli ^= 1024;
        frame.sequence += 1;
        let start = cpu();
        let made = plan_again(&world.state, &world.capacity, (&memory, &mut kept), UnixMs(0), bounds);
        took.push(cpu().saturating_sub(start));
        memory = made.memory;
    }
    let ms = |took: Duration| (took.as_secs_f64() * 100_000.0).round() / 100.0;
    let first = took.remove(0);
    took.sort_unstable();
    Ok((ms(took[took.len() / 2]), ms(first)))
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Bytes that this process has in memory.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

struct Decisions {
    per_s: f64,
    placed: u64,
    took: Histogram<u64>,
    incremental: Histogram<u64>,
    bytes: u64,
}

fn decisions(world: &mut World, measured: usize) -> Result<Decisions> {
    let asks: Vec<GroupNeed> = (0..20_000).map(|_| need(&mut world.rng)).collect();
    let before = resident()?;
    let mut placer = Placer::of_fleet(&world.state, &world.capacity);
    asks.iter().for_each(|ask| placer.see(std::slice::from_ref(ask)));
    let clusters: Vec<&ClusterName> = world.capacity.clusters.keys().collect();
    let nodes = |cluster: &ClusterName| &world.capacity.clusters[cluster].nodes;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // What was placed ends after a while: its first node is as its frame says again.
    let mut running: VecDeque<(ClusterName, NodeName)> = VecDeque::new();
    let lasts = 20 * nodes(clusters[0]).len().min(100);
    let renew = |placer: &mut Placer<'_>, running: &mut VecDeque<(ClusterName, NodeName)>| {
        let Some((cluster, node)) = (running.len() > lasts).then(|| running.pop_front()).flatten() else { return };
        let row: usize = node.as_str().trim_start_matches("gpu-").parse().unwrap_or(0);
        placer.change(&cluster, row as u32, &nodes(&cluster)[row]);
    };
    let place = |placer: &mut Placer<'_>, running: &mut VecDeque<(ClusterName, NodeName)>, ask: &GroupNeed| {
        let placed = placer.place(std::slice::from_ref(ask), Order::BestFirst);
        let at = placed.and_then(|(cluster, groups)| Some((cluster, groups.first()?.nodes.first()?.node.clone())));
        let found = at.is_some();
        running.extend(at);
        found
    };
    // Every ask first, so that what is measured is the steady state.
    for ask in &asks[..10_000] {
        place(&mut placer, &mut running, ask);
        renew(&mut placer, &mut running);
    }
    let bytes = resident()?.saturating_sub(before);
    let mut took = Histogram::new(3)?;
    let (mut spent, mut placed) = (Duration::ZERO, 0);
    for _ in 0..measured {
        let ask = &asks[rng.random_range(0..asks.len())];
        renew(&mut placer, &mut running);
        let start = cpu();
        placed += u64::from(place(&mut placer, &mut running, ask));
        let elapsed = cpu().saturating_sub(start);
        spent += elapsed;
        took.record(elapsed.as_nanos() as u64)?;
    }
    ensure!(placed > 0, "nothing was placed");
    let mut incremental = Histogram::new(3)?;
    for _ in 0..measured {
        let ask = &asks[rng.random_range(0..asks.len())];
        let start = cpu();
        renew(&mut placer, &mut running);
        place(&mut placer, &mut running, ask);
        incremental.record(cpu().saturating_sub(start).as_nanos() as u64)?;
    }
    Ok(Decisions { per_s: measured as f64 / spent.as_secs_f64(), placed, took, incremental, bytes })
}

/// Measures; the object's top-level figures are those of the largest fleet.
pub fn run(quick: bool) -> Result<Figures> {
    let load_before = load_average();
    let sizes: &[usize] = if quick { &[1_000] } else { &[1_000, 10_000, 125_000] };
    let waiting: &[usize] = if quick { &[1, 1_000] } else { &[1, 1_000, 100_000] };
    let measured = if quick { 2_000 } else { 50_000 };
    let columns = [
        "nodes",
        "decisions/s",
        "p50",
        "p99",
        "after one change p50",
        "p99",
        "bytes a GPU",
        "plan after one change (with nothing kept)",
        "plan from cold",
    ];
    let mut shown = table(&columns);
    let (mut by_size, mut top) = (vec![], Map::new());
    // The largest first: what memory it takes can be seen only while the process has none to use again.
    for nodes in sizes.iter().rev() {
        let bar = ProgressBar::new_spinner().with_message(format!("decisions on {nodes} nodes"));
        bar.enable_steady_tick(Duration::from_millis(100));
        let mut world = World::new(*nodes)?;
        let Decisions { per_s, placed, took, incremental, bytes } = decisions(&mut world, measured)?;
        let idle = plan_after_one_change(&mut world)?;
        world.wait(1_000)?;
        let line = plan_after_one_change(&mut world)?;
        let mut world = World::new(*nodes)?;
        let plans = cold_plans(&mut world, waiting)?;
        bar.finish_and_clear();
        let us = |histogram: &Histogram<u64>, q| (histogram.value_at_quantile(q) as f64 / 100.0).round() / 10.0;
        let per_gpu = (bytes as f64 / (*nodes as f64 * GPUS as f64) * 10.0).round() / 10.0;
        let largest = Some(nodes) == sizes.last();
        let figures = json!({
            "nodes": nodes,
            "gang_decisions_per_s": per_s.round(),
            "placed": placed,
            "measured": measured,
            "decision_p50_us": us(&took, 0.5),
            "decision_p99_us": us(&took, 0.99),
            "incremental_p50_us": us(&incremental, 0.5),
            "incremental_p99_us": us(&incremental, 0.99),
            "bytes_per_gpu": largest.then_some(per_gpu),
            "plan_after_one_change_ms": { "idle": idle.0, "1000_waiting": line.0 },
            "plan_with_nothing_kept_ms": { "idle": idle.1, "1000_waiting": line.1 },
            "plans_from_cold": plans,
        });
        shown.add_row([
            nodes.to_string(),
            format!("{per_s:.0}"),
            format!("{} us", us(&took, 0.5)),
            format!("{} us", us(&took, 0.99)),
            format!("{} us", us(&incremental, 0.5)),
            format!("{} us", us(&incremental, 0.99)),
            if largest { per_gpu.to_string() } else { String::new() },
            format!("idle: {} ({}) ms; 1000 waiting: {} ({}) ms", idle.0, idle.1, line.0, line.1),
            waiting
                .iter()
                .map(|w| format!("{w}: {} ms", figures["plans_from_cold"][format!("{w}_waiting")]["plan_ms"]))
                .collect::<Vec<_>>()
                .join("; "),
        ]);
        for key in ["gang_decisions_per_s", "incremental_p99_us", "bytes_per_gpu", "plan_after_one_change_ms"] {
            top.entry(key).or_insert_with(|| figures[key].clone());
        }
        by_size.push(figures);
    }
    top.insert("by_size".into(), json!(by_size));
    top.insert("load_average_before".into(), json!(load_before));
    Ok(Figures { table: shown, json: top })
}
