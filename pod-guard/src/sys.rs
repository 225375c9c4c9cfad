//! A guard's system calls: the one place in guards with `unsafe`.
//!
//! Touches only this process, its children and the descriptors that it is given.
#![allow(unsafe_code)] // prctl, signalfd, waitpid and the hook between fork and exec have no safe form in std.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Leaves the agent's session and becomes the parent of every orphan below.
pub fn detach_and_adopt() -> io::Result<()> {
    // SAFETY: it takes nothing and changes only this process.
    unsafe {
        // Fails only where this process already leads a group, as when a person runs the guard by hand from a shell.
        libc::setsid();
    }
    adopt()
}

/// Becomes the parent of every orphan below.
pub fn adopt() -> io::Result<()> {
    // SAFETY: it takes plain integers and changes only this process.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Signals as a readable descriptor.
pub struct Signals(OwnedFd);

impl Signals {
    /// Those by which a process learns of its children's ends, and is asked to end.
    pub fn open() -> io::Result<Self> {
        Self::of(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT])
    }

    /// Blocks these signals and opens the descriptor. Before any other thread starts.
    pub fn of(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before it is read; the new descriptor is owned by no one else.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            for signal in signals {
                check(libc::sigaddset(&mut set, *signal))?;
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
            let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Reads what has arrived; true if this process was asked to end.
    pub fn asked_to_end(&self) -> bool {
        self.arrived().iter().any(|signal| *signal != libc::SIGCHLD)
    }

    /// Reads what has arrived.
    pub fn arrived(&self) -> Vec<i32> {
        let mut arrived = vec![];
        loop {
            // SAFETY: the buffer has exactly the size that is passed, and any bit pattern is a valid siginfo.
            let info = unsafe {
                let mut info = std::mem::zeroed::<libc::signalfd_siginfo>();
                let size = size_of::<libc::signalfd_siginfo>();
                let got = libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size);
                if got != size as isize {
                    return arrived;
                }
                info
            };
            arrived.push(info.ssi_signo as i32);
        }
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Waits until one of the descriptors can be read, or for `timeout`; `None` waits for ever.
pub fn wait_readable(fds: &[RawFd], timeout: Option<Duration>) -> io::Result<()> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 }).collect();
    let ms = timeout.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: the pointer and length are those of one live vector.
    match check(unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, ms) }) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What `reap` found.
pub enum Reaped {
    /// This child ended.
    Child(i32, Exit),
    /// Children are left, none has ended.
    Living,
    /// No child is left, living or dead.
    Childless,
}

/// Takes the end of one child, if any has ended.
pub fn reap() -> io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: waitpid writes one integer that lives on this stack.
    match check(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) }) {
        Ok(0) => Ok(Reaped::Living),
        Ok(pid) if libc::WIFEXITED(status) => Ok(Reaped::Child(pid, Exit::Code(libc::WEXITSTATUS(status)))),
        Ok(pid) => Ok(Reaped::Child(pid, Exit::Signal(libc::WTERMSIG(status)))),
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(Reaped::Childless),
        Err(e) => Err(e),
    }
}

/// Sends a signal. A process that is already gone is no error.
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    // 0 and below would name groups, and 1 is init.
    assert!(pid > 1, "a signal goes to one ordinary process");
    // SAFETY: plain integers.
    match check(unsafe { libc::kill(pid, signal) }) {
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e),
        _ => Ok(()),
    }
}

/// Makes the process die with the guard and start with no signal blocked.
pub fn tie_to_guard(command: &mut Command) {
    let guard = std::process::id() as libc::pid_t;
    // SAFETY: the hook calls only async-signal-safe functions and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
            // The guard may have died between fork and prctl: then no signal will come.
            if libc::getppid() != guard {
                return Err(io::Error::from_raw_os_error(libc::ECANCELED));
            }
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&mut set);
            check(libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut()))?;
            Ok(())
        });
    }
}

/// The signal's name, such as `SIGKILL`.
pub fn signal_name(signal: i32) -> String {
    let known = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
    ];
    known.iter().find(|(n, _)| *n == signal).map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}
