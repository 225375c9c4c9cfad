//! How a command ends: the exit codes that scripts rely on (written down in `--help`), and the one line on stderr that
//! says what went wrong. Called by `main` alone.

use std::process::ExitCode;

use crate::client::ClientError;
use crate::render::Out;

/// The exit codes, as `--help` lists them.
pub const HELP: &str = "\
Exit codes:
    0   it worked; with --wait or --follow: every workload succeeded
    1   the request was refused, or the workload failed or was cancelled
    2   wrong usage or bad input: nothing was sent
    3   no such workload or cluster
    4   the server can't be reached
    5   a replica of an agent lost its Lease: start it again
  124   it took longer than --timeout
  130   interrupted; what was submitted goes on";

/// An ending that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The person's input is wrong; nothing was sent. One line for each problem.
    #[error("{}", .0.join("\n"))]
    Input(Vec<String>),
    /// No server is known.
    #[error("{0}")]
    NoServer(String),
    /// A workload that was waited for did not succeed.
    #[error("{0}")]
    Workload(String),
    /// `--timeout` has passed.
    #[error("gave up after {0} (--timeout)")]
    TimedOut(protocol::resources::Span),
    /// Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
    /// The reader of our output has gone away, as `head` does: no error.
    #[error("the reader of the output is gone")]
    ReaderGone,
}

impl Failure {
    /// One problem of the input.
    pub fn input(problem: impl Into<String>) -> Self {
        Failure::Input(vec![problem.into()])
    }
}

/// The exit code of an error.
fn code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return match failure {
            Failure::Input(_) => 2,
            Failure::NoServer(_) => 4,
            Failure::Workload(_) => 1,
            Failure::TimedOut(_) => 124,
            Failure::Interrupted(_) => 130,
            Failure::ReaderGone => 0,
        };
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::BadServer { .. }) => 2,
        Some(ClientError::Unreachable { .. }) => 4,
        Some(ClientError::Refused { status, .. }) => match (status.code, status.reason.as_str()) {
            (404, _) => 3,
            (400 | 422, _) => 2,
            (503, _) => 4,
            _ => 1,
        },
        Some(ClientError::Unintelligible { .. }) | None => 1,
    }
}

/// Says on stderr what went wrong, if anything did, and returns the process's exit code.
pub fn report(ended: anyhow::Result<()>, out: &Out) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    match error.downcast_ref::<Failure>() {
        Some(Failure::ReaderGone) => {}
        Some(Failure::Input(problems)) => problems.iter().for_each(|problem| out.error(problem)),
        Some(Failure::Interrupted(hint)) => out.note(hint),
        _ => out.error(&format!("{error:#}")),
    }
    ExitCode::from(code(&error))
}
