//! 22: no pool goes beyond its quota at any index of the log, and room is taken back by right alone. The log is carried out once
//! more, and each binding, growth and preemption held to a slow model of pools that shares no code with the engine.

use engine::commands::Command;
use engine::state::State;

use super::Invariant;
use super::carried_out::CarriedOut;
use super::slow_pools::{check_bound, check_limits, check_preemption, check_tree};
use crate::simulation::facts::Fact;

#[derive(Default)]
pub(crate) struct Quotas(CarriedOut);

fn check(before: &State, command: &Command, after: &State) -> Result<(), String> {
    match command {
        Command::Bind(binding) => match after.workloads.get(&binding.key) {
            Some(workload) => check_bound(after, workload, &binding.placement),
            None => Err(format!("{} was bound and is gone", binding.key)),
        },
        Command::Grow(growth) => match after.workloads.get(&growth.key) {
            Some(workload) => check_limits(after, workload, &growth.members),
            None => Err(format!("{} grew and is gone", growth.key)),
        },
        Command::Preempt(preemption) => check_preemption(before, preemption, after.now),
        Command::SetPool { .. } | Command::DeletePool { .. } => check_tree(after),
        _ => Ok(()),
    }
}

impl Invariant for Quotas {
    fn name(&self) -> &'static str {
        "22 no pool goes beyond its quota, and room is taken back by right"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        self.0.observe(fact, check)
    }
}
