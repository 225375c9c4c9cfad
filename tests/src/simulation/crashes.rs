//! How processes die, pause and come back.

use agent::cluster::Input as AgentInput;
use coordinator::raft::{SimDisk, Store};
use coordinator::replica::Input as ReplicaInput;

use super::agents::{self, AgentProcess};
use super::clock::{MS, SECOND};
use super::disk;
use super::facts::{Damage, Fact};
use super::process::{Boundary, Machine, OrderBoundary, Process, guarded};
use super::queue::Event;
use super::replicas::ReplicaInbox;
use super::world::World;

const REPLICA_TICK_MS: u64 = 25;
const AGENT_TICK_MS: u64 = 50;

impl World {
    pub(super) fn machine(&self, process: Process) -> &Machine {
        match process {
            Process::Replica(n) => &self.replicas[n].machine,
            Process::Agent(n) => &self.agents[n].machine,
        }
    }

    pub(super) fn machine_mut(&mut self, process: Process) -> &mut Machine {
        match process {
            Process::Replica(n) => &mut self.replicas[n].machine,
            Process::Agent(n) => &mut self.agents[n].machine,
        }
    }

    pub(super) fn is_down(&self, process: Process) -> bool {
        match process {
            Process::Replica(n) => self.replicas[n].core.is_none(),
            Process::Agent(n) => self.agents[n].core.is_none(),
        }
    }

    /// A process ended with this error: by its disk's death, which was wanted, or by itself.
    pub(super) fn dies(&mut self, process: Process, cause: String) {
        if self.machine(process).disk.has_crashed() {
            return self.crash(process, "at a change of its disk");
        }
        if self.disk_has_failed(process) {
            return self.crash(process, "at a failure of its disk");
        }
        self.judge.hear(self.now_us, &Fact::Died { process, cause });
    }

    /// Whether a process dies instead of carrying out its next output.
    pub(super) fn dies_before_output(&mut self, process: Process) -> bool {
        match &mut self.machine_mut(process).dies_after_sending {
            None => false,
            Some(0) => {
                self.crash(process, "between its outputs");
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Whether an agent dies at this point of an order's way.
    pub(super) fn dies_at_order(&mut self, agent: usize, at: OrderBoundary) -> bool {
        let process = Process::Agent(agent);
        let dies = self.machine(process).dies_at_order == Some(at);
        if dies {
            self.crash(process, "on the way of an order");
        }
        dies
    }

    /// A process is to die at this boundary, and to be down for so long.
    pub(super) fn arm_crash(&mut self, process: Process, boundary: Boundary, down_us: u64, loses_power: bool) {
        if self.is_down(process) {
            return;
        }
        let machine = self.machine_mut(process);
        machine.down_us = down_us;
        machine.loses_power = loses_power;
        match boundary {
            Boundary::Now => self.crash(process, "killed"),
            Boundary::Persist(n) => {
                // The disk can be armed once.
                machine.fails_at = None;
                machine.disk.arm_crash(n);
            }
            Boundary::Send(n) => machine.dies_after_sending = Some(n),
            Boundary::Order(at) => machine.dies_at_order = Some(at),
        }
    }

    /// A process dies, and starts again later.
    pub(super) fn crash(&mut self, process: Process, how: &str) {
        self.judge.hear(self.now_us, &Fact::Crashed { process, how });
        match process {
            Process::Replica(n) => self.replicas[n].die(),
            Process::Agent(n) => {
                self.agents[n].die();
                self.runtimes[n].agent_died();
            }
        }
        let found = {
            let machine = match process {
                Process::Replica(n) => &self.replicas[n].machine,
                Process::Agent(n) => &self.agents[n].machine,
            };
            if machine.loses_power {
                disk::after_power_loss(&machine.disk, &mut self.dice.disk)
            } else {
                disk::after_kill(&machine.disk)
            }
        };
        let now_us = self.now_us;
        let machine = self.machine_mut(process);
        machine.disk = found;
        machine.life += 1;
        machine.paused = false;
        machine.dies_after_sending = None;
        machine.dies_at_order = None;
        machine.fails_at = None;
        let at = now_us + machine.down_us;
        self.queue.add(at, Event::Restart { process });
    }

    pub(super) fn restart(&mut self, process: Process) {
        if !self.is_down(process) {
            return;
        }
        if std::mem::take(&mut self.machine_mut(process).flip_bits) {
            self.age(process);
        }
        // Starting writes, so it can die too.
        if !self.calm && self.dice.disk.chance(80) {
            let n = self.dice.disk.below(15);
            self.machine(process).disk.arm_crash(n);
        }
        self.start(process);
    }

    pub(super) fn start(&mut self, process: Process) {
        let now_us = self.now_us;
        let machine = self.machine_mut(process);
        machine.clock.started_us = now_us;
        self.judge.hear(now_us, &Fact::Started { process });
        let started = match process {
            Process::Replica(n) => self.start_replica(n),
            Process::Agent(n) => self.start_agent(n),
        };
        if !started {
            return self.crash(process, "while it started");
        }
        if !self.is_down(process) {
            let life = self.machine(process).life;
            self.queue.add(self.now_us + MS, Event::Tick { process, life });
        }
    }

    /// Copies of the process's disk age; each must be refused when it is opened, or hold what it held. (A disk that was
    /// closed in order: without that the last transaction has no witness but itself.)
    fn age(&mut self, process: Process) {
        let clean = self.machine(process).disk.copy();
        let held = match self.contents(process, clean.clone()) {
            Ok(held) => held,
            Err(cause) => return self.judge.hear(self.now_us, &Fact::Died { process, cause }),
        };
        for _ in 0..8 {
            let aged = disk::aged(&clean, &mut self.dice.disk);
            let damage = match self.contents(process, aged) {
                Err(_) => Damage::Refused,
                Ok(found) if found == held => Damage::Harmless,
                Ok(_) => Damage::Served("it holds something else".into()),
            };
            self.judge.hear(self.now_us, &Fact::Aged { process, damage });
        }
    }

    /// What a process finds on a disk, in words. The disk is closed in order.
    fn contents(&self, process: Process, disk: SimDisk) -> Result<String, String> {
        match process {
            Process::Replica(n) => {
                let id = self.replicas[n].id;
                let read = guarded(move || {
                    let store = Store::open(disk, id).map_err(|e| e.to_string())?;
                    let (log, snapshot) = (store.log(store.first(), u64::MAX), store.latest_snapshot());
                    Ok(format!("{:?} {:?} {log:?} {snapshot:?}", store.hard_state(), store.conf_state()))
                });
                read.and_then(|read| read)
            }
            Process::Agent(n) => {
                let AgentProcess { incarnation, config, machine, .. } = &self.agents[n];
                let recovered = self.runtimes[n].recover();
                let (agent, _) = agents::open(disk, *incarnation, config, recovered, machine.clock, self.now_us)?;
                let attempts: Vec<_> = agent.attempts().collect();
                let said = format!("{:?} {} {} {attempts:?}", agent.incarnation(), agent.last_command(), agent.epoch());
                guarded(move || drop(agent))?;
                Ok(said)
            }
        }
    }

    /// A process stands still for so long: what comes in waits, and its clocks go on.
    pub(super) fn pause(&mut self, process: Process, length_us: u64) {
        if self.is_down(process) || self.machine(process).paused {
            return;
        }
        self.machine_mut(process).paused = true;
        let life = self.machine(process).life;
        self.queue.add(self.now_us + length_us, Event::Resume { process, life });
    }

    pub(super) fn resume(&mut self, process: Process, life: u64) {
        let machine = self.machine_mut(process);
        if machine.life != life || !machine.paused {
            return;
        }
        machine.paused = false;
        // What its timer missed is one tick; which of timer and network it sees first is chance.
        let timer_first = self.dice.network.chance(500);
        if timer_first {
            self.ticks(process);
        }
        match process {
            Process::Replica(n) => {
                for input in std::mem::take(&mut self.replicas[n].inbox) {
                    self.replica_takes(n, input);
                }
                self.ticks(process);
            }
            Process::Agent(n) => {
                for input in std::mem::take(&mut self.agents[n].inbox) {
                    if self.machine(process).life != life {
                        return;
                    }
                    self.agent_takes(n, input);
                }
            }
        }
    }

    fn ticks(&mut self, process: Process) {
        match process {
            Process::Replica(n) => self.replica_takes(n, ReplicaInbox::Input(ReplicaInput::Tick)),
            Process::Agent(n) => self.agent_takes(n, AgentInput::Tick),
        }
    }

    /// A process's timer.
    pub(super) fn tick(&mut self, process: Process, life: u64) {
        let machine = self.machine(process);
        if machine.life != life {
            return;
        }
        let ms = if matches!(process, Process::Replica(_)) { REPLICA_TICK_MS } else { AGENT_TICK_MS };
        let at = self.now_us + machine.clock.period(ms);
        let paused = machine.paused;
        self.queue.add(at, Event::Tick { process, life });
        if !paused {
            self.ticks(process);
        }
    }

    /// How long a crashed process stays down.
    pub(super) fn down_time(&mut self) -> u64 {
        match self.dice.faults.index(4) {
            0 => self.dice.faults.between(MS, 100 * MS),
            1 | 2 => self.dice.faults.between(100 * MS, 3 * SECOND),
            _ => self.dice.faults.between(3 * SECOND, 20 * SECOND),
        }
    }
}
