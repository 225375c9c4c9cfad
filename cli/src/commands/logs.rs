//! `tidewater logs`: a workload's output, as it is or as it comes.

use protocol::ids::WorkloadName;

use super::{follow, key};
use crate::args::Global;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, PATIENCE_TO_READ, connect};

/// Whose logs, and which.
#[derive(Debug, clap::Args)]
#[command(after_help = "With --follow and no --attempt, attempts that come after the one shown are followed too.")]
pub struct Args {
    /// The workload
    name: WorkloadName,
    /// Wait for more, until the workload has ended
    #[arg(long, short)]
    follow: bool,
    /// Of this worker alone, from 0: a batch gang's rank, a Ray worker, a Spark executor [default: what speaks for the program]
    #[arg(long, value_name = "N")]
    worker: Option<u32>,
    /// Of this attempt, from 1 [default: the last one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let key = key(&args.name, global);
    if args.follow {
        let client = connect(global, PATIENCE_TO_CHANGE)?;
        let from = match args.attempt {
            Some(n) => follow::From::Only(n),
            None => follow::From::Last,
        };
        return follow::logs(&client, &key, from, args.worker, |bytes| out.bytes(bytes)).await;
    }
    let client = connect(global, PATIENCE_TO_READ)?;
    let mut bytes =
        progress::patiently("waiting for the server", client.logs(&key, args.attempt, args.worker, false)).await?;
    while let Some(chunk) = bytes.next().await? {
        out.bytes(&chunk)?;
    }
    Ok(())
}
