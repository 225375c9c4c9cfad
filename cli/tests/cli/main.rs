//! The built binary against a stand-in for the coordinator: what it sends, prints and exits with. The real coordinator's
//! API is tested with the coordinator, and both together by the system tests.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod cordons;
mod dashboard;
mod data;
mod fake;
mod help;
mod objects;
mod outputs;
mod pools;
mod replay;
mod requests;
mod submit;

use std::io::Write;
use std::process::{Command, Stdio};

/// How a run of the binary ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

/// The binary with an environment that leaves nothing to chance.
fn tidewater(server: Option<&str>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewater"));
    for name in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "TIDEWATER_SERVER", "TIDEWATER_KUBECONFIG", "TERM"] {
        command.env_remove(name);
    }
    command.env("COLUMNS", "100").env("XDG_DATA_HOME", "/nonexistent").args(args);
    if let Some(server) = server {
        command.env("TIDEWATER_SERVER", server);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs the binary against a server.
fn run(server: &str, args: &[&str]) -> Ran {
    finish(&mut tidewater(Some(server), args))
}

/// Runs the binary with text on its standard input.
fn run_with_input(server: &str, args: &[&str], input: &[u8]) -> Ran {
    let mut child = tidewater(Some(server), args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
