//! `tidewater demo`. Not part of this slice: the command is declared, and refuses to run.

/// Starts a federation and runs the example workloads on it.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("demo is not wired yet")
}
