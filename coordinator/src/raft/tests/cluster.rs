//! Replicas on simulated disks, linked in memory and in virtual time, with the checks that must always hold.
//!
//! Every replica applies what it is given to a list; the list is its state, and its snapshot.

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::raft::driver::{
    Committed, Driver, DriverConfig, ElectionTimeout, Fatal, ReadError, Ready, Role, SnapshotOutcome,
};
use crate::raft::wire::{MessageKind, PeerMessage};

/// A replica's applied state: (index, payload) of every entry that had one.
pub type Applied = Vec<(u64, String)>;

fn to_bytes(applied: &Applied) -> Vec<u8> {
    applied.iter().map(|(index, payload)| format!("{index} {payload}\n")).collect::<String>().into_bytes()
}

fn from_bytes(bytes: &[u8]) -> Applied {
    let line = |line: &str| {
        let (index, payload) = line.split_once(' ').unwrap();
        (index.parse().unwrap(), payload.to_owned())
    };
    std::str::from_utf8(bytes).unwrap().lines().map(line).collect()
}

/// A running replica.
pub struct Replica {
    pub driver: Driver,
    pub applied_index: u64,
    pub applied: Applied,
    pub reads: Vec<(u64, u64)>,
    pub failed_reads: Vec<u64>,
    pub own: Vec<u64>,
    pub installed: usize,
}

pub struct Cluster {
    configs: BTreeMap<ReplicaId, DriverConfig>,
    disks: BTreeMap<ReplicaId, SimDisk>,
    pub up: BTreeMap<ReplicaId, Replica>,
    /// In the order in which they were sent.
    pub network: VecDeque<PeerMessage>,
    /// Pairs between which nothing arrives.
    pub cut: Vec<(ReplicaId, ReplicaId)>,
    /// Who led in which term: one at most.
    pub leaders: BTreeMap<u64, ReplicaId>,
    /// What was committed at each index, by anyone, at any time.
    history: BTreeMap<u64, (u64, bytes::Bytes)>,
    /// What each read must see at least: everything that anyone had applied when it was asked.
    floors: BTreeMap<(ReplicaId, u64), u64>,
    /// What happened, for people.
    pub story: Vec<String>,
    /// Whether the story has each message that arrives.
    pub tell_messages: bool,
}

pub fn id(n: u64) -> ReplicaId {
    ReplicaId(n)
}

/// A message of this kind that says nothing, from and to nobody.
pub fn bare(kind: MessageKind) -> PeerMessage {
    PeerMessage {
        kind,
        from: id(0),
        to: id(0),
        term: 0,
        log_term: 0,
        index: 0,
        entries: vec![],
        commit: 0,
        commit_term: 0,
        snapshot: None,
        request_snapshot: 0,
        reject: false,
        reject_hint: 0,
        context: vec![],
        priority: 0,
    }
}

impl Cluster {
    /// Replicas 1 to `n`. Where `seed` is none, replica 1 campaigns first, then 2.
    pub fn new(n: u64, seed: Option<u64>) -> Self {
        let voters: Vec<_> = (1..=n).map(ReplicaId).collect();
        let mut cluster = Self {
            configs: BTreeMap::new(),
            disks: BTreeMap::new(),
            up: BTreeMap::new(),
            network: VecDeque::new(),
            cut: Vec::new(),
            leaders: BTreeMap::new(),
            history: BTreeMap::new(),
            floors: BTreeMap::new(),
            story: Vec::new(),
            tell_messages: false,
        };
        for voter in voters.clone() {
            let mut config = DriverConfig::new(voter, voters.clone());
            config.election_ticks = 10;
            config.election_timeout =
                seed.map_or(ElectionTimeout::Fixed(10 + 2 * voter.0 as usize), ElectionTimeout::Seeded);
            cluster.configs.insert(voter, config);
            cluster.disks.insert(voter, formatted(voter));
            cluster.start(voter).unwrap();
        }
        cluster
    }

    pub fn disk(&self, id: ReplicaId) -> &SimDisk {
        &self.disks[&id]
    }

    /// Starts a replica on its disk.
    pub fn start(&mut self, id: ReplicaId) -> Result<(), String> {
        let store = Store::open(self.disks[&id].clone(), id).map_err(|e| e.to_string())?;
        let driver = Driver::open(self.configs[&id].clone(), store).map_err(|e| e.to_string())?;
        let (applied_index, applied) =
            driver.snapshot().map_or((0, vec![]), |snapshot| (snapshot.index, from_bytes(&snapshot.bytes)));
        let (reads, failed_reads, own) = (vec![], vec![], vec![]);
        self.up.insert(id, Replica { driver, applied_index, applied, reads, failed_reads, own, installed: 0 });
        Ok(())
    }

    /// Stops a replica as kill -9 does, or a loss of power that `fate` describes.
    pub fn crash(&mut self, id: ReplicaId, fate: impl FnMut(crate::raft::disk::Piece) -> crate::raft::disk::Fate) {
        let after = self.disks[&id].after_crash(fate);
        self.story.push(format!("{id} crashes"));
        self.up.remove(&id);
        self.disks.insert(id, after);
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        let leads = |replica: &&Replica| replica.driver.role().is_self_leader;
        let newest = self.up.values().filter(leads).max_by_key(|replica| replica.driver.role().term)?;
        Some(newest.driver.config().id)
    }

    /// Does what is to do on one replica: persist, send, apply. Err where its disk has died.
    pub fn step(&mut self, id: ReplicaId) -> Result<bool, Fatal> {
        let Some(replica) = self.up.get_mut(&id) else { return Ok(false) };
        let Some(mut step) = replica.driver.begin()? else { return Ok(false) };
        let early = step.take_early_messages();
        // On their way, whatever becomes of the disk.
        self.network.extend(early.iter().map(|(_, message)| message.clone()));
        let ready = step.persist()?;
        self.report_snapshots(id, &early);
        self.handle(id, ready);
        Ok(true)
    }

    fn report_snapshots(&mut self, from: ReplicaId, messages: &[(ReplicaId, PeerMessage)]) {
        for (to, message) in messages {
            assert_eq!((*to, from), (message.to, message.from));
            if message.kind == MessageKind::Snapshot {
                self.up.get_mut(&from).unwrap().driver.report_snapshot(*to, SnapshotOutcome::Sent);
            }
        }
    }

    fn handle(&mut self, id: ReplicaId, ready: Ready) {
        self.report_snapshots(id, &ready.messages);
        self.network.extend(ready.messages.into_iter().map(|(_, message)| message));
        if let Some(role) = ready.role {
            self.note_role(id, role);
        }
        let replica = self.up.get_mut(&id).unwrap();
        if let Some(snapshot) = ready.installed_snapshot {
            assert!(snapshot.index > replica.applied_index);
            replica.applied_index = snapshot.index;
            replica.applied = from_bytes(&snapshot.bytes);
            replica.installed += 1;
            self.story.push(format!("{id} installs the snapshot at {}", snapshot.index));
        }
        for committed in ready.committed {
            let replica = self.up.get_mut(&id).unwrap();
            assert_eq!(committed.index, replica.applied_index + 1, "applied in order, once");
            replica.applied_index = committed.index;
            replica.own.extend(committed.own);
            if !committed.payload.is_empty() {
                replica.applied.push((committed.index, String::from_utf8(committed.payload.to_vec()).unwrap()));
            }
            self.note_commit(id, committed);
        }
        let replica = self.up.get_mut(&id).unwrap();
        for (read, index) in &ready.reads {
            let floor = self.floors.get(&(id, *read)).copied().unwrap_or(0);
            assert!(*index >= floor, "read {read} on {id} is from {index} and must see {floor}");
            self.story.push(format!("{id} may serve read {read} from {index}"));
        }
        self.story.extend(ready.failed_reads.iter().map(|read| format!("{id} has no index for read {read}")));
        replica.reads.extend(ready.reads);
        replica.failed_reads.extend(ready.failed_reads);
    }

    /// Election safety: one leader a term.
    fn note_role(&mut self, id: ReplicaId, role: Role) {
        if role.is_self_leader {
            let first = *self.leaders.entry(role.term).or_insert(id);
            assert_eq!(first, id, "two leaders in term {}", role.term);
        }
        let leader = role.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
        self.story.push(
            format!("{id} follows {leader} in term {}", role.term)
                .replace(&format!("{id} follows {id} "), &format!("{id} leads ")),
        );
    }

    /// State machine safety: nobody ever commits something else at an index.
    fn note_commit(&mut self, id: ReplicaId, committed: Committed) {
        let entry = (committed.term, committed.payload.clone());
        let first = self.history.entry(committed.index).or_insert_with(|| entry.clone());
        assert_eq!(*first, entry, "replica {id} at index {}", committed.index);
        let payload = String::from_utf8_lossy(&committed.payload).into_owned();
        self.story.push(format!("{id} applies {} {payload:?} of term {}", committed.index, committed.term));
    }

    /// Delivers the next message, or loses it where the link is cut or the replica is down.
    pub fn deliver(&mut self) -> bool {
        let Some(message) = self.network.pop_front() else { return false };
        if !self.cut.contains(&(message.from, message.to))
            && let Some(replica) = self.up.get_mut(&message.to)
        {
            if self.tell_messages {
                self.story.push(describe(&message));
            }
            replica.driver.receive(message.from, message).unwrap();
        }
        true
    }

    /// Steps and delivers until nothing is left to do. A replica whose disk dies is taken down.
    pub fn settle(&mut self) {
        loop {
            let mut busy = false;
            for id in self.configs.keys().copied().collect::<Vec<_>>() {
                match self.step(id) {
                    Ok(did) => busy |= did,
                    Err(_) => {
                        assert!(self.disk(id).has_crashed());
                        self.up.remove(&id);
                    }
                }
            }
            while self.deliver() {
                busy = true;
            }
            if !busy {
                return;
            }
        }
    }

    pub fn tick(&mut self) {
        for replica in self.up.values_mut() {
            replica.driver.tick();
        }
        self.settle();
    }

    pub fn ticks(&mut self, n: usize) {
        for _ in 0..n {
            self.tick();
        }
    }

    /// Ticks until one replica leads that all others that are up follow.
    pub fn elect(&mut self) -> ReplicaId {
        for _ in 0..200 {
            if let Some(leader) = self.leader()
                && self.up.values().all(|replica| {
                    replica.driver.role().leader == Some(leader)
                        || self.cut.iter().any(|(_, to)| *to == replica.driver.config().id)
                })
            {
                return leader;
            }
            self.tick();
        }
        panic!("no leader after 200 ticks: {:#?}", self.story);
    }

    pub fn propose(&mut self, at: ReplicaId, number: u64, payload: &str) {
        self.up.get_mut(&at).unwrap().driver.propose(number, payload.into()).unwrap();
    }

    /// Asks for a read index; the number must be a new one on that replica.
    pub fn read(&mut self, at: ReplicaId, number: u64) -> Result<(), ReadError> {
        let floor = self.history.last_key_value().map_or(0, |(index, _)| *index);
        self.floors.insert((at, number), floor);
        self.up.get_mut(&at).unwrap().driver.read_index(number)
    }

    /// Compacts to what was applied.
    pub fn compact(&mut self, at: ReplicaId, keep: u64) {
        let replica = self.up.get_mut(&at).unwrap();
        replica.driver.compact(replica.applied_index, to_bytes(&replica.applied), keep).unwrap();
        self.settle();
    }

    pub fn isolate(&mut self, id: ReplicaId) {
        for other in self.configs.keys().filter(|other| **other != id) {
            self.cut.extend([(id, *other), (*other, id)]);
        }
    }

    pub fn applied(&self, id: ReplicaId) -> Vec<&str> {
        self.up[&id].applied.iter().map(|(_, payload)| payload.as_str()).collect()
    }

    /// Log matching and equal states, once everybody is up and has caught up.
    pub fn assert_converged(&self) {
        let first = &self.up[&id(1)];
        for replica in self.up.values() {
            assert_eq!(replica.applied, first.applied, "replica {}", replica.driver.config().id);
            let (a, b) = (first.driver.store(), replica.driver.store());
            let low = a.first().max(b.first());
            assert_eq!(a.log(low, u64::MAX), b.log(low, u64::MAX));
        }
    }
}

/// One line for a message: index/term, and what it asks or answers.
fn describe(message: &PeerMessage) -> String {
    let PeerMessage { kind, from, to, term, log_term, index, commit, reject, .. } = message;
    let entries: Vec<_> = message.entries.iter().map(|e| format!("{}/{}", e.index, e.term)).collect();
    let what = match kind {
        MessageKind::Append => format!("after {index}/{log_term} [{}] commit {commit}", entries.join(" ")),
        MessageKind::AppendResponse if *reject => format!("no, {index} does not match; try {}", message.reject_hint),
        MessageKind::AppendResponse => format!("has {index}"),
        MessageKind::RequestVote | MessageKind::RequestPreVote => format!("log ends at {index}/{log_term}"),
        MessageKind::RequestVoteResponse | MessageKind::RequestPreVoteResponse => {
            if *reject {
                "no".to_owned()
            } else {
                "yes".to_owned()
            }
        }
        MessageKind::Snapshot => {
            let snapshot = message.snapshot.as_ref().unwrap();
            format!("at {}/{}", snapshot.index, snapshot.term)
        }
        MessageKind::Heartbeat => format!("commit {commit}"),
        MessageKind::ReadIndexResponse => format!("from {index}"),
        MessageKind::HeartbeatResponse | MessageKind::TimeoutNow | MessageKind::ReadIndex => String::new(),
    };
    format!("{from} -> {to} {kind:?} term {term} {what}").trim_end().to_owned()
}
