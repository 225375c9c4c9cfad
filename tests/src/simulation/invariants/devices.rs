//! 10: no GPU, core or MiB is given twice, and no device to shares that are more than it together: not on any node at any moment, by the runtimes' own ledger; and the planner's books
//! are right, so that an agent never has to refuse a launch for want of room.

use std::collections::BTreeMap;

use agent::cluster::MemberAssignment;
use protocol::control::{AgentMessage, AttemptReport, AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::AttemptId;

use super::{Invariant, Layout};
use crate::simulation::facts::{Attempt, Fact};
use crate::simulation::runtime::Name;

/// What one member holds of one node.
#[derive(Default)]
struct Hold {
    /// Each with the thousandths of it.
    devices: Vec<(u16, u64)>,
    cpu_milli: u64,
    memory_mib: u64,
}

pub(crate) struct OneOwner {
    layout: Layout,
    /// By cluster and node, then by attempt and member.
    held: BTreeMap<(usize, usize), BTreeMap<(AttemptId, Name), Hold>>,
}

impl OneOwner {
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), held: BTreeMap::new() }
    }

    fn comes(&mut self, cluster: usize, order: &LaunchOrder, members: &[MemberAssignment]) -> Result<(), String> {
        for member in members {
            let nodes = &self.layout[cluster].1;
            let Some(node) = nodes.iter().position(|n| n.name == member.node) else {
                let attempt = Attempt(order.attempt);
                return Err(format!("{attempt} is on node {}, which is not there", member.node));
            };
            let name = (order.attempt, (member.group.clone(), member.rank));
            let need = order.spec.gang().into_iter().find(|g| g.name == member.group);
            let gpus = need.as_ref().map_or(0, |n| n.each.gpu_milli);
            let each = if (1..1000).contains(&gpus) { gpus } else { 1000 };
            let hold = Hold {
                devices: member.devices.iter().map(|device| (*device, each)).collect(),
                cpu_milli: need.as_ref().map_or(0, |n| n.each.cpu_milli),
                memory_mib: need.as_ref().map_or(0, |n| n.each.memory_mib),
            };
            if self.held.entry((cluster, node)).or_default().insert(name, hold).is_some() {
                return Err(format!(
                    "member {}-{} of {} came twice",
                    member.group,
                    member.rank,
                    Attempt(order.attempt)
                ));
            }
        }
        (0..self.layout[cluster].1.len()).try_for_each(|node| self.check(cluster, node))
    }

    fn check(&self, cluster: usize, node: usize) -> Result<(), String> {
        let layout = &self.layout[cluster].1[node];
        let Some(holds) = self.held.get(&(cluster, node)) else { return Ok(()) };
        let mut owners: BTreeMap<u16, (u64, AttemptId)> = BTreeMap::new();
        for ((attempt, _), hold) in holds {
            for (device, milli) in &hold.devices {
                let place = format!("device {device} of node {}", layout.name);
                if *device >= layout.devices {
                    return Err(format!("{} is given {place}, which is not there", Attempt(*attempt)));
                }
                let (given, other) = owners.entry(*device).or_insert((0, *attempt));
                *given += milli;
                if *given > 1000 {
                    return Err(format!(
                        "{given} thousandths of {place} are given to {} and {}",
                        Attempt(*other),
                        Attempt(*attempt)
                    ));
                }
            }
        }
        let cpu: u64 = holds.values().map(|h| h.cpu_milli).sum();
        let memory: u64 = holds.values().map(|h| h.memory_mib).sum();
        if cpu > layout.cpu_milli || memory > layout.memory_mib {
            return Err(format!("node {} gives {cpu} thousandths of a core and {memory} MiB: too much", layout.name));
        }
        Ok(())
    }
}

fn refused_for_room(report: &AttemptReport) -> Result<(), String> {
    match &report.state {
        AttemptState::Failed { class: FailureClass::Capacity, message, .. } => {
            Err(format!("{} was bound where there was no room: {message}", Attempt(report.attempt)))
        }
        _ => Ok(()),
    }
}

impl Invariant for OneOwner {
    fn name(&self) -> &'static str {
        "10 no GPU is given twice"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Taken { cluster, order, assignment } => self.comes(*cluster, order, &assignment.members),
            Fact::MembersCame { cluster, order, members, .. } => self.comes(*cluster, order, members),
            Fact::MemberGone { cluster, attempt, member } => {
                for (_, holds) in self.held.range_mut((*cluster, 0)..(*cluster + 1, 0)) {
                    holds.remove(&(*attempt, (*member).clone()));
                }
                Ok(())
            }
            Fact::Gone { cluster, attempt, .. } => {
                for (_, holds) in self.held.range_mut((*cluster, 0)..(*cluster + 1, 0)) {
                    holds.retain(|(holder, _), _| holder != attempt);
                }
                Ok(())
            }
            Fact::AgentSays { message: AgentMessage::Report(report), .. } => refused_for_room(report),
            _ => Ok(()),
        }
    }
}
