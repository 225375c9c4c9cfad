//! The guard: one small process for each attempt, which outlives the agent that started it.
//!
//! It runs the attempt's [`plan`], is the parent of every orphan below it, serves the agent on a [`socket`], and says that
//! the attempt is gone only once no descendant is left. It starts no second thread and no async runtime. The agent's
//! process runtime starts guards and reads their [`record`]s; nothing else calls this room.
//!
//! A plan is begun at most once: the guard holds a lock for its life, refuses a record that was revoked, stopped or begun
//! before, and makes its beginning durable before the first process starts.

pub mod durable;
mod hunger;
mod members;
pub mod plan;
pub mod record;
pub mod socket;
mod supervise;
pub mod tail;

use std::ffi::OsString;
use std::io::{self, Write};

pub use pod_guard::{sweep, sys};

use plan::Plan;
use record::{Outcome, Record, Started};
use socket::Server;

/// Exit code of a guard that may not begin: another one lives, or the attempt was revoked, stopped or begun before.
pub const REFUSED: i32 = 3;

/// Runs a guard for the attempt in the folder that is the only argument, and returns its exit code: 0 once the attempt is
/// gone, [`REFUSED`], or 1 with a line on stderr. Must be called before any other thread starts.
pub fn run_from_args(args: impl Iterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.collect();
    let [dir] = &args[..] else {
        note(format_args!("usage: guard DIR (an attempt's folder; started by the agent, not by people)"));
        return 2;
    };
    match guard(&Record::at(dir)) {
        Ok(true) => 0,
        Ok(false) => REFUSED,
        Err(e) => {
            note(format_args!("guard of {}: {e}", dir.display()));
            1
        }
    }
}

/// Notes a line for people on stderr. Where it can't be written, as on a full disk, the guard goes on: `eprintln!` would
/// panic, and take the attempt with it.
fn note(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// False where the attempt may not begin.
fn guard(record: &Record) -> io::Result<bool> {
    sys::detach_and_adopt()?;
    // Held until this process ends, however it ends.
    let Some(_lock) = record.try_lock()? else { return Ok(false) };
    if record.is_revoked() || record.started()?.is_some() || record.outcome()?.is_some() {
        return Ok(false);
    }
    let Some(plan) = durable::read_json::<Plan>(&record.path("plan.json"))? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no plan.json"));
    };
    if let Some(stop) = record.stop()? {
        record.decide(&Outcome { ending: stop.why.ending(), gone: true })?;
        return Ok(false);
    }
    let signals = sys::Signals::open()?;
    let server = Server::listen(record.dir())?;
    durable::write_json(&record.path("started.json"), &Started { guard_pid: std::process::id() })?;
    supervise::supervise(record, &plan, &signals, server)?;
    Ok(true)
}
