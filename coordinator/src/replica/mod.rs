//! A replica's core: Raft driver, replicated state, agent sessions, fleet and planner as one step machine.
//!
//! `handle` takes an input, `flush` lets Raft make durable what is due and returns what to do, in this order: persist, send,
//! apply, effects. No thread, clock, socket or file of its own: the process (`run`) and the simulation drive the same code.

mod commit;
mod peer;
mod proposals;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use engine::commands::{Command, Outcome};
use engine::plan::LASTING_MS;
use engine::state::State;
use protocol::control::{AgentMessage, CoordinatorMessage};
use protocol::ids::{ClusterName, Epoch, LogIndex, MonotonicMs, PoolName, ReplicaId, Uid, UnixMs};

use crate::fleet::{Fleet, IntakeError};
use crate::handle::{Change, ProposeError, ReadError, ReplicaStatus, View};
use crate::planner::Planner;
use crate::raft::driver::SnapshotOutcome;
use crate::raft::{Driver, driver};
use crate::sessions::{Ask, SessionId, Sessions};

pub use peer::PeerFrame;
pub use proposals::{ProposalId, Proposals, command_of};
use reads::Reads;

/// The present, as the caller's clocks have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines.
    pub mono: MonotonicMs,
    /// For records.
    pub unix: UnixMs,
}

/// Names a request of an edge of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// One Raft tick passed (`DriverConfig::tick_ms`).
    Tick,
    /// Another replica sent this.
    Peer(ReplicaId, PeerFrame),
    /// A message to this replica could not be sent.
    PeerUnreachable(ReplicaId),
    /// A message with a snapshot was handed over, or was not.
    SnapshotSent(ReplicaId, SnapshotOutcome),
    /// An agent with this cluster's identity connected.
    AgentOpened(SessionId, ClusterName),
    /// An agent's connection ended.
    AgentClosed(SessionId),
    /// An agent sent this.
    Agent(SessionId, AgentMessage),
    /// An edge wants this committed.
    Propose(RequestId, Command),
    /// An edge wants to read all that is committed by now.
    Read(RequestId),
}

/// What a replica asks of its process.
#[derive(Debug)]
pub enum Output {
    /// Send this to another replica; may be lost.
    Peer(ReplicaId, PeerFrame),
    /// Send this to an agent, in order.
    Agent(SessionId, CoordinatorMessage),
    /// End this agent's connection.
    CloseAgent(SessionId, String),
    /// A request to commit is answered.
    Proposed(RequestId, Result<Outcome, ProposeError>),
    /// A request to read may look at the state now, or failed.
    ReadReady(RequestId, Result<(), ReadError>),
    /// The state changed.
    Changed(Change),
}

/// A replica's constants.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This replica.
    pub id: ReplicaId,
    /// Tells this run of the process from every other (random).
    pub boot: u64,
    /// How many entries may be applied before a snapshot is taken and the log cut.
    pub snapshot_every: u64,
    /// How many entries stay in the log behind a snapshot, for followers that are a little behind.
    pub keep_entries: u64,
    /// How long a request may wait for a leader or a quorum, in ms.
    pub patience_ms: u64,
    /// How long room must have been lent beyond a pool's part before it is taken back, in ms.
    pub reclaim_after_ms: u64,
}

impl Settings {
    /// Defaults for a process.
    pub fn new(id: ReplicaId, boot: u64) -> Self {
        Self { id, boot, snapshot_every: 20_000, keep_entries: 5_000, patience_ms: 2_000, reclaim_after_ms: LASTING_MS }
    }
}

/// Why a replica cannot go on. Its process ends at once: a state that may differ from the others' is never served.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Raft or its storage failed.
    #[error(transparent)]
    Raft(#[from] driver::Fatal),
    /// The log could not be cut.
    #[error(transparent)]
    Compact(#[from] driver::CompactError),
    /// A committed entry or snapshot can't be read.
    #[error("log entry {index} cannot be read: {cause}; this build may be older than the one that wrote it")]
    Unreadable {
        /// The entry.
        index: LogIndex,
        /// What the decoder said.
        cause: String,
    },
}

/// A command of a plan: until it is committed, or lost, nothing more is planned, for the next plan must see what it did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Planned {
    Bind(Uid),
    Preempt(Uid),
    Grow(Uid),
    EndIdle(Uid),
    Expire(Uid),
    RaisePool(PoolName),
    EndDrained(Uid),
}

/// What a command is to the planner; none where no plan makes it. Every command is named, so that none is forgotten.
fn planned(command: &Command) -> Option<Planned> {
    match command {
        Command::Bind(binding) => Some(Planned::Bind(binding.uid)),
        Command::Preempt(preemption) => Some(Planned::Preempt(preemption.by_uid)),
        Command::Grow(growth) => Some(Planned::Grow(growth.uid)),
        Command::EndIdle(end) => Some(Planned::EndIdle(end.uid)),
        Command::Expire { uid, .. } => Some(Planned::Expire(*uid)),
        Command::RaisePool(raising) => Some(Planned::RaisePool(raising.pool.clone())),
        Command::EndDrained(end) => Some(Planned::EndDrained(end.uid)),
        Command::OpenEpoch { .. }
        | Command::Submit { .. }
        | Command::Join { .. }
        | Command::Report { .. }
        | Command::LoseCluster { .. }
        | Command::Cancel { .. }
        | Command::Delete { .. }
        | Command::Forget { .. }
        | Command::SetPool { .. }
        | Command::DeletePool { .. }
        | Command::SetOwnershipRule { .. }
        | Command::DeleteOwnershipRule { .. }
        | Command::SetData { .. }
        | Command::DeleteData { .. }
        | Command::Cordon { .. }
        | Command::RemoveCluster { .. }
        | Command::Fence(_)
        | Command::SetTokenKey { .. } => None,
    }
}

/// One replica of the coordinator.
pub struct Replica {
    settings: Settings,
    driver: Driver,
    state: State,
    status: ReplicaStatus,
    sessions: Sessions,
    fleet: Fleet,
    planner: Planner,
    proposals: Proposals,
    reads: Reads,
    /// Set from the moment that this replica's own epoch is applied until it leads no more.
    reign: Option<Epoch>,
    /// Whether the epoch of the current leadership was proposed.
    epoch_proposed: Option<Epoch>,
    /// For whom a plan's commands were proposed that are not applied yet: no new plan before that.
    planned: BTreeSet<Planned>,
    last_snapshot: LogIndex,
    /// How large it is.
    snapshot_bytes: u64,
    outputs: Vec<Output>,
}

impl Replica {
    /// A replica over an opened driver, from the snapshot that its storage holds, if any.
    pub fn open(settings: Settings, driver: Driver) -> Result<Self, Fatal> {
        let voters = driver.config().voters.clone();
        let snapshot = driver.snapshot();
        let (state, last_snapshot) = match &snapshot {
            Some(s) => (commit::read_snapshot(LogIndex(s.index), &s.bytes)?, LogIndex(s.index)),
            None => (State::default(), LogIndex(0)),
        };
        let id = settings.id;
        let planner = Planner::new(settings.reclaim_after_ms);
        Ok(Self {
            status: ReplicaStatus {
                id,
                leader: None,
                term: Epoch(driver.role().term),
                applied: state.applied,
                committed: state.applied,
                voters,
            },
            proposals: Proposals::new(id, settings.boot),
            settings,
            driver,
            state,
            sessions: Sessions::new(id),
            fleet: Fleet::default(),
            planner,
            reads: Reads::default(),
            reign: None,
            epoch_proposed: None,
            planned: BTreeSet::new(),
            last_snapshot,
            snapshot_bytes: snapshot.map_or(0, |s| s.bytes.len() as u64),
            outputs: Vec::new(),
        })
    }

    /// Takes one input. Nothing is durable and nothing goes out before [`Replica::flush`].
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Fatal> {
        match input {
            Input::Tick => self.tick(now),
            Input::Peer(from, frame) => self.peer(now, from, frame),
            Input::PeerUnreachable(peer) => self.driver.report_unreachable(peer),
            Input::SnapshotSent(peer, outcome) => self.driver.report_snapshot(peer, outcome),
            Input::AgentOpened(session, cluster) => {
                let mut asks = self.sessions.opened(session, cluster);
                asks.extend(self.sessions.turn_away(&self.state));
                self.carry_out(now, asks);
            }
            Input::AgentClosed(session) => {
                let asks = self.sessions.closed(session);
                self.carry_out(now, asks);
            }
            Input::Agent(session, message) => {
                let asks = self.sessions.received(session, message);
                self.carry_out(now, asks);
            }
            Input::Propose(request, command) => self.propose_for(now, request, command),
            Input::Read(request) => self.read_for(now, request),
        }
        Ok(())
    }

    /// Lets Raft do what is due, applies what is committed, plans, and returns what to do.
    pub fn flush(&mut self, now: Now) -> Result<Vec<Output>, Fatal> {
        while self.ready(now)? {}
        self.plan(now);
        while self.ready(now)? {}
        self.snapshot_if_due()?;
        Ok(std::mem::take(&mut self.outputs))
    }

    fn tick(&mut self, now: Now) {
        self.driver.tick();
        self.expire(now);
        let mut asks = self.sessions.turn_away(&self.state);
        asks.extend(self.sessions.tick(&self.state, now.mono));
        self.carry_out(now, asks);
    }

    fn carry_out(&mut self, now: Now, asks: Vec<Ask>) {
        for ask in asks {
            match ask {
                Ask::Send(session, message) => self.outputs.push(Output::Agent(session, message)),
                Ask::Close(session, reason) => self.outputs.push(Output::CloseAgent(session, reason)),
                Ask::Propose(command) => self.propose_own(now, command),
                Ask::Confirm(token) => self.confirm_lease(now, token),
                Ask::Capacity(cluster, session, frame) => {
                    match self.fleet.intake(&cluster, session.0, frame, now.mono) {
                        Ok(()) => self.planner.capacity_changed(),
                        Err(IntakeError::SnapshotWanted) => {
                            self.outputs.push(Output::Agent(session, CoordinatorMessage::SnapshotWanted));
                        }
                        Err(refused) => {
                            let reason = format!("capacity of cluster {cluster} refused: {refused}");
                            self.outputs
                                .push(Output::Agent(session, CoordinatorMessage::Refused { reason: reason.clone() }));
                            self.outputs.push(Output::CloseAgent(session, reason));
                        }
                    }
                }
                Ask::ForgetCapacity(cluster, session) => self.fleet.forget_session(&cluster, session.0),
            }
        }
    }

    fn plan(&mut self, now: Now) {
        let Some(epoch) = self.reign else { return };
        if !self.planned.is_empty() {
            return;
        }
        let capacity = self.fleet.capacity(now.mono);
        let Some(commands) = self.planner.plan(&self.state, capacity, now, epoch) else { return };
        for command in commands {
            self.planned.extend(planned(&command));
            self.propose_own(now, command);
        }
    }

    /// What an edge's read sees.
    pub fn view<T>(&mut self, now: Now, look: impl FnOnce(&View<'_>) -> T) -> T {
        self.fleet.capacity(now.mono);
        look(&View {
            state: &self.state,
            capacity: self.fleet.last_capacity(),
            plan: self.planner.last_plan().filter(|_| self.reign.is_some()),
            memory: self.planner.memory(),
            fleet: Some(&self.fleet),
            status: &self.status,
            now: now.unix,
        })
    }

    /// The replicated state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// This replica's place in the coordinator cluster.
    pub fn status(&self) -> &ReplicaStatus {
        &self.status
    }

    /// Its Raft driver, to look at: for checkers.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Whether it leads and entries of its log are on their way to a quorum.
    pub fn is_replicating(&self) -> bool {
        self.status.leads() && self.driver.store().last() > self.driver.commit_index()
    }

    /// The epoch of its reign, while it reigns.
    pub fn reign(&self) -> Option<Epoch> {
        self.reign
    }

    /// The session of a cluster's agent with this replica.
    pub fn session_of(&self, cluster: &ClusterName) -> Option<SessionId> {
        self.sessions.session_of(cluster)
    }
}
