//! The container's command under its guard: one thread, besides the one that asks the agent.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use super::agent::Agent;
use super::{ADDRESS, AFTER_MS, KEY, Settings, last_words, note};
use crate::clock;
use crate::fence::{Fence, GRACE_MS, Leave};
use crate::sweep;
use crate::sys::{self, Exit, Reaped, Signals};

/// Exit code of a container that nobody let go on (`EX_TEMPFAIL` of sysexits).
pub const FENCED: i32 = 75;
/// As shells have it: not there, and not to be run.
const NOT_FOUND: i32 = 127;
const NOT_RUN: i32 = 126;
/// How often what is left is looked at while it ends.
const END_POLL_MS: u64 = 20;
/// What is passed on to the command.
const PASSED_ON: [i32; 6] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Runs the command to its end; returns the exit code.
pub(super) fn run(settings: Settings, argv: &[OsString]) -> i32 {
    let after_ms = settings.after_ms;
    let begun = || -> io::Result<(Signals, Agent)> {
        // Blocked before there is another thread, which would be ended by them.
        let signals = Signals::of(&[&[libc::SIGCHLD], &PASSED_ON[..]].concat())?;
        sys::adopt()?;
        Ok((signals, Agent::of(settings)?))
    };
    let ended = begun().and_then(|(signals, agent)| {
        let fence = Fence::new(after_ms, clock::since_boot_ms());
        let guard = Guard { argv, after_ms, signals, agent, fence, child: None, trouble: None, told: false };
        guard.run()
    });
    ended.unwrap_or_else(|cause| {
        last_words(&format!("the system refused: {cause}"));
        NOT_RUN
    })
}

struct Guard<'a> {
    argv: &'a [OsString],
    after_ms: u64,
    signals: Signals,
    agent: Agent,
    fence: Fence,
    /// The command, once it was begun.
    child: Option<i32>,
    /// Why the last question was not answered.
    trouble: Option<String>,
    /// Whether it was said that it waits.
    told: bool,
}

impl Guard<'_> {
    fn run(mut self) -> io::Result<i32> {
        loop {
            let now = clock::since_boot_ms();
            if self.fence.asks(now) {
                self.agent.ask(now);
            }
            match (self.fence.leave(now), self.child) {
                (Leave::Over, _) => return self.end(),
                (Leave::Granted, None) => match self.begin() {
                    Ok(pid) => self.child = Some(pid),
                    Err(code) => return Ok(code),
                },
                (Leave::NotYet, _) => self.tell_why(),
                (Leave::Granted, Some(_)) => {}
            }
            if let Some(exit) = self.reaped()? {
                clear()?;
                return Ok(exit);
            }
            let wait = self.fence.next().saturating_sub(clock::since_boot_ms()).max(1);
            sys::wait_readable(&[self.signals.as_raw_fd(), self.agent.as_raw_fd()], Some(Duration::from_millis(wait)))?;
            for signal in self.signals.arrived().into_iter().filter(|signal| PASSED_ON.contains(signal)) {
                match self.child {
                    Some(child) => sweep::signal([child], &[signal], note),
                    // There is nobody yet to tell it to.
                    None => return Ok(128 + signal),
                }
            }
            for (asked, answer) in self.agent.heard() {
                match answer {
                    Ok(ttl_ms) => self.fence.answered(asked, ttl_ms),
                    Err(why) => self.trouble = Some(why),
                }
            }
        }
    }

    /// Says once what it waits for, if that is not over at once.
    fn tell_why(&mut self) {
        if let (Some(why), false) = (&self.trouble, self.told) {
            note(format_args!("waits for leave to begin: {why}"));
            self.told = true;
        }
    }

    /// The error is the exit code.
    fn begin(&self) -> Result<i32, i32> {
        let Some((program, arguments)) = self.argv.split_first() else { return Err(NOT_FOUND) };
        let mut command = Command::new(program);
        command.args(arguments);
        // The command has no use for them, and nobody else should.
        for name in [ADDRESS, KEY, AFTER_MS] {
            command.env_remove(name);
        }
        sys::tie_to_guard(&mut command);
        match command.spawn() {
            // Reaped below, so that its handle is let go.
            Ok(child) => Ok(child.id() as i32),
            Err(cause) => {
                last_words(&format!("{} cannot be started: {cause}", program.display()));
                Err(if cause.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
            }
        }
    }

    /// The command's exit code, once it ended. The ends of orphans mean nothing.
    fn reaped(&self) -> io::Result<Option<i32>> {
        loop {
            match sys::reap()? {
                Reaped::Child(pid, exit) if Some(pid) == self.child => {
                    return Ok(Some(match exit {
                        Exit::Code(code) => code,
                        Exit::Signal(signal) => 128 + signal,
                    }));
                }
                Reaped::Child(..) => {}
                Reaped::Living | Reaped::Childless => return Ok(None),
            }
        }
    }

    /// Ends all there is, politely first.
    fn end(self) -> io::Result<i32> {
        let why = self.trouble.map_or_else(String::new, |why| format!(" ({why})"));
        let what = if self.child.is_some() { "go on" } else { "begin" };
        let seconds = self.after_ms / 1000;
        last_words(&format!("nobody let attempt {} {what} for {seconds} s{why}, so that it ended", mark()));
        sweep::signal_descendants(&sweep::POLITE, note);
        let hard_end = clock::since_boot_ms() + GRACE_MS;
        while clock::since_boot_ms() < hard_end {
            if is_childless()? {
                return Ok(FENCED);
            }
            sys::wait_readable(&[], Some(Duration::from_millis(END_POLL_MS)))?;
        }
        clear()?;
        Ok(FENCED)
    }
}

fn mark() -> String {
    std::env::var(crate::MARK).unwrap_or_default()
}

fn is_childless() -> io::Result<bool> {
    loop {
        match sys::reap()? {
            Reaped::Child(..) => {}
            Reaped::Living => return Ok(false),
            Reaped::Childless => return Ok(true),
        }
    }
}

/// Leaves nobody behind. The first process of a container has the kernel do that as it ends.
fn clear() -> io::Result<()> {
    while std::process::id() != 1 && !is_childless()? {
        sweep::signal_descendants(&[libc::SIGKILL], note);
        sys::wait_readable(&[], Some(Duration::from_millis(END_POLL_MS)))?;
    }
    Ok(())
}
