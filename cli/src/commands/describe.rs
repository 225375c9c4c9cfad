//! `tidewater describe`: everything about one workload.

use protocol::ids::WorkloadName;

use super::key;
use crate::args::Global;
use crate::render::{Out, progress, workload};
use crate::server::{PATIENCE_TO_READ, connect};

/// Which workload.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The workload
    name: WorkloadName,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_READ)?;
    let found = progress::patiently("waiting for the server", client.get(&key(&args.name, global))).await?;
    out.object(&found, || workload::page(&found, out))
}
