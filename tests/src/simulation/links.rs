//! Agents' sessions: connections with a stream each way, reliable and in order as long as they last. A connection that breaks
//! loses what was on its way, and its ends learn of it at different times; a blocked path stalls it until it is idle too long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use agent::cluster::Input as AgentInput;
use coordinator::replica::Input as ReplicaInput;
use coordinator::sessions::SessionId;
use protocol::control::{AgentMessage, CoordinatorMessage};
use protocol::ids::ReplicaId;

use super::clock::{MS, SECOND};
use super::process::{AGENTS, Process, REPLICAS};
use super::queue::Event;
use super::replicas::ReplicaInbox;
use super::world::World;

/// How often links are looked after.
pub(crate) const TEND_US: u64 = 250 * MS;
/// An end that hears nothing for so long closes.
const IDLE_US: u64 = 10 * SECOND;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Opening,
    Open,
    Closed,
}

struct Stream<T> {
    on_the_way: VecDeque<T>,
    last_us: u64,
    /// Messages whose time came while the path was blocked.
    stalled: usize,
}

impl<T> Stream<T> {
    fn new(opened_us: u64) -> Self {
        Self { on_the_way: VecDeque::new(), last_us: opened_us, stalled: 0 }
    }
}

/// One connection.
pub(crate) struct Link {
    agent: usize,
    replica: usize,
    lives: (u64, u64),
    ends: (End, End),
    heard_us: (u64, u64),
    up: Stream<AgentMessage>,
    down: Stream<CoordinatorMessage>,
    /// It is broken, though its ends may not know: nothing that is sent on it arrives.
    broken: bool,
}

/// All connections, by session.
#[derive(Default)]
pub(crate) struct Links {
    links: BTreeMap<u64, Link>,
    current: [[Option<u64>; REPLICAS]; AGENTS],
    /// By agent: lease requests that it made, to whom, and that are not answered as far as it knows. A paused agent learns later than the
    /// link that its connection is gone: until then answers that came before count.
    asked: [BTreeSet<(ReplicaId, u64)>; AGENTS],
    last: u64,
}

impl World {
    fn is_up(&self, process: Process) -> bool {
        match process {
            Process::Replica(n) => self.replicas[n].core.is_some(),
            Process::Agent(n) => self.agents[n].core.is_some(),
        }
    }

    fn is_awake(&self, process: Process) -> bool {
        self.is_up(process) && !self.machine(process).paused
    }

    fn connect(&mut self, agent: usize, replica: usize) {
        self.links.last += 1;
        let session = self.links.last;
        let random = &mut self.dice.network;
        let at_replica = self.now_us + 2 * MS + self.net.delay(random);
        let at_agent = at_replica + self.net.delay(random);
        let lives = (self.agents[agent].machine.life, self.replicas[replica].machine.life);
        let link = Link {
            agent,
            replica,
            lives,
            ends: (End::Opening, End::Opening),
            heard_us: (at_agent, at_replica),
            up: Stream::new(at_agent),
            down: Stream::new(at_agent),
            broken: false,
        };
        self.links.links.insert(session, link);
        self.links.current[agent][replica] = Some(session);
        self.queue.add(at_replica, Event::Opened { link: session, at_agent: false });
        self.queue.add(at_agent, Event::Opened { link: session, at_agent: true });
    }

    pub(super) fn opened(&mut self, session: u64, at_agent: bool) {
        let Some(link) = self.links.links.get_mut(&session) else { return };
        let end = if at_agent { &mut link.ends.0 } else { &mut link.ends.1 };
        if *end != End::Opening {
            return;
        }
        *end = End::Open;
        let (agent, replica, lives) = (link.agent, link.replica, link.lives);
        if at_agent {
            if self.agents[agent].machine.life == lives.0 {
                self.agent_takes(agent, AgentInput::Connected { replica: ReplicaId(replica as u64 + 1) });
            }
        } else if self.replicas[replica].machine.life == lives.1 {
            let cluster = self.agents[agent].config.cluster.name.clone();
            let input = ReplicaInput::AgentOpened(SessionId(session), cluster);
            self.replica_takes(replica, ReplicaInbox::Input(input));
        }
    }

    /// One end closes; the other learns of it in its time.
    pub(super) fn closed(&mut self, session: u64, at_agent: bool) {
        let Some(link) = self.links.links.get_mut(&session) else { return };
        let end = if at_agent { &mut link.ends.0 } else { &mut link.ends.1 };
        if *end == End::Closed {
            return;
        }
        let was_open = *end == End::Open;
        *end = End::Closed;
        let (agent, replica, lives) = (link.agent, link.replica, link.lives);
        if at_agent {
            if self.links.current[agent][replica] == Some(session) {
                self.links.current[agent][replica] = None;
            }
            if was_open && self.agents[agent].machine.life == lives.0 {
                self.agent_takes(agent, AgentInput::Disconnected { replica: ReplicaId(replica as u64 + 1) });
            }
        } else if was_open && self.replicas[replica].machine.life == lives.1 {
            self.replica_takes(replica, ReplicaInbox::Input(ReplicaInput::AgentClosed(SessionId(session))));
        }
    }

    /// An agent sends; gives the session.
    pub(super) fn send_up(&mut self, agent: usize, replica: ReplicaId, message: AgentMessage) -> Option<u64> {
        let session = self.links.current[agent][replica.0 as usize - 1]?;
        let link = self.links.links.get_mut(&session).filter(|link| link.ends.0 == End::Open)?;
        if let AgentMessage::LeaseRequest { nonce } = &message {
            self.links.asked[agent].insert((replica, *nonce));
        }
        if link.broken {
            return Some(session);
        }
        link.up.on_the_way.push_back(message);
        link.up.last_us = link.up.last_us.max(self.now_us + self.net.delay(&mut self.dice.network));
        self.queue.add(link.up.last_us, Event::Carry { link: session, up: true });
        Some(session)
    }

    /// A replica sends.
    pub(super) fn send_down(&mut self, session: SessionId, message: CoordinatorMessage) {
        let Some(link) = self.links.links.get_mut(&session.0).filter(|link| link.ends.1 == End::Open) else { return };
        if link.broken {
            return;
        }
        link.down.on_the_way.push_back(message);
        link.down.last_us = link.down.last_us.max(self.now_us + self.net.delay(&mut self.dice.network));
        self.queue.add(link.down.last_us, Event::Carry { link: session.0, up: false });
    }

    pub(super) fn carry(&mut self, session: u64, up: bool) {
        let Some(link) = self.links.links.get_mut(&session) else { return };
        let (agent, replica) = (Process::Agent(link.agent), Process::Replica(link.replica));
        if up {
            if self.net.is_blocked(agent, replica) {
                link.up.stalled += 1;
                return;
            }
            let (to, life, end) = (link.replica, link.lives.1, link.ends.1);
            let Some(message) = link.up.on_the_way.pop_front() else { return };
            if end == End::Open && self.replicas[to].machine.life == life {
                let input = ReplicaInput::Agent(SessionId(session), message);
                self.replica_takes(to, ReplicaInbox::Input(input));
            }
        } else {
            if self.net.is_blocked(replica, agent) {
                link.down.stalled += 1;
                return;
            }
            let (to, from, life, end) = (link.agent, link.replica, link.lives.0, link.ends.0);
            let Some(message) = link.down.on_the_way.pop_front() else { return };
            if end == End::Open && self.agents[to].machine.life == life {
                let replica = ReplicaId(from as u64 + 1);
                self.agent_takes(to, AgentInput::FromCoordinator { replica, message });
            }
        }
    }

    /// Whether a lease answers a request of this agent, as it knows; each counts once.
    pub(super) fn answers_request(&mut self, agent: usize, replica: ReplicaId, nonce: u64) -> bool {
        self.links.asked[agent].remove(&(replica, nonce))
    }

    /// An agent learns that what it asked a replica will not be answered.
    pub(super) fn gives_up_requests(&mut self, agent: usize, replica: ReplicaId) {
        self.links.asked[agent].retain(|(asked, _)| *asked != replica);
    }

    /// An agent begins a new life, which has asked nothing.
    pub(super) fn asked_nothing(&mut self, agent: usize) {
        self.links.asked[agent].clear();
    }

    /// Looks after all links.
    pub(super) fn tend_links(&mut self) {
        let sessions: Vec<u64> = self.links.links.keys().copied().collect();
        for session in sessions {
            self.tend(session);
        }
        for agent in 0..AGENTS {
            for replica in 0..REPLICAS {
                let (a, r) = (Process::Agent(agent), Process::Replica(replica));
                let free = self.links.current[agent][replica].is_none();
                let awake = self.is_awake(a) && self.is_awake(r);
                if free && awake && self.net.is_open_both_ways(a, r) && self.dice.network.chance(500) {
                    self.connect(agent, replica);
                }
            }
        }
        self.queue.add(self.now_us + TEND_US, Event::TendLinks);
    }

    fn tend(&mut self, session: u64) {
        self.resume_stalled(session);
        let Some(link) = self.links.links.get(&session) else { return };
        let (agent, replica) = (Process::Agent(link.agent), Process::Replica(link.replica));
        let alive = (
            self.is_up(agent) && self.machine(agent).life == link.lives.0,
            self.is_up(replica) && self.machine(replica).life == link.lives.1,
        );
        let (a, r) = (self.end_closes(session, true, alive), self.end_closes(session, false, alive));
        if a {
            self.closed(session, true);
        }
        if r {
            self.closed(session, false);
        }
        if self.links.links.get(&session).is_some_and(|link| link.ends == (End::Closed, End::Closed)) {
            self.links.links.remove(&session);
        }
    }

    /// Whether an end closes now: it is gone, it hears that the other is, or it has heard nothing for too long.
    fn end_closes(&mut self, session: u64, at_agent: bool, alive: (bool, bool)) -> bool {
        let Some(link) = self.links.links.get(&session) else { return false };
        let (agent, replica) = (Process::Agent(link.agent), Process::Replica(link.replica));
        let (me, other) = if at_agent { (agent, replica) } else { (replica, agent) };
        let (my_life, other_life) = if at_agent { alive } else { (alive.1, alive.0) };
        let (my_end, other_end) = if at_agent { link.ends } else { (link.ends.1, link.ends.0) };
        if !my_life {
            return true;
        }
        if my_end != End::Open || self.machine(me).paused {
            return false;
        }
        let path = !self.net.is_blocked(other, me);
        let hears = path && other_life && other_end != End::Closed && !self.machine(other).paused && !link.broken;
        // The other's machine answers that it knows of no such connection.
        let told = path && other_end == End::Closed && self.is_up(other) && !self.net.is_blocked(me, other);
        let now_us = self.now_us;
        let Some(link) = self.links.links.get_mut(&session) else { return false };
        let heard = if at_agent { &mut link.heard_us.0 } else { &mut link.heard_us.1 };
        if hears {
            *heard = now_us;
            return false;
        }
        now_us.saturating_sub(*heard) > IDLE_US || (told && self.dice.network.chance(400))
    }

    fn resume_stalled(&mut self, session: u64) {
        let Some(link) = self.links.links.get_mut(&session) else { return };
        let (agent, replica) = (Process::Agent(link.agent), Process::Replica(link.replica));
        if !self.net.is_blocked(agent, replica) {
            for _ in 0..std::mem::take(&mut link.up.stalled) {
                self.queue.add(self.now_us, Event::Carry { link: session, up: true });
            }
        }
        if !self.net.is_blocked(replica, agent) {
            for _ in 0..std::mem::take(&mut link.down.stalled) {
                self.queue.add(self.now_us, Event::Carry { link: session, up: false });
            }
        }
    }

    /// Connections break, each end noticing in its time; what was on its way is lost.
    pub(super) fn break_links(&mut self, per_mille: u64) {
        for (session, link) in &mut self.links.links {
            if !self.dice.faults.chance(per_mille) {
                continue;
            }
            // What is later in a stream is lost first.
            let random = &mut self.dice.faults;
            let keep_up = random.index(link.up.on_the_way.len() + 1);
            let keep_down = random.index(link.down.on_the_way.len() + 1);
            link.up.on_the_way.truncate(keep_up);
            link.down.on_the_way.truncate(keep_down);
            link.broken = true;
            for at_agent in [true, false] {
                let at = self.now_us + random.below(SECOND);
                self.queue.add(at, Event::Closed { link: *session, at_agent });
            }
        }
    }
}
