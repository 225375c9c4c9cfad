//! Agent sessions as a step machine: who is connected, who has joined in this epoch, who holds a lease.
//!
//! Owns no socket and no clock; the replica's core feeds it messages and carries out what it answers. Any replica keeps
//! sessions (for capacity); only the leader joins clusters, grants leases, sends commands and declares clusters lost.

mod fences;
mod leases;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use engine::commands::{Command, Refusal};
use engine::effects::Effect;
use engine::state::State;
use protocol::capacity::CapacityFrame;
use protocol::control::{AgentMessage, AttemptReport, ClusterInfo, CoordinatorMessage};
use protocol::ids::{AttemptId, ClusterName, CommandNumber, Epoch, Incarnation, MonotonicMs, ReplicaId};

use fences::Fences;
pub use leases::{LEASE_MS, Leases};

/// Names one connection of one agent to this replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What the sessions ask of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Send this.
    Send(SessionId, CoordinatorMessage),
    /// End this session for this reason.
    Close(SessionId, String),
    /// Commit this (leader only).
    Propose(Command),
    /// Have a quorum confirm that this replica leads, then call [`Sessions::leadership_confirmed`] with this token.
    Confirm(u64),
    /// Take this frame in.
    Capacity(ClusterName, SessionId, CapacityFrame),
    /// This session's capacity only ages from now on.
    ForgetCapacity(ClusterName, SessionId),
}

/// An agent's greeting.
#[derive(Debug, Clone)]
struct Hello {
    info: ClusterInfo,
    incarnation: Incarnation,
    last_command: CommandNumber,
    attempts: Vec<AttemptReport>,
}

#[derive(Debug)]
struct Session {
    cluster: ClusterName,
    hello: Option<Hello>,
    /// Whether a join was proposed since the last hello of this reign.
    join_proposed: bool,
    /// Whether that join is committed: from then on commands flow.
    joined: bool,
    /// The highest command sent since it joined; the stream keeps order, so nothing below it goes again.
    sent: CommandNumber,
}

/// All sessions of this replica.
#[derive(Debug)]
pub struct Sessions {
    replica: ReplicaId,
    sessions: BTreeMap<SessionId, Session>,
    /// The newest session of each cluster: an identity has one.
    current: BTreeMap<ClusterName, SessionId>,
    leases: Leases,
    fences: Fences,
    /// The epoch of this replica's reign, while it reigns.
    reign: Option<Epoch>,
    /// Reports that were proposed in this reign and are not committed yet, with their revision.
    proposed: BTreeMap<AttemptId, u64>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            sessions: BTreeMap::new(),
            current: BTreeMap::new(),
            leases: Leases::default(),
            fences: Fences::default(),
            reign: None,
            proposed: BTreeMap::new(),
        }
    }

    /// This replica's epoch is open: it may act as leader. Agents are asked what they hold now.
    pub fn begin_reign(&mut self, epoch: Epoch, now: MonotonicMs) -> Vec<Ask> {
        self.reign = Some(epoch);
        self.proposed.clear();
        self.leases.begin_reign(now);
        self.fences.forget();
        let mut asks = Vec::new();
        for (id, session) in &mut self.sessions {
            session.reset();
            // What was said to a follower may be old by now; the fresh hello makes the join.
            if session.hello.take().is_some() {
                asks.push(Ask::Send(*id, CoordinatorMessage::HelloWanted));
            }
        }
        asks
    }

    /// This replica leads no more.
    pub fn end_reign(&mut self) {
        self.reign = None;
        self.proposed.clear();
        self.leases.end_reign();
        self.fences.forget();
        self.sessions.values_mut().for_each(Session::reset);
    }

    /// An agent with the identity of `cluster` connected.
    pub fn opened(&mut self, id: SessionId, cluster: ClusterName) -> Vec<Ask> {
        let mut asks = Vec::new();
        if let Some(older) = self.current.insert(cluster.clone(), id) {
            asks.extend(self.closed(older));
            self.current.insert(cluster.clone(), id);
            asks.push(Ask::Close(older, format!("a newer session of cluster {cluster} took over")));
        }
        self.sessions
            .insert(id, Session { cluster, hello: None, join_proposed: false, joined: false, sent: CommandNumber(0) });
        asks
    }

    /// A connection ended.
    pub fn closed(&mut self, id: SessionId) -> Vec<Ask> {
        let Some(session) = self.sessions.remove(&id) else { return vec![] };
        if self.current.get(&session.cluster) == Some(&id) {
            self.current.remove(&session.cluster);
        }
        self.leases.forget_session(id);
        vec![Ask::ForgetCapacity(session.cluster, id)]
    }

    /// Agents of clusters that were removed are told so, and their sessions end.
    pub fn turn_away(&mut self, state: &State) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (cluster, removal) in state.removed.iter().filter(|(_, removal)| !removal.readmitted) {
            let Some(id) = self.current.get(cluster).copied() else { continue };
            let refusal = Refusal::ClusterRemoved { cluster: cluster.clone(), reason: removal.reason.clone() };
            let reason = refusal.to_string();
            asks.extend(self.closed(id));
            asks.push(Ask::Send(id, CoordinatorMessage::Refused { reason: reason.clone() }));
            asks.push(Ask::Close(id, reason));
        }
        asks
    }

    /// A message came in on a session.
    pub fn received(&mut self, id: SessionId, message: AgentMessage) -> Vec<Ask> {
        let Some(session) = self.sessions.get_mut(&id) else { return vec![] };
        match message {
            AgentMessage::Hello { cluster, incarnation, last_command, attempts } => {
                if cluster.name != session.cluster {
                    let reason = format!(
                        "this agent says it is cluster {}, but its certificate is for cluster {}: start it with the \
                         certificate of its own cluster",
                        cluster.name, session.cluster
                    );
                    return vec![
                        Ask::Send(id, CoordinatorMessage::Refused { reason: reason.clone() }),
                        Ask::Close(id, reason),
                    ];
                }
                session.hello = Some(Hello { info: cluster, incarnation, last_command, attempts });
                session.reset();
                let mut asks = vec![Ask::Send(id, CoordinatorMessage::Welcome { replica: self.replica })];
                asks.extend(self.propose_join(id));
                asks
            }
            AgentMessage::LeaseRequest { nonce } => {
                if self.reign.is_none() || session.hello.is_none() {
                    return vec![];
                }
                vec![Ask::Confirm(self.leases.requested(id, nonce))]
            }
            AgentMessage::Report(report) => {
                if self.reign.is_none() || !session.joined {
                    // The agent sends it again to whoever leads.
                    return vec![];
                }
                let proposed = self.proposed.entry(report.attempt).or_default();
                if report.revision <= *proposed {
                    return vec![];
                }
                *proposed = report.revision;
                vec![Ask::Propose(Command::Report { cluster: session.cluster.clone(), report })]
            }
            AgentMessage::Capacity(frame) => vec![Ask::Capacity(session.cluster.clone(), id, frame)],
        }
    }

    fn propose_join(&mut self, id: SessionId) -> Option<Ask> {
        self.reign?;
        let session = self.sessions.get_mut(&id)?;
        let hello = session.hello.as_ref().filter(|_| !session.join_proposed)?;
        session.join_proposed = true;
        Some(Ask::Propose(Command::Join {
            info: hello.info.clone(),
            incarnation: hello.incarnation,
            last_command: hello.last_command,
            attempts: hello.attempts.clone(),
        }))
    }

    /// A quorum has confirmed that this replica leads, as of after [`Ask::Confirm`] with this token.
    pub fn leadership_confirmed(&mut self, token: u64, state: &State, now: MonotonicMs) -> Vec<Ask> {
        let Some(epoch) = self.reign else { return vec![] };
        let Some((id, nonce)) = self.leases.confirmed(token) else { return vec![] };
        let Some(session) = self.sessions.get(&id) else { return vec![] };
        self.leases.granted(session.cluster.clone(), now);
        let life = session.hello.as_ref().map(|hello| hello.incarnation);
        let attempts = life.map(|life| self.fences.let_go_on(state, &session.cluster, life, now)).unwrap_or_default();
        vec![Ask::Send(id, CoordinatorMessage::Lease { nonce, epoch, ttl_ms: LEASE_MS, attempts })]
    }

    /// The confirmation with this token came to nothing; the agents ask again.
    pub fn confirmation_failed(&mut self, token: u64) {
        self.leases.confirmed(token);
    }

    /// A command of this reign was committed: its effects go out.
    pub fn committed(&mut self, command: &Command, effects: Vec<Effect>) -> Vec<Ask> {
        if self.reign.is_none() {
            return vec![];
        }
        match command {
            Command::Join { info, .. } => {
                if let Some(session) = self.current.get(&info.name).and_then(|id| self.sessions.get_mut(id)) {
                    session.joined = session.join_proposed;
                    session.sent = CommandNumber(0);
                }
            }
            Command::Report { report, .. }
                if self.proposed.get(&report.attempt).is_some_and(|r| *r <= report.revision) =>
            {
                self.proposed.remove(&report.attempt);
            }
            Command::Fence(fence) => self.fences.settled(fence),
            _ => {}
        }
        effects.into_iter().filter_map(|effect| self.send(effect)).collect()
    }

    fn send(&mut self, effect: Effect) -> Option<Ask> {
        let epoch = self.reign?;
        let cluster = match &effect {
            Effect::Command { cluster, .. } | Effect::ReportCommitted { cluster, .. } => cluster,
        };
        let id = *self.current.get(cluster)?;
        let session = self.sessions.get_mut(&id).filter(|s| s.joined)?;
        match effect {
            Effect::Command { number, order, .. } => {
                if number <= session.sent {
                    return None;
                }
                session.sent = number;
                Some(Ask::Send(id, CoordinatorMessage::Command { number, epoch, order }))
            }
            Effect::ReportCommitted { attempt, revision, .. } => {
                Some(Ask::Send(id, CoordinatorMessage::ReportCommitted { attempt, revision }))
            }
        }
    }

    /// A proposal of these sessions was refused or dropped by Raft: it is made again when the agent speaks next.
    pub fn proposal_lost(&mut self, command: &Command) {
        match command {
            Command::Join { info, .. } => {
                if let Some(session) = self.current.get(&info.name).and_then(|id| self.sessions.get_mut(id)) {
                    session.join_proposed = false;
                }
            }
            Command::Report { report, .. } => {
                self.proposed.remove(&report.attempt);
            }
            Command::LoseCluster { cluster } => self.leases.undeclare(cluster),
            Command::Fence(fence) => self.fences.settled(fence),
            _ => {}
        }
    }

    /// Time passed: joins that were lost are proposed again, clusters without a lease are declared lost, attempts that have ended
    /// themselves are taken for gone, and clusters that are back on an open session are joined again.
    pub fn tick(&mut self, state: &State, now: MonotonicMs) -> Vec<Ask> {
        let Some(epoch) = self.reign else { return vec![] };
        let mut asks: Vec<Ask> = self.fences.passed(state, epoch, now).into_iter().map(Ask::Propose).collect();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            asks.extend(self.propose_join(id));
        }
        for (name, cluster) in &state.clusters {
            let lapsed = self.leases.lapsed(name, now);
            if lapsed && cluster.lost_since.is_none() && self.leases.declare_lost(name) {
                asks.push(Ask::Propose(Command::LoseCluster { cluster: name.clone() }));
            } else if !lapsed && cluster.lost_since.is_some() {
                // Its lease runs again on a session that never broke: what it holds is asked for anew.
                if let Some(id) = self.current.get(name)
                    && let Some(session) = self.sessions.get_mut(id)
                    && session.joined
                {
                    session.reset();
                    session.hello = None;
                    asks.push(Ask::Send(*id, CoordinatorMessage::HelloWanted));
                }
            }
        }
        asks
    }

    /// Whether this cluster's agent is connected here and has joined in this reign.
    pub fn is_joined(&self, cluster: &ClusterName) -> bool {
        self.current.get(cluster).and_then(|id| self.sessions.get(id)).is_some_and(|s| s.joined)
    }

    /// The session of a cluster, if its agent is connected here.
    pub fn session_of(&self, cluster: &ClusterName) -> Option<SessionId> {
        self.current.get(cluster).copied()
    }
}

impl Session {
    /// Back to "has not joined": commands stop until the next join.
    fn reset(&mut self) {
        self.join_proposed = false;
        self.joined = false;
        self.sent = CommandNumber(0);
    }
}
