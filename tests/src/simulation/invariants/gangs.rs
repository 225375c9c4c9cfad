//! 11: a gang is whole or absent: what a runtime takes is exactly what the client asked for, on nodes that can hold it; of elastic groups
//! the fewest members at its start, and later as many as they may have.

use std::collections::BTreeMap;

use agent::cluster::Assignment;
use protocol::control::LaunchOrder;
use protocol::ids::Uid;
use protocol::workload::WorkloadSpec;

use super::{Invariant, Layout};
use crate::simulation::facts::{Attempt, Fact};

pub(crate) struct Gangs {
    layout: Layout,
    asked: BTreeMap<Uid, WorkloadSpec>,
}

impl Gangs {
    pub fn new(layout: &Layout) -> Self {
        Self { layout: layout.clone(), asked: BTreeMap::new() }
    }

    fn check(&self, cluster: usize, order: &LaunchOrder, assignment: &Assignment, starts: bool) -> Result<(), String> {
        let Some(spec) = self.asked.get(&order.attempt.workload) else {
            return Err("nobody submitted it".into());
        };
        if order.spec != *spec {
            return Err("it is not what was submitted".into());
        }
        let head = spec.ray.iter().map(|_| ("head", 1, 1, 0, &[][..]));
        let groups = spec.batch.iter().flat_map(|b| &b.groups).chain(spec.ray.iter().flat_map(|r| &r.workers));
        let groups = groups.map(|g| {
            let count = g.count.unwrap_or(1);
            (g.name.as_str(), g.min.unwrap_or(count), g.max.unwrap_or(count), g.gpus.0, &g.gpu[..])
        });
        let mut known = 0;
        for (name, least, most, gpus, models) in head.chain(groups) {
            let members: Vec<_> = assignment.members.iter().filter(|m| m.group.as_str() == name).collect();
            known += members.len();
            let most = if starts { least } else { most };
            if !(least as usize..=most as usize).contains(&members.len()) {
                return Err(format!("group {name} has {} of {least} to {most} members", members.len()));
            }
            for member in members {
                let node = self.layout[cluster].1.iter().find(|n| n.name == member.node);
                let node = node.ok_or_else(|| format!("node {} is not in this cluster", member.node))?;
                // A share sits on one device.
                if member.devices.len() as u64 != gpus.div_ceil(1000) {
                    return Err(format!("a member of group {name} has devices {:?}", member.devices));
                }
                if gpus > 0 && !models.is_empty() && !models.contains(&node.sku) {
                    return Err(format!("group {name} does not accept {}", node.sku));
                }
            }
        }
        if assignment.members.len() != known {
            return Err(format!("{} members, of which {known} were asked for", assignment.members.len()));
        }
        Ok(())
    }
}

impl Invariant for Gangs {
    fn name(&self) -> &'static str {
        "11 a gang is whole or absent"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Submitting { uid, spec, .. } => {
                self.asked.insert(*uid, (*spec).clone());
                Ok(())
            }
            Fact::Taken { cluster, order, assignment } => self
                .check(*cluster, order, assignment, true)
                .map_err(|what| format!("{} in cluster {}: {what}", Attempt(order.attempt), cluster + 1)),
            Fact::MembersCame { cluster, order, assignment, .. } => self
                .check(*cluster, order, assignment, false)
                .map_err(|what| format!("{} in cluster {}: {what}", Attempt(order.attempt), cluster + 1)),
            _ => Ok(()),
        }
    }
}
