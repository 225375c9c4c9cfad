//! Ends what is left of an attempt, and sees that it is gone: only then is its final state told.

use std::time::Duration;

use futures_util::future::join_all;
use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use protocol::control::AttemptState;
use protocol::workload::Framework;
use tokio::time::Instant;

use super::attempt::{Place, Task};
use super::calls::CallError;
use super::kept;
use super::kinds::Kind;
use super::manifests::of_attempt;
use super::record::Outcome;
use super::tokens::GoingSecrets;
use crate::kube::Backoff;

/// After which what is still there is ordered to go once more.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest time between two looks at what is going.
const LOOK: Duration = Duration::from_secs(2);
/// How many deletes are under way at once, for one attempt.
const AT_ONCE: usize = 16;

/// How an attempt ends.
pub(super) struct Ending {
    /// How, unless something else is on record already.
    pub outcome: Outcome,
    /// How long its pods have to end by themselves, in ms.
    pub grace_ms: u64,
}

/// An object that is still there.
struct Left {
    kind: Kind,
    object: DynamicObject,
}

/// Writes down how it ended, deletes everything, and tells the final state once nothing is left.
pub(super) async fn conclude(task: &Task, place: Place, ending: Ending) {
    let outcome = write_down(task, &ending.outcome).await;
    kept::keep(task, place.namespace.as_deref(), outcome.state != AttemptState::Stopped).await;
    let mut changes = task.inner.seen.changes(task.attempt);
    let mut secrets = GoingSecrets::of(task.attempt, &place);
    let mut ordered: Option<Instant> = None;
    let mut empty_since: Option<Instant> = None;
    let mut backoff = Backoff::new();
    loop {
        changes.borrow_and_update();
        let left = match what_is_left(task, &place).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(attempt = %task.attempt, %error, "it is not seen whether an ended attempt is gone");
                backoff.wait().await;
                continue;
            }
        };
        backoff = Backoff::new();
        if outcome.late {
            secrets.look_again();
        }
        // Before the rest goes: where there is no record, the rest alone says which Secrets there may be.
        let held = secrets.go(&task.inner.calls, left.iter().map(|l| &l.object.metadata)).await;
        let pause = if left.is_empty() && held.as_ref().is_ok_and(Vec::is_empty) {
            // A create that had no answer may be carried out yet; the server has answered since.
            let since = *empty_since.get_or_insert_with(Instant::now);
            let over = task.inner.settings.late_create;
            if !outcome.late || since.elapsed() >= over {
                break;
            }
            LOOK.min(over - since.elapsed())
        } else {
            empty_since = None;
            if ordered.is_none_or(|at| at.elapsed() >= AGAIN) {
                if ordered.is_some() {
                    let held = held.as_deref().unwrap_or_default();
                    let names = left.iter().map(|l| format!("{} {}", l.kind, l.name())).chain(held.iter().cloned());
                    let (names, count) = (names.take(4).collect::<Vec<_>>(), left.len() + held.len());
                    tracing::warn!(attempt = %task.attempt, count, ?names, "an ended attempt is not gone yet");
                }
                ordered = Some(Instant::now());
                if let Err(error) = &held {
                    tracing::warn!(attempt = %task.attempt, %error, "tokens of an ended attempt can't be deleted yet");
                }
                if held.is_ok() || place.namespace.is_some() {
                    delete(task, &left, ending.grace_ms).await;
                }
            }
            LOOK
        };
        let _ = tokio::time::timeout(pause, changes.changed()).await;
        // Its objects go one by one: not each is worth a look at all.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    task.inner.emit(task.attempt, &task.handle, outcome.state).await;
}

/// Makes durable how it ended: the objects that tell it are about to go.
async fn write_down(task: &Task, outcome: &Outcome) -> Outcome {
    let mut backoff = Backoff::new();
    loop {
        match task.inner.records.conclude(task.attempt, &task.inner.life, outcome).await {
            Ok(outcome) => return outcome,
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(attempt = %task.attempt, %error, "how an attempt ended is not written down yet");
            }
        }
        backoff.wait().await;
    }
}

fn kinds(framework: Option<Framework>, by_claims: bool) -> impl Iterator<Item = Kind> {
    let all: &[Kind] = match framework {
        Some(Framework::Batch) => &[Kind::Job, Kind::Pod, Kind::Service],
        Some(Framework::Ray) => &[Kind::RayJob, Kind::RayCluster, Kind::Job, Kind::Pod, Kind::Service, Kind::ConfigMap],
        Some(Framework::Spark) => &[Kind::SparkApplication, Kind::Pod, Kind::Service, Kind::ConfigMap],
        None => &Kind::LISTED,
    };
    let of_claims: &[Kind] = if by_claims && framework.is_some() { &Kind::OF_CLAIMS } else { &[] };
    all.iter().chain(of_claims).copied()
}

/// But for its Secrets, which nobody may look for. By the API server itself, from its store and not from what it remembers.
async fn what_is_left(task: &Task, place: &Place) -> Result<Vec<Left>, CallError> {
    let labels = of_attempt(task.attempt);
    let mut left = vec![];
    let (calls, namespace) = (&task.inner.calls, place.namespace.as_deref());
    for kind in kinds(place.framework, task.is_by_claims()) {
        let objects = calls.list(kind, namespace, &labels).await?;
        left.extend(objects.into_iter().map(|object| Left { kind, object }));
    }
    Ok(left)
}

impl Left {
    fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn is_going(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }
}

/// Owners first, so that they make nothing anew, and in the foreground: one that is gone has nothing left below it. Then the pods, for the
/// time that they have is in their own deletion alone. Claims go with their pods, by Kubernetes' own hand: one that was deleted earlier would be made
/// anew for a pod that still waits. That they are gone is waited for, since each holds its devices until then.
async fn delete(task: &Task, left: &[Left], grace_ms: u64) {
    let calls = &task.inner.calls;
    let told =
        |what: &str, error: CallError| tracing::warn!(attempt = %task.attempt, what, %error, "cannot be deleted yet");
    let is_owner = |l: &&Left| !matches!(l.kind, Kind::Pod | Kind::ResourceClaim) && !l.is_going();
    let owners: Vec<&Left> = left.iter().filter(is_owner).collect();
    let (foreground, background) = (DeleteParams::foreground(), DeleteParams::background());
    // Deleted below a Job in the foreground, a pod stays until its claims are gone, and they stay until its kubelet has said that it ended: where
    // that is silent neither would ever go. A Job that is gone makes no pods, so that nothing has to be waited for by it.
    let how = |l: &Left| if l.kind == Kind::Job && task.is_by_claims() { &background } else { &foreground };
    for some in owners.chunks(AT_ONCE) {
        let deletes: Vec<_> = some.iter().map(|l| calls.delete(l.kind, l.namespace(), l.name(), how(l))).collect();
        for (l, deleted) in some.iter().zip(join_all(deletes).await) {
            if let Err(error) = deleted {
                told(l.name(), error);
            }
        }
    }
    // 0 would take the pod's object away without a word from its kubelet.
    let grace = u32::try_from(grace_ms.div_ceil(1000)).unwrap_or(u32::MAX).max(1);
    let stays = |l: &&Left| {
        let given = l.object.metadata.deletion_grace_period_seconds;
        l.kind == Kind::Pod && (!l.is_going() || given.is_some_and(|given| given > i64::from(grace)))
    };
    let mut namespaces: Vec<&str> = left.iter().filter(stays).map(Left::namespace).collect();
    namespaces.dedup();
    for namespace in namespaces {
        let pods = calls.of(Kind::Pod, Some(namespace));
        let these = ListParams::default().labels(&of_attempt(task.attempt));
        let parameters = DeleteParams::default().grace_period(grace);
        if let Err(error) = calls.ask(pods.delete_collection(&parameters, &these)).await {
            told("pods", error);
        }
    }
}
