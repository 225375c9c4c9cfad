//! One test's own surroundings: a folder, a mark that all its processes carry, and the certainty that none is left.
//!
//! A process belongs to a test if its environment or command line has the test's mark, or if it stands in the test's
//! folder: programs that overwrite their environment with a title are found too.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::program::{Program, Ran, tidewater};

/// How long anything may take on a busy machine that is not about time.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// Between two looks.
pub const LOOK: Duration = Duration::from_millis(50);

/// The variable by which a test's processes are found.
pub const MARK: &str = "TIDEWATER_TEST";

/// One test's surroundings.
pub struct World {
    dir: TempDir,
    mark: String,
}

/// A small file system, gone when it is dropped.
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one over a new folder; `None` where this machine does not let us.
    pub fn mount(place: PathBuf, kib: u32) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir(&place)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(&place);
        Ok(mount.output().is_ok_and(|mounted| mounted.status.success()).then_some(Self { place }))
    }

    /// How much room there is.
    pub fn free_bytes(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::statvfs(&self.place)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Where it is.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what still has a file open there ends with the test.
        let _ = Command::new("umount").arg("--lazy").arg(&self.place).status();
    }
}

/// A process that belongs to a test.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its id.
    pub pid: i32,
    /// Its command line.
    pub command: String,
}

impl World {
    /// An empty folder with a name of its own.
    pub fn new(test: &str) -> anyhow::Result<Self> {
        let area = test.split("::").next().unwrap_or("test");
        let dir = tempfile::Builder::new().prefix(&format!("twt-{area}-")).rand_bytes(10).tempdir()?;
        let mark = dir.path().file_name().context("a folder without a name")?.to_string_lossy().into_owned();
        std::fs::create_dir(dir.path().join("tmp"))?;
        Ok(Self { dir, mark })
    }

    /// A place in this test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The test's mark.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// The product's program in these surroundings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(tidewater());
        command.args(arguments).env(MARK, &self.mark).env("TMPDIR", self.path("tmp"));
        // Nothing of the person who runs the tests: no server of theirs, no data of theirs.
        for name in ["TIDEWATER_SERVER", "TIDEWATER_KUBECONFIG", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        command.env("XDG_DATA_HOME", self.path("data")).current_dir(self.dir.path());
        command
    }

    /// Starts a role; it is killed when it is dropped.
    pub fn start(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Program> {
        Program::start(name, self.command(arguments), self.dir.path())
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        Program::run(self.command(arguments), self.dir.path())
    }

    /// Writes a file into the test's folder.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path.display().to_string())
    }

    /// Every living process of this test.
    pub fn processes(&self) -> Vec<Found> {
        let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let own = std::process::id() as i32;
        pids.filter(|pid| *pid != own && lives(*pid) && self.owns(*pid))
            .map(|pid| Found { pid, command: command_line(pid) })
            .collect()
    }

    fn owns(&self, pid: i32) -> bool {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let mentions = |file: &str| {
            let bytes = std::fs::read(proc.join(file)).unwrap_or_default();
            bytes.windows(self.mark.len()).any(|window| window == self.mark.as_bytes())
        };
        let stands_in = |dir: &Path| std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        mentions("environ") || mentions("cmdline") || stands_in(self.dir.path())
    }

    /// Waits until none of this test's processes is left but `known`.
    pub fn until_only(&self, known: &[i32], within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let mut left = self.processes();
            left.retain(|found| !known.contains(&found.pid));
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > within {
                let left: Vec<String> = left.iter().map(|f| format!("{} ({})", f.pid, f.command)).collect();
                bail!("processes are left after {} s: {}", within.as_secs(), left.join("; "));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The test is over: nothing of it may be left.
    pub fn finish(self) -> anyhow::Result<()> {
        self.until_only(&[], Duration::from_secs(5))
    }
}

impl Drop for World {
    /// A test that broke off leaves nothing either.
    fn drop(&mut self) {
        for _ in 0..200 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            left.iter().for_each(|found| signal(found.pid, Signal::KILL));
            std::thread::sleep(LOOK);
        }
    }
}

/// Signals one process; one that is gone is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process is there and no zombie.
pub fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").chars().take(160).collect()
}

/// Looks until `look` finds something.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
            return Ok(found);
        }
        if began.elapsed() > within {
            bail!("{what}: not within {} s", within.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}
