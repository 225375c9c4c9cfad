//! The person: looks now and then at attempts that nobody in the federation can see any more, goes to the machine, and says
//! that they are gone where they are. The person tells the truth.

use engine::commands::Command;
use engine::state::State;
use protocol::ids::{AttemptId, WorkloadKey};

use super::clients::Wish;
use super::clock::SECOND;
use super::queue::Event;
use super::world::World;

/// Between two looks.
const EVERY_US: u64 = 5 * SECOND;

/// What the person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    key: WorkloadKey,
    attempt: AttemptId,
}

impl Word {
    pub fn command(&self) -> Command {
        let reason = "the machine was replaced".to_owned();
        Command::Forget { key: self.key.clone(), attempt: self.attempt, reason }
    }
}

/// Attempts whose agent is in another life than the one that held them, with the cluster's place.
fn unseen(state: &State, place_of: impl Fn(&str) -> Option<usize>) -> Vec<(Word, usize)> {
    let held = state.workloads.values().filter_map(|w| Some((w, w.live_attempt()?)));
    let lost = held.filter(|(_, a)| state.clusters.get(&a.cluster).is_some_and(|c| c.incarnation != a.incarnation));
    lost.filter_map(|(w, a)| {
        let word = Word { key: w.key.clone(), attempt: w.attempt_id(a.number) };
        Some((word, place_of(a.cluster.as_str())?))
    })
    .collect()
}

impl World {
    /// The person looks, at what one replica shows.
    pub(super) fn operator_looks(&mut self) {
        let at = self.now_us + EVERY_US;
        self.queue.add(at, Event::Operator);
        let replica = self.dice.operator.index(self.replicas.len());
        let Some(core) = self.replicas[replica].core.as_ref() else { return };
        let names: Vec<String> = self.agents.iter().map(|a| a.config.cluster.name.to_string()).collect();
        let unseen = unseen(core.state(), |name| names.iter().position(|n| n == name));
        for (word, place) in unseen {
            let lives = self.runtimes[place].live().any(|attempt| attempt == word.attempt);
            let said = self.clients.operations.values().any(|o| o.is_word_of(&word));
            if !lives && !said {
                self.begin(Wish::Forget(word), None);
            }
        }
    }
}
