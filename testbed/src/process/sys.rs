//! The hooks between fork and exec: the one place of this crate with `unsafe`.
#![allow(unsafe_code)] // What a child does to itself before it starts has no safe form in std.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The child gets SIGKILL when the thread that starts it ends.
pub(super) fn tie_to_starter(command: &mut Command) {
    let starter = std::process::id() as libc::pid_t;
    // SAFETY: the hook calls only async-signal-safe functions and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0))?;
            // The starter may have died between fork and prctl: then no signal will come.
            if libc::getppid() != starter {
                return Err(io::Error::from_raw_os_error(libc::ECANCELED));
            }
            Ok(())
        });
    }
}

/// The child leaves the terminal's session: neither its Ctrl-C nor its end reaches it.
pub(super) fn leave_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and takes nothing.
    unsafe {
        command.pre_exec(|| check(libc::setsid()));
    }
}
