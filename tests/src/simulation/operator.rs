//! The person: looks now and then at attempts that nobody in the federation can see any more, goes to the machine, and says
//! that they are gone where they are. The person tells the truth. And cordons clusters, drains them and opens them again, as people
//! with screwdrivers do; in some worlds also removes what is drained and lets it in again. Once faults are over, all of them are there and open.

use engine::commands::{Command, Cordoning};
use engine::state::State;
use protocol::ids::{AttemptId, ClusterName, WorkloadKey};

use super::clients::{Operation, Wish};
use super::clock::SECOND;
use super::queue::Event;
use super::world::World;

/// Between two looks.
const EVERY_US: u64 = 5 * SECOND;

/// How likely the person cordons or drains some cluster at a look, per mille.
const CORDONS: u64 = 400;
/// How likely the person opens one that is not, or lets one in that was removed, at a look, per mille.
const OPENS: u64 = 400;
/// How likely the person removes one that is cordoned and has nothing any more, at a look, per mille, in worlds where that is done.
const REMOVES: u64 = 500;
/// One world in so many: where clusters go, fewer workloads fail over, and what is wrong with that is found later.
const WORLDS_A_REMOVAL: u64 = 8;

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
        self.operator_cordons(replica);
    }

    /// The person cordons, drains, removes or opens a cluster, one word at a time.
    fn operator_cordons(&mut self, replica: usize) {
        if self.clients.operations.values().any(Operation::is_of_a_cordon) {
            return;
        }
        let Some(core) = self.replicas[replica].core.as_ref() else { return };
        let (clusters, removed) = (&core.state().clusters, &core.state().removed);
        let closed = clusters.iter().filter(|(_, c)| c.cordon.is_some()).map(|(name, _)| name.clone());
        let away = removed.iter().filter(|(_, removal)| !removal.readmitted).map(|(name, _)| name.clone());
        let closed: Vec<ClusterName> = away.chain(closed).collect();
        let known: Vec<ClusterName> = clusters.keys().cloned().collect();
        let idle = |name: &&ClusterName| clusters.contains_key(*name) && core.state().live_in(name).next().is_none();
        let idle = closed.iter().find(idle).cloned();
        let removes = self.seed % WORLDS_A_REMOVAL == WORLDS_A_REMOVAL - 1 && !self.calm;
        let random = &mut self.dice.operator;
        if let Some(cluster) = idle.filter(|_| removes && random.chance(REMOVES)) {
            self.begin(Wish::Remove(cluster), None);
            return;
        }
        let word = match closed.first() {
            Some(cluster) if self.calm || random.chance(OPENS) => Some((cluster.clone(), Cordoning::Lift)),
            _ if self.calm || known.is_empty() || !random.chance(CORDONS) => None,
            _ => {
                let cluster = known[random.index(known.len())].clone();
                let reason = Some("a new switch".to_owned());
                let to = match random.index(3) {
                    0 => Cordoning::Cordon { reason },
                    _ => {
                        let max_at_once = random.chance(300).then_some(1);
                        Cordoning::Drain { reason, force: random.chance(300), max_at_once }
                    }
                };
                Some((cluster, to))
            }
        };
        if let Some((cluster, to)) = word {
            self.begin(Wish::Cordon { cluster, to }, None);
        }
    }
}
