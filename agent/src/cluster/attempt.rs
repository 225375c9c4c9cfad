//! What the agent keeps of one attempt: the order, the devices that it was given, how far it is, and what is still to be
//! done about it. The journal stores it; the inbox makes it; reports read it.

use bincode::{Decode, Encode};
use protocol::control::{AttemptReport, LaunchOrder, StopOrder};
use protocol::ids::{GroupName, NodeName};

use crate::runtime::Devices;

/// Where one member runs, and on which of its node's devices.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MemberAssignment {
    /// Its group.
    pub group: GroupName,
    /// Its rank within the group, from 0.
    pub rank: u32,
    /// Its node.
    pub node: NodeName,
    /// The devices that it holds, by NVML's index on the node.
    pub devices: Vec<u16>,
}

/// Every member of an attempt with its node and devices, groups in the order's order, ranks growing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct Assignment {
    /// The members.
    pub members: Vec<MemberAssignment>,
}

impl From<&Assignment> for Devices {
    fn from(assignment: &Assignment) -> Self {
        let mut devices = Devices::default();
        // Ranks grow within a group, so that each lands at its own place.
        for member in &assignment.members {
            let indices = member.devices.iter().map(|d| u32::from(*d)).collect();
            devices.by_group.entry(member.group.clone()).or_default().push(indices);
        }
        devices
    }
}

/// What was ordered, written once when the launch is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Launched {
    pub order: LaunchOrder,
    pub assignment: Assignment,
}

/// How far an attempt is, written again with each change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Progress {
    pub report: AttemptReport,
    /// The highest revision that a coordinator committed. Only lower than the truth after a restart, which costs a report
    /// sent again and nothing else, so it is written along with other changes and never by itself.
    pub acked: u64,
    /// It is to end. Kept, so that a restart goes on ending it.
    pub stop: Option<StopOrder>,
}

/// Everything of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// None for an attempt that was stopped before any launch of it came, or that never started.
    pub launched: Option<Launched>,
    pub progress: Progress,
}

impl Record {
    pub fn is_final(&self) -> bool {
        self.progress.report.state.is_final()
    }

    pub fn is_acked(&self) -> bool {
        self.progress.acked >= self.progress.report.revision
    }
}

// An order is at most as large as the message that carried it; an assignment names each of at most 100,000 members.
protocol::limits! {
    Launched: 16 * 1024 * 1024,
    Progress: 1024 * 1024,
}
