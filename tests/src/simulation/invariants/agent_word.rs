//! 17, for agents: what an agent has said of an attempt it never takes back, through any crash: a revision means one state for
//! ever, a final state is the last, and the commands that it made durable only grow.

use std::collections::{BTreeMap, BTreeSet};

use protocol::control::{AgentMessage, AttemptReport, AttemptState};
use protocol::ids::{AttemptId, CommandNumber};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact};

#[derive(Default)]
pub(crate) struct AgentWord {
    said: BTreeMap<(usize, AttemptId, u64), AttemptState>,
    ended: BTreeSet<(usize, AttemptId)>,
    commands: BTreeMap<usize, CommandNumber>,
}

impl AgentWord {
    fn report(&mut self, agent: usize, report: &AttemptReport) -> Result<(), String> {
        let (attempt, revision) = (report.attempt, report.revision);
        let who = || format!("agent {} on {}", agent + 1, Attempt(attempt));
        match self.said.get(&(agent, attempt, revision)) {
            Some(state) if *state != report.state => {
                return Err(format!("{}: revision {revision} was {state:?} and is {:?}", who(), report.state));
            }
            Some(_) => {}
            None if self.ended.contains(&(agent, attempt)) && !report.state.is_final() => {
                return Err(format!("{}: it had ended, and is {:?} again", who(), report.state));
            }
            None => {
                self.said.insert((agent, attempt, revision), report.state.clone());
            }
        }
        if report.state.is_final() {
            self.ended.insert((agent, attempt));
        }
        Ok(())
    }
}

impl Invariant for AgentWord {
    fn name(&self) -> &'static str {
        "17 an agent takes nothing back"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::AgentSays { agent, message: AgentMessage::Report(report), .. } => self.report(*agent, report),
            Fact::AgentSays { agent, message: AgentMessage::Hello { last_command, attempts, .. }, .. } => {
                let highest = self.commands.entry(*agent).or_default();
                if last_command < highest {
                    return Err(format!("agent {} had command {highest} and now has {last_command}", agent + 1));
                }
                *highest = *last_command;
                attempts.iter().try_for_each(|report| self.report(*agent, report))
            }
            // Another agent, which said nothing yet.
            Fact::Replaced { agent } => {
                self.commands.remove(agent);
                self.said.retain(|(who, ..), _| who != agent);
                self.ended.retain(|(who, _)| who != agent);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
