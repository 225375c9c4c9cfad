//! What befalls a machine apart from crashes: its disk has no room or fails to sync, its date jumps, an agent's machine is
//! replaced by an empty one.
//!
//! A write that fails ends its process, which never tries it again: after a failed fsync nobody knows what is on the disk
//! (the kernel drops the pages and forgets the error, see "Can Applications Recover from fsync Failures?", USENIX ATC '20).
//! The next start reads what is there. The disk here fails once and would take a second try, so that one would be seen.

use coordinator::raft::SimDisk;
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::Incarnation;

use super::clock::MS;
use super::facts::Fact;
use super::process::{AGENTS, Boundary, Process};
use super::world::World;

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskError {
    /// ENOSPC: what was written before is there.
    Full,
    /// EIO of an fsync: of what was written since the last one, anything may be lost.
    Sync,
}

/// Most by which a date jumps, in ms.
pub(crate) const FURTHEST_JUMP_MS: u64 = 600_000;

impl World {
    /// A disk is to fail at one of its next changes.
    pub(super) fn disk_fails(&mut self, error: DiskError) {
        let process = self.any_process();
        if self.is_down(process) {
            return;
        }
        let after = self.dice.faults.below(40);
        let down_us = self.down_time();
        self.judge.hear(self.now_us, &Fact::Fault { what: format!("the disk of {process} is to fail: {error:?}") });
        let machine = self.machine_mut(process);
        machine.down_us = down_us;
        machine.loses_power = error == DiskError::Sync;
        machine.fails_at = Some(machine.disk.changes() + after);
        machine.disk.arm_error(after);
    }

    /// Whether a process's disk has failed in its present life. Then the process is to be dead.
    pub(super) fn disk_has_failed(&self, process: Process) -> bool {
        let machine = self.machine(process);
        machine.fails_at.is_some_and(|at| machine.disk.changes() > at)
    }

    /// A step of a process ended well: its disk can't have failed meanwhile.
    pub(super) fn went_on(&mut self, process: Process) {
        if self.disk_has_failed(process) {
            self.machine_mut(process).fails_at = None;
            self.judge.hear(self.now_us, &Fact::WentOn { process });
        }
    }

    /// A machine's date is wrong from now on, or right again. Its other clock, which counts seconds, does not notice.
    pub(super) fn date_jumps(&mut self) {
        let process = self.any_process();
        let random = &mut self.dice.faults;
        let furthest = [2_000, 60_000, FURTHEST_JUMP_MS][random.index(3)];
        let ahead_ms = random.between(0, 2 * furthest) as i64 - furthest as i64;
        self.judge.hear(self.now_us, &Fact::Fault { what: format!("the date of {process} is wrong by {ahead_ms} ms") });
        self.machine_mut(process).clock.ahead_ms = ahead_ms;
    }

    /// A cluster's machine is gone with all that ran on it, and another one takes its place: the agent's certificate is
    /// there, its records are not.
    pub(super) fn replace_agent(&mut self) {
        let agent = self.dice.faults.index(AGENTS);
        let process = Process::Agent(agent);
        self.judge.hear(self.now_us, &Fact::Replaced { agent });
        if !self.is_down(process) {
            let down = self.down_time();
            self.arm_crash(process, Boundary::Now, down, false);
        }
        let gone = AttemptState::Failed {
            class: FailureClass::Infrastructure,
            message: "its machine is gone".into(),
            exit_code: None,
        };
        for attempt in self.runtimes[agent].vanish() {
            self.judge.hear(self.now_us, &Fact::Gone { cluster: agent, attempt, state: &gone });
        }
        let process = &mut self.agents[agent];
        process.incarnation = Incarnation(process.incarnation.0 + 1_000);
        process.machine.disk = SimDisk::new();
        process.machine.flip_bits = false;
    }

    /// Right dates, and room on every disk.
    pub(super) fn mend_machines(&mut self) {
        for process in Process::all() {
            let ahead_ms = self.dice.setup.between(0, 1_000) as i64 - 500;
            let machine = self.machine_mut(process);
            machine.clock.ahead_ms = ahead_ms;
            machine.fails_at = None;
        }
    }
}

/// How long after a jump of the date a retry may have to wait for it, in µs: time in state never goes back.
pub(crate) const JUMP_US: u64 = FURTHEST_JUMP_MS * MS;
