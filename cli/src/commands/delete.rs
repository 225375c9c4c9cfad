//! `tidewater delete`: ends workloads and removes their records.

use protocol::ids::WorkloadName;

use super::each;
use crate::args::Global;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, connect};

/// Which workloads.
#[derive(Debug, clap::Args)]
#[command(after_help = "A workload that still runs is ended first; its record goes once nothing of it is left.")]
pub struct Args {
    /// Workloads to remove
    #[arg(required = true, value_name = "NAME")]
    names: Vec<WorkloadName>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_CHANGE)?;
    let work = each(&args.names, global, out, "deleted", async |key| client.delete(key).await);
    progress::patiently("waiting for the server", work).await
}
