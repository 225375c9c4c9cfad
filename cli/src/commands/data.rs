//! `tidewater data`: which data there is, where copies of it are and who uses it; made, changed and removed here. Everything is read
//! and checked before the first is sent.

use protocol::data::DataObject;
use protocol::ids::DataName;

use super::pool::{say, set_each};
use crate::args::Global;
use crate::client::Client;
use crate::manifest;
use crate::render::{Out, data, progress};
use crate::server::{PATIENCE_TO_CHANGE, PATIENCE_TO_READ, connect};

/// What to do with data locations; nothing: list them.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewater data                        what there is, where, and who uses it\n  tidewater data apply -f data.yaml\n  \
tidewater data delete imagenet"
)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make or change data locations as files say
    Apply(Apply),
    /// Remove data locations; workloads that require one wait until it is back
    Delete {
        /// Data locations to remove
        #[arg(required = true, value_name = "NAME")]
        names: Vec<DataName>,
    },
}

/// Which files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A data location:\n  apiVersion: tidewater.dev/v1\n  kind: DataLocation\n  metadata: {name: imagenet}\n  spec:\n    \
size: 2Ti\n    clusters: [eu-west-1]    # these have a copy\n    regions: [us-east]       # so has every cluster there\n\n\
A workload names it in spec.placement.data: [{name: imagenet, require: true}].\nSeveral in one file are separated by ---."
)]
struct Apply {
    /// A manifest, or - for standard input; may be given several times
    #[arg(long, short, value_name = "FILE", required = true)]
    file: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    match args.what {
        None => {
            let client = connect(global, PATIENCE_TO_READ)?;
            let list = progress::patiently("waiting for the server", client.data()).await?;
            out.object(&list, || data::table(&list.items, out))
        }
        Some(What::Apply(apply)) => {
            let all = manifest::data::read(&apply.file)?;
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            progress::patiently("waiting for the server", set(&client, all, out)).await
        }
        Some(What::Delete { names }) => {
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            let mut failed = None;
            for name in &names {
                let done = progress::patiently("waiting for the server", client.delete_data(name)).await;
                say(out, &format!("data/{name} deleted"), done.map_err(Into::into), &mut failed)?;
            }
            failed.map_or(Ok(()), Err)
        }
    }
}

async fn set(client: &Client, all: Vec<DataObject>, out: &Out) -> anyhow::Result<()> {
    let set =
        async |data: &DataObject| (format!("data/{}", data.metadata.name), client.set_data(data).await.map(|_| ()));
    set_each(&all, out, set).await
}
