//! Agents: the real cluster role over the real journal on a simulated disk, stepped by what comes in and every 50 ms.

use std::collections::VecDeque;

use agent::cluster::{Agent, AgentConfig, Input, Journal, Output};
use protocol::control::{AgentMessage, AttemptState, CoordinatorMessage, Order};
use protocol::ids::{AttemptId, CommandNumber, Epoch, Incarnation, ReplicaId};

use super::clock::Clock;
use super::facts::Fact;
use super::process::{Machine, OrderBoundary, Process, guarded};
use super::runtime::RuntimeOrder;
use super::world::World;

/// One agent's process.
pub(crate) struct AgentProcess {
    pub machine: Machine,
    pub core: Option<Agent>,
    pub config: AgentConfig,
    pub incarnation: Incarnation,
    /// What came while it was paused.
    pub inbox: VecDeque<Input>,
}

/// What an agent heard that counts as a leader's word.
struct Heard {
    replica: ReplicaId,
    epoch: Epoch,
    command: Option<(CommandNumber, Order)>,
}

/// Opens a journal and the role on it.
pub(crate) fn open(
    disk: coordinator::raft::SimDisk,
    incarnation: Incarnation,
    config: &AgentConfig,
    recovered: Vec<(AttemptId, AttemptState)>,
    clock: Clock,
    at_us: u64,
) -> Result<(Agent, Vec<Output>), String> {
    let config = config.clone();
    let opened = guarded(move || -> Result<_, String> {
        let journal = Journal::open(disk, incarnation).map_err(|e| e.to_string())?;
        let (mono, unix) = (clock.mono(at_us), clock.unix(at_us));
        Agent::open(journal, config, recovered, mono, unix).map_err(|e| e.to_string())
    });
    opened.and_then(|opened| opened)
}

impl AgentProcess {
    /// Its process is gone.
    pub fn die(&mut self) {
        self.machine.disk.crash();
        let core = self.core.take();
        // redb closes the database as it goes; on a dead disk that fails, and nobody cares.
        let _ = guarded(move || drop(core));
        self.inbox.clear();
    }
}

impl World {
    /// Starts an agent. False where its disk died meanwhile.
    pub(super) fn start_agent(&mut self, agent: usize) -> bool {
        let recovered = self.runtimes[agent].recover();
        let process = &mut self.agents[agent];
        let (disk, clock) = (process.machine.disk.clone(), process.machine.clock);
        match open(disk, process.incarnation, &process.config, recovered, clock, self.now_us) {
            Ok((core, outputs)) => {
                process.core = Some(core);
                self.asked_nothing(agent);
                self.carry_out_agent(agent, outputs);
                true
            }
            Err(_) if process.machine.disk.has_crashed() || self.disk_has_failed(Process::Agent(agent)) => false,
            Err(cause) => {
                self.judge.hear(self.now_us, &Fact::Died { process: Process::Agent(agent), cause });
                false
            }
        }
    }

    /// Something came in: taken now, or once the process goes on.
    pub(super) fn agent_takes(&mut self, agent: usize, input: Input) {
        let process = &mut self.agents[agent];
        if process.machine.paused {
            process.inbox.push_back(input);
            return;
        }
        let heard = self.heard(agent, &input);
        let process = &mut self.agents[agent];
        let (clock, at_us) = (process.machine.clock, self.now_us);
        let Some(core) = process.core.as_mut() else { return };
        match guarded(|| core.step(clock.mono(at_us), clock.unix(at_us), input)) {
            Ok(Ok(outputs)) => {
                let leader = core.leader();
                if let Some(Heard { replica, epoch, command }) = &heard {
                    let command = command.as_ref().map(|(number, order)| (*number, order));
                    let (replica, epoch) = (*replica, *epoch);
                    self.judge.hear(at_us, &Fact::AgentHeard { agent, replica, epoch, command });
                }
                self.judge.hear(at_us, &Fact::AgentFollows { agent, leader });
                self.went_on(Process::Agent(agent));
                self.carry_out_agent(agent, outputs);
            }
            Ok(Err(error)) => self.dies(Process::Agent(agent), error.to_string()),
            Err(panic) => self.dies(Process::Agent(agent), panic),
        }
    }

    fn heard(&mut self, agent: usize, input: &Input) -> Option<Heard> {
        match input {
            Input::FromCoordinator { replica, message: CoordinatorMessage::Command { number, epoch, order } } => {
                Some(Heard { replica: *replica, epoch: *epoch, command: Some((*number, order.clone())) })
            }
            Input::FromCoordinator { replica, message: CoordinatorMessage::Lease { nonce, epoch, .. } } => {
                let answers = self.answers_request(agent, *replica, *nonce);
                answers.then_some(Heard { replica: *replica, epoch: *epoch, command: None })
            }
            Input::Disconnected { replica } => {
                self.gives_up_requests(agent, *replica);
                None
            }
            _ => None,
        }
    }

    fn carry_out_agent(&mut self, agent: usize, outputs: Vec<Output>) {
        let life = self.agents[agent].machine.life;
        for output in outputs {
            if self.agents[agent].machine.life != life || self.dies_before_output(Process::Agent(agent)) {
                return;
            }
            match output {
                Output::Send { replica, message } => {
                    let said = match &message {
                        AgentMessage::LeaseRequest { .. } => None,
                        message => Some(message.clone()),
                    };
                    let session = self.send_up(agent, replica, message);
                    if let (Some(message), Some(session)) = (said, session) {
                        self.judge.hear(self.now_us, &Fact::AgentSays { agent, session, message: &message });
                    }
                }
                Output::Start { order, assignment, .. } => {
                    let attempt = order.attempt;
                    self.judge.hear(self.now_us, &Fact::StartOrdered { agent, attempt });
                    if self.dies_at_order(agent, OrderBoundary::BeforeGiven) {
                        return;
                    }
                    self.give_order(agent, RuntimeOrder::Start(order, assignment));
                }
                Output::Resize { order, assignment, leaving, grace_ms } => {
                    if self.dies_at_order(agent, OrderBoundary::BeforeGiven) {
                        return;
                    }
                    self.give_order(agent, RuntimeOrder::Resize(order, assignment, leaving, grace_ms));
                }
                Output::Stop { attempt, grace_ms } => {
                    self.judge.hear(self.now_us, &Fact::StopOrdered { agent, attempt });
                    if self.dies_at_order(agent, OrderBoundary::BeforeGiven) {
                        return;
                    }
                    self.give_order(agent, RuntimeOrder::Stop(attempt, grace_ms));
                }
                Output::LetGoOn { attempt, until } => {
                    let until_us = self.in_virtual_time(agent, until);
                    self.give_order(agent, RuntimeOrder::LetGoOn(attempt, until_us));
                }
                Output::Forget { attempt } => self.give_order(agent, RuntimeOrder::Forget(attempt)),
                // No node role here: nodes are declared.
                Output::WantFullFrame { .. } | Output::EndNode { .. } => {}
            }
        }
    }
}
