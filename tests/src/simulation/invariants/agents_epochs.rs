//! 6: a command from an old epoch never acts: an agent starts nothing on the word of a leader that it knows to be replaced,
//! and the log takes no binding that was planned under one.

use std::collections::BTreeMap;

use protocol::control::Order;
use protocol::ids::{AttemptId, Epoch};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact};

#[derive(Default)]
pub(crate) struct AgentsEpochs {
    /// By agent: the highest epoch that it heard of.
    highest: BTreeMap<usize, Epoch>,
    /// By agent and attempt: the highest epoch in which its start was ordered.
    ordered: BTreeMap<(usize, AttemptId), Epoch>,
}

impl Invariant for AgentsEpochs {
    fn name(&self) -> &'static str {
        "6 a command from an old epoch never acts"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::AgentHeard { agent, epoch, command } => {
                let highest = self.highest.entry(*agent).or_default();
                *highest = (*highest).max(*epoch);
                if let Some((_, Order::Launch(launch))) = command {
                    let ordered = self.ordered.entry((*agent, launch.attempt)).or_default();
                    *ordered = (*ordered).max(*epoch);
                }
            }
            Fact::StartOrdered { agent, attempt } => {
                let highest = self.highest.get(agent).copied().unwrap_or_default();
                match self.ordered.get(&(*agent, *attempt)) {
                    None => return Err(format!("agent {} starts {} unasked", agent + 1, Attempt(*attempt))),
                    Some(epoch) if *epoch < highest => {
                        let attempt = Attempt(*attempt);
                        return Err(format!(
                            "agent {} starts {attempt} by a command of epoch {epoch}, having heard of epoch {highest}",
                            agent + 1
                        ));
                    }
                    Some(_) => {}
                }
            }
            Fact::LateBinding { planned_in, taken: true } => {
                return Err(format!("a binding that was planned in epoch {planned_in} was taken in a later one"));
            }
            _ => {}
        }
        Ok(())
    }
}
