//! `tidewater node`. Not part of this slice: the command is declared, and refuses to run.

/// Reads this node's GPUs for its cluster's agent.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the role until it is ended.
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("node is not wired yet")
}
