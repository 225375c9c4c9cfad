//! `tidewater coordinator`. Not part of this slice: the command is declared, and refuses to run.

/// Runs a replica of the control plane.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the role until it is ended.
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("coordinator is not wired yet")
}
