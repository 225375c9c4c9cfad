//! `tidewater cluster drain`: asks for the drain, and shows how far it is until nothing is left in the cluster. The coordinators do it:
//! whoever stops watching stops nothing.

use std::time::Duration;

use engine::ahead::Edit;
use protocol::api::{ClusterObject, DrainRequest, DrainStatus};
use protocol::ids::ClusterName;
use protocol::workload::Preemptible;

use crate::args::Global;
use crate::client::{Client, ClientError, Scope};
use crate::commands::whatif;
use crate::exit::Failure;
use crate::render::workload::is_terminal;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, PATIENCE_TO_READ, connect};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How to drain.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing new is placed in the cluster. What runs there is ended with its grace, keeps its place in line and its retries, and starts \
elsewhere once it is seen to be gone. What may not be preempted (spec.preemptible: false) is waited for and named, unless --force is \
given. Ctrl-C ends the waiting and not the drain; `tidewater cluster cordon NAME` ends the drain, and what was not ended yet goes on.")]
pub struct Args {
    /// The cluster
    name: ClusterName,
    /// Who says so and why: it is in the timeline of what is ended
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also end what may not be preempted
    #[arg(long)]
    force: bool,
    /// End at most so many attempts at the same time [default: all of them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_at_once: Option<u32>,
    /// Do not wait until nothing is left there
    #[arg(long)]
    no_wait: bool,
    /// Change nothing: tell what would end, and what would become of it
    #[arg(long, conflicts_with = "no_wait")]
    dry_run: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let name = args.name;
    if args.dry_run {
        let client = connect(global, PATIENCE_TO_READ)?;
        return dry_run(&client, &name, args.force, out).await;
    }
    let client = connect(global, PATIENCE_TO_CHANGE)?;
    let request = DrainRequest { reason: args.reason, force: args.force, max_at_once: args.max_at_once };
    progress::patiently("waiting for the server", client.drain(&name, &request)).await?;
    if args.no_wait {
        return out.print(&format!("cluster/{name} is being drained\n"));
    }
    tokio::select! {
        done = until_empty(&client, &name, out) => done?,
        _ = tokio::signal::ctrl_c() => {
            let text = format!("not waiting any longer; the drain of {name} goes on (`tidewater cluster cordon {name}` ends it)");
            return Err(Failure::Interrupted(text).into());
        }
    }
    out.print(&format!("cluster/{name} drained\n"))
}

/// What would become of everything, by the what-if; and whom a drain without force would wait for.
async fn dry_run(client: &Client, name: &ClusterName, force: bool, out: &Out) -> anyhow::Result<()> {
    let edits = [Edit::DrainCluster { cluster: name.clone(), waits: !force }];
    let changes = progress::patiently("looking ahead", client.whatif(&edits)).await?;
    out.object(&changes, || whatif::text(&changes, out))?;
    if force {
        return Ok(());
    }
    let all = progress::patiently("waiting for the server", client.list(&Scope::All)).await?;
    let there = all.items.iter().filter(|w| {
        let here = w.status.as_ref().is_some_and(|s| s.cluster.as_ref() == Some(name) && s.phase != "Queued");
        here && !is_terminal(w) && w.spec.preemptible == Preemptible::No
    });
    for workload in there {
        let name = &workload.metadata.name;
        out.note(&format!("{name} may not be preempted: the drain would wait for it; --force ends it"));
    }
    Ok(())
}

/// Waits until no attempt is left, with a bar on terminals and a line for each change elsewhere.
async fn until_empty(client: &Client, name: &ClusterName, out: &Out) -> anyhow::Result<()> {
    let mut bar: Option<indicatif::ProgressBar> = None;
    let mut told = String::new();
    let mut most = 0;
    loop {
        let cluster = match client.cluster(name).await {
            Ok(cluster) => cluster,
            // Somebody removed it: nothing was left.
            Err(ClientError::Refused { status, .. }) if status.code == 404 => break,
            Err(e) => return Err(e.into()),
        };
        let left = cluster.status.running as u64;
        let Some(drain) = cluster.status.cordon.as_ref().and_then(|cordon| cordon.drain.as_ref()) else {
            let text =
                format!("{name} is not drained any more: somebody said otherwise, and {left} attempts are there");
            return Err(Failure::Workload(text).into());
        };
        if left == 0 {
            break;
        }
        most = most.max(left);
        let shown = bar.get_or_insert_with(|| progress::bar(most));
        shown.set_length(most);
        shown.set_position(most - left);
        let line = line(&cluster, drain);
        shown.set_message(line.clone());
        if shown.is_hidden() && line != told {
            out.note(&format!("{name}: {line}"));
        }
        told = line;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(())
}

/// How far it is, and what it waits for.
fn line(cluster: &ClusterObject, drain: &DrainStatus) -> String {
    let attempts = |n: u64| if n == 1 { "1 attempt".to_owned() } else { format!("{n} attempts") };
    let mut parts = vec![format!("{} left", attempts(cluster.status.running as u64))];
    if drain.ending > 0 {
        parts.push(format!("{} being ended", drain.ending));
    }
    if drain.to_end > 0 {
        parts.push(format!("{} to be ended", drain.to_end));
    }
    if drain.waits_for_count > 0 {
        let names = named(&drain.waits_for, drain.waits_for_count);
        parts.push(format!("waiting for {names}, which may not be preempted (--force ends it)"));
    }
    if drain.unseen_count > 0 {
        let names = named(&drain.unseen, drain.unseen_count);
        parts.push(format!("nobody sees whether {names} still runs (`tidewater why` tells more)"));
    }
    if cluster.status.phase == "Lost" {
        parts.push("the cluster is not heard from: nothing can be ended until it is back".into());
    }
    parts.join("; ")
}

fn named(names: &[String], count: u64) -> String {
    let mut all = names.join(", ");
    let more = count.saturating_sub(names.len() as u64);
    if more > 0 {
        all.push_str(&format!(" and {more} more"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_waited_for_is_named_and_the_rest_counted() {
        let names: Vec<String> = ["default/a", "default/b"].map(String::from).to_vec();
        assert_eq!(named(&names, 2), "default/a, default/b");
        assert_eq!(named(&names, 5), "default/a, default/b and 3 more");
    }
}
