//! GPUs that failed while attempts had them: whatever such an attempt says of its end, it may have ended for that. Known from the reports of
//! node roles, so as far as they came before the end did, and not beyond one life of the agent.

use std::collections::{BTreeMap, BTreeSet};

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, NodeName};
use protocol::node::NodeFrame;

use super::Table;
use super::whose::of_device;
use crate::cluster::reservations::Hold;
use crate::node::health::harmful;

/// How many faults are named for one attempt.
const NAMED: usize = 4;

/// What is known of faults.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Devices that have one now, by node and index.
    now: BTreeSet<(NodeName, u32)>,
    /// Those that came to an attempt's devices while it had them.
    of: BTreeMap<AttemptId, Vec<Fault>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    node: NodeName,
    device: u32,
    cause: String,
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
            let Some(cause) = harmful(&report.health) else {
                self.faults.now.remove(&place);
                continue;
            };
            if !self.faults.now.insert(place) {
                continue;
            }
            for attempt in self.having(&frame.node, report.index as usize) {
                let fault = Fault { node: frame.node.clone(), device: report.index, cause: cause.clone() };
                self.faults.of.entry(attempt).or_default().push(fault);
            }
        }
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

    /// How an attempt ended. Where devices failed that it had, that is the cluster's failure and says so, whatever its program made of it.
    pub(crate) fn explained(&self, attempt: AttemptId, state: AttemptState) -> AttemptState {
        let Some(faults) = self.faults.of.get(&attempt) else { return state };
        match state {
            AttemptState::Failed { class: FailureClass::User | FailureClass::Infrastructure, message, exit_code } => {
                let class = FailureClass::Infrastructure;
                AttemptState::Failed { class, message: format!("{message}; {}", said(faults)), exit_code }
            }
            state => state,
        }
    }
}

fn said(faults: &[Fault]) -> String {
    let named = faults.iter().take(NAMED).map(|f| format!("GPU {} of node {} ({})", f.device, f.node, f.cause));
    let more = faults.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more"));
    format!("while it ran these failed: {}", named.chain(more).collect::<Vec<_>>().join(", "))
}
