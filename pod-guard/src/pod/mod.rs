//! The guard of one container of an attempt that ends itself when it is cut off: it starts the container's real command once it was let, and
//! ends it once it was not let go on for as long as the attempt may.
//!
//! An init container copies the program into a volume of the pod (`install TO`), from where it is the container's first process
//! (`run -- COMMAND ARGUMENT…`). It needs no privilege, no name service and nothing of the image. To everybody it is the command: it passes
//! signals on, and ends with its exit code. A container that is started again, or a pod that an operator makes again, meets the same gate.
//! When its end comes by the fence the exit code is [`FENCED`], and the container's termination message says so.

mod agent;
mod command;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub use command::FENCED;

use crate::words::Key;

/// Where the agent listens, as IP:PORT.
pub const ADDRESS: &str = "TIDEWATER_GUARD_ADDRESS";
/// The attempt's key, as [`Key::read`] reads it.
pub const KEY: &str = "TIDEWATER_GUARD_KEY";
/// How long the attempt goes on without being let, in ms.
pub const AFTER_MS: &str = "TIDEWATER_GUARD_AFTER_MS";
/// Begins the termination message of a container that ended by the fence.
pub const MESSAGE: &str = "tidewater-pod-guard: ";

/// Exit code for arguments or variables that are none.
const MISUSED: i32 = 2;
/// Where Kubernetes reads why a container ended.
const TERMINATION_LOG: &str = "/dev/termination-log";
const USAGE: &str =
    "usage: tidewater-pod-guard install TO | run -- COMMAND ARGUMENT... (written into pods by the agent)";

/// Does what the arguments say and returns the exit code. Must be called before any other thread starts.
pub fn run_from_args(args: impl Iterator<Item = OsString>) -> i32 {
    let args: Vec<OsString> = args.collect();
    let words: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    match words[..] {
        [verb, to] if verb == "install" => match install(Path::new(to)) {
            Ok(()) => 0,
            Err(cause) => {
                note(format_args!("cannot be installed as {}: {cause}", to.display()));
                1
            }
        },
        [verb, dashes, _, ..] if verb == "run" && dashes == "--" => match Settings::of_environment() {
            Ok(settings) => command::run(settings, &args[2..]),
            Err(why) => {
                note(format_args!("{why}"));
                MISUSED
            }
        },
        _ => {
            note(format_args!("{USAGE}"));
            MISUSED
        }
    }
}

/// What the agent wrote into the pod.
struct Settings {
    attempt: String,
    address: std::net::SocketAddr,
    key: Key,
    after_ms: u64,
}

impl Settings {
    fn of_environment() -> Result<Self, String> {
        let read = |name: &str| std::env::var(name).map_err(|_| format!("the variable {name} is not set"));
        let wrong = |name: &str| format!("the variable {name} is not what it should be");
        Ok(Self {
            attempt: read(crate::MARK)?,
            address: read(ADDRESS)?.parse().map_err(|_| wrong(ADDRESS))?,
            key: Key::read(&read(KEY)?).ok_or_else(|| wrong(KEY))?,
            after_ms: read(AFTER_MS)?.parse().map_err(|_| wrong(AFTER_MS))?,
        })
    }
}

/// A copy of this very program that everybody may run. Whole or not there.
fn install(to: &Path) -> io::Result<()> {
    let half = to.with_extension("half");
    io::copy(&mut File::open("/proc/self/exe")?, &mut File::create(&half)?)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
    fs::rename(&half, to)
}

/// A line for people, in the container's log. Where it can't be written the guard goes on.
fn note(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{MESSAGE}{line}");
}

/// The same, also as the container's termination message, where Kubernetes made a file for that.
fn last_words(line: &str) {
    note(format_args!("{line}"));
    if let Ok(mut file) = OpenOptions::new().write(true).truncate(true).open(TERMINATION_LOG) {
        let _ = writeln!(file, "{MESSAGE}{line}");
    }
}
