//! The runtimes: one a cluster, outliving its agent's crashes. An order that the agent gave and the runtime had not taken when
//! the agent died is never carried out; what was taken goes on without the agent, and is found again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use agent::cluster::{Assignment, Input};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::AttemptId;

use super::clock::{MS, SECOND};
use super::facts::Fact;
use super::process::OrderBoundary;
use super::queue::Event;
use super::world::World;

/// What an agent asks of its runtime.
pub(crate) enum RuntimeOrder {
    Start(Box<LaunchOrder>, Assignment),
    Stop(AttemptId, u64),
    Forget(AttemptId),
}

/// One cluster's runtime.
#[derive(Default)]
pub(crate) struct Runtime {
    orders: VecDeque<RuntimeOrder>,
    taken_us: u64,
    told_us: u64,
    /// What it holds, until it is forgotten.
    runs: BTreeMap<AttemptId, AttemptState>,
    /// Stopped before they came: never to be started.
    revoked: BTreeSet<AttemptId>,
}

impl Runtime {
    /// Its agent died: what it had not taken never happens.
    pub fn agent_died(&mut self) {
        self.orders.clear();
    }

    /// Its machine is gone; returns what was alive on it.
    pub fn vanish(&mut self) -> Vec<AttemptId> {
        let alive = self.live().collect();
        (self.orders, self.runs, self.revoked) = Default::default();
        alive
    }

    /// Everything that is not forgotten.
    pub fn recover(&self) -> Vec<(AttemptId, AttemptState)> {
        self.runs.iter().map(|(attempt, state)| (*attempt, state.clone())).collect()
    }

    /// What is alive.
    pub fn live(&self) -> impl Iterator<Item = AttemptId> {
        self.runs.iter().filter(|(_, state)| !state.is_final()).map(|(attempt, _)| *attempt)
    }
}

fn failed(class: FailureClass, message: &str) -> AttemptState {
    AttemptState::Failed { class, message: message.into(), exit_code: None }
}

impl World {
    pub(super) fn give_order(&mut self, cluster: usize, order: RuntimeOrder) {
        let runtime = &mut self.runtimes[cluster];
        runtime.orders.push_back(order);
        let slow = if self.dice.runtime.chance(50) { 500 * MS } else { 20 * MS };
        runtime.taken_us = runtime.taken_us.max(self.now_us) + self.dice.runtime.below(slow);
        let life = self.agents[cluster].machine.life;
        self.queue.add(runtime.taken_us, Event::TakeOrder { cluster, life });
    }

    pub(super) fn take_order(&mut self, cluster: usize, life: u64) {
        if self.agents[cluster].machine.life != life {
            return;
        }
        match self.runtimes[cluster].orders.pop_front() {
            Some(RuntimeOrder::Start(order, assignment)) => self.take_start(cluster, &order, &assignment),
            Some(RuntimeOrder::Stop(attempt, grace_ms)) => self.take_stop(cluster, attempt, grace_ms),
            Some(RuntimeOrder::Forget(attempt)) => {
                let runtime = &mut self.runtimes[cluster];
                if runtime.runs.get(&attempt).is_some_and(AttemptState::is_final) {
                    runtime.runs.remove(&attempt);
                }
            }
            None => return,
        }
        self.dies_at_order(cluster, OrderBoundary::Taken);
    }

    fn take_start(&mut self, cluster: usize, order: &LaunchOrder, assignment: &Assignment) {
        let attempt = order.attempt;
        if self.runtimes[cluster].revoked.contains(&attempt) {
            return self.tell_agent(cluster, attempt, AttemptState::Stopped);
        }
        // A second start of what is held would be another life of it: this runtime, unlike the real one, lets it happen.
        self.judge.hear(self.now_us, &Fact::Taken { cluster, order, assignment });
        self.runtimes[cluster].runs.insert(attempt, AttemptState::Accepted);
        let behaviour = self.clients.behaviour(attempt);
        let random = &mut self.dice.runtime;
        let starting = self.now_us + random.between(MS, 200 * MS);
        let waiting_for = "its members".to_owned();
        self.queue.add(starting, Event::Run { cluster, attempt, state: AttemptState::Starting { waiting_for } });
        if random.chance(30) {
            let state = failed(FailureClass::Infrastructure, "a node went away");
            let at = starting + random.below(SECOND);
            return self.queue.add(at, Event::Run { cluster, attempt, state });
        }
        let running = starting + random.between(50 * MS, 2 * SECOND);
        self.queue.add(running, Event::Run { cluster, attempt, state: AttemptState::Running });
        if let Some(runs_us) = behaviour.runs_us {
            let state = match behaviour.fails {
                true => failed(FailureClass::User, "exit code 1"),
                false => AttemptState::Succeeded,
            };
            self.queue.add(running + runs_us, Event::Run { cluster, attempt, state });
        }
    }

    fn take_stop(&mut self, cluster: usize, attempt: AttemptId, grace_ms: u64) {
        match self.runtimes[cluster].runs.get(&attempt) {
            None => {
                self.runtimes[cluster].revoked.insert(attempt);
                self.tell_agent(cluster, attempt, AttemptState::Stopped);
            }
            Some(state) if state.is_final() => {
                let state = state.clone();
                self.tell_agent(cluster, attempt, state);
            }
            Some(_) => {
                let at = self.now_us + self.dice.runtime.below(grace_ms.clamp(1, 3_000) * MS);
                self.queue.add(at, Event::Run { cluster, attempt, state: AttemptState::Stopped });
            }
        }
    }

    /// An attempt goes on, unless it has ended.
    pub(super) fn run_on(&mut self, cluster: usize, attempt: AttemptId, state: AttemptState) {
        match self.runtimes[cluster].runs.get_mut(&attempt) {
            Some(held) if !held.is_final() => *held = state.clone(),
            _ => return,
        }
        if state.is_final() {
            self.judge.hear(self.now_us, &Fact::Gone { cluster, attempt, state: &state });
        }
        self.tell_agent(cluster, attempt, state);
    }

    /// The agent hears it if it lives until then; else it finds it when it starts again.
    fn tell_agent(&mut self, cluster: usize, attempt: AttemptId, state: AttemptState) {
        let runtime = &mut self.runtimes[cluster];
        let slow = if self.dice.runtime.chance(50) { 500 * MS } else { 10 * MS };
        runtime.told_us = runtime.told_us.max(self.now_us) + self.dice.runtime.below(slow);
        let machine = &self.agents[cluster].machine;
        if self.agents[cluster].core.is_some() {
            let input = Input::Runtime { attempt, state };
            self.queue.add(runtime.told_us, Event::Agent { agent: cluster, life: machine.life, input });
        }
    }
}
