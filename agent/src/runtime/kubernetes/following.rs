//! Follows an attempt whose objects are there, until it has ended.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use tokio::time::Instant;

use super::Inner;
use super::attempt::{Task, failed};
use super::failure::{self, infrastructure};
use super::kinds::Kind;
use super::launching::look;
use super::manifests::{Manifest, Manifests};
use super::progress::{self, Progress};
use super::quotas;
use super::seen::{Objects, Thing};

/// Between two words on what is missing: each is a report, and a gang of thousands comes up one by one.
const WORDS_APART: Duration = Duration::from_secs(2);
/// Between two looks for an object that no watch has told of.
const LOOKS_APART: Duration = Duration::from_secs(1);
/// The longest time between two questions why pods are not made, or don't begin.
const SELDOM: Duration = Duration::from_secs(60);
/// What changes at once is looked at once.
const GATHER: Duration = Duration::from_millis(20);

/// Up to how it ended.
pub(super) async fn follow(task: &Task, manifests: &Manifests) -> AttemptState {
    let mut changes = task.inner.seen.changes(task.attempt);
    let mut up = false;
    let mut stuck_since: Option<(FailureClass, Instant)> = None;
    let mut told = None;
    let mut looked = Instant::now();
    let mut refusals = Refusals::new(task.inner.settings.look_every);
    loop {
        changes.borrow_and_update();
        let mut objects = task.inner.seen.objects(task.attempt);
        let unseen: Vec<&Manifest> = manifests.owners().filter(|m| !objects.has(m.kind, &m.name)).collect();
        let mut pause = task.inner.settings.look_every;
        if !unseen.is_empty() {
            pause = LOOKS_APART;
            if looked.elapsed() >= LOOKS_APART {
                looked = Instant::now();
                if let Err(state) = see(task, manifests, &unseen).await {
                    return state;
                }
                objects = task.inner.seen.objects(task.attempt);
            }
        }
        match progress::of(manifests, &objects) {
            Progress::Ended(state) => return state,
            Progress::Running => match unlet(task, manifests, &objects) {
                Some(waiting_for) if !up => {
                    pause = LOOKS_APART;
                    task.wait_for(waiting_for).await;
                }
                _ => {
                    up = true;
                    task.tell(AttemptState::Running).await;
                }
            },
            // Members that go after all were up are the framework's to replace, or its end.
            Progress::Starting { .. } if up => {}
            Progress::Starting { mut waiting_for, mut stuck } => {
                for (class, said) in refusals.look(task, manifests, &objects).await {
                    waiting_for = format!("{waiting_for}: {said}");
                    stuck = Some(class);
                }
                stuck_since = stuck.map(|class| match stuck_since {
                    Some((before, since)) if before == class => (class, since),
                    _ => (class, Instant::now()),
                });
                let patience = task.inner.settings.start_patience;
                if let Some((class, since)) = stuck_since {
                    if since.elapsed() >= patience {
                        let message = format!("not up {} s after it was stuck: {waiting_for}", patience.as_secs());
                        return failed(class, message);
                    }
                    pause = pause.min(patience - since.elapsed());
                }
                if told.is_none_or(|at: Instant| at.elapsed() >= WORDS_APART) {
                    told = Some(Instant::now());
                    task.wait_for(waiting_for).await;
                } else {
                    pause = pause.min(WORDS_APART);
                }
            }
        }
        let _ = tokio::time::timeout(pause, changes.changed()).await;
        tokio::time::sleep(GATHER).await;
    }
}

/// Pods run whose guards have not been let begin, where it has guards: one that can't reach the agent starts nothing.
fn unlet(task: &Task, manifests: &Manifests, objects: &Objects) -> Option<String> {
    let (run, begun) = (progress::guards_running(manifests, objects), task.inner.leaves.begun(task.attempt)?);
    (begun < run).then(|| format!("leave to begin: {begun} of {run} guards in its pods have it"))
}

/// Looks at the server itself for what no watch has told of: it is told, or it was deleted.
async fn see(task: &Task, manifests: &Manifests, unseen: &[&Manifest]) -> Result<(), AttemptState> {
    for manifest in unseen {
        let Some(found) = look(task, &manifests.namespace, manifest).await? else {
            return Err(infrastructure(format!("{} {} was deleted by somebody else", manifest.kind, manifest.name)));
        };
        if let Some(thing) = Thing::looked_at(manifest.kind, found) {
            task.inner.seen.put(task.attempt, thing);
        }
    }
    Ok(())
}

/// Why pods are not made or don't begin, as it was last heard.
struct Refusals {
    /// Of pods that are not made.
    unmade: Asked,
    /// Of one that is on its node.
    unbegun: Asked,
}

impl Refusals {
    fn new(pause: Duration) -> Self {
        Self { unmade: Asked::new(pause), unbegun: Asked::new(pause) }
    }

    async fn look(&mut self, task: &Task, manifests: &Manifests, objects: &Objects) -> Vec<(FailureClass, String)> {
        let wanted: u32 = manifests.members.values().sum();
        let unmade = objects.pods.len() < wanted as usize;
        let unmade = self.unmade.ask(unmade, || refused_pods(task, manifests, objects)).await;
        let waits = progress::waits_on_its_node(objects);
        let unbegun = self.unbegun.ask(waits.is_some(), || unmounted(task, manifests, waits.unwrap_or_default())).await;
        unmade.into_iter().chain(unbegun).collect()
    }
}

/// A question that is asked now and then, ever more seldom: thousands may have it at once.
struct Asked {
    heard: Option<(FailureClass, String)>,
    ask_at: Instant,
    pause: Duration,
    /// Between the first two.
    first: Duration,
}

impl Asked {
    fn new(first: Duration) -> Self {
        Self { heard: None, ask_at: Instant::now() + first, pause: first, first }
    }

    /// What was heard last, while it is a question at all.
    async fn ask<F>(&mut self, open: bool, question: impl FnOnce() -> F) -> Option<(FailureClass, String)>
    where
        F: Future<Output = Option<(FailureClass, String)>>,
    {
        if !open {
            (self.heard, self.pause) = (None, self.first);
            self.ask_at = Instant::now() + self.first;
        } else if Instant::now() >= self.ask_at {
            self.heard = question().await;
            self.ask_at = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(SELDOM.max(self.pause));
        }
        self.heard.clone()
    }
}

/// Why the controllers of Jobs and Ray's clusters make no pods: they say so in events only. A Spark driver says it in its log; whether a quota
/// leaves no room for an executor is looked at.
async fn refused_pods(task: &Task, manifests: &Manifests, objects: &Objects) -> Option<(FailureClass, String)> {
    if let Some(executors) = progress::executors_unmade(manifests, objects) {
        return quotas::refuses(task, manifests, executors).await;
    }
    for (kind, name) in progress::makers(manifests, objects) {
        let Inner { calls, said, .. } = &*task.inner;
        if let Some(refused) = said.of_making(calls, &manifests.namespace, kind, &name).await {
            return Some(refused);
        }
    }
    None
}

/// Why a kubelet can't give a pod its volumes, such as those of a Secret that is missing: it says so in events only.
async fn unmounted(task: &Task, manifests: &Manifests, pod: &str) -> Option<(FailureClass, String)> {
    let calls = &task.inner.calls;
    let events: Api<Event> = Api::namespaced(calls.client(), &manifests.namespace);
    let of_pod = format!("involvedObject.kind={},involvedObject.name={pod}", Kind::Pod);
    let listed = calls.ask(events.list(&ListParams::default().fields(&of_pod))).await;
    // Nothing where that can't be read.
    failure::of_volumes(listed.map(|listed| listed.items).unwrap_or_default())
}
