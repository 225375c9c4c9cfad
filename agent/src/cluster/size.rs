//! A running attempt gets more or fewer members. What is added is given its devices at once, or is missing; what goes keeps its devices
//! until the runtime has seen it gone, and what ended by itself until the coordinators have that on record. All of it is durable before
//! the runtime hears of it, and said again after a restart: the newest placement counts, whatever the runtime had done of earlier ones.

use protocol::control::ResizeOrder;
use protocol::ids::{AttemptId, CommandNumber, GroupName, UnixMs};
use protocol::placement::{add, beyond};

use super::Agent;
use super::attempt::{Launched, MemberAssignment, Sized};
use super::interface::Output;
use super::journal::JournalError;

impl Agent {
    /// Carries out an order to change the size of an attempt. Nothing happens to one that has ended, is being ended, or never started.
    pub(super) fn resize(
        &mut self,
        number: CommandNumber,
        order: ResizeOrder,
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let attempt = order.attempt;
        let Some(record) = self.records.get_mut(&attempt) else { return Ok(()) };
        let ends = record.is_final() || record.progress.stop.is_some();
        let Some(launched) = record.launched.as_mut().filter(|_| !ends) else {
            self.reports.send(record, out);
            return Ok(());
        };
        // What ended by itself comes again with this order, or is not wanted any more.
        if launched.free_untold() {
            self.table.hold(&launched.order, &launched.held());
        }
        let before = launched.sized.take();
        let mut sized = Sized {
            number,
            grace_ms: order.grace_ms,
            leaving: before.as_ref().map_or_else(Vec::new, |before| before.leaving.clone()),
            missing: vec![],
            untold: vec![],
            next: before.map_or_else(|| next_ranks(launched), |before| before.next),
        };
        let has = launched.placement();
        launched.order.placement.clone_from(&order.placement);
        for group in beyond(&has, &order.placement) {
            for share in &group.nodes {
                for _ in 0..share.members {
                    // The youngest on the node goes.
                    let mut there = launched.assignment.members.iter();
                    let there = there.rposition(|m| m.group == group.group && m.node == share.node);
                    sized.leaving.extend(there.map(|at| launched.assignment.members.remove(at)));
                }
            }
        }
        let more = beyond(&order.placement, &has);
        match self.table.room_for(&more) {
            Ok(members) => launched.assignment.members.extend(members.into_iter().map(|member| {
                let next = sized.next.entry(member.group.clone()).or_default();
                let rank = *next;
                *next += 1;
                MemberAssignment { rank, ..member }
            })),
            Err(_) => add(&mut sized.missing, &more),
        }
        launched.sized = Some(sized);
        self.resized(attempt, unix, out)
    }

    /// The runtime says that members are not there, or not any more.
    pub(super) fn members_gone(
        &mut self,
        attempt: AttemptId,
        gone: &[(GroupName, u32)],
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let Some(record) = self.records.get_mut(&attempt).filter(|record| !record.is_final()) else { return Ok(()) };
        let Some(launched) = &mut record.launched else { return Ok(()) };
        let Some(mut sized) = launched.sized.take() else { return Ok(()) };
        let is = |m: &MemberAssignment| gone.iter().any(|(group, rank)| m.group == *group && m.rank == *rank);
        let before = (sized.leaving.len(), launched.assignment.members.len());
        sized.leaving.retain(|m| !is(m));
        let lost: Vec<MemberAssignment> = launched.assignment.members.iter().filter(|m| is(m)).cloned().collect();
        launched.assignment.members.retain(|m| !is(m));
        lost.iter().for_each(|m| add(&mut sized.missing, &launched.one(m)));
        sized.untold.extend(lost);
        let changed = before != (sized.leaving.len(), launched.assignment.members.len());
        launched.sized = Some(sized);
        if !changed {
            return Ok(());
        }
        self.tell_of_size(attempt, unix, out)
    }

    /// What an attempt holds is another now: durable, in the table, for the runtime and for the coordinators.
    fn resized(&mut self, attempt: AttemptId, unix: UnixMs, out: &mut Vec<Output>) -> Result<(), JournalError> {
        self.tell_of_size(attempt, unix, out)?;
        out.extend(self.records.get(&attempt).and_then(|record| resize_again(record.launched.as_ref()?)));
        Ok(())
    }

    fn tell_of_size(&mut self, attempt: AttemptId, unix: UnixMs, out: &mut Vec<Output>) -> Result<(), JournalError> {
        let Some(record) = self.records.get_mut(&attempt) else { return Ok(()) };
        let Some(launched) = &record.launched else { return Ok(()) };
        self.table.hold(&launched.order, &launched.held());
        self.journal.put_launched(attempt, launched)?;
        let report = &mut record.progress.report;
        report.revision += 1;
        report.resized = launched.resized();
        report.at = unix;
        self.say(attempt, out)
    }
}

/// What the runtime is to make of an attempt whose size was changed.
pub(super) fn resize_again(launched: &Launched) -> Option<Output> {
    let sized = launched.sized.as_ref()?;
    Some(Output::Resize {
        order: Box::new(launched.order.clone()),
        assignment: launched.assignment.clone(),
        leaving: sized.leaving.clone(),
        grace_ms: sized.grace_ms,
    })
}

fn next_ranks(launched: &Launched) -> std::collections::BTreeMap<GroupName, u32> {
    let mut next = std::collections::BTreeMap::new();
    for member in &launched.assignment.members {
        let known = next.entry(member.group.clone()).or_insert(0);
        *known = member.rank.saturating_add(1).max(*known);
    }
    next
}
