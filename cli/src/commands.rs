//! The commands, one file each: arguments, and a `run` that asks the server and prints. This file starts the runtime
//! that a command needs, bounds its time and picks its `run`.

pub mod cancel;
pub mod capacity;
pub mod cluster;
pub mod clusters;
pub mod completions;
pub mod dashboard;
pub mod data;
pub mod delete;
pub mod describe;
pub mod follow;
pub mod forecast;
pub mod forget;
pub mod get;
pub mod inline;
pub mod logs;
pub mod pool;
pub mod pools;
pub mod replay;
pub mod submit;
pub mod wait;
pub mod whatif;
pub mod why;

use std::time::Duration;

use protocol::ids::{WorkloadKey, WorkloadName};

use crate::args::{Cli, Command, Global};
use crate::exit::Failure;
use crate::render::Out;
use crate::{demo, dev, roles};

/// The runtime for a command: roles get all cores, a command that asks the server gets one thread and starts faster. So does the
/// node role, which has one link and little to say on it: each thread more costs memory on every node.
pub fn runtime(command: &Command) -> anyhow::Result<tokio::runtime::Runtime> {
    use tokio::runtime::Builder;
    let mut builder = match command {
        Command::Dev(_) | Command::Demo(_) | Command::Coordinator(_) | Command::Agent(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    Ok(builder.enable_all().build()?)
}

/// Runs a command within `--timeout`.
pub async fn run(cli: Cli, out: Out) -> anyhow::Result<()> {
    let work = Box::pin(dispatch(cli.command, cli.global.clone(), out));
    match cli.global.timeout {
        None => work.await,
        Some(limit) => match tokio::time::timeout(Duration::from_millis(limit.0), work).await {
            Ok(done) => done,
            Err(_) => Err(Failure::TimedOut(limit).into()),
        },
    }
}

async fn dispatch(command: Command, global: Global, out: Out) -> anyhow::Result<()> {
    match command {
        Command::Submit(args) => submit::run(*args, &global, &out).await,
        Command::Get(args) => get::run(args, &global, &out).await,
        Command::Describe(args) => describe::run(args, &global, &out).await,
        Command::Why(args) => why::run(args, &global, &out).await,
        Command::Forecast(args) => forecast::run(args, &global, &out).await,
        Command::Logs(args) => logs::run(args, &global, &out).await,
        Command::Dashboard(args) => dashboard::run(args, &global, &out).await,
        Command::Cancel(args) => cancel::run(args, &global, &out).await,
        Command::Delete(args) => delete::run(args, &global, &out).await,
        Command::Forget(args) => forget::run(args, &global, &out).await,
        Command::Capacity(args) => capacity::run(args, &global, &out).await,
        Command::Whatif(args) => whatif::run(*args, &global, &out).await,
        Command::Pools(args) => pools::run(args, &global, &out).await,
        Command::Pool(args) => pool::run(args, &global, &out).await,
        Command::Data(args) => data::run(args, &global, &out).await,
        Command::Cluster(args) => cluster::run(args, &global, &out).await,
        Command::Clusters(args) => clusters::run(args, &global, &out).await,
        Command::Replay(args) => replay::run(args, &global, &out),
        Command::Completions(args) => completions::run(args, &out),
        Command::Dev(args) => dev::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Coordinator(args) => roles::coordinator::run(args).await,
        Command::Agent(args) => roles::agent::run(args).await,
        Command::Node(args) => roles::node::run(args, global.output).await,
        Command::Identity(args) => roles::identity::run(args).await,
        Command::Guard(_) => unreachable!("main runs a guard before any runtime exists"),
    }
}

/// A workload of the namespace that was asked for.
fn key(name: &WorkloadName, global: &Global) -> WorkloadKey {
    WorkloadKey { namespace: global.namespace(), name: name.clone() }
}

/// Does the same to several workloads, and says of each what became of it. One that fails does not keep the others from
/// being done; the first failure decides the exit code.
async fn each(
    names: &[WorkloadName],
    global: &Global,
    out: &Out,
    done: &str,
    act: impl AsyncFn(&WorkloadKey) -> Result<(), crate::client::ClientError>,
) -> anyhow::Result<()> {
    let mut first: Option<anyhow::Error> = None;
    for name in names {
        match act(&key(name, global)).await {
            Ok(()) => out.print(&format!("workload/{name} {done}\n"))?,
            Err(e) if first.is_none() => first = Some(e.into()),
            Err(e) => out.error(&e.to_string()),
        }
    }
    first.map_or(Ok(()), Err)
}
