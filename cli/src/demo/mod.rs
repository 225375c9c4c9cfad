//! `tidewater demo`: a federation on this machine, and real workloads on it: Ray, Spark, a batch gang that must wait and
//! says why. Everything that a person would do by hand with `dev`, `submit`, `why` and `logs`, told as it happens.

mod chaos;
mod examples;
mod setup;
mod story;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;

use crate::client::Client;
use crate::dev::fleet::Fleet;
use crate::dev::{Ended, Federation, Settings};

/// Starts a federation on this machine and runs the example workloads on it: a Ray training, a Spark job, and a gang that
/// waits for room.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// While they run, kill the leading coordinator, and bring it back later
    #[arg(long)]
    pub chaos: bool,
    /// Keep everything here afterwards; left out: a folder that goes away
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the first coordinator serves HTTP on 127.0.0.1; 0 takes any free port
    #[arg(long, default_value_t = 0)]
    pub port: u16,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let began = Instant::now();
    let temporary = tempfile::Builder::new().prefix("tidewater-demo-").tempdir().context("a temporary folder")?;
    let dir = args.data_dir.unwrap_or_else(|| temporary.path().to_owned());
    let manifests = examples::unpack(&dir.join("examples"))?;
    let mut ended = Ended::new()?;

    say!("tidewater demo: 3 coordinators, 3 clusters in 2 regions, on this machine");
    let settings = Settings { data_dir: dir.clone(), port: args.port, fleet: Fleet::load(None)?, nvml_lib: None };
    let mut federation = tokio::select! {
        federation = Federation::start(settings) => federation?,
        () = ended.wait() => anyhow::bail!("interrupted"),
    };
    say!("ready after {:.1} s; watch it at {}/", began.elapsed().as_secs_f64(), federation.url());

    let told = tokio::select! {
        told = tell(&mut federation, &manifests, args.chaos) => told,
        () = ended.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = federation.stop().await;
    let succeeded = told?;
    stopped?;
    say!("demo: {succeeded} workloads succeeded in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn tell(federation: &mut Federation, manifests: &examples::Manifests, chaos: bool) -> anyhow::Result<usize> {
    let frameworks = setup::provision(federation).await?;
    let client = Client::new(&federation.urls())?;
    story::tell(federation, &client, manifests, &frameworks, chaos).await
}
