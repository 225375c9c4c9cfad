//! `tidewater forget`: says that an attempt is gone which nobody in the federation can see any more.

use protocol::api::ForgetRequest;
use protocol::ids::{AttemptNumber, WorkloadName};

use super::key;
use crate::args::Global;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, connect};

/// Which attempt, and how the person knows.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For an attempt whose agent came back without its records (`why` says so). With this command YOU say that \
nothing of the attempt is left on its nodes: look there first. The workload then goes on as after a failure of the \
infrastructure, and is started again. If the attempt does still run, it runs twice. Whatever some agent can see is refused."
)]
pub struct Args {
    /// The workload
    name: WorkloadName,
    /// Which attempt; left out: the last one
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// How you know that it is gone; kept in the workload's timeline
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_CHANGE)?;
    let request = ForgetRequest { attempt: args.attempt.map(AttemptNumber), reason: args.reason };
    let key = key(&args.name, global);
    let warnings = progress::patiently("waiting for the server", client.forget(&key, &request)).await?;
    warnings.iter().for_each(|warning| out.warn(warning));
    out.print(&format!("workload/{}: its attempt is forgotten\n", args.name))
}
