//! One attempt's life under its guard: start every process, serve the agent, decide the outcome, end all that is left,
//! see that nothing is left, and only then say that the attempt is gone.
//!
//! One thread: a child is tied to the life of the thread that forked it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pod_guard::fence::{self, Fence, Leave};
use protocol::errors::FailureClass;

use super::durable;
use super::hunger::{Evidence, Hunger};
use super::members::Members;
use super::plan::{Plan, Process, Ready, Role, Verdict};
use super::record::{Ending, Outcome, Record, Stop, StopWhy};
use super::socket::{Asked, Server, Status};
use super::sys::{self, Exit, Reaped, Signals};
use super::{note, sweep, tail};

/// How often a ready file is looked at.
const READY_POLL: Duration = Duration::from_millis(100);
/// How often what is left is looked at while an attempt ends.
const END_POLL: Duration = Duration::from_millis(20);
/// Grace when the guard itself is asked to end.
const SIGNAL_GRACE_MS: u64 = 5_000;

/// Runs the plan to its end and returns once nothing of it is left and the outcome is durable.
pub fn supervise(record: &Record, plan: &Plan, signals: &Signals, server: Server) -> io::Result<()> {
    let status = Status::Starting { waiting_for: "processes to start".into() };
    let hunger = Hunger::watch();
    let members = Members::of(plan);
    let fence = plan.fence_ms.map(|after_ms| Fence::new(after_ms, now()));
    let mut guard = Guard {
        record,
        plan,
        server,
        status,
        running: BTreeMap::new(),
        members,
        undecided: 0,
        begun: false,
        fence,
        ending: None,
        hunger,
    };
    loop {
        guard.mind_fence();
        let childless = guard.reap_all()?;
        guard.look_at_ready();
        guard.push_leaving();
        if guard.push_ending(childless)? {
            return guard.finish();
        }
        let mut fds = vec![signals.as_raw_fd()];
        fds.extend(guard.server.fds());
        sys::wait_readable(&fds, guard.patience())?;
        if signals.asked_to_end() {
            guard.stop(Stop { grace_ms: SIGNAL_GRACE_MS, why: StopWhy::Shutdown });
        }
        let said = guard.said();
        for asked in guard.server.serve(&said) {
            match asked {
                Asked::Stop(stop) => guard.stop(stop),
                Asked::Resize => guard.resize(),
                Asked::GoOn { asked, ttl_ms } => guard.go_on(asked, ttl_ms),
            }
        }
    }
}

struct Guard<'a> {
    record: &'a Record,
    plan: &'a Plan,
    server: Server,
    status: Status,
    /// Living direct children, by process id.
    running: BTreeMap<i32, Process>,
    /// Which members came and go while it runs.
    members: Members,
    /// Deciding processes that have not ended with 0 yet.
    undecided: usize,
    /// Whether the first process may have been started.
    begun: bool,
    /// Until when it may go on, where that has an end.
    fence: Option<Fence>,
    ending: Option<Decided>,
    hunger: Hunger,
}

struct Decided {
    ending: Ending,
    hard_end: Instant,
    hard: bool,
}

impl Guard<'_> {
    /// Asks whether to go on, begins once that is so, and ends once it is not any more.
    fn mind_fence(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let now = now();
        let leave = match &mut self.fence {
            None => Leave::Granted,
            Some(fence) => {
                if fence.asks(now) {
                    self.server.tell(&Status::Asks { asked: now });
                }
                fence.leave(now)
            }
        };
        match leave {
            Leave::NotYet => self.become_status(Status::Starting { waiting_for: "leave to begin".into() }),
            Leave::Granted if self.begun => {}
            Leave::Granted => {
                self.begun = true;
                self.start_all();
            }
            // Before anything else: a disk that hangs must not keep it alive.
            Leave::Over => {
                ask_all_to_end();
                self.stop(Stop { grace_ms: fence::GRACE_MS, why: StopWhy::Fence });
            }
        }
    }

    fn go_on(&mut self, asked: u64, ttl_ms: u64) {
        if let Some(fence) = &mut self.fence {
            fence.answered(asked, ttl_ms);
        }
    }

    fn start_all(&mut self) {
        self.undecided = self.plan.processes.iter().filter(|p| p.role == Role::Decides).count();
        for process in &self.plan.processes {
            match spawn(process) {
                Ok(pid) => {
                    self.running.insert(pid, process.clone());
                }
                Err(message) => {
                    let class = match process.role {
                        Role::Decides => FailureClass::User,
                        Role::Supports | Role::Extra => FailureClass::Infrastructure,
                    };
                    self.decide(Ending::Failed { class, message, exit_code: None }, self.plan.end_grace_ms);
                    return;
                }
            }
        }
        if self.plan.ready == Ready::Started {
            self.become_status(Status::Running);
        }
    }

    fn become_status(&mut self, status: Status) {
        if self.status != status {
            self.server.tell(&status);
            self.status = status;
        }
    }

    /// How long nothing needs to be looked at unless a descriptor says so; `None` is for ever.
    fn patience(&self) -> Option<Duration> {
        match (&self.ending, &self.status) {
            (Some(_), _) => Some(END_POLL),
            _ if self.members.is_any_leaving() => Some(END_POLL),
            (None, Status::Starting { .. }) => Some(READY_POLL),
            _ => self.fence.as_ref().map(|fence| Duration::from_millis(fence.next().saturating_sub(now()).max(1))),
        }
    }

    fn reap_all(&mut self) -> io::Result<bool> {
        loop {
            match sys::reap()? {
                // An adopted orphan's end decides nothing.
                Reaped::Child(pid, exit) => {
                    if let Some(process) = self.running.remove(&pid) {
                        self.on_exit(&process, exit);
                    }
                }
                Reaped::Living => return Ok(false),
                Reaped::Childless => return Ok(true),
            }
        }
    }

    fn on_exit(&mut self, process: &Process, exit: Exit) {
        if self.ending.is_some() || self.members.ends_alone(&self.plan.attempt, process) {
            return;
        }
        match (process.role, exit) {
            (Role::Decides, Exit::Code(0)) => {
                self.undecided -= 1;
                if self.undecided == 0 {
                    self.decide(Ending::Succeeded, self.plan.end_grace_ms);
                }
            }
            _ => {
                let ending = failure(self.plan, process, exit, self.hunger.evidence());
                self.decide(ending, self.plan.end_grace_ms);
            }
        }
    }

    fn look_at_ready(&mut self) {
        let (Ready::File(path), Status::Starting { .. }, true) = (&self.plan.ready, &self.status, self.begun) else {
            return;
        };
        if let Ok(text) = std::fs::read_to_string(path) {
            let text = text.trim();
            if text == "running" {
                self.become_status(Status::Running);
            } else if !text.is_empty() {
                self.become_status(Status::Starting { waiting_for: text.to_owned() });
            }
        }
    }

    /// What a new watcher is told.
    fn said(&self) -> Vec<Status> {
        let gone = self.members.gone();
        let asks = self.fence.as_ref().filter(|_| self.ending.is_none()).and_then(Fence::asked);
        let asks = asks.map(|asked| Status::Asks { asked });
        let gone = (!gone.is_empty()).then_some(Status::Members { gone });
        std::iter::once(self.status.clone()).chain(gone).chain(asks).collect()
    }

    /// Starts members that are to come and asks those to end that are to go.
    fn resize(&mut self) {
        if self.ending.is_some() || !self.begun {
            return;
        }
        let order = match self.record.resize() {
            Ok(Some(order)) => order,
            Ok(None) => return,
            Err(e) => return note(format_args!("cannot read which members are to come and go: {e}")),
        };
        for process in self.members.start(&order) {
            match spawn(&process) {
                Ok(pid) => drop(self.running.insert(pid, process)),
                Err(message) => {
                    note(format_args!("{message}"));
                    self.members.is_gone(&process.name);
                }
            }
        }
        self.members.end(&self.plan.attempt, &self.running, &order);
        self.tell_members();
    }

    /// Presses on with the end of members while the attempt goes on.
    fn push_leaving(&mut self) {
        if self.ending.is_none() && self.members.push(&self.plan.attempt, &self.running) {
            self.tell_members();
        }
    }

    fn tell_members(&mut self) {
        let gone = self.members.gone();
        if !gone.is_empty() {
            self.server.tell(&Status::Members { gone });
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.decide(stop.why.ending(), stop.grace_ms);
    }

    /// The first decision stays; a later one may only shorten the grace.
    fn decide(&mut self, ending: Ending, grace_ms: u64) {
        let hard_end = Instant::now() + Duration::from_millis(grace_ms);
        if let Some(decided) = &mut self.ending {
            decided.hard_end = decided.hard_end.min(hard_end);
            return;
        }
        // Known also to an agent that finds this guard killed in the middle of the clean-up.
        if let Err(e) = self.record.decide(&Outcome { ending: ending.clone(), gone: false }) {
            note(format_args!("the outcome is not durable yet: {e}"));
        }
        self.ending = Some(Decided { ending, hard_end, hard: false });
        self.become_status(Status::Ending);
        ask_all_to_end();
    }

    /// Presses on with the end; true once nothing is left.
    fn push_ending(&mut self, childless: bool) -> io::Result<bool> {
        let Some(decided) = &mut self.ending else { return Ok(false) };
        if childless {
            return Ok(true);
        }
        decided.hard |= Instant::now() >= decided.hard_end;
        if decided.hard {
            // Every round anew: what is forked meanwhile is found in the next one.
            sweep::signal_descendants(&[libc::SIGKILL], note);
        }
        Ok(false)
    }

    fn finish(mut self) -> io::Result<()> {
        Record::remove_scratch(&self.plan.scratch);
        let ending = self.ending.take().map(|d| d.ending).expect("finish follows a decision");
        durable_despite_full_disk(|| self.record.decide(&Outcome { ending: ending.clone(), gone: true }))?;
        self.become_status(Status::Gone);
        Ok(())
    }
}

/// By the clock of the [`Fence`].
fn now() -> u64 {
    crate::clock::monotonic().0
}

fn ask_all_to_end() {
    sweep::signal_descendants(&sweep::POLITE, note);
}

/// A full disk may be emptied: worth a minute before the agent has to conclude the outcome by itself.
fn durable_despite_full_disk(mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match write() {
            // A folder that was removed never comes back.
            Err(e) if e.kind() != io::ErrorKind::NotFound && began.elapsed() < Duration::from_secs(60) => {
                note(format_args!("cannot write the outcome: {e}"));
            }
            done => return done,
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Starts one process; the error is the sentence that a person reads.
fn spawn(process: &Process) -> Result<i32, String> {
    let name = &process.name;
    let (program, arguments) = process.argv.split_first().ok_or(format!("member {name} has no command"))?;
    if !process.cwd.is_dir() {
        return Err(format!(
            "member {name}: the working directory {} does not exist on this node; set spec.workingDir to one that does",
            process.cwd.display()
        ));
    }
    let log = |e| format!("member {name}: its log {} cannot be opened: {e}", process.log.display());
    let out = OpenOptions::new().create(true).append(true).open(&process.log).map_err(log)?;
    let err = out.try_clone().map_err(log)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&process.env).current_dir(&process.cwd);
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    sys::tie_to_guard(&mut command);
    // The child is reaped by `reap_all`, so its handle is let go.
    command.spawn().map(|child| child.id() as i32).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => format!("member {name}: command not found: {program:?} (looked in PATH)"),
        io::ErrorKind::PermissionDenied => format!("member {name}: {program:?} is not executable"),
        _ => format!("member {name}: cannot start {program:?}: {e}"),
    })
}

/// The exit code of what was killed by SIGKILL, as shells have it.
const KILLED: i32 = 128 + libc::SIGKILL;

/// Whose failure a SIGKILL is, and by whom it came, as far as can be known.
fn killer(hunger: Option<Evidence>) -> (FailureClass, String) {
    match hunger {
        Some(Evidence::Cgroup(n)) => (
            FailureClass::User,
            format!(
                "by the kernel for want of memory ({n} processes of its memory cgroup were, while it ran): let it use \
                 less, or ask for more"
            ),
        ),
        Some(Evidence::Machine(n)) => (
            FailureClass::Infrastructure,
            format!(
                "by SIGKILL, most likely by the kernel: the machine ran out of memory and lost {n} processes meanwhile"
            ),
        ),
        None => (
            FailureClass::Infrastructure,
            "by SIGKILL, from outside: the kernel tells of no want of memory meanwhile".to_owned(),
        ),
    }
}

fn failure(plan: &Plan, process: &Process, exit: Exit, hunger: Option<Evidence>) -> Ending {
    let stated = plan.verdict.as_ref().filter(|_| process.role == Role::Decides);
    if let Some(Ok(Some(Verdict { class, message, exit_code }))) = stated.map(|path| durable::read_json(path)) {
        return Ending::Failed { class, message, exit_code };
    }
    let name = &process.name;
    let (class, what, exit_code) = match exit {
        // A shell's way to say that what it ran was killed so.
        Exit::Code(KILLED) => {
            let (_, by) = killer(hunger);
            (
                FailureClass::User,
                format!("member {name} ended with exit code {KILLED}: a process of it was killed {by}"),
                KILLED,
            )
        }
        Exit::Code(code) => (FailureClass::User, format!("member {name} ended with exit code {code}"), code),
        Exit::Signal(libc::SIGKILL) => {
            let (class, by) = killer(hunger);
            (class, format!("member {name} was killed {by}"), KILLED)
        }
        Exit::Signal(n) => {
            (FailureClass::User, format!("member {name} was killed by {}", sys::signal_name(n)), 128 + n)
        }
    };
    let class = if process.role == Role::Supports { FailureClass::Infrastructure } else { class };
    let message = match tail::last_lines(&process.log) {
        lines if lines.is_empty() => format!("{what}; its log is empty"),
        lines => format!("{what}; the end of its log:\n{lines}"),
    };
    Ending::Failed { class, message, exit_code: Some(exit_code) }
}
