//! 11: a gang is whole or absent: what a runtime takes is exactly what the client asked for, on nodes that can hold it.

use std::collections::BTreeMap;

use agent::cluster::Assignment;
use protocol::control::LaunchOrder;
use protocol::ids::Uid;
use protocol::workload::{BatchSpec, WorkloadSpec};

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

    fn check(&self, cluster: usize, order: &LaunchOrder, assignment: &Assignment) -> Result<(), String> {
        let Some(spec) = self.asked.get(&order.attempt.workload) else {
            return Err("nobody submitted it".into());
        };
        if order.spec != *spec {
            return Err("it is not what was submitted".into());
        }
        let groups = spec.batch.as_ref().map_or(&[][..], |batch: &BatchSpec| &batch.groups);
        for group in groups {
            let members: Vec<_> = assignment.members.iter().filter(|m| m.group == group.name).collect();
            if members.len() != group.count as usize {
                return Err(format!("group {} has {} of {} members", group.name, members.len(), group.count));
            }
            for member in members {
                let node = self.layout[cluster].1.iter().find(|n| n.name == member.node);
                let node = node.ok_or_else(|| format!("node {} is not in this cluster", member.node))?;
                // A share sits on one device.
                if member.devices.len() as u64 != group.gpus.0.div_ceil(1000) {
                    return Err(format!("a member of group {} has devices {:?}", group.name, member.devices));
                }
                if group.gpus.0 > 0 && !group.gpu.is_empty() && !group.gpu.contains(&node.sku) {
                    return Err(format!("group {} does not accept {}", group.name, node.sku));
                }
            }
        }
        let wanted: usize = groups.iter().map(|g| g.count as usize).sum();
        if assignment.members.len() != wanted {
            return Err(format!("{} members instead of {wanted}", assignment.members.len()));
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
                .check(*cluster, order, assignment)
                .map_err(|what| format!("{} in cluster {}: {what}", Attempt(order.attempt), cluster + 1)),
            _ => Ok(()),
        }
    }
}
