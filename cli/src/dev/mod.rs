//! `tidewater dev`. Not part of this slice: the command is declared, and refuses to run.

/// Starts an embedded federation on this machine, for trying things out.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("dev is not wired yet")
}
