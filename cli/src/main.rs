//! The `tidewater` binary: every role of the federation, and every command for people.
//!
//! `main` is the story of the process: read the command line, hand a guard over before any thread exists, start a
//! runtime, run the command, tell how it ended by the exit code.

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

/// What the roles note as they run goes to stderr, where RUST_LOG asks for it; by default only what needs a person.
fn trace() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
}
