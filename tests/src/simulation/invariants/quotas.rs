//! 22: no pool goes beyond its quota at any index of the log, and room is taken back by right alone. The log is carried out once
//! more, and each binding, growth and preemption held to a slow model of pools that shares no code with the engine.

use std::collections::BTreeMap;

use engine::commands::Command;
use engine::state::State;
use protocol::ids::{LogIndex, UnixMs};

use super::Invariant;
use super::slow_pools::{check_bound, check_limits, check_preemption, check_tree};
use crate::simulation::facts::Fact;

#[derive(Default)]
pub(crate) struct Quotas {
    state: State,
    /// Entries that are committed and not carried out here yet; a leader's first has no command.
    ahead: BTreeMap<LogIndex, Option<(UnixMs, Command)>>,
}

impl Quotas {
    fn carry_out(&mut self) -> Result<(), String> {
        while let Some(entry) = self.ahead.first_entry() {
            let index = *entry.key();
            if index.0 > self.state.applied.0 + 1 {
                // One between was cut off by a snapshot before anybody looked.
                return Ok(());
            }
            let (fresh, entry) = (index > self.state.applied, entry.remove());
            let Some((at, command)) = entry.filter(|_| fresh) else {
                self.state.applied = self.state.applied.max(index);
                continue;
            };
            let before = self.state.clone();
            let applied = self.state.apply(index, &command, at);
            if applied.outcome.is_ok() {
                self.check(&before, &command).map_err(|what| format!("at index {index}: {what}"))?;
            }
        }
        Ok(())
    }

    fn check(&self, before: &State, command: &Command) -> Result<(), String> {
        match command {
            Command::Bind(binding) => match self.state.workloads.get(&binding.key) {
                Some(workload) => check_bound(&self.state, workload, &binding.placement),
                None => Err(format!("{} was bound and is gone", binding.key)),
            },
            Command::Grow(growth) => match self.state.workloads.get(&growth.key) {
                Some(workload) => check_limits(&self.state, workload, &growth.members),
                None => Err(format!("{} grew and is gone", growth.key)),
            },
            Command::Preempt(preemption) => check_preemption(before, preemption, self.state.now),
            Command::SetPool { .. } | Command::DeletePool { .. } => check_tree(&self.state),
            _ => Ok(()),
        }
    }
}

impl Invariant for Quotas {
    fn name(&self) -> &'static str {
        "22 no pool goes beyond its quota, and room is taken back by right"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Committed { index, .. } if LogIndex(*index) > self.state.applied => {
                self.ahead.entry(LogIndex(*index)).or_insert(None);
                Ok(())
            }
            Fact::Entry { index, at, command } if *index > self.state.applied => {
                self.ahead.insert(*index, Some((*at, (*command).clone())));
                Ok(())
            }
            Fact::Applied { state, .. } if state.applied > self.state.applied => {
                self.carry_out()?;
                if self.state.applied < state.applied {
                    self.state = (*state).clone();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
