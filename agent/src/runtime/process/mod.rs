//! The process runtime: real Ray, Spark and batch attempts as processes of this machine, each under a guard.
//!
//! Owns `DATA_DIR/attempts/` (a folder for each attempt: record and logs), the cache of Python environments and a short
//! folder in `/tmp` for sockets. The cluster role calls it through [`Runtime`]; it sends [`RuntimeEvent`]s back.
//! Dropping it ends nothing: guards and what they run go on, and the next one finds them with `recover`.

mod attempt;
mod batch;
mod environment;
mod frameworks;
mod link;
mod logs;
mod page;
mod ports;
mod prepare;
mod python;
mod ray;
mod settle;
mod spark;
mod tokens;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, ClusterName, CommandNumber, GroupName, MonotonicMs};
use protocol::workload::Framework;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

pub use logs::{LogError, LogFile, LogStream};
pub use python::{Progress, ProvisionError};

use super::page::{Page, PageError, gone};
use super::tokens::TokenSource;
use super::{Devices, FrameworkCheck, Runtime, RuntimeError, RuntimeEvent};
use crate::cluster::MemberAssignment;
use crate::guard::durable;
use crate::guard::record::{Outcome, Record, Stop, StopWhy};

/// How the process runtime is set up.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The agent's data folder; attempts live in its `attempts/`.
    pub data_dir: PathBuf,
    /// Where Python environments are kept, shared by every agent of this user; see [`default_cache_dir`].
    pub cache_dir: PathBuf,
    /// The parent of short-lived folders whose path must be short, as sockets need it; see [`default_runtime_dir`].
    pub runtime_dir: PathBuf,
    /// The guard's program and its leading arguments, such as `[current_exe, "guard"]`; the attempt's folder follows.
    pub guard: Vec<OsString>,
    /// The cluster that this runtime plays.
    pub cluster: ClusterName,
    /// How long logs are kept after an attempt is forgotten.
    pub log_retention: Duration,
}

/// `$XDG_CACHE_HOME/tidewater`, else `~/.cache/tidewater`.
pub fn default_cache_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("tidewater")
}

/// `/tmp/tw-UID`: short whatever the data folder's path is, and one user's own.
pub fn default_runtime_dir() -> PathBuf {
    PathBuf::from(format!("/tmp/tw-{}", rustix::process::getuid().as_raw()))
}

/// What the agent keeps of an order beside the guard's record.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    launch: LaunchOrder,
    devices: Devices,
}

/// Runs attempts as processes of this machine. Cheap to clone: all clones are one runtime.
#[derive(Clone)]
pub struct ProcessRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    config: ProcessConfig,
    events: mpsc::Sender<RuntimeEvent>,
    live: Mutex<BTreeMap<AttemptId, Handle>>,
    /// Who gives attempts their tokens.
    tokens: OnceLock<TokenSource>,
}

/// One attempt in memory: the latest state, and the way to ask its task for a stop.
#[derive(Clone)]
struct Handle {
    state: Arc<watch::Sender<AttemptState>>,
    stop: Arc<watch::Sender<Option<Stop>>>,
    /// How many orders to change its size there were.
    resize: Arc<watch::Sender<u64>>,
    /// Until when it may go on, where that has an end and anybody said so.
    until: Arc<watch::Sender<MonotonicMs>>,
}

impl Handle {
    fn new(state: AttemptState) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(state)),
            stop: Arc::new(watch::Sender::new(None)),
            resize: Arc::new(watch::Sender::new(0)),
            until: Arc::new(watch::Sender::new(MonotonicMs(0))),
        }
    }
}

impl Inner {
    fn attempts_dir(&self) -> PathBuf {
        self.config.data_dir.join("attempts")
    }

    fn record(&self, attempt: AttemptId) -> Record {
        Record::at(self.attempts_dir().join(attempt.to_string()))
    }

    fn handle(&self, attempt: AttemptId) -> Option<Handle> {
        self.lock_live().get(&attempt).cloned()
    }

    fn lock_live(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptId, Handle>> {
        self.live.lock().expect("no holder of this lock panics")
    }

    fn failed(&self, attempt: AttemptId, source: io::Error) -> RuntimeError {
        RuntimeError::Record {
            attempt: attempt.to_string(),
            place: self.record(attempt).dir().display().to_string(),
            source,
        }
    }

    /// Remembers a state and sends it on. Nobody listening any more is no error: the state is durable.
    async fn emit(&self, attempt: AttemptId, handle: &Handle, state: AttemptState) {
        handle.state.send_replace(state.clone());
        let _ = self.events.send(RuntimeEvent { attempt, state, gone: vec![] }).await;
    }

    /// Members are gone.
    async fn tell_gone(&self, attempt: AttemptId, handle: &Handle, gone: Vec<(GroupName, u32)>) {
        let state = handle.state.borrow().clone();
        let _ = self.events.send(RuntimeEvent { attempt, state, gone }).await;
    }
}

/// Runs file operations, which sync to disk, off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("file operations do not panic")
}

impl ProcessRuntime {
    /// A runtime over `config.data_dir`, which is made where it is absent. Starts nothing: call `recover` first.
    pub fn new(config: ProcessConfig, events: mpsc::Sender<RuntimeEvent>) -> Result<Self, RuntimeError> {
        let inner = Inner { config, events, live: Mutex::default(), tokens: OnceLock::new() };
        let place = inner.attempts_dir();
        private_dir(&place).map_err(|source| RuntimeError::DataDir { place: place.display().to_string(), source })?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// From whom attempts get their tokens; said once, before any attempt begins.
    pub fn take_tokens_from(&self, source: TokenSource) {
        let _ = self.inner.tokens.set(source);
    }

    /// Installs what a framework needs, ahead of the first attempt; quick where it is installed. `progress` is told what
    /// goes on, about once a second.
    pub async fn provision(&self, framework: Framework, progress: Progress) -> Result<(), ProvisionError> {
        provision(&self.inner.config.cache_dir, framework, progress).await
    }

    /// Ends every attempt and returns once all are gone; each becomes `Failed` by the infrastructure.
    pub async fn shutdown(&self, grace_ms: u64) -> Result<(), RuntimeError> {
        let live: Vec<(AttemptId, Handle)> =
            self.inner.lock_live().iter().map(|(id, handle)| (*id, handle.clone())).collect();
        for (attempt, handle) in &live {
            if !handle.state.borrow().is_final() {
                self.order_stop(*attempt, handle, Stop { grace_ms, why: StopWhy::Shutdown }).await?;
            }
        }
        for (_, handle) in live {
            // The sender lives in the handle, so waiting fails only with it.
            let _ = handle.state.subscribe().wait_for(AttemptState::is_final).await;
        }
        Ok(())
    }

    /// The logs of an attempt, also of a forgotten one.
    pub fn log_files(&self, attempt: AttemptId) -> Result<Vec<LogFile>, LogError> {
        logs::files(&self.inner.record(attempt))
    }

    /// Reads an attempt's log: of one member (or executor), or of everything that speaks for the program. `follow` goes on
    /// until the attempt is final.
    pub fn logs(&self, attempt: AttemptId, member: Option<&str>, follow: bool) -> Result<LogStream, LogError> {
        LogStream::open(self.inner.record(attempt), member, follow)
    }

    /// Whose log is that of a worker, counted from 0 without Ray's head and Spark's driver.
    pub fn worker(&self, attempt: AttemptId, number: u32) -> Result<String, LogError> {
        logs::worker(&self.inner.record(attempt), number)
    }

    /// Connects to the page that a live attempt serves itself.
    pub async fn page(&self, attempt: AttemptId) -> Result<Page, PageError> {
        page::open(&self.inner, attempt).await
    }

    /// Ends once an attempt is gone, or is not known here.
    pub fn ended(&self, attempt: AttemptId) -> impl Future<Output = ()> + Send + use<> {
        gone(self.inner.handle(attempt).map(|handle| handle.state.subscribe()))
    }

    async fn order_stop(&self, attempt: AttemptId, handle: &Handle, stop: Stop) -> Result<(), RuntimeError> {
        let record = self.inner.record(attempt);
        let stop = blocking(move || record.order_stop(stop)).await.map_err(|e| self.inner.failed(attempt, e))?;
        handle.stop.send_replace(Some(stop));
        Ok(())
    }

    /// The attempt's handle, reserved for whoever gets `true`.
    fn reserve(&self, attempt: AttemptId) -> (Handle, bool) {
        let mut live = self.inner.lock_live();
        match live.get(&attempt) {
            Some(handle) => (handle.clone(), false),
            None => {
                let handle = Handle::new(AttemptState::Accepted);
                live.insert(attempt, handle.clone());
                (handle, true)
            }
        }
    }

    fn release(&self, attempt: AttemptId) {
        self.inner.lock_live().remove(&attempt);
    }
}

impl Runtime for ProcessRuntime {
    async fn start(&self, _number: CommandNumber, order: &LaunchOrder, devices: &Devices) -> Result<(), RuntimeError> {
        let attempt = order.attempt;
        let (handle, mine) = self.reserve(attempt);
        if !mine {
            let state = handle.state.borrow().clone();
            self.inner.emit(attempt, &handle, state).await;
            return Ok(());
        }
        let record = self.inner.record(attempt);
        let order = Order { launch: order.clone(), devices: devices.clone() };
        let (taken, kept) = (record.clone(), order.clone());
        let new = blocking(move || take(&taken, &kept)).await;
        match new {
            Ok(true) => {
                self.inner.emit(attempt, &handle, AttemptState::Accepted).await;
                tokio::spawn(attempt::run(self.inner.clone(), record, handle, order));
            }
            Ok(false) => {
                let state = attempt::adopt(&self.inner, attempt, record, handle.clone()).await?;
                self.inner.emit(attempt, &handle, state).await;
            }
            Err(e) => {
                self.release(attempt);
                return Err(self.inner.failed(attempt, e));
            }
        }
        Ok(())
    }

    async fn resize(
        &self,
        order: &LaunchOrder,
        members: &[MemberAssignment],
        leaving: &[MemberAssignment],
        grace_ms: u64,
    ) -> Result<(), RuntimeError> {
        let attempt = order.attempt;
        let Some(handle) = self.inner.handle(attempt) else { return Ok(()) };
        let record = self.inner.record(attempt);
        let base = environment::Base::of(order, &self.inner.config.cluster, &record);
        let (order, members, leaving) = (order.clone(), members.to_vec(), leaving.to_vec());
        let written = blocking(move || {
            let resize = ray::resize(&record, &order, &base, (&members, &leaving), grace_ms)?;
            record.order_resize(&resize)
        });
        written.await.map_err(|e| self.inner.failed(attempt, e))?;
        handle.resize.send_modify(|orders| *orders += 1);
        Ok(())
    }

    async fn stop(&self, attempt: AttemptId, grace_ms: u64) -> Result<(), RuntimeError> {
        let (handle, mine) = self.reserve(attempt);
        if !mine {
            let state = handle.state.borrow().clone();
            if state.is_final() {
                self.inner.emit(attempt, &handle, state).await;
                return Ok(());
            }
            return self.order_stop(attempt, &handle, Stop { grace_ms, why: StopWhy::Order }).await;
        }
        // Unknown to this process: never taken, or not recovered yet.
        let record = self.inner.record(attempt);
        let made = record.clone();
        if let Err(e) = blocking(move || private_dir(made.dir())).await {
            self.release(attempt);
            return Err(self.inner.failed(attempt, e));
        }
        self.order_stop(attempt, &handle, Stop { grace_ms, why: StopWhy::Order }).await?;
        let state = attempt::adopt(&self.inner, attempt, record, handle.clone()).await?;
        self.inner.emit(attempt, &handle, state).await;
        Ok(())
    }

    fn let_go_on(&self, attempt: AttemptId, until: MonotonicMs) {
        if let Some(handle) = self.inner.handle(attempt) {
            // Never cut shorter by a word that comes late.
            handle.until.send_if_modified(|known| until > std::mem::replace(known, until.max(*known)));
        }
    }

    async fn recover(&self) -> Result<Vec<(AttemptId, AttemptState)>, RuntimeError> {
        let place = self.inner.attempts_dir();
        let (dir, retention) = (place.clone(), self.inner.config.log_retention);
        let attempts = blocking(move || remembered(&dir, retention))
            .await
            .map_err(|source| RuntimeError::DataDir { place: place.display().to_string(), source })?;
        let mut states = Vec::new();
        for attempt in attempts {
            let (handle, mine) = self.reserve(attempt);
            let state = match mine {
                true => attempt::adopt(&self.inner, attempt, self.inner.record(attempt), handle).await?,
                false => handle.state.borrow().clone(),
            };
            states.push((attempt, state));
        }
        Ok(states)
    }

    async fn forget(&self, attempt: AttemptId) -> Result<(), RuntimeError> {
        if self.inner.handle(attempt).is_some_and(|h| !h.state.borrow().is_final()) {
            return Ok(());
        }
        let record = self.inner.record(attempt);
        blocking(move || match record.dir().is_dir() {
            true => durable::write(&record.path(FORGOTTEN), b""),
            false => Ok(()),
        })
        .await
        .map_err(|e| self.inner.failed(attempt, e))?;
        self.release(attempt);
        Ok(())
    }

    async fn frameworks(&self) -> Vec<FrameworkCheck> {
        frameworks::check().await
    }
}

/// Installs what a framework needs into a cache; see [`ProcessRuntime::provision`].
pub async fn provision(cache_dir: &Path, framework: Framework, progress: Progress) -> Result<(), ProvisionError> {
    match framework {
        Framework::Ray => python::PythonEnv::ray().ready(cache_dir, progress).await.map(drop),
        Framework::Spark => python::PythonEnv::spark().ready(cache_dir, progress).await.map(drop),
        Framework::Batch => Ok(()),
    }
}

const FORGOTTEN: &str = "forgotten";

/// Makes an order durable; false where there is a record of this attempt.
fn take(record: &Record, order: &Order) -> io::Result<bool> {
    if record.dir().exists() {
        return Ok(false);
    }
    private_dir(&record.path("logs"))?;
    private_dir(&record.path("work"))?;
    durable::write_json(&record.path("order.json"), order)?;
    if let Some(parent) = record.dir().parent() {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(true)
}

/// Makes a folder, with its parents, that only this user may enter.
fn private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Attempts that are not forgotten; forgotten ones whose time is over are removed.
fn remembered(attempts: &Path, retention: Duration) -> io::Result<Vec<AttemptId>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(attempts)? {
        let entry = entry?;
        let Some(attempt) = entry.file_name().to_str().and_then(|name| name.parse::<AttemptId>().ok()) else {
            continue;
        };
        match std::fs::metadata(entry.path().join(FORGOTTEN)) {
            Err(_) => found.push(attempt),
            Ok(meta) => {
                let age = SystemTime::now().duration_since(meta.modified()?).unwrap_or_default();
                if age > retention {
                    std::fs::remove_dir_all(entry.path())?;
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The state that an outcome is told as.
fn told(outcome: &Outcome) -> AttemptState {
    use crate::guard::record::Ending;
    match &outcome.ending {
        Ending::Succeeded => AttemptState::Succeeded,
        Ending::Stopped => AttemptState::Stopped,
        Ending::Failed { class, message, exit_code } => {
            AttemptState::Failed { class: *class, message: message.clone(), exit_code: *exit_code }
        }
    }
}
