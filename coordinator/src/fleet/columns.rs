//! One cluster's capacity in columns, as it came over the wire, with marks on the rows that the planner has not seen yet.
//! Filled by `intake`, read by `query` and by the planner's view.

use engine::capacity::{NodeCapacity, Nodes};
use protocol::capacity::{Columns, DeviceState, Snapshot};
use protocol::ids::CommandNumber;
use protocol::resources::Resources;
use protocol::sku::Sku;

/// A cluster's columns.
#[derive(Debug)]
pub(crate) struct Table {
    pub sequence: u64,
    pub watermark: CommandNumber,
    pub columns: Columns,
    /// The devices of row r are `first[r]..first[r + 1]` of the device columns.
    first: Vec<u32>,
    /// By device, its row: a change of a device marks a row.
    row_of: Vec<u32>,
    /// A bit a row: the planner's view of it is old.
    pub dirty: Vec<u64>,
    pub any_dirty: bool,
    /// The whole view is old.
    rebuilt: bool,
}

impl Table {
    /// Takes a snapshot whose columns were checked.
    pub fn new(snapshot: Snapshot) -> Self {
        let Snapshot { sequence, watermark, columns } = snapshot;
        let mut first = Vec::with_capacity(columns.name.len() + 1);
        let mut row_of = Vec::with_capacity(columns.device_state.len());
        first.push(0);
        for (row, count) in (0u32..).zip(&columns.devices) {
            row_of.extend(std::iter::repeat_n(row, usize::from(*count)));
            first
                .push(u32::try_from(row_of.len()).expect(
                    "250,000 nodes of 65,535 devices are fewer than 2^34, and a frame's limit holds far fewer",
                ));
        }
        let words = columns.name.len().div_ceil(64);
        Self { sequence, watermark, first, row_of, dirty: vec![0; words], any_dirty: false, rebuilt: true, columns }
    }

    pub fn nodes(&self) -> usize {
        self.columns.name.len()
    }

    pub fn devices(&self) -> usize {
        self.row_of.len()
    }

    pub fn devices_of(&self, row: usize) -> std::ops::Range<usize> {
        self.first[row] as usize..self.first[row + 1] as usize
    }

    pub fn sku(&self, row: usize) -> Option<&Sku> {
        self.columns.skus.get(usize::from(self.columns.sku[row]).checked_sub(1)?)
    }

    /// The columns and, for marking while they are written, the row of each device and the marks.
    pub fn parts(&mut self) -> (&mut Columns, &[u32], &mut [u64]) {
        (&mut self.columns, &self.row_of, &mut self.dirty)
    }

    pub fn total(&self, row: usize) -> Resources {
        Resources {
            cpu_milli: self.columns.cpu_milli[row],
            memory_mib: self.columns.memory_mib[row],
            gpu_milli: 1000 * u64::from(self.columns.devices[row]),
        }
    }

    pub fn free(&self, row: usize) -> Resources {
        let devices = self.devices_of(row);
        let states = &self.columns.device_state[devices.clone()];
        let gpus = states.iter().filter(|s| **s == DeviceState::Free).count() as u64;
        let left: u64 = self.shares(devices).map(u64::from).sum();
        Resources {
            cpu_milli: self.columns.free_cpu_milli[row],
            memory_mib: self.columns.free_memory_mib[row],
            gpu_milli: 1000 * gpus + left,
        }
    }

    /// What is left of those of these devices of which shares hold a part.
    fn shares(&self, devices: std::ops::Range<usize>) -> impl Iterator<Item = u16> + '_ {
        let states = self.columns.device_state[devices.clone()].iter();
        let left = states.zip(&self.columns.left_milli[devices]);
        left.filter(|(state, left)| **state == DeviceState::Held && **left > 0).map(|(_, left)| *left)
    }

    /// Mean activity of the devices of these rows in percent, where any is known.
    pub fn activity_percent(&self, devices: std::ops::Range<usize>) -> Option<u8> {
        let known = self.columns.activity[devices].iter().filter(|a| **a <= 100);
        let (sum, count) = known.fold((0u32, 0u32), |(sum, count), a| (sum + u32::from(*a), count + 1));
        u8::try_from(sum.checked_div(count)?).ok()
    }

    /// The activity in percent of the devices of these rows that attempts hold, added up, where there are such and that of
    /// each of them is known.
    fn held_activity(&self, devices: std::ops::Range<usize>) -> Option<u32> {
        let states = &self.columns.device_state[devices.clone()];
        let held = states.iter().zip(&self.columns.activity[devices]).filter(|(s, _)| **s == DeviceState::Held);
        let known = |activity: u8| Some(u32::from(activity)).filter(|a| *a <= 100);
        held.map(|(_, activity)| known(*activity)).reduce(|sum, more| Some(sum? + more?)).flatten()
    }

    fn node(&self, row: usize) -> NodeCapacity {
        let devices = self.devices_of(row);
        let states = &self.columns.device_state[devices.clone()];
        let count = |state| u16::try_from(states.iter().filter(|s| **s == state).count()).unwrap_or(u16::MAX);
        NodeCapacity {
            name: self.columns.name[row].clone(),
            sku: self.sku(row).cloned(),
            state: self.columns.state[row],
            source: self.columns.source[row],
            sharing: self.columns.sharing[row],
            total: self.total(row),
            free: self.free(row),
            shares: self.shares(devices.clone()).collect(),
            ghosts: count(DeviceState::Ghost),
            sick: count(DeviceState::Sick),
            foreign: count(DeviceState::Foreign),
            activity_percent: self.activity_percent(devices.clone()),
            held_activity: self.held_activity(devices),
        }
    }

    /// Brings the planner's rows up to date. Where there is nothing to bring, the nodes are not touched: the planner sees that they
    /// are as they were.
    pub fn refresh(&mut self, nodes: &mut Nodes) {
        if self.rebuilt {
            *nodes = (0..self.nodes()).map(|row| self.node(row)).collect();
        } else if self.any_dirty {
            let nodes: &mut Vec<NodeCapacity> = nodes;
            for word in 0..self.dirty.len() {
                let mut left = self.dirty[word];
                while left != 0 {
                    let row = word * 64 + left.trailing_zeros() as usize;
                    left &= left - 1;
                    self.refresh_row(row, &mut nodes[row]);
                }
            }
        }
        self.rebuilt = false;
        self.any_dirty = false;
        self.dirty.fill(0);
    }

    /// Name, model, source, sharing and totals change with a snapshot only: the rest is written in place.
    fn refresh_row(&self, row: usize, node: &mut NodeCapacity) {
        let range = self.devices_of(row);
        let (mut ghosts, mut sick, mut foreign) = (0u16, 0u16, 0u16);
        for state in &self.columns.device_state[range.clone()] {
            match state {
                DeviceState::Ghost => ghosts += 1,
                DeviceState::Sick => sick += 1,
                DeviceState::Foreign => foreign += 1,
                DeviceState::Free | DeviceState::Held => {}
            }
        }
        node.state = self.columns.state[row];
        node.free = self.free(row);
        node.shares.clear();
        node.shares.extend(self.shares(range.clone()));
        (node.ghosts, node.sick, node.foreign) = (ghosts, sick, foreign);
        node.activity_percent = self.activity_percent(range.clone());
        node.held_activity = self.held_activity(range);
    }
}
