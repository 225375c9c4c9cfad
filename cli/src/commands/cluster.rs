//! `tidewater cluster`: takes member clusters out of service and back into it. The list of them is `tidewater clusters`.

mod drain;

use protocol::api::CordonRequest;
use protocol::ids::ClusterName;

use super::pool::say;
use crate::args::Global;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, connect};

/// What to do with a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidewater cluster cordon eu-1 --reason 'ann: new switches on Friday'
  tidewater cluster drain eu-1 --dry-run                 who would end, and where each would go
  tidewater cluster drain eu-1                           moves what runs there, and shows how far it is
  tidewater cluster uncordon eu-1
A cluster is open, cordoned or drained, and each command sets one of the three.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Place nothing new in clusters; what runs there goes on
    Cordon {
        /// Clusters to cordon
        #[arg(required = true, value_name = "NAME")]
        names: Vec<ClusterName>,
        /// Who says so and why: whoever waits for the cluster reads it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Place in clusters again; one that was removed may join again
    Uncordon {
        /// Clusters to open
        #[arg(required = true, value_name = "NAME")]
        names: Vec<ClusterName>,
    },
    /// Cordon a cluster and end what runs there, which goes on elsewhere
    Drain(drain::Args),
    /// Take a cluster off the list and refuse its agent; nothing may run there
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Refused while attempts are there: drain the cluster first. With --lost-for-good YOU say of a cluster that is not heard from that \
it never comes back and that nothing of what was there runs any more; all of it is then started elsewhere, as after \
`tidewater forget`. If any of it does still run, it runs twice. `tidewater cluster uncordon NAME` lets the cluster join again.")]
struct Remove {
    /// The cluster
    name: ClusterName,
    /// Who says so and why: its agent is told
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// It is lost and never comes back: what was there counts as gone
    #[arg(long)]
    lost_for_good: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    match args.what {
        What::Cordon { names, reason } => {
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            let request = CordonRequest { reason };
            each(&names, out, "cordoned", async |name| client.cordon(name, &request).await).await
        }
        What::Uncordon { names } => {
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            each(&names, out, "uncordoned", async |name| client.uncordon(name).await).await
        }
        What::Drain(args) => drain::run(args, global, out).await,
        What::Remove(Remove { name, reason, lost_for_good }) => {
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            let work = client.remove_cluster(&name, reason.as_deref(), lost_for_good);
            progress::patiently("waiting for the server", work).await?;
            out.print(&format!("cluster/{name} removed\n"))
        }
    }
}

async fn each(
    names: &[ClusterName],
    out: &Out,
    done: &str,
    act: impl AsyncFn(&ClusterName) -> Result<(), crate::client::ClientError>,
) -> anyhow::Result<()> {
    let mut failed = None;
    for name in names {
        let result = progress::patiently("waiting for the server", act(name)).await;
        say(out, &format!("cluster/{name} {done}"), result.map_err(Into::into), &mut failed)?;
    }
    failed.map_or(Ok(()), Err)
}
