//! `tidewater cancel`: ends workloads, keeps their records.

use protocol::ids::WorkloadName;

use super::each;
use crate::args::Global;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, connect};

/// Which workloads.
#[derive(Debug, clap::Args)]
#[command(after_help = "The workload's processes are ended and seen to be gone; `get` shows Draining until then.")]
pub struct Args {
    /// Workloads to end
    #[arg(required = true, value_name = "NAME")]
    names: Vec<WorkloadName>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_CHANGE)?;
    let work = each(&args.names, global, out, "cancelled", async |key| client.cancel(key).await);
    progress::patiently("waiting for the server", work).await
}
