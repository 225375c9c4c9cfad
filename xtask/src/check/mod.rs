//! `cargo xtask kubernetes check`: Tidewater tried on real clusters, those of people or of the bed. A coordinator and an agent of each
//! cluster run here; each cluster gets small workloads of its own, whose ends and whose remains are looked at. All that is made lies
//! in two namespaces of each cluster that are made for this and deleted again, so that it can go beside a federation that is there.

mod cluster;
mod federation;
mod programs;
mod workloads;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use testbed::images::built;

use crate::images::repository;
use crate::kubernetes::Place;
use cluster::Cluster;
use federation::Federation;
use programs::Programs;

/// What is checked, and with what.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A cluster by its kubeconfig, whose current context counts; once for each cluster. Left out: the clusters that `up` has started.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Vec<PathBuf>,
    #[command(flatten)]
    programs: programs::Named,
    /// The `tidewater` that is checked; left out: it is built from this repository.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// How many seconds each step may take: an agent's start, a workload, the end of what it leaves.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
    #[command(flatten)]
    place: Place,
}

/// Does it.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let programs = &arguments.programs;
    let clusters = match arguments.kubeconfig.is_empty() {
        false => arguments.kubeconfig.into_iter().map(|file| (file, programs.of_given())).collect(),
        true => programs.bed(&arguments.place.bed())?,
    };
    let check = Check { patience: Duration::from_secs(arguments.patience), program: arguments.program };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(check.run(clusters))
}

/// How it is checked.
struct Check {
    patience: Duration,
    program: Option<PathBuf>,
}

impl Check {
    async fn run(&self, files: Vec<(PathBuf, Programs)>) -> anyhow::Result<()> {
        // Names of its own: whatever else is in these clusters is not this check's, and no agent there sees what is.
        let id = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let mut clusters = vec![];
        // All of them before anything is made in one.
        for (place, (file, programs)) in files.into_iter().enumerate() {
            let cluster = Cluster::look(&format!("check-{id}-{}", place + 1), &file, programs).await?;
            println!("{}: {}, {}", cluster.name, file.display(), cluster.seen);
            clusters.push(cluster);
        }
        let program = match &self.program {
            // It is started in other folders.
            Some(file) => file.canonicalize().with_context(|| format!("--program {}", file.display()))?,
            None => build()?,
        };
        let folder = tempfile::Builder::new().prefix("tidewater-check-").tempdir()?;
        let checked = tokio::select! {
            checked = self.on(&clusters, &program, folder.path()) => checked,
            signal = tokio::signal::ctrl_c() => match signal {
                Ok(()) => Err(anyhow::anyhow!("interrupted")),
                Err(cause) => Err(anyhow::anyhow!("Ctrl-C cannot be awaited: {cause}")),
            },
        };
        // Whatever happened. By now no process of it runs that could make anything more.
        let mut stays = vec![];
        eprintln!("deleting the namespaces");
        for cluster in &clusters {
            if let Err(error) = cluster.clear(self.patience).await {
                stays.push(format!("{error:#}"));
            }
        }
        match checked {
            Ok(()) if stays.is_empty() => {
                println!("all is well (clusters: {}), and nothing of the check is left there", clusters.len());
                Ok(())
            }
            Ok(()) => bail!("{}", stays.join("; ")),
            Err(error) => {
                stays.iter().for_each(|stays| eprintln!("{stays}"));
                // The processes' logs.
                Err(error.context(format!("logs are in {}", folder.keep().display())))
            }
        }
    }

    async fn on(&self, clusters: &[Cluster], program: &Path, folder: &Path) -> anyhow::Result<()> {
        for cluster in clusters {
            cluster.make_namespaces().await?;
        }
        eprintln!(
            "starting a coordinator and an agent of each; an agent waits 15 s until it trusts a Lease that it made anew"
        );
        let federation = Federation::start(program, folder, clusters, self.patience).await?;
        let mut failed = 0;
        for (cluster, made) in clusters.iter().zip(workloads::submit(&federation, clusters)?) {
            for workload in made {
                failed += usize::from(!workloads::follow(&federation, cluster, &workload, self.patience).await?);
            }
            cluster.until_nothing_is_left(self.patience).await?;
            println!("{}: nothing is left of them", cluster.name);
        }
        federation.stop();
        ensure!(failed == 0, "workloads that did not succeed: {failed}");
        Ok(())
    }
}

fn build() -> anyhow::Result<PathBuf> {
    eprintln!("building tidewater");
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    Ok(built::program(repository()?, "cli", "tidewater", profile, |_| ())?)
}
