//! A power cut at every write and sync of the journal, and restarts at every step: nothing runs twice, nothing runs
//! unowned, every attempt comes to one end, and no report is ever taken back.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// A coordinator and a runtime, as simple as can be. Both outlive the agent.
#[derive(Default)]
struct World {
    commands: Vec<Order>,
    starts: BTreeMap<AttemptId, u32>,
    runtime: BTreeMap<AttemptId, AttemptState>,
    committed: BTreeMap<AttemptId, AttemptReport>,
    said: BTreeMap<(AttemptId, u64), AttemptState>,
    inputs: VecDeque<Input>,
    now: u64,
    broken: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self { commands: vec![launch(1, 2, 2), launch(2, 1, 2), stop(2), stop(7), launch(3, 1, 8)], ..Self::default() }
    }

    fn hear(&mut self, report: &AttemptReport) {
        let before = self.said.insert((report.attempt, report.revision), report.state.clone());
        if before.is_some_and(|b| b != report.state) {
            self.broken.push(format!("revision {} of {} was taken back", report.revision, report.attempt));
        }
        let newest = self.committed.get(&report.attempt).is_none_or(|c| c.revision < report.revision);
        if newest {
            self.committed.insert(report.attempt, report.clone());
        }
        let message = CoordinatorMessage::ReportCommitted { attempt: report.attempt, revision: report.revision };
        self.inputs.push_back(Input::FromCoordinator { replica: R1, message });
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for o in out {
            match o {
                Output::Send { message: AgentMessage::Hello { attempts, .. }, .. } => {
                    attempts.iter().for_each(|r| self.hear(r));
                }
                Output::Send { message: AgentMessage::LeaseRequest { nonce }, .. } => {
                    self.inputs.push_back(lease(R1, nonce, 3, 30_000));
                    // A leader sends what is outstanding once a session is up.
                    let open: Vec<_> = (1u64..).zip(self.commands.clone()).collect();
                    for (number, order) in open {
                        let id = match &order {
                            Order::Launch(l) => l.attempt,
                            Order::Stop(s) => s.attempt,
                            Order::Resize(r) => r.attempt,
                        };
                        if self.committed.get(&id).is_none_or(|c| !c.state.is_final()) {
                            self.inputs.push_back(command(R1, number, 3, order));
                        }
                    }
                }
                Output::Send { message: AgentMessage::Report(r), .. } => self.hear(&r),
                Output::Start { order, .. } => {
                    *self.starts.entry(order.attempt).or_default() += 1;
                    self.runtime.insert(order.attempt, AttemptState::Running);
                    self.inputs.push_back(Input::Runtime { attempt: order.attempt, state: AttemptState::Running });
                }
                Output::Stop { attempt, .. } if self.runtime.get(&attempt).is_some_and(|s| !s.is_final()) => {
                    self.end(attempt, AttemptState::Stopped);
                }
                Output::Forget { attempt } => {
                    self.runtime.remove(&attempt);
                }
                _ => {}
            }
        }
    }

    fn end(&mut self, attempt: AttemptId, state: AttemptState) {
        self.runtime.insert(attempt, state.clone());
        self.inputs.push_back(Input::Runtime { attempt, state });
    }

    /// Steps until nothing is left to do, `steps` at most. False where the journal failed.
    fn drive(&mut self, agent: &mut Agent, steps: usize) -> bool {
        for _ in 0..steps {
            let input = match self.inputs.pop_front() {
                Some(input) => input,
                None => {
                    // What was told to run ends by itself in the end, unless it waits to be stopped.
                    let Some((&id, _)) = self.runtime.iter().find(|(a, s)| !s.is_final() && **a != attempt(2)) else {
                        return true;
                    };
                    self.end(id, AttemptState::Succeeded);
                    continue;
                }
            };
            self.now += 10;
            match agent.step(MonotonicMs(self.now), UNIX, input) {
                Ok(out) => self.carry_out(out),
                Err(_) => return false,
            }
        }
        true
    }

    /// The agent is gone, with whatever was under way to it; then it is back.
    fn restart(&mut self, disk: &Disk) -> Option<Agent> {
        self.inputs.clear();
        let journal = Journal::open(disk.clone(), Incarnation(9)).ok()?;
        let found = self.runtime.clone().into_iter().collect();
        let (agent, out) = Agent::open(journal, config(), found, MonotonicMs(self.now), UNIX).ok()?;
        self.carry_out(out);
        self.inputs.push_back(Input::Connected { replica: R1 });
        Some(agent)
    }

    fn faults(mut self) -> Vec<String> {
        for (attempt, times) in &self.starts {
            if *times > 1 {
                self.broken.push(format!("{attempt} started {times} times"));
            }
        }
        for workload in [1, 2, 3, 7] {
            if !self.committed.get(&attempt(workload)).is_some_and(|c| c.state.is_final()) {
                self.broken.push(format!("{} came to no end", attempt(workload)));
            }
        }
        for (attempt, state) in self.runtime {
            if !state.is_final() {
                self.broken.push(format!("{attempt} is left running"));
            }
        }
        self.broken
    }
}

/// Every fault found with a power cut at any one write, and with a kill after any one step.
fn faults_of_all_crashes() -> Vec<String> {
    let disk = Disk::default();
    let mut world = World::new();
    let mut agent = world.restart(&disk).unwrap();
    assert!(world.drive(&mut agent, 1_000));
    drop(agent);
    let writes = disk.writes();
    assert!(writes > 50, "only {writes} writes: the scenario does nothing");
    let mut found = world.faults();
    for write in 0..writes {
        for keep_unsynced in [false, true] {
            let disk = Disk::default();
            disk.fail_from(write);
            let mut world = World::new();
            if let Some(mut agent) = world.restart(&disk) {
                world.drive(&mut agent, 1_000);
            }
            let mut agent = world.restart(&disk.crash(keep_unsynced)).expect("the journal opens after a power cut");
            assert!(world.drive(&mut agent, 1_000));
            found.extend(world.faults().into_iter().map(|f| format!("write {write}: {f}")));
        }
    }
    for steps in 0..60 {
        let disk = Disk::default();
        let mut world = World::new();
        let mut agent = world.restart(&disk).unwrap();
        world.drive(&mut agent, steps);
        drop(agent);
        let mut agent = world.restart(&disk.crash(false)).unwrap();
        assert!(world.drive(&mut agent, 1_000));
        found.extend(world.faults().into_iter().map(|f| format!("after {steps} steps: {f}")));
    }
    found
}

#[test]
fn a_crash_at_any_write_or_step_loses_nothing_and_runs_nothing_twice() {
    assert_eq!(faults_of_all_crashes(), Vec::<String>::new());
}

#[cfg(feature = "planted")]
#[test]
fn planted_bugs_of_the_journal_are_found() {
    for bug in ["launch-twice", "ack-before-journal", "forget-stop"] {
        crate::planted::select(Some(bug));
        let found = faults_of_all_crashes();
        crate::planted::select(None);
        assert!(!found.is_empty(), "{bug} was not found");
    }
}

#[test]
fn an_attempt_that_was_accepted_and_never_started_fails_as_infrastructure_and_never_starts() {
    let disk = Disk::default();
    let mut a = open(&disk, vec![]).0;
    connect(&mut a, 0, R1, 1, 30_000);
    assert_eq!(starts(&step(&mut a, 1, command(R1, 1, 1, launch(1, 1, 8)))), [attempt(1)]);
    drop(a); // Killed before the start was carried out: the runtime knows nothing.
    let (mut a, out) = open(&disk.crash(false), vec![]);
    assert!(starts(&out).is_empty());
    let report = a.attempts().next().unwrap().clone();
    assert_eq!(report.revision, 2);
    let AttemptState::Failed { class, .. } = report.state else { panic!("{report:?}") };
    assert_eq!(class, protocol::errors::FailureClass::Infrastructure);
    connect(&mut a, 1, R1, 1, 30_000);
    assert!(starts(&step(&mut a, 2, command(R1, 1, 1, launch(1, 1, 8)))).is_empty());
    assert_eq!(starts(&step(&mut a, 3, command(R1, 2, 1, launch(2, 1, 8)))), [attempt(2)], "its devices are free");
}

#[test]
fn what_is_recovered_keeps_its_devices_and_what_nobody_ordered_is_stopped() {
    let disk = Disk::default();
    let mut a = open(&disk, vec![]).0;
    connect(&mut a, 0, R1, 1, 30_000);
    step(&mut a, 1, command(R1, 1, 1, launch(1, 1, 6)));
    drop(a);
    let found = vec![
        (attempt(1), AttemptState::Running),
        (attempt(5), AttemptState::Running),
        (attempt(6), AttemptState::Succeeded),
    ];
    let (mut a, out) = open(&disk.crash(false), found);
    assert_eq!(out, [Output::Stop { attempt: attempt(5), grace_ms: 5_000 }, Output::Forget { attempt: attempt(6) }]);
    connect(&mut a, 0, R1, 1, 30_000);
    let out = step(&mut a, 1, command(R1, 2, 1, launch(2, 1, 3)));
    assert!(starts(&out).is_empty(), "6 of 8 devices are still held");
    assert_eq!(starts(&step(&mut a, 2, command(R1, 3, 1, launch(3, 1, 2)))), [attempt(3)]);
    assert_eq!(a.assignment(attempt(3)).unwrap().members[0].devices, [6, 7]);
}

#[test]
fn a_failed_journal_ends_the_agent_and_lets_no_output_out() {
    let disk = Disk::default();
    let mut a = open(&disk, vec![]).0;
    connect(&mut a, 0, R1, 1, 30_000);
    disk.fail_from(0);
    assert!(a.step(MonotonicMs(1), UNIX, command(R1, 1, 1, launch(1, 1, 1))).is_err());
    assert!(matches!(a.step(MonotonicMs(2), UNIX, Input::Tick), Err(StepError::Dead)));
}
