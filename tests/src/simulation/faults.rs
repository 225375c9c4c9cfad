//! What goes wrong, and when: drawn from the seed before the world begins, with the details drawn when each fault strikes.
//! After the last, everything is mended, and the world must come to rest.

use super::clock::{MS, SECOND};
use super::facts::Fact;
use super::mishaps::DiskError;
use super::network::{Trouble, Weather};
use super::process::{AGENTS, Boundary, OrderBoundary, Process, REPLICAS};
use super::queue::Event;
use super::random::Random;
use super::world::World;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Some processes and the others do not hear each other.
    Partition,
    /// One direction between two sides is blocked.
    OneWay,
    /// Two replicas do not hear each other, while the third hears both.
    Bridge,
    /// The leader is cut off from its peers, and its agents' streams stall.
    IsolateLeader,
    /// The leader's streams to agents stall; then it is cut off from its peers; then what it said as a leader arrives.
    StaleLeader,
    /// A cluster's agent is cut off from every replica.
    IsolateAgent,
    /// Loss, delay, duplication, reordering.
    Weather,
    /// A process dies at some boundary.
    Crash,
    /// The leader dies at some boundary.
    CrashLeader,
    /// An agent dies on the way of an order to its runtime.
    CrashAtOrder,
    /// Everything dies at once.
    CrashAll,
    /// A process stands still.
    Pause,
    /// Agents' connections break.
    BreakLinks,
    /// A process dies, and bits of its disk turn over before it starts again.
    FlipBits,
    /// A disk has no room at one of its next changes.
    DiskFull,
    /// A sync of a disk fails.
    SyncFails,
    /// A machine's date jumps.
    DateJumps,
    /// A cluster's machine is gone, with its agent's records, and is replaced.
    ReplaceAgent,
    /// A leader plans what it will only say once it is deposed.
    LatePlan,
}

use Fault as F;

/// Kinds and how often each comes, relative to the others.
const KINDS: [(Fault, u64); 18] = [
    (F::Partition, 3),
    (F::OneWay, 2),
    (F::Bridge, 1),
    (F::IsolateLeader, 3),
    (F::StaleLeader, 2),
    (F::IsolateAgent, 2),
    (F::Weather, 3),
    (F::Crash, 8),
    (F::CrashLeader, 3),
    (F::CrashAtOrder, 4),
    (F::CrashAll, 1),
    (F::Pause, 3),
    (F::BreakLinks, 3),
    (F::FlipBits, 2),
    (F::DiskFull, 2),
    (F::SyncFails, 2),
    (F::DateJumps, 2),
    (F::ReplaceAgent, 1),
];

/// The stream of the first fault; those below are the world's parts'.
const FIRST_STREAM: u64 = 1_000;

/// When things happen in a world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Faults are over and everything is mended.
    pub calm_us: u64,
    /// Whether faults may last longer than a lease.
    pub long: bool,
    /// The longest that a fault lasts, where they may.
    longest_us: u64,
}

impl Schedule {
    pub fn new(random: &mut Random) -> Self {
        // One in four worlds is long enough for leases to lapse.
        let long = random.chance(250);
        // In some of these even for longer than it takes until an attempt that was cut off is gone for certain.
        let longest = long && random.chance(500);
        let calm_us = match (long, longest) {
            (_, true) => random.between(200, 280) * SECOND,
            (true, _) => random.between(70, 110) * SECOND,
            _ => random.between(20, 40) * SECOND,
        };
        Self { calm_us, long, longest_us: if longest { 150 * SECOND } else { 60 * SECOND } }
    }

    /// The faults of a world, each with its time.
    pub fn faults(&self, random: &mut Random) -> Vec<(u64, Fault)> {
        let all: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
        let count = random.between(3, if self.long { 24 } else { 14 });
        let mut faults = Vec::new();
        for _ in 0..count {
            let mut at = random.below(all);
            let mut kinds = KINDS.iter();
            let kind = loop {
                match kinds.next() {
                    Some((_, weight)) if at >= *weight => at -= weight,
                    Some((kind, _)) => break *kind,
                    None => break F::Crash,
                }
            };
            faults.push((random.between(SECOND, self.calm_us - SECOND), kind));
        }
        for at in (1..self.calm_us / (2 * SECOND)).map(|n| n * 2 * SECOND) {
            faults.push((at, F::LatePlan));
        }
        faults
    }
}

fn both_ways(left: &[Process], right: &[Process]) -> Vec<(Process, Process)> {
    left.iter().flat_map(|l| right.iter().flat_map(move |r| [(*l, *r), (*r, *l)])).collect()
}

impl World {
    fn length(&mut self) -> u64 {
        let random = &mut self.dice.faults;
        if self.schedule.long && random.chance(500) {
            random.between(20 * SECOND, self.schedule.longest_us)
        } else {
            random.between(200 * MS, 12 * SECOND)
        }
    }

    pub(super) fn any_process(&mut self) -> Process {
        match self.dice.faults.index(REPLICAS + AGENTS) {
            n if n < REPLICAS => Process::Replica(n),
            n => Process::Agent(n - REPLICAS),
        }
    }

    fn leader(&self) -> Option<usize> {
        self.replicas.iter().position(|r| r.core.as_ref().is_some_and(|core| core.reign().is_some()))
    }

    /// Blocks these directions for a while.
    fn block(&mut self, what: &str, pairs: Vec<(Process, Process)>) {
        let length = self.length();
        let seconds = length as f64 / SECOND as f64;
        let shown: Vec<String> = pairs.iter().map(|(from, to)| format!("{from} to {to}")).collect();
        let what = format!("{what} for {seconds:.1} s: {}", shown.join(", "));
        self.judge.hear(self.now_us, &Fact::Fault { what });
        let number = self.net.add(Trouble::Blocked(pairs));
        self.queue.add(self.now_us + length, Event::Heal(number));
    }

    /// A fault strikes. Its details come from a stream of its own, so that they stay what they are where another fault is
    /// left out.
    pub(super) fn strike(&mut self, number: usize, fault: Fault) {
        if self.calm {
            return;
        }
        self.dice.faults = Random::new(self.seed, FIRST_STREAM + number as u64);
        if fault != F::LatePlan {
            self.struck += 1;
        }
        match fault {
            F::Partition => self.partition(),
            F::OneWay => self.one_way(),
            F::Bridge => {
                let middle = self.dice.faults.index(REPLICAS);
                let (a, b) = (Process::Replica((middle + 1) % 3), Process::Replica((middle + 2) % 3));
                self.block("a bridge", vec![(a, b), (b, a)]);
            }
            F::IsolateLeader => self.isolate_leader(),
            F::StaleLeader => self.stale_leader(),
            F::IsolateAgent => {
                let agent = Process::Agent(self.dice.faults.index(AGENTS));
                let replicas: Vec<Process> = (0..REPLICAS).map(Process::Replica).collect();
                self.block("an agent is cut off", both_ways(&[agent], &replicas));
            }
            F::Weather => self.weather(),
            F::Crash => {
                let process = self.any_process();
                self.crash_somewhere(process);
            }
            F::CrashLeader => {
                if let Some(leader) = self.leader() {
                    self.crash_somewhere(Process::Replica(leader));
                }
            }
            F::CrashAtOrder => {
                let process = Process::Agent(self.dice.faults.index(AGENTS));
                let at = [OrderBoundary::BeforeGiven, OrderBoundary::Taken][self.dice.faults.index(2)];
                let (down, loses_power) = (self.down_time(), self.dice.faults.chance(500));
                self.judge.hear(self.now_us, &Fact::Fault { what: format!("{process} is to crash: {at:?}") });
                self.arm_crash(process, Boundary::Order(at), down, loses_power);
            }
            F::CrashAll => self.crash_all(),
            F::Pause => self.pause_one(),
            F::BreakLinks => {
                self.judge.hear(self.now_us, &Fact::Fault { what: "connections break".into() });
                let per_mille = [300, 1000][self.dice.faults.index(2)];
                self.break_links(per_mille);
            }
            F::FlipBits => {
                let process = self.any_process();
                let down = self.down_time();
                self.machine_mut(process).flip_bits = true;
                self.arm_crash(process, Boundary::Now, down, false);
            }
            F::DiskFull => self.disk_fails(DiskError::Full),
            F::SyncFails => self.disk_fails(DiskError::Sync),
            F::DateJumps => self.date_jumps(),
            F::ReplaceAgent => self.replace_agent(),
            F::LatePlan => self.hold_binding(),
        }
    }

    fn partition(&mut self) {
        let sides: u64 = self.dice.faults.between(1, (1 << (REPLICAS + AGENTS)) - 2);
        let (left, right): (Vec<Process>, Vec<Process>) = Process::all().partition(|p| sides >> p.row() & 1 == 1);
        self.block("a partition", both_ways(&left, &right));
    }

    fn one_way(&mut self) {
        let from = self.any_process();
        let others: Vec<Process> = Process::all().filter(|p| *p != from).collect();
        let to: Vec<Process> = match self.dice.faults.index(3) {
            0 => others,
            1 => others.into_iter().filter(|p| matches!(p, Process::Replica(_))).collect(),
            _ => vec![others[self.dice.faults.index(others.len())]],
        };
        let outward = self.dice.faults.chance(500);
        let pairs = to.into_iter().map(|to| if outward { (from, to) } else { (to, from) }).collect();
        self.block("a one-way partition", pairs);
    }

    fn isolate_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        let me = Process::Replica(leader);
        let peers: Vec<Process> = (0..REPLICAS).filter(|n| *n != leader).map(Process::Replica).collect();
        let mut pairs = both_ways(&[me], &peers);
        if self.dice.faults.chance(700) {
            pairs.extend((0..AGENTS).map(|n| (me, Process::Agent(n))));
        }
        self.block("the leader is cut off", pairs);
    }

    fn stale_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        let me = Process::Replica(leader);
        let agents = (0..AGENTS).map(|n| (me, Process::Agent(n))).collect();
        let peers: Vec<Process> = (0..REPLICAS).filter(|n| *n != leader).map(Process::Replica).collect();
        self.judge.hear(self.now_us, &Fact::Fault { what: format!("what {me} says as a leader comes late") });
        let random = &mut self.dice.faults;
        let deposed_us = self.now_us + random.between(2 * SECOND, 6 * SECOND);
        let heard_us = deposed_us + random.between(SECOND, 4 * SECOND);
        let back_us = heard_us + random.between(SECOND, 10 * SECOND);
        let stall = self.net.add(Trouble::Blocked(agents));
        self.queue.add(heard_us, Event::Heal(stall));
        let apart = both_ways(&[me], &peers);
        self.queue.add(deposed_us, Event::Trouble { trouble: Trouble::Blocked(apart), until_us: back_us });
    }

    /// Trouble that a fault put off begins.
    pub(super) fn trouble(&mut self, trouble: Trouble, until_us: u64) {
        if !self.calm {
            let number = self.net.add(trouble);
            self.queue.add(until_us, Event::Heal(number));
        }
    }

    fn weather(&mut self) {
        let random = &mut self.dice.faults;
        let weather = Weather {
            lost: [0, 50, 300][random.index(3)],
            twice: [0, 50, 300][random.index(3)],
            slowest_us: [2 * MS, 50 * MS, 400 * MS][random.index(3)],
        };
        let length = self.length();
        self.judge.hear(self.now_us, &Fact::Fault { what: format!("{weather:?}") });
        let number = self.net.add(Trouble::Weather(weather));
        self.queue.add(self.now_us + length, Event::Heal(number));
    }

    fn crash_somewhere(&mut self, process: Process) {
        let random = &mut self.dice.faults;
        let boundary = match (random.index(6), process) {
            (0, _) => Boundary::Now,
            (1 | 2, _) => Boundary::Persist(random.below(40)),
            (3, _) | (_, Process::Replica(_)) => Boundary::Send(random.index(8)),
            (4, _) => Boundary::Order(OrderBoundary::BeforeGiven),
            _ => Boundary::Order(OrderBoundary::Taken),
        };
        let loses_power = random.chance(500);
        let down = self.down_time();
        self.judge.hear(self.now_us, &Fact::Fault { what: format!("{process} is to crash: {boundary:?}") });
        self.arm_crash(process, boundary, down, loses_power);
    }

    fn crash_all(&mut self) {
        self.judge.hear(self.now_us, &Fact::Fault { what: "everything crashes".into() });
        let loses_power = self.dice.faults.chance(500);
        for process in Process::all() {
            let down = self.down_time();
            self.arm_crash(process, Boundary::Now, down, loses_power);
        }
    }

    fn pause_one(&mut self) {
        let process = match self.leader().filter(|_| self.dice.faults.chance(400)) {
            Some(leader) => Process::Replica(leader),
            None => self.any_process(),
        };
        let random = &mut self.dice.faults;
        let longest = self.schedule.longest_us / SECOND;
        let length =
            if self.schedule.long { random.between(5, longest) * SECOND } else { random.between(100, 8_000) * MS };
        let what = format!("{process} pauses for {:.1} s", length as f64 / SECOND as f64);
        self.judge.hear(self.now_us, &Fact::Fault { what });
        self.pause(process, length);
    }

    /// Everything is mended.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.judge.hear(self.now_us, &Fact::Calm);
        self.net.heal_all();
        self.mend_machines();
        for process in Process::all() {
            let machine = self.machine_mut(process);
            machine.disk.disarm();
            machine.dies_after_sending = None;
            machine.dies_at_order = None;
            let (life, paused) = (machine.life, machine.paused);
            if paused {
                self.resume(process, life);
            }
            if self.is_down(process) {
                self.restart(process);
            }
        }
        self.queue.add(self.now_us + SECOND, Event::Look);
    }
}
