//! Coordinator replicas: the real core over the real driver and log store, on a simulated disk. Inputs that come close together
//! share a step, as in the process; a step's outputs leave once it is durable.

use std::collections::{BTreeMap, VecDeque};

use coordinator::raft::wire::{Entry, HardState};
use coordinator::raft::{Driver, DriverConfig, ElectionTimeout, Store};
use coordinator::replica::{Input, Output, PeerFrame, Replica, RequestId, Settings, command_of};
use engine::commands::Binding;
use protocol::ids::{Epoch, LogIndex, ReplicaId, UnixMs};

use super::clients::{Answer, Wish};
use super::clock::MS;
use super::facts::Fact;
use super::judge::Digest;
use super::process::{Machine, Process, REPLICAS, guarded};
use super::queue::Event;
use super::world::World;

/// A state hash is taken at every index that this divides.
const HASH_EVERY: u64 = 3;
/// How far ahead a deposed leader's planner looks: past every backoff.
const AN_HOUR_MS: u64 = 3_600_000;

/// What waits for a replica.
pub(crate) enum ReplicaInbox {
    Input(Input),
    /// A client's operation.
    Ask(u64),
}

/// How often and how soon replicas do things in a world.
pub(crate) struct ReplicaPace {
    pub snapshot_every: u64,
    pub keep_entries: u64,
    pub reclaim_after_ms: u64,
}

/// One replica's process.
pub(crate) struct ReplicaProcess {
    pub id: ReplicaId,
    pub machine: Machine,
    pub core: Option<Replica>,
    settings: Settings,
    election_seed: u64,
    flush_planned: bool,
    /// What came while it was paused.
    pub inbox: VecDeque<ReplicaInbox>,
    requests: BTreeMap<RequestId, u64>,
    next_request: u64,
    seen: Seen,
}

/// What the judge was told of its present life.
#[derive(Default)]
struct Seen {
    committed: u64,
    applied: u64,
    led: Option<Epoch>,
    reign: Option<Epoch>,
    hard: Option<HardState>,
}

/// What a leader would have bound in its epoch, had there been room.
pub(crate) struct HeldBinding {
    epoch: Epoch,
    binding: Binding,
}

/// Everything of an entry, as a number.
pub(crate) fn entry_digest(entry: &Entry) -> u64 {
    let mut digest = Digest::default();
    digest.number(entry.term);
    digest.bytes(&entry.data);
    digest.bytes(&entry.context);
    digest.0
}

impl ReplicaProcess {
    pub fn new(place: usize, machine: Machine, election_seed: u64, pace: &ReplicaPace) -> Self {
        let id = ReplicaId(place as u64 + 1);
        Store::format(machine.disk.clone(), id).expect("an empty simulated disk can be formatted");
        Self {
            id,
            machine,
            core: None,
            settings: Settings {
                snapshot_every: pace.snapshot_every,
                keep_entries: pace.keep_entries,
                reclaim_after_ms: pace.reclaim_after_ms,
                ..Settings::new(id, 0)
            },
            election_seed,
            flush_planned: false,
            inbox: VecDeque::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            seen: Seen::default(),
        }
    }

    /// Its process is gone.
    pub fn die(&mut self) {
        self.machine.disk.crash();
        let core = self.core.take();
        // redb closes the database as it goes; on a dead disk that fails, and nobody cares.
        let _ = guarded(move || drop(core));
        self.flush_planned = false;
        self.inbox.clear();
        self.requests.clear();
        self.seen = Seen::default();
    }

    fn driver_config(&self) -> DriverConfig {
        let voters = (1..=REPLICAS as u64).map(ReplicaId).collect();
        DriverConfig {
            election_timeout: ElectionTimeout::Seeded(self.election_seed),
            ..DriverConfig::new(self.id, voters)
        }
    }

    /// Opens its store and starts its core. Also what was found on the disk.
    fn open(&mut self) -> Result<(HardState, u64), String> {
        let (id, config) = (self.id, self.driver_config());
        // Tells the runs of a process apart; in the process it is random.
        let settings = Settings { boot: self.machine.life, ..self.settings.clone() };
        let disk = self.machine.disk.clone();
        let opened = guarded(move || -> Result<_, String> {
            let store = Store::open(disk, id).map_err(|e| e.to_string())?;
            let found = (store.hard_state(), store.last());
            let driver = Driver::open(config, store).map_err(|e| e.to_string())?;
            let core = Replica::open(settings, driver).map_err(|e| e.to_string())?;
            Ok((core, found))
        });
        let (core, found) = opened.and_then(|opened| opened)?;
        self.core = Some(core);
        Ok(found)
    }
}

impl World {
    /// Starts a replica. False where its disk died meanwhile.
    pub(super) fn start_replica(&mut self, replica: usize) -> bool {
        let process = Process::Replica(replica);
        match self.replicas[replica].open() {
            Ok((hard, last)) => {
                self.judge.hear(self.now_us, &Fact::Reopened { replica, hard, last });
                true
            }
            Err(_) if self.replicas[replica].machine.disk.has_crashed() || self.disk_has_failed(process) => false,
            Err(cause) => {
                self.judge.hear(self.now_us, &Fact::Died { process, cause });
                false
            }
        }
    }

    /// Something came in: taken now, or once the process goes on.
    pub(super) fn replica_takes(&mut self, replica: usize, input: ReplicaInbox) {
        let process = &mut self.replicas[replica];
        if process.core.is_none() {
            if let ReplicaInbox::Ask(operation) = input {
                self.answer(operation, Answer::Unreachable);
            }
            return;
        }
        if process.machine.paused {
            process.inbox.push_back(input);
            return;
        }
        let input = match input {
            ReplicaInbox::Input(input) => input,
            ReplicaInbox::Ask(operation) => {
                let Some(command) = self.clients.command_of(operation) else { return };
                process.next_request += 1;
                let request = RequestId(process.next_request);
                process.requests.insert(request, operation);
                match command {
                    Some(command) => Input::Propose(request, command),
                    None => Input::Read(request),
                }
            }
        };
        let now = process.machine.clock.now(self.now_us);
        let Some(core) = process.core.as_mut() else { return };
        match guarded(|| core.handle(now, input)) {
            Ok(Ok(())) => {
                self.went_on(Process::Replica(replica));
                self.plan_flush(replica);
            }
            Ok(Err(fatal)) => self.dies(Process::Replica(replica), fatal.to_string()),
            Err(panic) => self.dies(Process::Replica(replica), panic),
        }
    }

    fn plan_flush(&mut self, replica: usize) {
        let process = &mut self.replicas[replica];
        if !process.flush_planned {
            process.flush_planned = true;
            let slow = if self.dice.disk.chance(10) { 50 * MS } else { MS };
            let at = self.now_us + self.dice.disk.between(50, slow);
            self.queue.add(at, Event::Flush { replica, life: process.machine.life });
        }
    }

    pub(super) fn flush(&mut self, replica: usize, life: u64) {
        let process = &mut self.replicas[replica];
        if process.machine.life != life || process.machine.paused {
            process.flush_planned &= process.machine.life != life;
            return;
        }
        process.flush_planned = false;
        let now = process.machine.clock.now(self.now_us);
        let Some(core) = process.core.as_mut() else { return };
        match guarded(|| core.flush(now)) {
            Ok(Ok(outputs)) => {
                self.went_on(Process::Replica(replica));
                self.look_at(replica);
                self.carry_out_replica(replica, outputs);
            }
            Ok(Err(fatal)) => self.dies(Process::Replica(replica), fatal.to_string()),
            Err(panic) => self.dies(Process::Replica(replica), panic),
        }
    }

    /// Tells the judge what is new of a replica.
    fn look_at(&mut self, replica: usize) {
        let process = &mut self.replicas[replica];
        let (Some(core), seen, at) = (process.core.as_ref(), &mut process.seen, self.now_us) else { return };
        let (status, store) = (core.status(), core.driver().store());
        let hard = store.hard_state();
        if seen.hard != Some(hard) {
            seen.hard = Some(hard);
            self.judge.hear(at, &Fact::Durable { replica, hard });
        }
        let term = status.term;
        if status.leads() && seen.led != Some(term) {
            seen.led = Some(term);
            self.judge.hear(at, &Fact::Elected { replica, term: term.0, store });
        }
        let commit = core.driver().commit_index();
        if commit > seen.committed {
            for entry in store.log(seen.committed + 1, commit + 1) {
                let (index, term, digest) = (entry.index, entry.term, entry_digest(&entry));
                self.judge.hear(at, &Fact::Committed { replica, index, term, digest });
                if let Some((command, proposed)) = command_of(&entry.data) {
                    self.judge.hear(at, &Fact::Entry { index: LogIndex(index), at: proposed, command: &command });
                }
            }
            seen.committed = commit;
        }
        let applied = core.state().applied.0;
        if applied != seen.applied {
            seen.applied = applied;
            if applied.is_multiple_of(HASH_EVERY) {
                let hash = core.state_hash();
                self.judge.hear(at, &Fact::Hash { replica, index: applied, hash });
            }
        }
        let reign = core.reign();
        let begins = reign.is_some() && reign != seen.reign;
        seen.reign = reign;
        if begins && let Some(held) = self.held_binding.take_if(|held| Some(held.epoch) < reign) {
            self.begin(Wish::Late(Box::new(held.binding)), Some(replica));
        }
    }

    fn carry_out_replica(&mut self, replica: usize, outputs: Vec<Output>) {
        let life = self.replicas[replica].machine.life;
        for output in outputs {
            if self.replicas[replica].machine.life != life || self.dies_before_output(Process::Replica(replica)) {
                return;
            }
            match output {
                Output::Peer(to, frame) => self.send_peer(replica, to.0 as usize - 1, frame),
                Output::Agent(session, message) => self.send_down(session, message),
                Output::CloseAgent(session, _) => {
                    self.queue.add(self.now_us, Event::Closed { link: session.0, at_agent: false });
                }
                Output::Proposed(request, result) => {
                    if let Some(operation) = self.replicas[replica].requests.remove(&request) {
                        self.answer(operation, Answer::Proposed(result));
                    }
                }
                Output::ReadReady(request, result) => self.read_ready(replica, request, result.is_ok()),
                Output::Changed(change) => {
                    let Some(core) = self.replicas[replica].core.as_ref() else { return };
                    let fact = Fact::Applied { state: core.state(), changed: &change.workloads };
                    self.judge.hear(self.now_us, &fact);
                }
            }
        }
    }

    fn read_ready(&mut self, replica: usize, request: RequestId, served: bool) {
        let Some(operation) = self.replicas[replica].requests.remove(&request) else { return };
        if !served {
            return self.answer(operation, Answer::ReadFailed);
        }
        // The first try of a read may have been long ago; what it must see is what was acknowledged before that.
        let since_us = self.clients.operations.get(&operation).map(|operation| operation.since_us);
        if let (Some(core), Some(since_us)) = (self.replicas[replica].core.as_ref(), since_us) {
            self.judge.hear(self.now_us, &Fact::Read { since_us, state: core.state() });
        }
        self.answer(operation, Answer::ReadServed);
    }

    fn send_peer(&mut self, from: usize, to: usize, frame: PeerFrame) {
        if let PeerFrame::Raft(message) = &frame {
            self.judge.hear(self.now_us, &Fact::Says { replica: from, message });
        }
        let delays = self.net.copies(Process::Replica(from), Process::Replica(to), &mut self.dice.network);
        let (life, peer) = (self.replicas[from].machine.life, ReplicaId(to as u64 + 1));
        if frame.has_snapshot() {
            use coordinator::raft::driver::SnapshotOutcome;
            // What is lost on the way may look sent.
            let sent = !delays.is_empty() || self.dice.network.chance(300);
            let outcome = if sent { SnapshotOutcome::Sent } else { SnapshotOutcome::Failed };
            let input = Input::SnapshotSent(peer, outcome);
            self.queue.add(self.now_us + MS, Event::Own { replica: from, life, input });
        } else if delays.is_empty() && self.dice.network.chance(100) {
            let input = Input::PeerUnreachable(peer);
            self.queue.add(self.now_us + 5 * MS, Event::Own { replica: from, life, input });
        }
        for delay in delays {
            self.queue.add(self.now_us + delay, Event::Peer { from, to, frame: frame.clone() });
        }
    }

    /// Remembers what the leader's planner would bind if everything were free: what a deposed leader might say too late.
    pub(super) fn hold_binding(&mut self) {
        let leader = self.replicas.iter_mut().find(|r| r.core.as_ref().is_some_and(|core| core.reign().is_some()));
        let Some(process) = leader else { return };
        let now = process.machine.clock.now(self.now_us);
        let Some(core) = process.core.as_mut() else { return };
        let planned = core.view(now, |view| {
            let mut capacity = view.capacity.clone();
            for cluster in capacity.clusters.values_mut() {
                cluster.fresh = true;
                cluster.nodes.iter_mut().for_each(|node| node.free = node.total);
            }
            let at = UnixMs(view.state.now.0 + AN_HOUR_MS);
            engine::plan::plan(view.state, &capacity, at, 8).bindings.pop().map(|b| (view.state.epoch, b))
        });
        if let Some((epoch, binding)) = planned {
            self.held_binding = Some(HeldBinding { epoch, binding });
        }
    }
}
