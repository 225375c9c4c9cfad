//! `cargo xtask`: what people who work on Tidewater run by hand.

mod check;
mod images;
mod kubernetes;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What people who work on Tidewater run by hand.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Makes the container image of `tidewater`, which all roles run, and says how it is loaded.
    Images(images::Arguments),
    /// Real Kubernetes clusters on this machine.
    #[command(subcommand)]
    Kubernetes(kubernetes::Command),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Images(arguments) => images::run(&arguments),
        Task::Kubernetes(command) => kubernetes::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
