//! `tidewater capacity`: what is free, and whether a gang would start now.

use protocol::ids::Region;
use protocol::sku::Sku;

use crate::args::Global;
use crate::client::CapacityQuestion;
use crate::render::{Out, capacity, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// What is asked for.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewater capacity --sku H100\n  tidewater capacity --gang 4 --gpus-per-node 8 --region eu-west"
)]
pub struct Args {
    /// Only this GPU model, by any of its names
    #[arg(long, value_name = "MODEL")]
    sku: Option<Sku>,
    /// Only clusters of this region
    #[arg(long)]
    region: Option<Region>,
    /// Would a gang of N nodes start now, and how many of them?
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    gang: Option<u32>,
    /// GPUs on each node of that gang [default: as many as the largest such node has]
    #[arg(long, value_name = "G", requires = "gang")]
    gpus_per_node: Option<u32>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_READ)?;
    let question =
        CapacityQuestion { sku: args.sku, region: args.region, gang: args.gang, gpus_per_node: args.gpus_per_node };
    let answer = progress::patiently("waiting for the server", client.capacity(&question)).await?;
    out.object(&answer, || capacity::text(&answer, out))
}
