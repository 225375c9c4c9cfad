//! Python environments: built once for each version of Python and packages, shared by every agent of this user.
//!
//! An environment is built at its final path, since its scripts name it, and counts only once its `complete` marker is
//! there. A lock keeps builders apart; the installer inherits it, so that it holds even while the installer of an agent
//! that was killed still writes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::guard::{durable, tail};

/// Told what goes on, about once a second.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// The oldest Python that Ray and Spark run on here.
const OLDEST: (u32, u32) = (3, 9);

/// Why an environment could not be made. Nothing half-made is ever used.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// No usable Python.
    #[error("{0}")]
    Python(String),
    /// The cache cannot be written.
    #[error(
        "the cache {place} cannot be used: {source}; free some room, or set XDG_CACHE_HOME to a folder that has it"
    )]
    Cache {
        /// The folder.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// The installer failed.
    #[error("{what} failed ({cure}); the end of {log}:\n{end}")]
    Install {
        /// What was being done.
        what: String,
        /// What would mend it.
        cure: &'static str,
        /// The installer's log.
        log: String,
        /// Its last lines.
        end: String,
    },
}

/// One environment, by what is in it.
#[derive(Debug, Clone)]
pub(super) struct PythonEnv {
    /// For people, such as `Ray 2.52.1`.
    title: &'static str,
    /// For the folder's name.
    key: &'static str,
    /// As pip takes them.
    packages: &'static [&'static str],
}

/// A Python that was found on this machine.
#[derive(Debug, Clone)]
pub(super) struct Python {
    program: PathBuf,
    version: (u32, u32),
}

impl PythonEnv {
    /// Ray with its job server, and numpy for the examples.
    pub(super) fn ray() -> Self {
        Self { title: "Ray 2.52.1", key: "ray-2.52.1", packages: &["ray[default]==2.52.1", "numpy>=1.26,<3"] }
    }

    /// PySpark, which has all of Spark in it.
    pub(super) fn spark() -> Self {
        Self { title: "Spark 4.0.1", key: "spark-4.0.1", packages: &["pyspark==4.0.1"] }
    }

    /// The environment's own Python, installed first where it is not there yet.
    pub(super) async fn ready(&self, cache: &Path, progress: Progress) -> Result<PathBuf, ProvisionError> {
        self.ready_with(find_python().await?, cache, progress).await
    }

    async fn ready_with(&self, python: Python, cache: &Path, progress: Progress) -> Result<PathBuf, ProvisionError> {
        let envs = cache.join("envs");
        let (major, minor) = python.version;
        let dir = envs.join(format!("{}-py{major}.{minor}", self.key));
        if dir.join(COMPLETE).exists() {
            return Ok(dir.join("bin/python"));
        }
        let unusable = |source| ProvisionError::Cache { place: envs.display().to_string(), source };
        fs::create_dir_all(&envs).map_err(unusable)?;
        let lock = self.lock(&dir.with_added_extension("lock"), &progress).await.map_err(unusable)?;
        // Another builder may have been waited for.
        if !dir.join(COMPLETE).exists() {
            self.build(&python, &dir, &lock, &progress).await?;
        }
        Ok(dir.join("bin/python"))
    }

    async fn lock(&self, path: &Path, progress: &Progress) -> io::Result<File> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(e),
                Err(TryLockError::WouldBlock) => {
                    let s = began.elapsed().as_secs();
                    progress(&format!("waiting for another process that installs {} ({s} s)", self.title));
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    async fn build(&self, python: &Python, dir: &Path, lock: &File, progress: &Progress) -> Result<(), ProvisionError> {
        let unusable = |source| ProvisionError::Cache { place: dir.display().to_string(), source };
        // Whatever a builder that was killed has left.
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(unusable(e)),
            _ => {}
        }
        let log = dir.with_added_extension("log");
        File::create(&log).map_err(unusable)?;
        let step = Step { title: self.title, log: &log, lock, progress, began: Instant::now() };
        let mut venv = Command::new(&python.program);
        venv.args(["-m", "venv"]).arg(dir);
        step.run(venv, "making a Python environment", "on Debian and Ubuntu: apt install python3-venv").await?;
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]);
        pip.args(self.packages);
        let cure = "it needs PyPI or a mirror of it (PIP_INDEX_URL), and about 1 GB of room";
        step.run(pip, &format!("installing {}", self.title), cure).await?;
        durable::write(&dir.join(COMPLETE), b"").map_err(unusable)
    }
}

const COMPLETE: &str = "complete";

struct Step<'a> {
    title: &'a str,
    log: &'a Path,
    lock: &'a File,
    progress: &'a Progress,
    began: Instant,
}

impl Step<'_> {
    async fn run(&self, mut command: Command, what: &str, cure: &'static str) -> Result<(), ProvisionError> {
        let failed = |end: String| ProvisionError::Install {
            what: what.to_owned(),
            cure,
            log: self.log.display().to_string(),
            end,
        };
        let io_failed = |e: io::Error| failed(e.to_string());
        let out = OpenOptions::new().append(true).open(self.log).map_err(io_failed)?;
        command.env_remove("PYTHONHOME").env_remove("PYTHONPATH").kill_on_drop(true);
        // The lock's file as its stdin: the lock is held for as long as the installer lives, not only this process.
        command.stdin(Stdio::from(self.lock.try_clone().map_err(io_failed)?));
        command.stdout(out.try_clone().map_err(io_failed)?).stderr(out);
        let mut child = command.spawn().map_err(io_failed)?;
        let status = loop {
            (self.progress)(&format!("installing {} ({} s)", self.title, self.began.elapsed().as_secs()));
            if let Ok(status) = tokio::time::timeout(Duration::from_secs(1), child.wait()).await {
                break status.map_err(io_failed)?;
            }
        };
        if status.success() { Ok(()) } else { Err(failed(tail::last_lines(self.log))) }
    }
}

/// The Python to build environments with: `TIDEWATER_PYTHON`, else `python3`.
pub(super) async fn find_python() -> Result<Python, ProvisionError> {
    check_python(std::env::var_os("TIDEWATER_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from)).await
}

async fn check_python(program: PathBuf) -> Result<Python, ProvisionError> {
    let shown = program.display();
    let cure = format!("install Python {}.{} or later, or set TIDEWATER_PYTHON to one", OLDEST.0, OLDEST.1);
    let script = "import sys, venv, ensurepip; print(sys.version_info[0], sys.version_info[1])";
    let mut command = Command::new(&program);
    let out = command.args(["-c", script]).stdin(Stdio::null()).kill_on_drop(true).output();
    let out = out.await.map_err(|e| ProvisionError::Python(format!("{shown} cannot be run: {e}; {cure}")))?;
    let text = String::from_utf8_lossy(&out.stdout);
    let version = text.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<u32>>();
    match version[..] {
        [major, minor] if (major, minor) >= OLDEST => Ok(Python { program, version: (major, minor) }),
        [major, minor] => {
            Err(ProvisionError::Python(format!("{shown} is Python {major}.{minor}, which is too old; {cure}")))
        }
        _ => {
            let error = String::from_utf8_lossy(&out.stderr);
            let why = error.trim_end().lines().last().unwrap_or("it said nothing").to_owned();
            Err(ProvisionError::Python(format!(
                "{shown} cannot make environments: {why}; on Debian and Ubuntu: apt install python3-venv"
            )))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn program(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("python");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn refusal(program: PathBuf) -> String {
        check_python(program).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn an_absent_an_old_and_a_stripped_python_are_each_told_with_their_cure() {
        let dir = tempfile::tempdir().unwrap();
        let absent = refusal(dir.path().join("none")).await;
        assert!(absent.contains("install Python 3.9"), "{absent}");
        let old = refusal(program(dir.path(), "echo 3 7")).await;
        assert!(old.contains("Python 3.7, which is too old"), "{old}");
        let error = "echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1";
        let stripped = refusal(program(dir.path(), error)).await;
        assert!(stripped.contains("ensurepip") && stripped.contains("apt install python3-venv"), "{stripped}");
    }

    /// An environment that needs no network: pip is there already.
    const BARE: PythonEnv = PythonEnv { title: "Nothing", key: "nothing-1", packages: &["pip"] };

    #[tokio::test(flavor = "multi_thread")]
    async fn two_builders_make_one_environment_over_what_a_killed_one_left() {
        let Ok(python) = find_python().await else {
            eprintln!("SKIPPED: no python3 with venv");
            return;
        };
        let cache = tempfile::tempdir().unwrap();
        let (major, minor) = python.version;
        let half = cache.path().join(format!("envs/nothing-1-py{major}.{minor}"));
        fs::create_dir_all(half.join("bin")).unwrap();
        fs::write(half.join("bin/python"), "half a file").unwrap();
        let waited = Arc::new(AtomicU32::new(0));
        let seen = waited.clone();
        let progress: Progress = Arc::new(move |text| {
            seen.fetch_add(u32::from(text.starts_with("waiting for another")), Ordering::Relaxed);
        });
        let build = || BARE.ready_with(python.clone(), cache.path(), progress.clone());
        let (one, other) = tokio::join!(build(), build());
        let found = one.unwrap();
        assert_eq!(found, other.unwrap());
        assert!(waited.load(Ordering::Relaxed) > 0, "one waited for the other");
        let out = Command::new(&found).args(["-c", "print(1)"]).output().await.unwrap();
        assert_eq!(out.stdout, b"1\n");
        // There now: no builder is needed, not even a Python.
        let gone = Python { program: "/nonexistent".into(), version: python.version };
        assert_eq!(BARE.ready_with(gone, cache.path(), progress).await.unwrap(), found);
    }

    #[tokio::test]
    async fn a_failing_installer_is_told_with_its_last_words_and_leaves_no_environment() {
        let dir = tempfile::tempdir().unwrap();
        let failing = program(dir.path(), "echo no room at the inn; exit 1");
        let python = Python { program: failing, version: (3, 99) };
        let error = BARE.ready_with(python, dir.path(), Arc::new(|_| {})).await.unwrap_err().to_string();
        assert!(error.contains("no room at the inn") && error.contains("python3-venv"), "{error}");
        assert!(!dir.path().join("envs/nothing-1-py3.99").join(COMPLETE).exists());
    }
}
