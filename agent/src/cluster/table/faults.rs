//! What happened to GPUs while attempts had them. One that failed: whatever such an attempt says of its end, it may have ended for that. And
//! XIDs that are the doing of programs, which their failures name. Known from the reports of node roles, so as far as they came before the end
//! did, and not beyond one life of the agent.

use std::collections::{BTreeMap, BTreeSet};

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, NodeName};
use protocol::node::{DeviceReport, NodeFrame};

use super::Table;
use super::whose::of_device;
use crate::cluster::reservations::Hold;
use crate::node::health::{XidClass, classify, harmful, named};

/// How many faults are named for one attempt.
const NAMED: usize = 4;

/// What is known of faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Devices that have one now, by node and index.
    now: BTreeSet<(NodeName, u32)>,
    /// How many XIDs were told of a device, where there were any.
    xids: BTreeMap<(NodeName, u32), u64>,
    /// What came to an attempt's devices while it had them.
    of: BTreeMap<AttemptId, Vec<Fault>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    node: NodeName,
    device: u32,
    cause: String,
    /// Whether the device failed; else it is as good as before.
    failed: bool,
}

impl Faults {
    /// An attempt is over.
    pub fn forget(&mut self, attempt: AttemptId) {
        self.of.remove(&attempt);
    }
}

impl Table {
    /// Takes in which devices have a fault now that had none when they were last read. Called before the frame is joined: a pod that the fault has
    /// ended may be gone from the same frame.
    pub(super) fn note_faults(&mut self, frame: &NodeFrame) {
        for report in &frame.devices {
            let place = (frame.node.clone(), report.index);
            let fault = |cause, failed| Fault { node: frame.node.clone(), device: report.index, cause, failed };
            let mut new: Vec<Fault> = self.new_xids(report, &place).map(|xid| fault(named(xid), false)).collect();
            match harmful(&report.health) {
                Some(cause) if self.faults.now.insert(place.clone()) => new.push(fault(cause, true)),
                Some(_) => {}
                None => drop(self.faults.now.remove(&place)),
            }
            if new.is_empty() {
                continue;
            }
            for attempt in self.having(&frame.node, report.index as usize) {
                let of = self.faults.of.entry(attempt).or_default();
                for fault in &new {
                    if fault.failed || !of.contains(fault) {
                        of.push(fault.clone());
                    }
                }
            }
        }
    }

    /// XIDs that were not told before and say nothing against the device itself; what does is among the causes of its health.
    fn new_xids<'r>(
        &mut self,
        report: &'r DeviceReport,
        place: &(NodeName, u32),
    ) -> impl Iterator<Item = u64> + use<'r> {
        let before = match report.xids.count {
            0 => self.faults.xids.remove(place),
            count => self.faults.xids.insert(place.clone(), count),
        };
        let new = report.xids.after(before.unwrap_or(0)).iter().copied();
        new.filter(|xid| classify(*xid) == XidClass::Harmless)
    }

    /// Attempts that have a device which was read before: what was out when it was first seen ended nobody's work.
    fn having(&self, node: &NodeName, device: usize) -> Vec<AttemptId> {
        let Some(row) = self.by_name.get(node).map(|row| &self.rows[*row]) else { return vec![] };
        let devices = &self.devices[row.first..row.first + row.count];
        if devices.get(device).is_none_or(|device| device.names.is_none()) {
            return vec![];
        }
        let holding = |has: &dyn Fn(&Hold) -> bool| {
            let holds = self.reservations.on(node).filter(|(_, hold)| has(hold));
            holds.map(|(attempt, _)| *attempt).collect()
        };
        let Some(of) = &row.kubernetes else {
            return holding(&|hold| hold.devices.iter().any(|(held, _)| usize::from(*held) == device));
        };
        match of_device(devices, device, of, of.held(row.held.as_deref(), &self.reservations)) {
            Some(having) => having.into_iter().filter(|attempt| self.reservations.has(*attempt)).collect(),
            // Which of its node's devices an attempt has is not known.
            None => holding(&|hold| !hold.devices.is_empty()),
        }
    }

    /// How an attempt ended. Where devices failed that it had, that is the cluster's failure and says so, whatever its program made of it;
    /// what else the driver told of them is said with its failure.
    pub(crate) fn explained(&self, attempt: AttemptId, state: AttemptState) -> AttemptState {
        let Some(faults) = self.faults.of.get(&attempt) else { return state };
        match state {
            AttemptState::Failed {
                class: class @ (FailureClass::User | FailureClass::Infrastructure),
                message,
                exit_code,
            } => {
                let (failed, told): (Vec<&Fault>, Vec<&Fault>) = faults.iter().partition(|fault| fault.failed);
                let class = if failed.is_empty() { class } else { FailureClass::Infrastructure };
                let said = [said("these failed", &failed), said("the driver told of", &told)];
                // First: the end of a log may follow.
                let message = said.into_iter().flatten().chain([message]).collect::<Vec<_>>().join("; ");
                AttemptState::Failed { class, message, exit_code }
            }
            state => state,
        }
    }
}

fn said(what: &str, faults: &[&Fault]) -> Option<String> {
    let named = faults.iter().take(NAMED).map(|f| format!("GPU {} of node {} ({})", f.device, f.node, f.cause));
    let more = faults.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more"));
    let named: Vec<String> = named.chain(more).collect();
    (!named.is_empty()).then(|| format!("while it ran {what}: {}", named.join(", ")))
}
