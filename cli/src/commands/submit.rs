//! `tidewater submit`: hands in workloads. Everything is read and checked before the first is sent. Each carries a uid
//! made here, so that a request whose answer was lost can be sent again without submitting twice.

use protocol::api::WorkloadObject;
use protocol::ids::{Uid, WorkloadKey};

use super::inline::Inline;
use super::wait;
use crate::args::{Format, Global};
use crate::client::{Client, default_namespace};
use crate::exit::Failure;
use crate::manifest;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_CHANGE, connect};

/// What to hand in, and what to wait for.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "tidewater submit -f FILE... [OPTIONS]\n       tidewater submit --name NAME [OPTIONS] -- COMMAND...",
    after_help = "A manifest's spec.workingDir is the folder in which its commands run. A relative one, and one that is \
left out, is meant from the manifest's own folder (from the current one for standard input) and sent as an absolute path: \
the process runtime shares the submitter's files.\n\n\
Several workloads in one file are separated by ---. Nothing is sent unless all of them are good.\n\n\
Examples:\n  tidewater submit -f train.yaml --wait\n  tidewater submit -f a.yaml -f b.yaml\n  \
generate | tidewater submit -f - --follow\n  \
tidewater submit --name smoke --count 2 --gpus 8 --gpu H100,H200 --wait -- python train.py"
)]
pub struct Args {
    /// A manifest, or - for standard input; may be given several times
    #[arg(long, short, value_name = "FILE")]
    file: Vec<String>,
    /// Wait until every workload has ended; the exit code is 0 only if all succeeded
    #[arg(long, short)]
    wait: bool,
    /// Print the logs as they come, until every workload has ended; the exit code as with --wait
    #[arg(long)]
    follow: bool,
    #[command(flatten)]
    inline: Inline,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let mut workloads = match args.inline.workload(global)? {
        Some(workload) => vec![workload],
        None if args.file.is_empty() => {
            return Err(
                Failure::input("nothing to submit: give a manifest with -f FILE, or --name NAME -- COMMAND").into()
            );
        }
        None => manifest::read(&args.file, global.namespace.as_ref())?,
    };
    let client = connect(global, PATIENCE_TO_CHANGE)?;
    for workload in &mut workloads {
        workload.metadata.uid.get_or_insert_with(|| Uid(uuid::Uuid::now_v7().as_u128()));
    }
    let accepted = send(&client, workloads, out).await?;
    if args.wait || args.follow {
        return wait::until_ended(&client, &accepted, args.follow, out).await;
    }
    Ok(())
}

/// Sends workloads one after the other, and prints each as it is accepted.
async fn send(client: &Client, workloads: Vec<WorkloadObject>, out: &Out) -> anyhow::Result<Vec<WorkloadKey>> {
    let (total, mut accepted) = (workloads.len(), vec![]);
    for workload in workloads {
        let name = workload.metadata.name.clone();
        let sent = progress::patiently("waiting for the server", client.submit(&workload)).await;
        let (workload, warnings) = sent.map_err(|e| {
            let done = accepted.len();
            let rest = format!("workload {name} ({done} of {total} were accepted before it)");
            anyhow::Error::new(e).context(if total == 1 { format!("workload {name}") } else { rest })
        })?;
        for warning in warnings {
            out.warn(&format!("{name}: {warning}"));
        }
        if out.format == Format::Yaml && !accepted.is_empty() {
            out.print("---\n")?;
        }
        out.object(&workload, || format!("workload/{name} created\n"))?;
        let namespace = workload.metadata.namespace.clone().unwrap_or_else(default_namespace);
        accepted.push(WorkloadKey { namespace, name });
    }
    Ok(accepted)
}
