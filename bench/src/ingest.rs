//! Capacity ingest: how many node updates a second one core takes from wire bytes into the coordinator's columns, and what
//! a changed value costs on the wire. Agent table, uplink, codec and fleet are the product's own; the GPUs' readings are
//! made up, with a seed. An update is one node's second: activity and memory of its 8 GPUs changed, 16 values.

use std::time::Duration;

use agent::cluster::{DeclaredNode, Pace, Table, Uplink};
use anyhow::{Context, Result, ensure};
use coordinator::fleet::Fleet;
use indicatif::ProgressBar;
use protocol::capacity::CapacityFrame;
use protocol::codec::{decode_frame, encode_frame};
use protocol::control::AgentMessage;
use protocol::ids::{ClusterName, CommandNumber, MonotonicMs, NodeName, UnixMs};
use protocol::node::{Activity, ActivitySource, DeviceHealth, DeviceReport, DriverState, NodeFrame, Xids};
use protocol::sku::Sku;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::result::{Figures, load_average, table};

const GPUS: u32 = 8;
const FIELDS_A_NODE: u64 = 2 * GPUS as u64;
/// Time between frames, in ms; nodes report once a second, each at its own moment.
const FRAME_MS: u64 = 200;
/// Seconds of readings that are made, sent, and then taken in again and again.
const SECONDS: u64 = 10;
/// Measured CPU time for each figure.
const MEASURE: Duration = Duration::from_secs(2);

/// One cluster's second-by-second readings.
struct Cluster {
    rng: ChaCha8Rng,
    readings: Vec<[(u8, u64); GPUS as usize]>,
    sequences: Vec<u64>,
    table: Table,
}

impl Cluster {
    fn new(nodes: usize) -> Result<Self> {
        let declared = (0..nodes)
            .map(|n| {
                Ok(DeclaredNode { name: name(n)?, sku: None, devices: 0, cpu_milli: 192_000, memory_mib: 2_000_000 })
            })
            .collect::<Result<Vec<_>>>()?;
        let mut rng = ChaCha8Rng::seed_from_u64(nodes as u64);
        // Training jobs: busy, with most of an 80 GB device taken.
        let readings = (0..nodes)
            .map(|_| std::array::from_fn(|_| (rng.random_range(60..100), rng.random_range(20_000..78_000))))
            .collect();
        Ok(Self { rng, readings, sequences: vec![0; nodes], table: Table::new(&declared) })
    }

    /// One node's next frame: every value of every device changed, memory by up to 512 MiB.
    fn report(&mut self, node: usize, now: MonotonicMs) -> Result<()> {
        self.sequences[node] += 1;
        let mut devices = Vec::with_capacity(GPUS as usize);
        for (index, (activity, memory)) in (0u32..).zip(&mut self.readings[node]) {
            *activity = (*activity + self.rng.random_range(1..100)) % 101;
            *memory =
                (*memory + self.rng.random_range(1..512)).saturating_sub(256 * u64::from(*memory > 40_000)).min(81_000)
                    ^ 1;
            devices.push(DeviceReport {
                index,
                uuid: String::new(),
                sku: Sku::from_driver("NVIDIA H100 80GB HBM3"),
                mig: Some(false),
                slices: vec![],
                activity: Some(Activity { percent: *activity, source: ActivitySource::GpmSm }),
                memory_total_mib: Some(81_559),
                memory_used_mib: Some(*memory),
                processes: None,
                temperature_c: None,
                power_mw: None,
                health: DeviceHealth::Ok,
                xids: Xids::default(),
            });
        }
        let frame = NodeFrame {
            node: name(node)?,
            sequence: self.sequences[node],
            full: self.sequences[node] == 1,
            at: UnixMs(0),
            driver: DriverState::Ready { version: "580".into() },
            devices,
            holders: None,
        };
        self.table.node_frame(&frame, now);
        Ok(())
    }
}

fn name(node: usize) -> Result<NodeName> {
    NodeName::new(format!("gpu-{node}")).context("a node's name")
}

/// What went over the wire: a snapshot, then frames.
struct Recording {
    snapshot: Vec<u8>,
    frames: Vec<Vec<u8>>,
    fields: u64,
    updates: u64,
}

fn record(nodes: usize) -> Result<Recording> {
    let mut cluster = Cluster::new(nodes)?;
    for node in 0..nodes {
        cluster.report(node, MonotonicMs(0))?;
    }
    let mut uplink = Uplink::new(Pace { frame_every_ms: FRAME_MS, heartbeat_ms: 1_000 });
    let mut frame = |cluster: &mut Cluster, now| {
        uplink.note(&cluster.table);
        cluster.table.clear_changed();
        uplink.poll(&cluster.table, CommandNumber(1), now).context("a frame is due")
    };
    let snapshot = encode_frame(&AgentMessage::Capacity(frame(&mut cluster, MonotonicMs(0))?))?;
    let phases: Vec<u64> = (0..nodes).map(|_| cluster.rng.random_range(0..1000 / FRAME_MS)).collect();
    let mut recording = Recording { snapshot, frames: vec![], fields: 0, updates: 0 };
    for tick in 1..=SECONDS * 1000 / FRAME_MS {
        let now = MonotonicMs(tick * FRAME_MS);
        for node in (0..nodes).filter(|n| phases[*n] == tick % (1000 / FRAME_MS)) {
            cluster.report(node, now)?;
            recording.updates += 1;
        }
        let frame = frame(&mut cluster, now)?;
        let CapacityFrame::Delta(delta) = &frame else { anyhow::bail!("a snapshot where a delta was due") };
        recording.fields += (delta.activity.values.len() + delta.memory_moved_mib.values.len()) as u64;
        recording.frames.push(encode_frame(&AgentMessage::Capacity(frame))?);
    }
    let missing = recording.updates * FIELDS_A_NODE - recording.fields;
    ensure!(
        missing * 100 < recording.fields,
        "{missing} values did not change: the readings are not what they should be"
    );
    Ok(recording)
}

fn take(fleet: &mut Fleet, cluster: &ClusterName, session: u64, bytes: &[u8]) -> Result<()> {
    match decode_frame(bytes)? {
        AgentMessage::Capacity(frame) => Ok(fleet.intake(cluster, session, frame, MonotonicMs(0))?),
        other => anyhow::bail!("not capacity: {other:?}"),
    }
}

/// Node updates a second on one core, with or without bringing the planner's view up to date after each frame.
fn measure(recording: &Recording, view: bool) -> Result<f64> {
    let cluster = ClusterName::new("here")?;
    let mut fleet = Fleet::default();
    let (mut spent, mut updates) = (Duration::ZERO, 0);
    let mut session = 0;
    while spent < MEASURE {
        session += 1;
        take(&mut fleet, &cluster, session, &recording.snapshot)?;
        fleet.capacity(MonotonicMs(0));
        let start = cpu();
        for bytes in &recording.frames {
            take(&mut fleet, &cluster, session, bytes)?;
            if view {
                std::hint::black_box(fleet.capacity(MonotonicMs(0)));
            }
        }
        spent += cpu() - start;
        updates += recording.updates;
    }
    Ok(updates as f64 / spent.as_secs_f64())
}

fn measure_size(nodes: usize) -> Result<Value> {
    let recording = record(nodes)?;
    let bytes: usize = recording.frames.iter().map(Vec::len).sum();
    Ok(json!({
        "nodes": nodes,
        "gpus_per_node": GPUS,
        "node_updates_per_s_per_core": measure(&recording, false)?.round(),
        "node_updates_per_s_per_core_with_planner_view": measure(&recording, true)?.round(),
        "bytes_per_changed_field": (bytes as f64 / recording.fields as f64 * 100.0).round() / 100.0,
        "bytes_per_node_update": (bytes as f64 / recording.updates as f64 * 10.0).round() / 10.0,
        "snapshot_bytes": recording.snapshot.len(),
        "frames": recording.frames.len(),
    }))
}

/// Measures 1,000 and 10,000 nodes of 8 GPUs; the object's top-level figures are those of 10,000.
pub fn run(quick: bool) -> Result<Figures> {
    let load_before = load_average();
    let sizes: &[usize] = if quick { &[1_000] } else { &[1_000, 10_000] };
    let mut shown =
        table(&["nodes", "updates/s/core", "with the planner's view", "bytes a changed field", "a node update"]);
    let mut measured = Vec::new();
    for size in sizes {
        let bar = ProgressBar::new_spinner().with_message(format!("ingest of {size} nodes"));
        bar.enable_steady_tick(Duration::from_millis(100));
        let figures = measure_size(*size)?;
        bar.finish_and_clear();
        shown.add_row(
            [
                "nodes",
                "node_updates_per_s_per_core",
                "node_updates_per_s_per_core_with_planner_view",
                "bytes_per_changed_field",
                "bytes_per_node_update",
            ]
            .map(|key| figures[key].to_string()),
        );
        measured.push(figures);
    }
    let large = measured.last().context("at least one size")?;
    let json = json!({
        "node_updates_per_s_per_core": large["node_updates_per_s_per_core"],
        "bytes_per_changed_field": large["bytes_per_changed_field"],
        "sizes": measured,
        "load_average_before": load_before,
    });
    Ok(Figures { table: shown, json: json.as_object().cloned().context("it is an object")? })
}

/// CPU time of this thread: what else the machine does is not counted.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
