//! Frames into columns. A frame is checked whole before anything of it is written; then each column is one pass without
//! an allocation. This is the coordinator's hottest path.

use std::collections::BTreeSet;

use protocol::capacity::{CapacityFrame, Changes, Columns, Delta, MAX_NODES, Snapshot};
use protocol::ids::MonotonicMs;

use super::Stream;
use super::columns::Table;
use super::freshness::Freshness;

/// Why a frame was not taken. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// A frame before it is missing, or it speaks of rows that are not there: only a snapshot helps.
    #[error("a frame is missing: a snapshot is wanted")]
    SnapshotWanted,
    /// A newer session of the cluster has taken over, or this one was closed.
    #[error("session {session} is over: session {current} took its place or it was closed")]
    Over {
        /// The session that sent the frame.
        session: u64,
        /// The newest session.
        current: u64,
    },
    /// No agent of this build sends such a frame: the session is to be closed.
    #[error("malformed frame: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
}

fn malformed(reason: impl Into<String>) -> IntakeError {
    IntakeError::Malformed { reason: reason.into() }
}

impl Stream {
    pub fn new(session: u64) -> Self {
        Self { session, open: true, sequence: None, table: None, freshness: Freshness::default() }
    }

    pub fn intake(&mut self, session: u64, frame: CapacityFrame, now: MonotonicMs) -> Result<(), IntakeError> {
        if session < self.session || (session == self.session && !self.open) {
            return Err(IntakeError::Over { session, current: self.session });
        }
        let known = if session == self.session { self.sequence } else { None };
        match frame {
            CapacityFrame::Snapshot(snapshot) => {
                if known.is_some_and(|last| snapshot.sequence <= last) {
                    return Err(malformed(format!(
                        "a snapshot's sequence {} is not above {}",
                        snapshot.sequence,
                        known.unwrap_or(0)
                    )));
                }
                check_columns(&snapshot.columns)?;
                self.take_snapshot(session, snapshot);
            }
            CapacityFrame::Delta(delta) => {
                if known.is_none_or(|last| last.checked_add(1) != Some(delta.sequence)) {
                    return Err(IntakeError::SnapshotWanted);
                }
                let table = self.table.as_mut().ok_or(IntakeError::SnapshotWanted)?;
                check_delta(&delta, table)?;
                self.sequence = Some(delta.sequence);
                apply(table, &delta);
            }
        }
        self.freshness.heard(now);
        Ok(())
    }

    fn take_snapshot(&mut self, session: u64, snapshot: Snapshot) {
        (self.session, self.open) = (session, true);
        self.sequence = Some(snapshot.sequence);
        self.table = Some(Table::new(snapshot));
    }
}

fn check_columns(columns: &Columns) -> Result<(), IntakeError> {
    let nodes = columns.name.len();
    if nodes > MAX_NODES {
        return Err(malformed(format!("{nodes} nodes; at most {MAX_NODES} are allowed")));
    }
    let node_columns = [
        ("sku", columns.sku.len()),
        ("devices", columns.devices.len()),
        ("source", columns.source.len()),
        ("sharing", columns.sharing.len()),
        ("cpu_milli", columns.cpu_milli.len()),
        ("memory_mib", columns.memory_mib.len()),
        ("state", columns.state.len()),
        ("free_cpu_milli", columns.free_cpu_milli.len()),
        ("free_memory_mib", columns.free_memory_mib.len()),
    ];
    for (column, length) in node_columns {
        if length != nodes {
            return Err(malformed(format!("column {column} has {length} values for {nodes} nodes")));
        }
    }
    let devices: usize = columns.devices.iter().map(|d| usize::from(*d)).sum();
    let device_columns = [
        ("device_state", columns.device_state.len()),
        ("activity", columns.activity.len()),
        ("memory_used_mib", columns.memory_used_mib.len()),
        ("left_milli", columns.left_milli.len()),
    ];
    for (column, length) in device_columns {
        if length != devices {
            return Err(malformed(format!("column {column} has {length} values for {devices} devices")));
        }
    }
    check_left(&columns.left_milli)?;
    if let Some(sku) = columns.sku.iter().find(|s| usize::from(**s) > columns.skus.len()) {
        return Err(malformed(format!("model {sku} of {} is named", columns.skus.len())));
    }
    let mut names = BTreeSet::new();
    match columns.name.iter().find(|name| !names.insert(*name)) {
        Some(twice) => Err(malformed(format!("node {twice} occurs twice"))),
        None => Ok(()),
    }
}

fn check_delta(delta: &Delta, table: &Table) -> Result<(), IntakeError> {
    if delta.watermark < table.watermark {
        return Err(malformed(format!("the watermark went back from {} to {}", table.watermark, delta.watermark)));
    }
    let (nodes, devices) = (table.nodes() as u64, table.devices() as u64);
    check("state", &delta.state, nodes)?;
    check("free_cpu_milli", &delta.free_cpu_milli, nodes)?;
    check("free_memory_mib", &delta.free_memory_mib, nodes)?;
    check("device_state", &delta.device_state, devices)?;
    check("activity", &delta.activity, devices)?;
    check_left(&delta.left_milli.values)?;
    check("memory_moved_mib", &delta.memory_moved_mib, devices)?;
    check("left_milli", &delta.left_milli, devices)
}

/// Of a device that is partly given out less than all of it is left.
fn check_left(left: &[u16]) -> Result<(), IntakeError> {
    match left.iter().find(|milli| **milli >= 1000) {
        Some(milli) => Err(malformed(format!("{milli} thousandths are left of a device that is partly given out"))),
        None => Ok(()),
    }
}

fn check<T>(column: &'static str, changes: &Changes<T>, rows: u64) -> Result<(), IntakeError> {
    let count = changes.values.len() as u64;
    if changes.gaps.len() as u64 != count {
        return Err(malformed(format!("column {column} has {} gaps for {count} values", changes.gaps.len())));
    }
    // The last row is the sum of all gaps and of the changed rows before it; 2^26 gaps of 2^32 do not overflow.
    let end = changes.gaps.iter().map(|g| u64::from(*g)).sum::<u64>() + count;
    if end > rows { Err(IntakeError::SnapshotWanted) } else { Ok(()) }
}

/// Writes a delta that was checked.
fn apply(table: &mut Table, delta: &Delta) {
    table.sequence = delta.sequence;
    table.watermark = delta.watermark;
    // Memory in use is for people and not in the planner's view: it marks no row.
    table.any_dirty |= !(delta.state.is_empty()
        && delta.free_cpu_milli.is_empty()
        && delta.free_memory_mib.is_empty()
        && delta.device_state.is_empty()
        && delta.activity.is_empty()
        && delta.left_milli.is_empty());
    let (columns, row_of, dirty) = table.parts();
    let mut mark = |row: usize| dirty[row / 64] |= 1 << (row % 64);
    write(&mut columns.state, &delta.state, &mut mark);
    write(&mut columns.free_cpu_milli, &delta.free_cpu_milli, &mut mark);
    write(&mut columns.free_memory_mib, &delta.free_memory_mib, &mut mark);
    let mut mark_device = |device: usize| mark(row_of[device] as usize);
    write(&mut columns.device_state, &delta.device_state, &mut mark_device);
    write(&mut columns.activity, &delta.activity, &mut mark_device);
    write(&mut columns.left_milli, &delta.left_milli, &mut mark_device);
    let mut at = 0;
    for (gap, moved) in delta.memory_moved_mib.gaps.iter().zip(&delta.memory_moved_mib.values) {
        at += *gap as usize;
        columns.memory_used_mib[at] = columns.memory_used_mib[at].wrapping_add_signed(*moved);
        at += 1;
    }
}

fn write<T: Copy>(column: &mut [T], changes: &Changes<T>, mut mark: impl FnMut(usize)) {
    let mut row = 0;
    for (gap, value) in changes.gaps.iter().zip(&changes.values) {
        row += *gap as usize;
        column[row] = *value;
        mark(row);
        row += 1;
    }
}
