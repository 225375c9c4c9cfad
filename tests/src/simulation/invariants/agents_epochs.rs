//! 6: a command from an old epoch never acts: an agent starts nothing on the word of a leader that it knows to be replaced,
//! and does not turn back to one; and the log takes no binding that was planned under one.

use std::collections::BTreeMap;

use protocol::control::Order;
use protocol::ids::{AttemptId, Epoch, ReplicaId};

use super::Invariant;
use crate::simulation::facts::{Attempt, Fact};

#[derive(Default)]
pub(crate) struct AgentsEpochs {
    /// By agent: the highest epoch that it heard of.
    highest: BTreeMap<usize, Epoch>,
    /// Who led in an epoch.
    leaders: BTreeMap<Epoch, ReplicaId>,
    /// By agent: whom it takes for the leader.
    followed: BTreeMap<usize, Option<ReplicaId>>,
    /// By agent and attempt: the highest epoch in which its start was ordered.
    ordered: BTreeMap<(usize, AttemptId), Epoch>,
}

impl Invariant for AgentsEpochs {
    fn name(&self) -> &'static str {
        "6 a command from an old epoch never acts"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::AgentHeard { agent, replica, epoch, command } => {
                self.leaders.insert(*epoch, *replica);
                let highest = self.highest.entry(*agent).or_default();
                *highest = (*highest).max(*epoch);
                if let Some((_, Order::Launch(launch))) = command {
                    let ordered = self.ordered.entry((*agent, launch.attempt)).or_default();
                    *ordered = (*ordered).max(*epoch);
                }
            }
            Fact::AgentFollows { agent, leader } => {
                let turns = self.followed.insert(*agent, *leader) != Some(*leader);
                let highest = self.highest.get(agent).copied().unwrap_or_default();
                let current = self.leaders.get(&highest);
                if let (true, Some(leader), Some(current)) = (turns, leader, current)
                    && leader != current
                {
                    return Err(format!(
                        "agent {} heard of epoch {highest} and turns to replica {leader}, which was deposed",
                        agent + 1
                    ));
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
            // Another agent, which heard of nothing yet.
            Fact::Replaced { agent } => {
                self.highest.remove(agent);
                self.followed.remove(agent);
                self.ordered.retain(|(who, _), _| who != agent);
            }
            Fact::LateBinding { planned_in, taken: true } => {
                return Err(format!("a binding that was planned in epoch {planned_in} was taken in a later one"));
            }
            _ => {}
        }
        Ok(())
    }
}
