//! What the agent keeps of one attempt: the order, the devices that it was given, how far it is, and what is still to be
//! done about it. The journal stores it; the inbox makes it; reports read it.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use protocol::control::{AttemptReport, GroupPlacement, LaunchOrder, NodeShare, Resized, StopOrder};
use protocol::ids::{AttemptId, CommandNumber, GroupName, NodeName};
use protocol::placement::add;

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

/// What was ordered, written when the launch is accepted, and with each change of size.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Launched {
    /// With the placement that was ordered last.
    pub order: LaunchOrder,
    /// The members that are to be there.
    pub assignment: Assignment,
    /// How far its newest change of size is, where there was one.
    pub sized: Option<Sized>,
}

/// How far a change of an attempt's size is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Sized {
    /// The command.
    pub number: CommandNumber,
    /// Between the polite and the hard end of what goes, in ms.
    pub grace_ms: u64,
    /// Members that go and are not seen to be gone: they still hold what they were given.
    pub leaving: Vec<MemberAssignment>,
    /// Members that were ordered and are not there.
    pub missing: Vec<GroupPlacement>,
    /// Members that ended by themselves and that the coordinators have not on record as missing. They hold what they were given: an order
    /// that was given without knowing would bring them again, where a frame had shown their room as free.
    pub untold: Vec<MemberAssignment>,
    /// By group the next member's rank: none is ever given again, so that what is said of a member that went is never taken for word of
    /// one that came.
    pub next: BTreeMap<GroupName, u32>,
}

impl Launched {
    /// Everything that holds something: members that are there, members that go, and members that nobody knows to be missing.
    pub fn held(&self) -> Assignment {
        let beyond = self.sized.iter().flat_map(|sized| sized.leaving.iter().chain(&sized.untold));
        Assignment { members: self.assignment.members.iter().chain(beyond).cloned().collect() }
    }

    /// Nothing is held any more for members that ended by themselves; whether anything was.
    pub fn free_untold(&mut self) -> bool {
        self.sized.as_mut().is_some_and(|sized| !std::mem::take(&mut sized.untold).is_empty())
    }

    /// The members that are there, as a placement.
    pub fn placement(&self) -> Vec<GroupPlacement> {
        let mut placement: Vec<GroupPlacement> =
            self.order.placement.iter().map(|g| GroupPlacement { nodes: vec![], ..g.clone() }).collect();
        for member in &self.assignment.members {
            add(&mut placement, &self.one(member));
        }
        placement
    }

    /// One member, as a placement.
    pub fn one(&self, member: &MemberAssignment) -> Vec<GroupPlacement> {
        let share = NodeShare { node: member.node.clone(), members: 1 };
        let group = self.order.placement.iter().find(|g| g.group == member.group);
        group.map(|group| GroupPlacement { nodes: vec![share], ..group.clone() }).into_iter().collect()
    }

    /// The word on its size for the coordinators.
    pub fn resized(&self) -> Option<Resized> {
        let sized = self.sized.as_ref()?;
        let missing = sized.missing.clone();
        Some(Resized { number: sized.number, settled: sized.leaving.is_empty(), missing })
    }
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

/// An attempt that is known from before, where that is not from a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// How it was launched; none where only its objects are known, or where it was stopped before its launch came.
    pub launch: Option<KnownLaunch>,
}

/// How an attempt was launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLaunch {
    /// The command.
    pub number: CommandNumber,
    /// The order.
    pub order: LaunchOrder,
    /// The nodes and devices that it was given.
    pub assignment: Assignment,
}

/// Everything of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// None for an attempt that was stopped before any launch of it came, or that never started.
    pub launched: Option<Launched>,
    pub progress: Progress,
    /// The runtime has not said yet that it has the launch on record, and this journal is none that lasts: the attempt is told to nobody,
    /// so that its launch is sent again to whoever comes after.
    pub unrecorded: bool,
}

impl Record {
    /// What may be told of it.
    pub fn report(&self) -> Option<&AttemptReport> {
        (!self.unrecorded).then_some(&self.progress.report)
    }

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
