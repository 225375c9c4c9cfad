//! From an order to a guard's plan: what is common to the frameworks, and which of them lays out the processes.

use std::path::PathBuf;

use protocol::workload::Framework;

use super::environment::Base;
use super::python::Progress;
use super::{Inner, Order, batch, blocking, ray, spark};
use crate::guard::plan::Plan;
use crate::guard::record::Record;
use crate::runtime::members::{Member, members};

/// What every framework's layout starts from.
pub(super) struct Layout<'a> {
    /// The order.
    pub order: &'a Order,
    /// The attempt's folder.
    pub record: &'a Record,
    /// The gang, in rank order.
    pub members: Vec<Member>,
    /// The environment of every process.
    pub base: Base,
    /// Where the user's command runs.
    pub working_dir: PathBuf,
}

impl Layout<'_> {
    /// How long the attempt goes on without being let, in ms.
    pub(super) fn fence_ms(&self) -> Option<u64> {
        self.order.launch.spec.fence().map(|after| after.0)
    }

    /// The log of a process.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.record.path("logs").join(format!("{name}.log"))
    }
}

/// Installs what the attempt needs and lays out its processes. The error is what a person reads.
pub(super) async fn plan(inner: &Inner, record: &Record, order: &Order, progress: Progress) -> Result<Plan, String> {
    let framework = order.launch.spec.framework().map_err(|e| e.to_string())?;
    if let Some(secret) = order.launch.spec.secrets.first() {
        let cluster = &inner.config.cluster;
        return Err(format!(
            "it needs Secret {}, and {cluster} runs workloads as processes, which have none; name the Kubernetes clusters' regions in \
             spec.placement.regions.require",
            secret.name
        ));
    }
    let working_dir = order.launch.spec.working_dir.as_ref().map_or_else(|| record.path("work"), PathBuf::from);
    let layout = Layout {
        order,
        record,
        members: members(&order.launch, &order.devices),
        base: Base::of(&order.launch, &inner.config.cluster, record),
        working_dir,
    };
    match framework {
        Framework::Batch => batch::plan(&layout),
        Framework::Ray => {
            let python = ray::install(&inner.config.cache_dir, progress).await?;
            let scratch = scratch(inner, order).await?;
            ray::plan(&layout, &python, &scratch)
        }
        Framework::Spark => {
            let python = spark::install(&inner.config.cache_dir, progress).await?;
            spark::plan(&layout, &python)
        }
    }
}

/// A folder with a short path that only this attempt uses: Ray's sockets lie deep in it, and their paths are limited.
async fn scratch(inner: &Inner, order: &Order) -> Result<PathBuf, String> {
    let parent = inner.config.runtime_dir.clone();
    let attempt = order.launch.attempt;
    let dir = parent.join(format!("{:012x}-{}", attempt.workload.0 & 0xffff_ffff_ffff, attempt.number));
    let made = dir.clone();
    blocking(move || {
        super::private_dir(&parent)?;
        own(&parent)?;
        super::private_dir(&made)
    })
    .await
    .map_err(|e: std::io::Error| format!("cannot make the folder {}: {e}", dir.display()))?;
    Ok(dir)
}

/// Its place is known to everyone, so someone else may have made it first.
fn own(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let meta = std::fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != rustix::process::getuid().as_raw() {
        return Err(std::io::Error::other("it is not a folder of this user; remove it"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
