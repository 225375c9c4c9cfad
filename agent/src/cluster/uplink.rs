//! One coordinator replica's view of the capacity table: first all of it, then what changed, at a steady pace. Slow
//! replicas miss nothing, because changes wait as marks on rows, not as frames: the latest value wins.

use protocol::capacity::{CapacityFrame, Changes, Delta, Snapshot};
use protocol::ids::{CommandNumber, MonotonicMs};

use super::bits::Bits;
use super::table::{Changed, Table};

/// How often frames go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The least time between two frames, in ms.
    pub frame_every_ms: u64,
    /// The most time between two frames, in ms: an empty one says that nothing changed.
    pub heartbeat_ms: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { frame_every_ms: 200, heartbeat_ms: 1_000 }
    }
}

/// The capacity stream of one session.
#[derive(Debug)]
pub struct Uplink {
    pace: Pace,
    sequence: u64,
    generation: u64,
    snapshot_wanted: bool,
    changed: Changed,
    /// By device, the memory that the replica knows of: deltas carry how far it moved since.
    memory_mib: Vec<u32>,
    sent: Option<(MonotonicMs, CommandNumber)>,
}

impl Uplink {
    /// A new session's stream: its first frame is a snapshot.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            sequence: 0,
            generation: 0,
            snapshot_wanted: true,
            changed: Changed::default(),
            memory_mib: vec![],
            sent: None,
        }
    }

    /// The replica missed a frame.
    pub fn want_snapshot(&mut self) {
        self.snapshot_wanted = true;
    }

    /// Takes note of what changed in the table since the last call. Must be called before the table forgets it.
    pub fn note(&mut self, table: &Table) {
        if self.snapshot_wanted || self.generation != table.generation() {
            self.snapshot_wanted = true;
        } else {
            self.changed.join(table.changed());
        }
    }

    /// Whether the pace allows a frame now.
    pub(crate) fn may_send(&self, now: MonotonicMs) -> bool {
        self.sent.is_none_or(|(at, _)| now.since(at) >= self.pace.frame_every_ms)
    }

    /// The frame to send now, if one is due. `watermark` is the highest command whose effect the table includes.
    pub fn poll(&mut self, table: &Table, watermark: CommandNumber, now: MonotonicMs) -> Option<CapacityFrame> {
        if let Some((at, said)) = self.sent {
            let age = now.since(at);
            let news = self.snapshot_wanted || !self.changed.is_empty() || said != watermark;
            if age < if news { self.pace.frame_every_ms } else { self.pace.heartbeat_ms } {
                return None;
            }
        }
        self.sent = Some((now, watermark));
        self.sequence += 1;
        let sequence = self.sequence;
        if self.snapshot_wanted {
            self.snapshot_wanted = false;
            self.generation = table.generation();
            let (nodes, devices) = table.counts();
            self.changed = Changed::new(nodes, devices);
            let columns = table.columns();
            self.memory_mib.clone_from(&columns.memory_used_mib);
            return Some(CapacityFrame::Snapshot(Snapshot { sequence, watermark, columns }));
        }
        let (changed, memory) = (&self.changed, &mut self.memory_mib);
        let delta = Delta {
            sequence,
            watermark,
            state: changes(&changed.state, |row| table.node_value(row).0),
            free_cpu_milli: changes(&changed.free_cpu_milli, |row| table.node_value(row).1),
            free_memory_mib: changes(&changed.free_memory_mib, |row| table.node_value(row).2),
            device_state: changes(&changed.device_state, |at| table.device_value(at).0),
            activity: changes(&changed.activity, |at| table.device_value(at).1),
            memory_moved_mib: changes(&changed.memory_used_mib, |at| {
                let known = std::mem::replace(&mut memory[at], table.device_value(at).2);
                memory[at].wrapping_sub(known).cast_signed()
            }),
            left_milli: changes(&changed.left_milli, |at| table.device_value(at).3),
        };
        self.changed.clear();
        Some(CapacityFrame::Delta(delta))
    }
}

fn changes<T>(rows: &Bits, mut value: impl FnMut(usize) -> T) -> Changes<T> {
    let mut changes = Changes::default();
    let mut next = 0;
    for row in rows.rows() {
        changes.gaps.push(u32::try_from(row - next).expect("a table has fewer than 2^32 devices"));
        changes.values.push(value(row));
        next = row + 1;
    }
    changes
}
