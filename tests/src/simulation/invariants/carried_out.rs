//! The log, carried out once more, entry by entry, for invariants that ask what held just before and just after each command.

use std::collections::BTreeMap;

use engine::commands::Command;
use engine::state::State;
use protocol::ids::{LogIndex, UnixMs};

use crate::simulation::facts::Fact;

/// The log as far as it is carried out, and what comes next.
#[derive(Default)]
pub(crate) struct CarriedOut {
    state: State,
    /// Entries that are committed and not carried out here yet; a leader's first has no command.
    ahead: BTreeMap<LogIndex, Option<(UnixMs, Command)>>,
}

impl CarriedOut {
    /// Takes in a fact. `check` hears of each command that was not refused, with the state before and after it.
    pub fn observe(
        &mut self,
        fact: &Fact<'_>,
        check: impl Fn(&State, &Command, &State) -> Result<(), String>,
    ) -> Result<(), String> {
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
                self.carry_out(check)?;
                if self.state.applied < state.applied {
                    self.state = (*state).clone();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, check: impl Fn(&State, &Command, &State) -> Result<(), String>) -> Result<(), String> {
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
                check(&before, &command, &self.state).map_err(|what| format!("at index {index}: {what}"))?;
            }
        }
        Ok(())
    }
}
