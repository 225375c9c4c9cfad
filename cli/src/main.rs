//! The `tidewater` binary: every role of the federation, and every command for people.
//!
//! `main` is the story of the process: read the command line, hand a guard over before any thread exists, start a
//! runtime, run the command, tell how it ended by the exit code.

/// Prints a line on stdout. Where nobody reads it any more, as after `| head`, the process goes on: `println!` would panic
/// in the middle of a federation and leave what it runs.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

/// [`say`] on stderr.
macro_rules! tell {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

mod args;
mod client;
mod commands;
mod demo;
mod dev;
mod exit;
mod guard;
mod manifest;
mod render;
mod roles;
mod server;

use std::process::ExitCode;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::from_command_line();
    // The guard supervises processes and forks: no other thread may exist in it.
    if let Command::Guard(guard) = cli.command {
        return guard::run(guard);
    }
    trace();
    let out = render::Out::new(&cli.global);
    let ended = commands::runtime(&cli.command).and_then(|runtime| runtime.block_on(commands::run(cli, out.clone())));
    exit::report(ended, &out)
}

/// What is noted by default.
const NOTED: &str = "error,agent::kube::leadership=info,coordinator::identity::workload_tokens=info";

/// What the roles note as they run goes to stderr, where RUST_LOG asks for it; by default only what needs a person, who leads, and
/// which workload tokens are issued.
fn trace() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| NOTED.into());
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr);
    // A line that can't be written is lost; told on stderr, where it can't be written either, it would be a panic.
    tracing_subscriber::registry().with(filter).with(lines.log_internal_errors(false)).init();
}
