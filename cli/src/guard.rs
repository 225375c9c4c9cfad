//! The hidden `guard` command: the supervisor of one attempt. It is dispatched before any runtime or thread exists.

use std::ffi::OsString;
use std::process::ExitCode;

/// What follows `guard` on the command line, unread.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The guard's own arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Becomes a guard.
pub fn run(args: Args) -> ExitCode {
    let code = agent::guard::run_from_args(args.rest.into_iter());
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
