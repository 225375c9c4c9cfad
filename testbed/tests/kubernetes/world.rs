//! What a test has: programs or a given cluster, folders of its own, and the certainty that no process is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DeleteParams;
use kube::{Api, Client};
use testbed::{Binaries, Component, ControlPlane, NodeSettings, Settings};

/// How long anything may take on a busy machine that is not about time.
pub const PATIENCE: Duration = Duration::from_secs(150);
const LOOK: Duration = Duration::from_millis(100);

/// One test's surroundings.
pub struct World {
    /// The programs, unless a cluster was given.
    pub binaries: Option<Arc<Binaries>>,
    /// The kubeconfig that a person gave.
    pub given: Option<PathBuf>,
    /// The real node, where the test has one.
    pub node: Option<NodeSettings>,
    /// The operators beside it.
    pub operators: &'static [Component],
}

/// Runs a test on a runtime of its own.
pub fn run_alone<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be made").block_on(test)
}

impl World {
    /// What a control plane with the test's real node and operators is made of.
    pub fn with_real_node(&self, folder: &Path) -> anyhow::Result<Settings> {
        let node = self.node.clone().context("no real node")?;
        Ok(Settings::with_real_node(folder, node).and(self.operators))
    }

    /// Starts a control plane, and says how long it took and what it holds in memory.
    pub async fn start(&self, settings: Settings) -> anyhow::Result<ControlPlane> {
        let binaries = self.binaries.as_ref().context("no programs")?;
        let plane = ControlPlane::start(binaries, settings).await?;
        let resident: Vec<String> = testbed::Component::ALL
            .into_iter()
            .filter_map(|c| Some(format!("{} {} MiB", c.name(), plane.process(c)?.resident_mib()?)))
            .collect();
        eprintln!("    ready in {:.1} s: {}", plane.ready_in().as_secs_f64(), resident.join(", "));
        Ok(plane)
    }
}

/// Deletes one; what is in it goes by and by.
pub async fn delete_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    Api::<Namespace>::all(client.clone()).delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// Whether there is one.
pub async fn has_namespace(client: &Client, name: &str) -> anyhow::Result<bool> {
    Ok(Api::<Namespace>::all(client.clone()).get_opt(name).await?.is_some())
}

/// Looks until `look` finds something.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    until_within(PATIENCE, what, look).await
}

/// The same with another patience.
pub async fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > patience {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Fails if a process stands in this folder: those of a control plane stand in its own.
pub fn no_process_in(folder: &Path) -> anyhow::Result<()> {
    let folder = std::fs::canonicalize(folder)?;
    let mut left = vec![];
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder)) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            left.push(format!("{} ({})", name.trim(), entry.file_name().to_string_lossy()));
        }
    }
    if left.is_empty() { Ok(()) } else { bail!("processes are left: {}", left.join(", ")) }
}
