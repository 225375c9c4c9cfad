//! The cluster's capacity table: a row a node, declared, measured or of Kubernetes, with what attempts and others' pods hold
//! subtracted. Owned by [`super::Agent`]; uplinks read it. It remembers which values changed since they were last asked for, so that nothing
//! ever compares ten thousand nodes to find one change.

mod counted;
mod faults;
mod kubernetes;
mod reading;
mod whose;

use std::collections::BTreeMap;

use protocol::capacity::{ACTIVITY_UNKNOWN, Columns, DeviceState, MEMORY_UNKNOWN, NodeState, Sharing, Source};
use protocol::control::{GroupPlacement, LaunchOrder};
use protocol::ids::{AttemptId, MonotonicMs, NodeName};
use protocol::node::{DriverState, Holders, NodeFrame, PodDevices};
use protocol::sku::Sku;

use super::DeclaredNode;
use super::attempt::{Assignment, MemberAssignment};
use super::bits::Bits;
use super::reservations::{Reservations, Room, WHOLE_MILLI, assign};
use faults::Faults;
pub use kubernetes::KUBERNETES_SILENT_AFTER_MS;
use kubernetes::{Kubernetes, OfKubernetes};
use reading::reading;
use whose::{DeviceNames, Whose};

/// A measured node whose last frame is older than this is stale, in ms.
pub const STALE_AFTER_MS: u64 = 5_000;
/// Memory in use on a GPU that nobody uses, in MiB: the driver's own (480 MiB on an H100). More than this on a device
/// that no attempt holds is somebody's.
pub const IDLE_MEMORY_MIB: u64 = 512;
/// The most devices of one node: far above any machine, and low enough that a wrong frame cannot take all memory.
pub(crate) const MAX_DEVICES: u32 = 1024;

/// One device: what is published of it, and what that follows from.
#[derive(Debug, Clone)]
struct Device {
    state: DeviceState,
    activity: u8,
    memory_used_mib: u32,
    /// What more shares can have of it, where shares hold a part.
    left_milli: u16,
    /// Out for a fault, lost, or not read at all.
    sick: bool,
    /// Somebody uses it: a ghost, unless an attempt holds it.
    used: bool,
    /// Kubernetes gives it to nobody: it has a taint.
    barred: bool,
    /// Where it is read, or claims give it out: how it is named there.
    names: Option<Box<DeviceNames>>,
}

impl Device {
    const UNREAD: Device = Device {
        state: DeviceState::Sick,
        activity: ACTIVITY_UNKNOWN,
        memory_used_mib: MEMORY_UNKNOWN,
        left_milli: 0,
        sick: true,
        used: false,
        barred: false,
        names: None,
    };

    fn declared() -> Self {
        Device { state: DeviceState::Free, sick: false, ..Device::UNREAD }
    }

    /// Nothing is read of it: it is taken for what somebody says that there is.
    fn count_on(&mut self) {
        (self.sick, self.used) = (false, false);
    }

    /// What it is doing where attempts were given this much of it, in thousandths, and pods of others have some of it or not.
    fn standing(&self, given: u16, foreign: bool) -> DeviceState {
        match (self.sick || self.barred, given > 0, foreign, self.used) {
            (true, ..) => DeviceState::Sick,
            // Also where shares hold only a part: what else is in use on it is theirs.
            (_, true, ..) => DeviceState::Held,
            (.., true, _) => DeviceState::Foreign,
            (.., true) => DeviceState::Ghost,
            _ => DeviceState::Free,
        }
    }
}

/// Frames of a measured node.
#[derive(Debug, Clone, Copy)]
struct Measured {
    sequence: u64,
    heard_at: MonotonicMs,
    stalled: bool,
}

/// One node.
#[derive(Debug, Clone)]
struct Row {
    name: NodeName,
    /// As it is published: what was read of its devices, else its label's, else the declared one.
    sku: Option<Sku>,
    cpu_milli: u64,
    memory_mib: u64,
    /// Its devices are `devices[first..first + count]` of the table.
    first: usize,
    count: usize,
    measured: Option<Measured>,
    /// Its devices told their model themselves.
    read_sku: bool,
    /// What its kubelet says that containers have; none where it does not.
    held: Option<Vec<PodDevices>>,
    kubernetes: Option<OfKubernetes>,
    state: NodeState,
    free_cpu_milli: u64,
    free_memory_mib: u64,
}

impl Row {
    fn source(&self) -> Source {
        match (&self.measured, &self.kubernetes) {
            (Some(_), _) => Source::Measured,
            (None, Some(_)) => Source::Label,
            (None, None) => Source::Declared,
        }
    }

    /// How its devices are given out: outside Kubernetes as processes share them.
    fn sharing(&self) -> Sharing {
        self.kubernetes.as_ref().map_or(Sharing::Any, |of| of.offer.sharing)
    }

    /// Whether its devices are slices of GPUs, of which nothing is read.
    fn is_of_slices(&self) -> bool {
        self.kubernetes.as_ref().is_some_and(|of| of.offer.slices)
    }
}

/// Values that changed, by column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub state: Bits,
    pub free_cpu_milli: Bits,
    pub free_memory_mib: Bits,
    pub device_state: Bits,
    pub activity: Bits,
    pub memory_used_mib: Bits,
    pub left_milli: Bits,
}

impl Changed {
    pub fn new(nodes: usize, devices: usize) -> Self {
        Self {
            state: Bits::new(nodes),
            free_cpu_milli: Bits::new(nodes),
            free_memory_mib: Bits::new(nodes),
            device_state: Bits::new(devices),
            activity: Bits::new(devices),
            memory_used_mib: Bits::new(devices),
            left_milli: Bits::new(devices),
        }
    }

    fn columns(&self) -> [&Bits; 7] {
        let Self { state, free_cpu_milli, free_memory_mib, device_state, activity, memory_used_mib, left_milli } = self;
        [state, free_cpu_milli, free_memory_mib, device_state, activity, memory_used_mib, left_milli]
    }

    fn columns_mut(&mut self) -> [&mut Bits; 7] {
        let Self { state, free_cpu_milli, free_memory_mib, device_state, activity, memory_used_mib, left_milli } = self;
        [state, free_cpu_milli, free_memory_mib, device_state, activity, memory_used_mib, left_milli]
    }

    pub fn is_empty(&self) -> bool {
        self.columns().iter().all(|c| c.is_empty())
    }

    pub fn join(&mut self, other: &Changed) {
        for (mine, theirs) in self.columns_mut().into_iter().zip(other.columns()) {
            mine.join(theirs);
        }
    }

    pub fn clear(&mut self) {
        self.columns_mut().into_iter().for_each(Bits::clear);
    }
}

/// What became of a node's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameOutcome {
    /// It is in the table.
    Joined,
    /// A frame before it is missing: nothing was taken, a full frame is needed.
    Gap,
}

/// The capacity table.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    by_name: BTreeMap<NodeName, usize>,
    devices: Vec<Device>,
    reservations: Reservations,
    faults: Faults,
    kubernetes: Kubernetes,
    /// Grows when nodes or device counts change, which only a snapshot can carry.
    generation: u64,
    changed: Changed,
}

impl Table {
    /// A table of declared nodes. A name that occurs twice counts once, as last declared.
    pub fn new(nodes: &[DeclaredNode]) -> Self {
        let mut table = Self::default();
        for node in nodes {
            let row = table.row_named(&node.name);
            table.rows[row].sku = node.sku.clone();
            table.rows[row].cpu_milli = node.cpu_milli;
            table.rows[row].memory_mib = node.memory_mib;
            table.rows[row].count = usize::from(node.devices);
        }
        let mut first = 0;
        for row in &mut table.rows {
            row.first = first;
            first += row.count;
            (row.free_cpu_milli, row.free_memory_mib) = (row.cpu_milli, row.memory_mib);
        }
        table.devices = vec![Device::declared(); first];
        table.shape_changed();
        table
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.rows.len()
    }

    /// Whether every node of its Kubernetes cluster is in it.
    pub(crate) fn has_all_nodes(&self) -> bool {
        self.kubernetes.has_all_nodes()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn changed(&self) -> &Changed {
        &self.changed
    }

    /// Every uplink has taken note of what changed.
    pub fn clear_changed(&mut self) {
        self.changed.clear();
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.rows.len(), self.devices.len())
    }

    /// Joins a node's frame. A node that was declared is measured from now on, with the declared cpu and memory; one that
    /// was not has none of either until it is declared, so nothing is placed on it.
    pub fn node_frame(&mut self, frame: &NodeFrame, now: MonotonicMs) -> FrameOutcome {
        let at = self.by_name.get(&frame.node).map(|&row| &self.rows[row]);
        if at.is_some_and(Row::is_of_slices) {
            // What is read is of the GPUs that are cut.
            return FrameOutcome::Joined;
        }
        let known = at.and_then(|row| row.measured);
        if !frame.full && known.is_none_or(|m| m.sequence.checked_add(1) != Some(frame.sequence)) {
            return FrameOutcome::Gap;
        }
        self.note_faults(frame);
        let row = self.row_named(&frame.node);
        if known.is_none() {
            // Its source changes, which only a snapshot can say.
            self.generation += 1;
        }
        let stalled = matches!(frame.driver, DriverState::Stalled { .. });
        self.rows[row].measured = Some(Measured { sequence: frame.sequence, heard_at: now, stalled });
        match &frame.holders {
            Some(Holders::Known { pods }) => self.rows[row].held = Some(pods.clone()),
            Some(Holders::Unknown { .. }) => self.rows[row].held = None,
            None if frame.full => self.rows[row].held = None,
            None => {}
        }
        if matches!(frame.driver, DriverState::Missing { .. }) {
            // What was read before is not known any more. The devices stay listed, and out.
            let fresh = known.is_none();
            let count = if fresh { 0 } else { self.rows[row].count };
            self.resize(row, count);
            let first = self.rows[row].first;
            for at in first..first + count {
                self.set_reading(at, &Device::UNREAD);
            }
        } else {
            self.join_devices(row, frame);
        }
        self.refresh(row);
        self.refresh_state(row, now);
        FrameOutcome::Joined
    }

    fn join_devices(&mut self, row: usize, frame: &NodeFrame) {
        let listed =
            frame.devices.iter().map(|d| d.index.saturating_add(1)).filter(|n| *n <= MAX_DEVICES).max().unwrap_or(0)
                as usize;
        let count = if frame.full { listed } else { listed.max(self.rows[row].count) };
        self.resize(row, count);
        let first = self.rows[row].first;
        if frame.full {
            let read: Vec<u32> = frame.devices.iter().map(|d| d.index).collect();
            for index in (0..count).filter(|i| !read.contains(&(*i as u32))) {
                self.set_reading(first + index, &Device::UNREAD);
                self.devices[first + index].names = None;
            }
        }
        for report in frame.devices.iter().filter(|d| (d.index as usize) < count) {
            let at = first + report.index as usize;
            self.set_reading(at, &reading(report));
            if !self.devices[at].names.as_ref().is_some_and(|names| names.are_of(report)) {
                self.devices[at].names = Some(Box::new(DeviceNames::of(report)));
            }
        }
        self.bar(row);
        if let Some(report) = frame.devices.first() {
            self.rows[row].read_sku = true;
            self.set_sku(row, Some(&report.sku));
        }
    }

    fn set_sku(&mut self, row: usize, sku: Option<&Sku>) {
        if self.rows[row].sku.as_ref() != sku {
            self.rows[row].sku = sku.cloned();
            self.generation += 1;
            self.shape_changed();
        }
    }

    /// Marks nodes stale that have not been heard of for too long. Called each tick.
    pub fn tick(&mut self, now: MonotonicMs) {
        for row in 0..self.rows.len() {
            if self.rows[row].source() != Source::Declared {
                self.refresh_state(row, now);
            }
        }
    }

    /// Finds devices for a launch and holds them; or says with numbers what is missing, and holds nothing.
    pub(crate) fn reserve(&mut self, order: &LaunchOrder) -> Result<Assignment, String> {
        let assignment = self.assign(&order.placement)?;
        self.hold(order, &assignment);
        Ok(assignment)
    }

    /// Devices for more members of a running attempt, or what is missing. Holds nothing yet.
    pub(crate) fn room_for(&self, more: &[GroupPlacement]) -> Result<Vec<MemberAssignment>, String> {
        self.assign(more).map(|assignment| assignment.members)
    }

    fn assign(&self, placement: &[GroupPlacement]) -> Result<Assignment, String> {
        assign(placement, |node| {
            let row = &self.rows[*self.by_name.get(node)?];
            let devices = || (0u16..).zip(&self.devices[row.first..row.first + row.count]);
            let shared = devices().filter(|(_, d)| d.left_milli > 0).map(|(i, d)| (d.left_milli, i));
            Some(Room {
                sku: row.sku.as_ref(),
                sharing: row.sharing(),
                cpu_milli: row.free_cpu_milli,
                memory_mib: row.free_memory_mib,
                devices: devices().filter(|(_, d)| d.state == DeviceState::Free).map(|(i, _)| i).collect(),
                shared: shared.collect(),
            })
        })
    }

    /// Holds what an attempt was given, and nothing else of what it held before, also on nodes that are not here yet.
    pub(crate) fn hold(&mut self, order: &LaunchOrder, assignment: &Assignment) {
        let before = self.reservations.remove(order.attempt);
        let touched = self.reservations.insert(order, assignment);
        self.refresh_named(before.iter().chain(&touched));
        self.refresh_pods_of(order.attempt);
    }

    /// Nothing of the attempt is left: what it held can be given out again.
    pub(crate) fn release(&mut self, attempt: AttemptId) {
        self.faults.forget(attempt);
        let touched = self.reservations.remove(attempt);
        self.refresh_named(touched.iter());
        self.refresh_pods_of(attempt);
    }

    fn refresh_named<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeName>) {
        for node in nodes {
            if let Some(&row) = self.by_name.get(node) {
                self.refresh(row);
            }
        }
    }

    /// The row of this name, made where there is none.
    fn row_named(&mut self, name: &NodeName) -> usize {
        if let Some(&row) = self.by_name.get(name) {
            return row;
        }
        let row = self.rows.len();
        self.by_name.insert(name.clone(), row);
        self.rows.push(Row {
            name: name.clone(),
            sku: None,
            cpu_milli: 0,
            memory_mib: 0,
            first: self.devices.len(),
            count: 0,
            measured: None,
            read_sku: false,
            held: None,
            kubernetes: None,
            state: NodeState::Ready,
            free_cpu_milli: 0,
            free_memory_mib: 0,
        });
        self.generation += 1;
        self.shape_changed();
        row
    }

    /// Gives a row this many devices, new ones unread.
    fn resize(&mut self, row: usize, count: usize) {
        let Row { first, count: before, .. } = self.rows[row];
        if before == count {
            return;
        }
        self.devices.splice(first..first + before, std::iter::repeat_n(Device::UNREAD, count));
        self.rows[row].count = count;
        for later in &mut self.rows[row + 1..] {
            later.first = later.first - before + count;
        }
        self.generation += 1;
        self.shape_changed();
    }

    fn shape_changed(&mut self) {
        self.changed = Changed::new(self.rows.len(), self.devices.len());
    }

    /// Enters a reading; the state follows in `refresh`.
    fn set_reading(&mut self, at: usize, read: &Device) {
        let device = &mut self.devices[at];
        device.sick = read.sick;
        device.used = read.used;
        if device.activity != read.activity {
            device.activity = read.activity;
            self.changed.activity.mark(at);
        }
        if device.memory_used_mib != read.memory_used_mib {
            device.memory_used_mib = read.memory_used_mib;
            self.changed.memory_used_mib.mark(at);
        }
    }

    /// Works out a row's free figures and device states from readings, reservations and others' pods.
    fn refresh(&mut self, row: usize) {
        let at = &mut self.rows[row];
        let (mut cpu, mut memory) = (at.cpu_milli, at.memory_mib);
        let devices = &mut self.devices[at.first..at.first + at.count];
        for (_, hold) in self.reservations.on(&at.name) {
            cpu = cpu.saturating_sub(hold.cpu_milli);
            memory = memory.saturating_sub(hold.memory_mib);
        }
        if let Some(of) = &at.kubernetes {
            let foreign = of.foreign(&self.reservations);
            cpu = cpu.saturating_sub(foreign.cpu_milli);
            memory = memory.saturating_sub(foreign.memory_mib);
        }
        if at.free_cpu_milli != cpu {
            at.free_cpu_milli = cpu;
            self.changed.free_cpu_milli.mark(row);
        }
        if at.free_memory_mib != memory {
            at.free_memory_mib = memory;
            self.changed.free_memory_mib.mark(row);
        }
        let standing = standing(at, devices, &self.reservations);
        for (device, (state, left)) in standing.into_iter().enumerate() {
            let index = at.first + device;
            let device = &mut devices[device];
            if device.left_milli != left {
                device.left_milli = left;
                self.changed.left_milli.mark(index);
            }
            if device.state != state {
                device.state = state;
                self.changed.device_state.mark(index);
            }
        }
    }

    fn refresh_state(&mut self, row: usize, now: MonotonicMs) {
        let at = &mut self.rows[row];
        let unheard = at.measured.is_some_and(|m| m.stalled || now.since(m.heard_at) > STALE_AFTER_MS);
        let state = match &at.kubernetes {
            _ if unheard => NodeState::Stale,
            Some(_) if self.kubernetes.is_silent(now) => NodeState::Stale,
            Some(of) if of.is_closed() => NodeState::Cordoned,
            // Measured, and no node of this cluster: nothing can be started there.
            None if self.kubernetes.has_all_nodes() && at.measured.is_some() => NodeState::Cordoned,
            _ => NodeState::Ready,
        };
        if at.state != state {
            at.state = state;
            self.changed.state.mark(row);
        }
    }

    /// Values by row, for a delta.
    pub(crate) fn node_value(&self, row: usize) -> (NodeState, u64, u64) {
        let row = &self.rows[row];
        (row.state, row.free_cpu_milli, row.free_memory_mib)
    }

    /// Values by device, for a delta.
    pub(crate) fn device_value(&self, at: usize) -> (DeviceState, u8, u32, u16) {
        let device = &self.devices[at];
        (device.state, device.activity, device.memory_used_mib, device.left_milli)
    }

    /// Everything, for a snapshot.
    pub fn columns(&self) -> Columns {
        let mut columns = Columns::default();
        let mut places: BTreeMap<&Sku, u16> = BTreeMap::new();
        for row in &self.rows {
            columns.name.push(row.name.clone());
            columns.sku.push(row.sku.as_ref().map_or(0, |sku| {
                *places.entry(sku).or_insert_with(|| {
                    columns.skus.push(sku.clone());
                    u16::try_from(columns.skus.len()).unwrap_or(0)
                })
            }));
            columns.devices.push(u16::try_from(row.count).unwrap_or(u16::MAX));
            columns.source.push(row.source());
            columns.sharing.push(row.sharing());
            columns.cpu_milli.push(row.cpu_milli);
            columns.memory_mib.push(row.memory_mib);
            columns.state.push(row.state);
            columns.free_cpu_milli.push(row.free_cpu_milli);
            columns.free_memory_mib.push(row.free_memory_mib);
        }
        columns.device_state = self.devices.iter().map(|d| d.state).collect();
        columns.activity = self.devices.iter().map(|d| d.activity).collect();
        columns.memory_used_mib = self.devices.iter().map(|d| d.memory_used_mib).collect();
        columns.left_milli = self.devices.iter().map(|d| d.left_milli).collect();
        columns
    }
}

/// What the devices of a row are doing, and what is left of those of which shares hold a part, in thousandths.
fn standing(at: &Row, devices: &[Device], reservations: &Reservations) -> Vec<(DeviceState, u16)> {
    let holds = reservations.on(&at.name);
    let whose = match &at.kubernetes {
        Some(of) if of.offer.is_counted() => return counted::standing(devices, of, holds, reservations),
        Some(of) => {
            let held = of.held(at.held.as_deref(), reservations);
            Whose::in_kubernetes(devices, holds, of, held, reservations)
        }
        None => Whose::by_journal(at.count, holds.map(|(_, hold)| hold)),
    };
    let had = whose.given.iter().zip(&whose.foreign);
    let mut states: Vec<DeviceState> =
        devices.iter().zip(had).map(|(d, (given, foreign))| d.standing(*given, *foreign)).collect();
    if let Some(of) = &at.kubernetes {
        of.give_away(&mut states, whose.somewhere);
    }
    let left = |(device, state): (usize, DeviceState)| {
        let shared = state == DeviceState::Held && !whose.foreign[device] && at.sharing() == Sharing::Any;
        (state, if shared { WHOLE_MILLI.saturating_sub(whose.given[device]) } else { 0 })
    };
    states.into_iter().enumerate().map(left).collect()
}
