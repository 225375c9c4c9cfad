//! `tidewater pool`: makes, changes and removes pools and ownership rules. Everything is read and checked before the first is
//! sent.

use protocol::ids::{Namespace, PoolName};

use crate::args::Global;
use crate::client::Client;
use crate::exit::Failure;
use crate::manifest::pools::{Rule, read};
use crate::render::{Out, pools, progress};
use crate::server::{PATIENCE_TO_CHANGE, PATIENCE_TO_READ, connect};

/// What to do with pools.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make or change pools and ownership rules as files say
    Apply(Apply),
    /// Remove pools: only those without workloads that have not ended, without pools below them and without rules
    Delete {
        /// Pools to remove
        #[arg(required = true, value_name = "NAME")]
        names: Vec<PoolName>,
    },
    /// List the ownership rules: where workloads go that name no pool
    Rules,
    /// Remove ownership rules
    DeleteRule {
        /// Owners whose rules to remove
        #[arg(required = true, value_name = "OWNER")]
        owners: Vec<Namespace>,
    },
}

/// Which files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A pool:\n  apiVersion: tidewater.dev/v1\n  kind: ResourcePool\n  metadata: {name: research}\n  spec:\n    \
parent: ml              # left out: at the top\n    resources:\n      gpu/H100: {reservation: 16, limit: 32, share: 2, type: ELASTIC}\n\n\
An ownership rule, whose owner is a namespace:\n  apiVersion: tidewater.dev/v1\n  kind: OwnershipRule\n  metadata: {name: team-a}\n  \
spec: {pool: research}\n\nSeveral in one file are separated by ---."
)]
struct Apply {
    /// A manifest, or - for standard input; may be given several times
    #[arg(long, short, value_name = "FILE", required = true)]
    file: Vec<String>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    match args.what {
        What::Apply(apply) => {
            let rules = read(&apply.file)?;
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            progress::patiently("waiting for the server", set(&client, rules, out)).await
        }
        What::Delete { names } => {
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            let mut failed = None;
            for name in &names {
                let done = progress::patiently("waiting for the server", client.delete_pool(name)).await;
                say(out, &format!("pool/{name} deleted"), done.map_err(Into::into), &mut failed)?;
            }
            failed.map_or(Ok(()), Err)
        }
        What::DeleteRule { owners } => {
            let client = connect(global, PATIENCE_TO_CHANGE)?;
            let mut failed = None;
            for owner in &owners {
                let done = progress::patiently("waiting for the server", client.delete_rule(owner)).await;
                say(out, &format!("ownershiprule/{owner} deleted"), done.map_err(Into::into), &mut failed)?;
            }
            failed.map_or(Ok(()), Err)
        }
        What::Rules => {
            let client = connect(global, PATIENCE_TO_READ)?;
            let list = progress::patiently("waiting for the server", client.rules()).await?;
            out.object(&list, || pools::rules(&list.items, out))
        }
    }
}

/// Says what became of one. One that fails does not keep the others from being done; the first failure decides the exit code.
pub fn say(
    out: &Out,
    done: &str,
    result: anyhow::Result<()>,
    failed: &mut Option<anyhow::Error>,
) -> anyhow::Result<()> {
    match result {
        Ok(()) => out.print(&format!("{done}\n"))?,
        Err(e) if failed.is_none() => *failed = Some(e),
        Err(e) => out.error(&e.to_string()),
    }
    Ok(())
}

/// Sets one after the other, in the order in which they are written: a pool comes before those below it.
async fn set(client: &Client, rules: Vec<Rule>, out: &Out) -> anyhow::Result<()> {
    let set = async |rule: &Rule| match rule {
        Rule::Pool(pool) => (format!("pool/{}", pool.metadata.name), client.set_pool(pool).await.map(|_| ())),
        Rule::Owner(owner) => {
            (format!("ownershiprule/{}", owner.metadata.name), client.set_rule(owner).await.map(|_| ()))
        }
    };
    set_each(&rules, out, set).await
}

/// Sets one after the other and says so of each; `set` names it and does it. The first that fails ends it, and says how many came before.
pub async fn set_each<T, E>(
    all: &[T],
    out: &Out,
    set: impl AsyncFn(&T) -> (String, Result<(), E>),
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    for (done, one) in all.iter().enumerate() {
        let (what, result) = set(one).await;
        if let Err(e) = result {
            let total = all.len();
            let rest = if total == 1 { what } else { format!("{what} ({done} of {total} were applied before it)") };
            return Err(anyhow::Error::new(e).context(rest));
        }
        out.print(&format!("{what} applied\n"))?;
    }
    if all.is_empty() { Err(Failure::input("nothing to apply").into()) } else { Ok(()) }
}
