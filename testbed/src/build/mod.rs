//! The programs of the test bed: found in the user's cache, or built there once by Go from pinned modules.
//!
//! A program is built to a temporary name and renamed, under a lock that keeps builders apart; so whatever is in the cache
//! is whole, and of the versions and flags that its folder's name stands for. Where modules come from is what this user's
//! Go settings say. Touches the cache and starts `go`.

mod crds;
mod cure;
mod recipes;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use recipes::Tool;

use crate::folders::folder_of_user;
use crate::process::{self, Lifetime};
use recipes::Module;

/// Told what goes on: a line for each step, and one every half minute of a long one.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Between two lines about the same step.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// Between two looks at the builder.
const LOOK: Duration = Duration::from_millis(100);

/// Why a program is not there.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No Go.
    #[error(
        "Go is not installed: `go` is not in PATH, and {program} is built with it; install Go {version} or later from \
         Go's download page, or Debian's package golang-go where it is as new"
    )]
    NoGo {
        /// What needs it.
        program: &'static str,
        /// The oldest that will do.
        version: &'static str,
    },
    /// A Go that is too old and may not fetch a newer one.
    #[error(
        "{program} is built with Go {version} or later, and {found} is installed; install a newer one, or set GOTOOLCHAIN=auto"
    )]
    OldGo {
        /// What needs it.
        program: &'static str,
        /// The oldest that will do.
        version: &'static str,
        /// As `go version` has it.
        found: String,
    },
    /// Modules could not be fetched.
    #[error(
        "{program}: its Go modules cannot be fetched; the network or what GOPROXY names (`go env GOPROXY`) cannot be reached:\n{end}"
    )]
    Network {
        /// What was built.
        program: &'static str,
        /// What Go said.
        end: String,
    },
    /// No room.
    #[error(
        "{program}: no room left; free 6 GB in the folders that `go env GOCACHE GOMODCACHE` name and in {cache}, or set \
         them and XDG_CACHE_HOME to places that have it"
    )]
    Disk {
        /// What was built.
        program: &'static str,
        /// The cache.
        cache: PathBuf,
    },
    /// Go failed for another reason.
    #[error("{program} was not built; the end of {log}:\n{end}")]
    Failed {
        /// What was built.
        program: &'static str,
        /// Where all of it stands.
        log: PathBuf,
        /// The last lines.
        end: String,
    },
    /// The cache cannot be used.
    #[error("the cache {place} cannot be used: {cause}; free some room, or set XDG_CACHE_HOME to a folder that has it")]
    Cache {
        /// The file or folder.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl BuildError {
    /// Whether this machine lacks something that a test may not ask for: then tests are skipped, and say so.
    pub fn is_lack(&self) -> bool {
        matches!(self, BuildError::NoGo { .. } | BuildError::OldGo { .. } | BuildError::Network { .. })
    }
}

/// Programs that are there.
#[derive(Debug, Clone)]
pub struct Binaries {
    cache: PathBuf,
    paths: BTreeMap<Tool, PathBuf>,
}

impl Binaries {
    /// Finds these programs in the user's cache (`$XDG_CACHE_HOME`, else `~/.cache`), and builds what is missing.
    pub fn provide(tools: &[Tool], progress: Progress) -> Result<Self, BuildError> {
        Self::provide_in(&default_cache(), tools, progress)
    }

    /// The same in another cache.
    pub fn provide_in(cache: &Path, tools: &[Tool], progress: Progress) -> Result<Self, BuildError> {
        let paths: BTreeMap<Tool, PathBuf> = tools.iter().map(|tool| (*tool, place(cache, *tool))).collect();
        if paths.values().all(|path| path.exists()) {
            return Ok(Self { cache: cache.to_owned(), paths });
        }
        go_is_there(&paths)?;
        fs::create_dir_all(cache).map_err(unusable(cache))?;
        let _only_builder = lock(cache, progress)?;
        for (tool, path) in &paths {
            // Another process may have built it while this one waited.
            if !path.exists() {
                build(cache, *tool, path, progress)?;
            }
        }
        Ok(Self { cache: cache.to_owned(), paths })
    }

    /// The custom resources that this program serves, as the API server takes them.
    pub fn custom_resources(&self, tool: Tool) -> Result<Vec<serde_json::Value>, BuildError> {
        crds::provide(&self.cache, tool)
    }

    /// Those of Ray's and Spark's operators, for an API server beside which neither runs.
    pub fn operators_resources(&self) -> Result<Vec<serde_json::Value>, BuildError> {
        let mut all = self.custom_resources(Tool::KubeRay)?;
        all.extend(self.custom_resources(Tool::SparkOperator)?);
        Ok(all)
    }

    /// Where a program is; `None` if it was not asked for.
    pub fn path(&self, tool: Tool) -> Option<&Path> {
        self.paths.get(&tool).map(PathBuf::as_path)
    }
}

/// `$XDG_CACHE_HOME/tidewater/kubernetes`, else `~/.cache/tidewater/kubernetes`.
pub fn default_cache() -> PathBuf {
    folder_of_user("XDG_CACHE_HOME", ".cache", "kubernetes")
}

fn place(cache: &Path, tool: Tool) -> PathBuf {
    cache.join(tool.module().key()).join(tool.name())
}

fn unusable(place: &Path) -> impl Fn(io::Error) -> BuildError {
    move |cause| BuildError::Cache { place: place.to_owned(), cause }
}

/// Before anything else, and with the version that will do for all that is missing.
fn go_is_there(paths: &BTreeMap<Tool, PathBuf>) -> Result<(), BuildError> {
    match Command::new("go").arg("version").output() {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            let missing = paths.iter().filter(|(_, path)| !path.exists()).map(|(tool, _)| *tool);
            let newest = missing.max_by_key(|tool| tool.module().oldest_go_parts());
            let Some(tool) = newest else { return Ok(()) };
            Err(BuildError::NoGo { program: tool.name(), version: tool.module().oldest_go() })
        }
        // Whatever else is wrong with it, the build says.
        _ => Ok(()),
    }
}

/// Waits for other builders: two at once would each take twice as long and come to the same.
fn lock(cache: &Path, progress: Progress) -> Result<File, BuildError> {
    let place = cache.join("lock");
    let file = File::create(&place).map_err(unusable(&place))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => progress("waiting for another process that builds the same programs"),
        Err(TryLockError::Error(cause)) => return Err(BuildError::Cache { place, cause }),
    }
    file.lock().map_err(unusable(&place))?;
    Ok(file)
}

fn build(cache: &Path, tool: Tool, path: &Path, progress: Progress) -> Result<(), BuildError> {
    let (module, program) = (tool.module(), tool.name());
    let folder = cache.join(module.key());
    write_module(&folder, module)?;
    let began = Instant::now();
    progress(&format!("building {program} from its Go module, once; this can take minutes"));
    let half = folder.join(format!("{program}.half"));
    let log = folder.join(format!("{program}.log"));
    let written = File::create(&log).map_err(unusable(&log))?;
    let mut go = Command::new("go");
    go.arg("build").args(module.flags()).arg("-o").arg(&half).arg(tool.package());
    go.current_dir(folder.join("module")).env("GO111MODULE", "on").env("GOWORK", "off").envs(module.environment());
    go.stdin(Stdio::null()).stdout(Stdio::null()).stderr(written);
    let mut running = process::spawn(go, Lifetime::Ours).map_err(unusable(&folder))?;
    let mut said = Instant::now();
    let status = loop {
        if let Some(status) = running.try_wait().map_err(unusable(&folder))? {
            break status;
        }
        if said.elapsed() >= SAY_EVERY {
            progress(&format!("still building {program}: {} s", began.elapsed().as_secs()));
            said = Instant::now();
        }
        std::thread::sleep(LOOK);
    };
    if !status.success() {
        let _ = fs::remove_file(&half);
        return Err(cure::explain(tool, cache, &log));
    }
    fs::rename(&half, path).map_err(unusable(path))?;
    progress(&format!("built {program} in {:.0} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Go builds in a folder that has the module's files. Under the lock, so that nobody reads them half written.
fn write_module(folder: &Path, module: &Module) -> Result<(), BuildError> {
    let place = folder.join("module");
    fs::create_dir_all(&place).map_err(unusable(&place))?;
    for (name, text) in [("go.mod", module.go_mod), ("go.sum", module.go_sum), module.source] {
        let file = place.join(name);
        fs::write(&file, text).map_err(unusable(&file))?;
    }
    Ok(())
}
