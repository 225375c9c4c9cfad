//! The recent past of all workloads, for watches: a bounded ring of events in log order, kept by one task.
//!
//! The task hears of changes on the core's channel. For each batch it makes one read, in which it drains that channel: the
//! core sends a change before it serves a read that sees it, so after the read the batch holds every change up to the
//! state's `applied`, and none later. The read copies what changed and no more, for it is on the core's thread; what that
//! was to a watch (new, changed, gone) the task finds out by itself. Events are put in the order of the versions that their
//! objects carry. A watch that goes on from any version it was given therefore misses nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use engine::state::Workload;
use protocol::ids::{LogIndex, Uid, WorkloadKey};
use protocol::workload::WorkloadSpec;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Settings;
use super::reasons::Reasons;
use super::render::{self, Seen};
use crate::handle::{Change, Consistency, Handle, View};

/// Changes that come within this time make one batch: a read each would burden the core.
const BATCH: Duration = Duration::from_millis(5);

/// What happened to a workload.
#[derive(Debug)]
enum What {
    Added(Box<Seen>),
    Modified(Box<Seen>),
    Deleted(Arc<WorkloadSpec>),
}

/// One event. Its text is made when the first watch wants it, and once.
#[derive(Debug)]
pub struct Event {
    /// Where it is in the log.
    pub position: LogIndex,
    /// Which workload.
    pub key: WorkloadKey,
    uid: Uid,
    what: What,
    line: OnceLock<Arc<str>>,
}

impl Event {
    fn new(position: LogIndex, key: WorkloadKey, uid: Uid, what: What) -> Self {
        Self { position, key, uid, what, line: OnceLock::new() }
    }

    /// The event as one line of a watch, its line end included.
    pub fn line(&self) -> Arc<str> {
        let line = self.line.get_or_init(|| match &self.what {
            What::Added(seen) => super::watch::line("ADDED", &seen.object()),
            What::Modified(seen) => super::watch::line("MODIFIED", &seen.object()),
            What::Deleted(spec) => {
                let mut object = render::bare(&self.key, self.uid, spec);
                object.metadata.resource_version = Some(self.position.to_string());
                super::watch::line("DELETED", &object)
            }
        });
        line.clone()
    }
}

/// The watch's start is older than what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// The oldest version from which a watch may start.
    pub oldest: LogIndex,
}

/// Recent events, oldest first.
#[derive(Debug)]
pub struct Ring {
    kept: Mutex<Kept>,
    head: watch::Sender<Option<LogIndex>>,
    limit: usize,
    _task: DropGuard,
}

#[derive(Debug, Default)]
struct Kept {
    /// Every event above this is kept.
    floor: LogIndex,
    /// Every event up to this is known.
    head: LogIndex,
    events: VecDeque<Arc<Event>>,
}

impl Ring {
    /// Starts the task that keeps the ring; it ends with the ring or with `settings.stopping`.
    pub fn follow(handle: Handle, settings: &Settings, reasons: Arc<Reasons>) -> Arc<Ring> {
        let stop = settings.stopping.child_token();
        let ring = Arc::new(Ring {
            kept: Mutex::default(),
            head: watch::Sender::new(None),
            limit: settings.ring.max(1),
            _task: stop.clone().drop_guard(),
        });
        let changes = handle.watch();
        let weak = Arc::downgrade(&ring);
        tokio::spawn(async move {
            let publish = move |what: Publish| weak.upgrade().map(|ring| ring.publish(what));
            follow(handle, changes, reasons, stop, publish).await;
        });
        ring
    }

    /// Events after `since`, and the version up to which that is all there was. With `again`, events at `since` itself come
    /// too where one log entry made several: who goes on from there may have seen only some of them.
    pub fn since(&self, since: LogIndex, again: bool) -> Result<(Vec<Arc<Event>>, LogIndex), Expired> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if since < kept.floor {
            return Err(Expired { oldest: kept.floor });
        }
        let mut start = kept.events.partition_point(|e| e.position <= since);
        if again {
            let first = kept.events.partition_point(|e| e.position < since);
            if start - first > 1 {
                start = first;
            }
        }
        Ok((kept.events.range(start..).cloned().collect(), kept.head.max(since)))
    }

    /// Tells of new heads; `None` until the ring has begun.
    pub fn heads(&self) -> watch::Receiver<Option<LogIndex>> {
        self.head.subscribe()
    }

    fn publish(&self, what: Publish) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Publish::Begin(at) => *kept = Kept { floor: at, head: at, events: VecDeque::new() },
            Publish::Batch(events, head) => {
                kept.events.extend(events.into_iter().map(Arc::new));
                kept.head = kept.head.max(head);
                while kept.events.len() > self.limit {
                    kept.drop_oldest();
                }
            }
        }
        self.head.send_replace(Some(kept.head));
    }
}

impl Kept {
    /// Drops the events of the oldest log entry.
    fn drop_oldest(&mut self) {
        let Some(oldest) = self.events.front().map(|e| e.position) else { return };
        let count = self.events.iter().take_while(|e| e.position == oldest).count();
        self.events.drain(..count);
        // Who saw only some events of an entry that made several can't go on from it.
        self.floor = LogIndex(oldest.0 + u64::from(count > 1));
    }
}

enum Publish {
    Begin(LogIndex),
    Batch(Vec<Event>, LogIndex),
}

/// What the task knows of every workload, to tell new from changed and to name what went.
type Known = HashMap<WorkloadKey, (Uid, Arc<WorkloadSpec>)>;

/// Which workloads changed, and the last entry that did it.
type Changed = HashMap<WorkloadKey, LogIndex>;

/// A workload that changed, and how it is now; none where it went.
struct Found {
    key: WorkloadKey,
    changed_at: LogIndex,
    now: Option<Box<Seen>>,
}

async fn follow(
    handle: Handle,
    mut changes: broadcast::Receiver<Change>,
    reasons: Arc<Reasons>,
    stop: CancellationToken,
    publish: impl Fn(Publish) -> Option<()>,
) {
    'begin: loop {
        let begun = handle.read(Consistency::Stale, move |view| {
            let mut changes = changes;
            let _ = drain(&mut changes, &mut Changed::new());
            let workloads = view.state.workloads.iter();
            let known: Vec<_> = workloads.map(|(k, w)| (k.clone(), (w.uid, w.spec.clone()))).collect();
            (changes, known, view.state.applied)
        });
        let Ok((receiver, known, mut head)) = begun.await else { return };
        changes = receiver;
        let mut known: Known = known.into_iter().collect();
        if publish(Publish::Begin(head)).is_none() {
            return;
        }
        loop {
            let mut changed = Changed::new();
            tokio::select! {
                () = stop.cancelled() => return,
                first = changes.recv() => match first {
                    Ok(change) => note(&mut changed, change),
                    Err(broadcast::error::RecvError::Lagged(_)) => continue 'begin,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
            tokio::time::sleep(BATCH).await;
            let reasons = reasons.clone();
            let read = handle.read(Consistency::Stale, move |view| {
                let mut changes = changes;
                let complete = drain(&mut changes, &mut changed);
                (changes, complete, look_up(view, &reasons, changed, head), view.state.applied)
            });
            let Ok((receiver, complete, found, applied)) = read.await else { return };
            changes = receiver;
            if !complete {
                continue 'begin;
            }
            let events = events(found, head, &mut known);
            head = applied;
            if publish(Publish::Batch(events, head)).is_none() {
                return;
            }
        }
    }
}

fn note(changed: &mut Changed, change: Change) {
    for key in change.workloads {
        changed.insert(key, change.index);
    }
}

/// Takes everything out of the channel; false where some was lost.
fn drain(changes: &mut broadcast::Receiver<Change>, changed: &mut Changed) -> bool {
    loop {
        match changes.try_recv() {
            Ok(change) => note(changed, change),
            Err(broadcast::error::TryRecvError::Lagged(_)) => return false,
            Err(_) => return true,
        }
    }
}

/// Copies what changed. Changes up to `head` were found before.
fn look_up(view: &View<'_>, reasons: &Reasons, changed: Changed, head: LogIndex) -> Vec<Found> {
    let changed = changed.into_iter().filter(|(_, index)| *index > head);
    reasons.with(view, |waiting| {
        let found = |(key, changed_at)| {
            let now = view.state.workloads.get(&key).map(|w| Box::new(Seen::of(view, w, waiting)));
            Found { key, changed_at, now }
        };
        changed.map(found).collect()
    })
}

/// The events of a batch, in log order. Changes up to `head` are in the known already.
fn events(found: Vec<Found>, head: LogIndex, known: &mut Known) -> Vec<Event> {
    let mut events = Vec::with_capacity(found.len());
    for Found { key, changed_at, now } in found {
        let before = match &now {
            Some(seen) => known.insert(key.clone(), (seen.workload.uid, seen.workload.spec.clone())),
            None => known.remove(&key),
        };
        let uid_now = now.as_ref().map(|seen| seen.workload.uid);
        let new = before.as_ref().is_none_or(|(uid, _)| Some(*uid) != uid_now);
        // The same name under another uid is another workload: the first went, the second came.
        if let Some((uid, spec)) = before
            && new
        {
            let created = now.as_ref().map(|seen| seen.workload.created.0.saturating_sub(1));
            let position = created.map_or(changed_at, |before| LogIndex(before).max(LogIndex(head.0 + 1)));
            events.push(Event::new(position, key.clone(), uid, What::Deleted(spec)));
        }
        if let Some(seen) = now {
            let (position, uid) = (position(&seen.workload, changed_at), seen.workload.uid);
            let what = if new { What::Added(seen) } else { What::Modified(seen) };
            events.push(Event::new(position, key, uid, what));
        }
    }
    // Stable: a deletion stays before the addition that it made room for.
    events.sort_by(|a, b| (a.position, &a.key).cmp(&(b.position, &b.key)));
    events
}

fn position(workload: &Workload, changed_at: LogIndex) -> LogIndex {
    workload.version.max(changed_at)
}
