//! The runtimes: one a cluster, outliving its agent's crashes. An order that the agent gave and the runtime had not taken when
//! the agent died is never carried out; what was taken goes on without the agent, and is found again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use agent::cluster::{Assignment, Input, MemberAssignment};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, GroupName};

use super::clock::{MS, SECOND};
use super::facts::Fact;
use super::guards::Guard;
use super::process::OrderBoundary;
use super::queue::Event;
use super::world::World;

/// A member of an attempt: its group and rank.
pub(crate) type Name = (GroupName, u32);

fn name(member: &MemberAssignment) -> Name {
    (member.group.clone(), member.rank)
}

/// What an agent asks of its runtime.
pub(crate) enum RuntimeOrder {
    Start(Box<LaunchOrder>, Assignment),
    Resize(Box<LaunchOrder>, Assignment, Vec<MemberAssignment>, u64),
    Stop(AttemptId, u64),
    /// Until this moment in virtual time.
    LetGoOn(AttemptId, u64),
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
    /// The members of what is alive that are there, by group and rank, and those that were there, or never came.
    members: BTreeMap<AttemptId, (BTreeSet<Name>, BTreeSet<Name>)>,
    /// Stopped before they came: never to be started.
    revoked: BTreeSet<AttemptId>,
    /// Of what ends itself.
    pub guards: BTreeMap<AttemptId, Guard>,
}

impl Runtime {
    /// Its agent died: what it had not taken never happens.
    pub fn agent_died(&mut self) {
        self.orders.clear();
    }

    /// Its machine is gone; returns what was alive on it.
    pub fn vanish(&mut self) -> Vec<AttemptId> {
        let alive = self.live().collect();
        (self.orders, self.runs, self.members, self.revoked, self.guards) = Default::default();
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

pub(super) fn failed(class: FailureClass, message: &str) -> AttemptState {
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
            Some(RuntimeOrder::Resize(order, assignment, leaving, grace_ms)) => {
                self.take_resize(cluster, &order, &assignment, &leaving, grace_ms);
            }
            Some(RuntimeOrder::Stop(attempt, grace_ms)) => self.take_stop(cluster, attempt, grace_ms),
            Some(RuntimeOrder::LetGoOn(attempt, until_us)) => return self.take_leave(cluster, attempt, until_us),
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
        let members = assignment.members.iter().map(name).collect();
        self.runtimes[cluster].members.insert(attempt, (members, BTreeSet::new()));
        match order.spec.fence() {
            Some(after) => self.guard(cluster, attempt, after.0),
            None => self.begin_run(cluster, attempt),
        }
    }

    /// What was taken begins to run.
    pub(super) fn begin_run(&mut self, cluster: usize, attempt: AttemptId) {
        self.judge.hear(self.now_us, &Fact::Begun { cluster, attempt });
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

    /// New members come, at once or never; those that leave go within their grace. What is known already is said again.
    fn take_resize(
        &mut self,
        cluster: usize,
        order: &LaunchOrder,
        assignment: &Assignment,
        leaving: &[MemberAssignment],
        grace_ms: u64,
    ) {
        let attempt = order.attempt;
        if self.runtimes[cluster].live().all(|live| live != attempt) {
            return;
        }
        let (there, gone) = self.runtimes[cluster].members.entry(attempt).or_default();
        let new: Vec<MemberAssignment> =
            assignment.members.iter().filter(|m| !gone.contains(&name(m))).cloned().collect();
        let new: Vec<MemberAssignment> = new.into_iter().filter(|m| there.insert(name(m))).collect();
        let known: Vec<Name> = gone.iter().cloned().collect();
        let never: Vec<Name> = leaving.iter().map(name).filter(|name| !there.contains(name)).collect();
        gone.extend(never.iter().cloned());
        if !new.is_empty() {
            self.judge.hear(self.now_us, &Fact::MembersCame { cluster, order, assignment, members: &new });
        }
        self.tell_of_members(cluster, attempt, known.into_iter().chain(never).collect());
        let dies = new.iter().filter(|_| self.dice.runtime.chance(100)).map(name).collect::<Vec<_>>();
        for member in leaving.iter().map(name).chain(dies) {
            let at = self.now_us + self.dice.runtime.below(grace_ms.clamp(1, 3_000) * MS);
            self.queue.add(at, Event::MemberEnds { cluster, attempt, member });
        }
    }

    /// A member is gone, unless it was before.
    pub(super) fn member_ends(&mut self, cluster: usize, attempt: AttemptId, member: Name) {
        let runtime = &mut self.runtimes[cluster];
        let lives = runtime.runs.get(&attempt).is_some_and(|state| !state.is_final());
        let Some((there, gone)) = runtime.members.get_mut(&attempt).filter(|_| lives) else { return };
        if there.remove(&member) {
            gone.insert(member.clone());
            self.judge.hear(self.now_us, &Fact::MemberGone { cluster, attempt, member: &member });
        }
        self.tell_of_members(cluster, attempt, vec![member]);
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
            self.runtimes[cluster].guards.remove(&attempt);
            self.judge.hear(self.now_us, &Fact::Gone { cluster, attempt, state: &state });
        }
        self.tell_agent(cluster, attempt, state);
    }

    fn tell_agent(&mut self, cluster: usize, attempt: AttemptId, state: AttemptState) {
        self.tell(cluster, Input::Runtime { attempt, state });
    }

    fn tell_of_members(&mut self, cluster: usize, attempt: AttemptId, gone: Vec<Name>) {
        if !gone.is_empty() {
            self.tell(cluster, Input::Members { attempt, gone });
        }
    }

    /// The agent hears it if it lives until then; else it finds it when it starts again.
    fn tell(&mut self, cluster: usize, input: Input) {
        let runtime = &mut self.runtimes[cluster];
        let slow = if self.dice.runtime.chance(50) { 500 * MS } else { 10 * MS };
        runtime.told_us = runtime.told_us.max(self.now_us) + self.dice.runtime.below(slow);
        let machine = &self.agents[cluster].machine;
        if self.agents[cluster].core.is_some() {
            self.queue.add(runtime.told_us, Event::Agent { agent: cluster, life: machine.life, input });
        }
    }
}
