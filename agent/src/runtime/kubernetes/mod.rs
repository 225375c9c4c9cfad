//! The Kubernetes runtime: attempts as RayJobs, SparkApplications and Jobs of a real cluster.
//!
//! It keeps nothing on this machine but logs of what has ended (`kept.rs`). What it must know again after a restart stands in the API
//! server: a record for each attempt (`record.rs`) and the attempt's objects, found by their labels. Each attempt has a task (`attempt.rs`) that makes its record, tries and
//! makes its objects (`launching.rs`), follows them (`following.rs`, by what `watching.rs` sees) and ends what is left (`ending.rs`). Dropping the
//! runtime ends its tasks and nothing in the cluster: the next one finds everything with `recover`.
//!
//! An attempt is begun by one runtime alone: the one whose create of the record succeeded. Final states are told once nothing of the attempt
//! is left, by the API server's own word.

mod attempt;
mod calls;
mod ending;
mod failure;
mod following;
mod frameworks;
mod guards;
mod kept;
mod kinds;
mod lately;
mod launching;
mod logs;
mod manifests;
mod offers;
mod page;
mod progress;
mod quotas;
mod record;
mod said;
mod seen;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use kube::Client;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, CommandNumber, GroupName, MonotonicMs};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use logs::{KubernetesLog, LogError};
pub use settings::{GuardSettings, KubernetesSettings, Pin, PullPolicy};

use super::page::{Page, PageError, gone};
use super::tokens::TokenSource;
use super::{Devices, FrameworkCheck, Runtime, RuntimeError, RuntimeEvent};
use crate::cluster::{KnownAttempt, MemberAssignment};
use crate::kube::Backoff;
use crate::runtime::members;
use attempt::{Begin, Task};
use calls::Calls;
use guards::Leaves;
use kept::KeptLogs;
use kinds::Kind;
use lately::Lately;
use logs::{Reading, Whose};
use manifests::{attempt_of, of_cluster};
use offers::ByClaims;
use record::{Launch, Record, Records};
use said::Said;
use seen::Seen;

/// How long a start of the agent waits for the API server.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it then waits for the first words on attempts that it found.
const FIRST_WORDS: Duration = Duration::from_secs(5);
/// What an attempt waits for until then.
const NO_WORD: &str = "a word on it from the API server";

/// Runs attempts as objects of a cluster. Cheap to clone: all clones are one runtime.
#[derive(Clone)]
pub struct KubernetesRuntime {
    inner: Arc<Inner>,
    /// Ends the tasks with the last clone.
    _guard: Arc<DropGuard>,
}

struct Inner {
    settings: KubernetesSettings,
    calls: Calls,
    records: Records,
    kept: KeptLogs,
    by_claims: ByClaims,
    lately: Lately,
    said: Said,
    seen: Arc<Seen>,
    leaves: Arc<Leaves>,
    events: mpsc::Sender<RuntimeEvent>,
    live: Mutex<BTreeMap<AttemptId, Handle>>,
    /// How many attempts are being made.
    launching: watch::Sender<usize>,
    /// Who gives attempts their tokens.
    tokens: OnceLock<TokenSource>,
    /// Tells this life of a runtime from others.
    life: String,
    end: CancellationToken,
}

/// One attempt in memory: the latest state, and the way to ask its task for a stop within so many ms.
#[derive(Clone)]
struct Handle {
    state: Arc<watch::Sender<AttemptState>>,
    stop: Arc<watch::Sender<Option<u64>>>,
    /// How many members each group was launched with.
    launched: Arc<BTreeMap<GroupName, u32>>,
}

impl Handle {
    fn new(state: AttemptState, order: Option<&LaunchOrder>) -> Self {
        let groups = order.iter().flat_map(|order| &order.placement);
        let launched = groups.map(|g| (g.group.clone(), g.members()));
        Self {
            state: Arc::new(watch::Sender::new(state)),
            stop: Arc::new(watch::Sender::new(None)),
            launched: Arc::new(launched.collect()),
        }
    }
}

impl Inner {
    fn lock_live(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptId, Handle>> {
        self.live.lock().expect("no holder of this lock panics")
    }

    /// Remembers a state and sends it on. Nobody listening any more is no error: it can be found again.
    async fn emit(&self, attempt: AttemptId, handle: &Handle, state: AttemptState) {
        handle.state.send_replace(state.clone());
        let _ = self.events.send(RuntimeEvent { attempt, state, gone: vec![] }).await;
    }

    /// The attempt's handle, reserved for whoever gets `true`.
    fn reserve(&self, attempt: AttemptId, new: impl FnOnce() -> Handle) -> (Handle, bool) {
        let mut live = self.lock_live();
        match live.get(&attempt) {
            Some(handle) => (handle.clone(), false),
            None => {
                let handle = new();
                live.insert(attempt, handle.clone());
                (handle, true)
            }
        }
    }

    fn begin(self: &Arc<Self>, attempt: AttemptId, handle: Handle, begin: Begin) {
        let (task, end) = (Task::new(self.clone(), attempt, handle), self.end.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = task.run(begin) => {}
            }
        });
    }

    /// Takes up an attempt that has a record, unless it is in hand.
    fn adopt(self: &Arc<Self>, record: Record) -> Handle {
        let attempt = record.attempt;
        let state = AttemptState::Starting { waiting_for: NO_WORD.to_owned() };
        let (handle, mine) = self.reserve(attempt, || Handle::new(state, record.order.as_ref()));
        if mine {
            self.begin(attempt, handle.clone(), Begin::Found(Box::new(record)));
        }
        handle
    }

    /// Ends what carries an attempt's label and has no record, unless it is in hand.
    fn end_orphan(self: &Arc<Self>, attempt: AttemptId) -> Handle {
        let state = AttemptState::Starting { waiting_for: "its end: it has no record".to_owned() };
        let (handle, mine) = self.reserve(attempt, || Handle::new(state, None));
        if mine {
            tracing::warn!(%attempt, "objects of an attempt that has no record are ended");
            self.begin(attempt, handle.clone(), Begin::Nothing);
        }
        handle
    }

    /// Looks now and then for what no task has in hand.
    async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.settings.sweep_every).await;
            if let Err(error) = self.kept.tidy().await {
                tracing::warn!(%error, "old logs of attempts stay");
            }
            for attempt in self.seen.attempts() {
                if self.lock_live().contains_key(&attempt) {
                    continue;
                }
                match self.records.read(attempt).await {
                    Ok(Some(kept)) => drop(self.adopt(kept.record)),
                    // What was forgotten meanwhile may still be in the list above.
                    Ok(None) if self.seen.has_none(attempt) => {}
                    Ok(None) => drop(self.end_orphan(attempt)),
                    Err(error) => tracing::warn!(%attempt, %error, "it is not seen whose it is"),
                }
            }
        }
    }

    /// Every record, and every attempt that has an object. What is refused is asked for again, up to then.
    async fn everything(&self, until: Instant) -> Result<(Vec<Record>, BTreeSet<AttemptId>), calls::CallError> {
        // Objects first: an attempt's record is made before them and goes after them.
        let mut found = BTreeSet::new();
        let labels = &of_cluster(&self.settings.cluster);
        for kind in Kind::LISTED {
            let objects = insist(until, || self.calls.list(kind, None, labels)).await?;
            found.extend(objects.iter().filter_map(|object| attempt_of(object.metadata.labels.as_ref())));
        }
        Ok((insist(until, || self.records.list()).await?, found))
    }
}

impl KubernetesRuntime {
    /// A runtime with the rights of this client. Watches from now on; starts nothing: call `recover` first.
    pub fn new(client: Client, settings: KubernetesSettings, events: mpsc::Sender<RuntimeEvent>) -> Self {
        let calls = Calls::new(client, settings.request_timeout);
        let records = Records::new(calls.clone(), &settings.own_namespace, settings.cluster.clone());
        let (seen, end) = (Arc::new(Seen::default()), CancellationToken::new());
        let life = uuid::Uuid::new_v4().to_string();
        let (live, launching) = (Mutex::default(), watch::Sender::new(0));
        let labels = of_cluster(&settings.cluster);
        let kept = KeptLogs::new(settings.log_folder.clone(), settings.log_retention);
        let (leaves, of_all) = (Arc::default(), end.clone());
        let by_claims = ByClaims::default();
        let (lately, said) = (Lately::default(), Said::new(settings.look_every / 2));
        let inner = Inner {
            settings,
            calls,
            records,
            kept,
            by_claims,
            lately,
            said,
            seen,
            leaves,
            events,
            live,
            launching,
            tokens: OnceLock::new(),
            life,
            end: of_all,
        };
        let inner = Arc::new(inner);
        let (watched, ended) = (watching::all(inner.calls.clone(), labels, inner.seen.clone()), end.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = watched => {}
            }
        });
        Self { inner, _guard: Arc::new(end.drop_guard()) }
    }

    /// From whom attempts get their tokens; said once, before any attempt begins.
    pub fn take_tokens_from(&self, source: TokenSource) {
        let _ = self.inner.tokens.set(source);
    }

    /// Reads an attempt's log: of those of its pods that speak for the program, or of one worker's, counted from 0 through the groups without
    /// Ray's head and Spark's driver. `follow` goes on until they have ended. Once they are gone it is what was kept of the former.
    pub async fn logs(&self, attempt: AttemptId, worker: Option<u32>, follow: bool) -> Result<KubernetesLog, LogError> {
        let inner = &self.inner;
        let reading = if follow { Reading::Follow } else { Reading::Now };
        let seen = inner.seen.objects(attempt);
        let namespace = seen.pods.values().find_map(|pod| pod.metadata.namespace.as_deref());
        if let Some(number) = worker {
            let record = inner.records.read(attempt).await.map_err(|error| LogError::Cluster(error.to_string()))?;
            let order = record.and_then(|kept| kept.record.order).ok_or(LogError::NoWorker(number))?;
            let (group, index) = members::worker(&order, number).ok_or(LogError::NoWorker(number))?;
            return KubernetesLog::open(&inner.calls, namespace, attempt, Whose::Worker(group, index, number), reading)
                .await;
        }
        if inner.kept.is_whole(attempt).await {
            return inner.kept.read(attempt).await;
        }
        match KubernetesLog::open(&inner.calls, namespace, attempt, Whose::Program, reading).await {
            Err(LogError::Unknown) => inner.kept.read(attempt).await,
            opened => opened,
        }
    }

    /// Answers the guards of attempts that end themselves when they are cut off, until cancelled. Only for a runtime that acts.
    pub async fn answer_guards(&self, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
        guards::serve(listener, self.inner.leaves.clone(), tasks, stop).await;
    }

    /// Whether attempts can end themselves here when they are cut off.
    pub fn fences(&self) -> bool {
        self.inner.settings.guards.is_some()
    }

    /// Connects to the page that a live attempt serves itself.
    pub async fn page(&self, attempt: AttemptId) -> Result<Page, PageError> {
        page::open(&self.inner, attempt).await
    }

    /// Ends once an attempt is gone, or is not known here.
    pub fn ended(&self, attempt: AttemptId) -> impl Future<Output = ()> + Send + use<> {
        gone(self.inner.lock_live().get(&attempt).map(|handle| handle.state.subscribe()))
    }

    /// Returns once no attempt is being made any more, after this long at most: one that is cut off half way is ended by whoever comes next.
    /// Call it when no more orders come.
    pub async fn settle(&self, within: Duration) {
        let mut launching = self.inner.launching.subscribe();
        let _ = tokio::time::timeout(within, launching.wait_for(|count| *count == 0)).await;
    }

    /// Ends every attempt and returns once all are gone.
    pub async fn shutdown(&self, grace_ms: u64) -> Result<(), RuntimeError> {
        let all: Vec<(AttemptId, Handle)> =
            self.inner.lock_live().iter().map(|(attempt, handle)| (*attempt, handle.clone())).collect();
        for (_, handle) in &all {
            handle.stop.send_replace(Some(grace_ms));
        }
        for (_, handle) in &all {
            let mut state = handle.state.subscribe();
            let _ = state.wait_for(AttemptState::is_final).await;
        }
        Ok(())
    }
}

impl Runtime for KubernetesRuntime {
    /// Returns at once. The attempt's record is made first, for as long as that takes, and nothing before it; that it is there is told as
    /// [`AttemptState::Accepted`].
    async fn start(&self, number: CommandNumber, order: &LaunchOrder, devices: &Devices) -> Result<(), RuntimeError> {
        let attempt = order.attempt;
        let (handle, mine) = self.inner.reserve(attempt, || Handle::new(AttemptState::Accepted, Some(order)));
        if mine {
            let launch = Launch { number, order: order.clone(), devices: devices.clone() };
            self.inner.begin(attempt, handle, Begin::Order(Box::new(launch)));
        } else {
            let state = handle.state.borrow().clone();
            self.inner.emit(attempt, &handle, state).await;
        }
        Ok(())
    }

    /// Attempts keep the size that they were launched with: members beyond it are told to be missing, so that nobody counts on them.
    async fn resize(
        &self,
        order: &LaunchOrder,
        members: &[MemberAssignment],
        leaving: &[MemberAssignment],
        _grace_ms: u64,
    ) -> Result<(), RuntimeError> {
        let Some(handle) = self.inner.lock_live().get(&order.attempt).cloned() else { return Ok(()) };
        let launched = |m: &&MemberAssignment| handle.launched.get(&m.group).is_some_and(|count| m.rank < *count);
        if let Some(stays) = leaving.iter().find(launched) {
            let cause = format!("{} {} of {} was launched with it", stays.group, stays.rank, order.attempt);
            return Err(RuntimeError::Cluster {
                what: "a member that an attempt began with can't be ended alone",
                cause,
            });
        }
        let missing = members.iter().chain(leaving).filter(|m| !launched(m));
        let gone: Vec<(GroupName, u32)> = missing.map(|m| (m.group.clone(), m.rank)).collect();
        if !gone.is_empty() {
            let state = handle.state.borrow().clone();
            let _ = self.inner.events.send(RuntimeEvent { attempt: order.attempt, state, gone }).await;
        }
        Ok(())
    }

    /// Returns at once, as `start` does. An attempt without a record gets one that says that it was stopped, before that is told.
    async fn stop(&self, attempt: AttemptId, grace_ms: u64) -> Result<(), RuntimeError> {
        let state = AttemptState::Starting { waiting_for: "its end".to_owned() };
        let (handle, mine) = self.inner.reserve(attempt, || Handle::new(state, None));
        let state = handle.state.borrow().clone();
        if !mine && state.is_final() {
            self.inner.emit(attempt, &handle, state).await;
            return Ok(());
        }
        handle.stop.send_replace(Some(grace_ms));
        if mine {
            self.inner.begin(attempt, handle, Begin::Nothing);
        }
        Ok(())
    }

    /// Its guards hear so when they ask.
    fn let_go_on(&self, attempt: AttemptId, until: MonotonicMs) {
        // Of what has ended nothing is kept.
        let live = self.inner.lock_live();
        if live.get(&attempt).is_some_and(|handle| !handle.state.borrow().is_final()) {
            self.inner.leaves.let_go_on(attempt, until);
        }
    }

    async fn recover(&self) -> Result<Vec<(AttemptId, AttemptState)>, RuntimeError> {
        Ok(self.recover_known().await?.into_iter().map(|(known, state)| (known.attempt, state)).collect())
    }

    async fn forget(&self, attempt: AttemptId) -> Result<(), RuntimeError> {
        let handle = self.inner.lock_live().get(&attempt).cloned();
        if handle.is_some_and(|handle| !handle.state.borrow().is_final()) {
            return Ok(());
        }
        let deleted = self.inner.records.delete(attempt).await;
        deleted
            .map_err(|error| RuntimeError::Cluster { what: "an attempt's record stays", cause: error.to_string() })?;
        self.inner.lock_live().remove(&attempt);
        Ok(())
    }

    async fn frameworks(&self) -> Vec<FrameworkCheck> {
        frameworks::check(&self.inner.calls).await
    }
}

/// Asks until there is an answer, up to then.
async fn insist<T, F>(until: Instant, ask: impl Fn() -> F) -> Result<T, calls::CallError>
where
    F: Future<Output = Result<T, calls::CallError>>,
{
    let mut backoff = Backoff::new();
    loop {
        match ask().await {
            Err(error) if Instant::now() < until && !error.is_for_good() => {
                tracing::warn!(%error, "what runs in the cluster is not found yet");
            }
            answer => return answer,
        }
        backoff.wait().await;
    }
}

impl KubernetesRuntime {
    /// [`Runtime::recover`], with how each attempt was launched: these records are the agent's journal.
    pub async fn recover_known(&self) -> Result<Vec<(KnownAttempt, AttemptState)>, RuntimeError> {
        let what = "the attempts that run in the cluster can't be found";
        let found = self.inner.everything(Instant::now() + PATIENCE).await;
        let (records, objects) = found.map_err(|error| RuntimeError::Cluster { what, cause: error.to_string() })?;
        let adopted = records.into_iter().map(|record| (record.attempt, (record.known(), self.inner.adopt(record))));
        let mut found: BTreeMap<AttemptId, (KnownAttempt, Handle)> = adopted.collect();
        for attempt in objects {
            let known = KnownAttempt { attempt, launch: None };
            found.entry(attempt).or_insert_with(|| (known, self.inner.end_orphan(attempt)));
        }
        tokio::spawn({
            let (inner, end) = (self.inner.clone(), self.inner.end.clone());
            async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = inner.sweep() => {}
                }
            }
        });
        let words = async {
            for (_, handle) in found.values() {
                let mut state = handle.state.subscribe();
                let no_word =
                    |s: &AttemptState| matches!(s, AttemptState::Starting { waiting_for } if waiting_for == NO_WORD);
                let _ = state.wait_for(|state| !no_word(state)).await;
            }
        };
        // One that nothing is said of for now does not hold up the rest.
        let _ = tokio::time::timeout(FIRST_WORDS, words).await;
        Ok(found.into_values().map(|(known, handle)| (known, handle.state.borrow().clone())).collect())
    }
}
