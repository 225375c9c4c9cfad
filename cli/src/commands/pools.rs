//! `tidewater pools`: the tree of pools, with what each is entitled to, holds and waits for.

use protocol::pool::Resource;

use crate::args::Global;
use crate::render::{Out, pools, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// What to show.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each bar is the whole fleet: # is held and used, o is held and idle, - is entitled to and not held, ! is held \
beyond that.\n\nExamples:\n  tidewater pools                       GPUs of every pool\n  tidewater pools --resource gpu/H100\n  \
tidewater pools -o wide               every resource"
)]
pub struct Args {
    /// Which resource: cpu, memory, gpu or gpu/MODEL [default: gpu, where there are any]
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<Resource>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_READ)?;
    let list = progress::patiently("waiting for the server", client.pools()).await?;
    out.object(&list, || pools::tree(&list.items, args.resource.as_ref(), out))
}
