//! `tidewater why`: why a workload waits, or why it is where it is.

use protocol::ids::WorkloadName;

use super::key;
use crate::args::Global;
use crate::render::{Out, explanation, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// Which workload.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Columns, in members of the group that does not fit: NEEDS it asks for, FITS would fit now, and of the \
rest those held back by running workloads (BUSY), by memory that something unaccounted for holds (GHOSTS), by faults (SICK), by pods of others (OTHERS)."
)]
pub struct Args {
    /// The workload
    name: WorkloadName,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_READ)?;
    let why = progress::patiently("waiting for the server", client.why(&key(&args.name, global))).await?;
    out.object(&why.object, || match &why.explanation {
        Some(explanation) => explanation::text(args.name.as_str(), explanation, out),
        // A newer server's reasons: its own words say them.
        None => format!("{}\n", why.text.trim_end()),
    })
}
