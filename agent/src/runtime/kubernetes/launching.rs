//! Makes the objects of an attempt, once; or finds those that an earlier runtime made.
//!
//! First everything is tried without being made, so that what can never succeed leaves nothing; but for the first object, whose making is
//! its own trial. Only the runtime that made an attempt's
//! record makes its objects: one that finds a record with objects missing can't tell those that were never made from those that ran and
//! were deleted, and begins nothing a second time.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use kube::core::DynamicObject;
use protocol::control::AttemptState;
use protocol::workload::Framework;
use tokio::time::Instant;

use super::Inner;
use super::attempt::{Refusal, Task};
use super::failure::infrastructure;
use super::frameworks;
use super::lately::Likeness;
use super::manifests::{CLUSTER, MANAGED_BY, MANAGER, Manifest, Manifests, PodSecurity, attempt_of};
use super::tokens::TokenSecrets;
use crate::runtime::tokens::Tokens;

/// The label by which a namespace says what it demands of pods.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";

/// Makes everything. The error is the state in which the attempt ends instead.
pub(super) async fn launch(
    task: &Task,
    manifests: &Manifests,
    ground: &Ground,
    tokens: &mut Tokens,
) -> Result<(), AttemptState> {
    let calls = &task.inner.calls;
    let namespace = manifests.namespace.as_str();
    provide_namespace(task, namespace, ground).await?;
    if manifests.framework == Framework::Spark {
        let usual = &task.inner.settings.spark_service_account;
        frameworks::drivers_may(task, namespace, manifests.driver_account.as_ref().unwrap_or(usual)).await?;
    }
    let more = manifests.objects.iter().skip(1).map(|manifest| (manifest, None));
    let samples = manifests.samples.iter().map(|pod| (pod, Some(Likeness::of(namespace, pod))));
    for (manifest, likeness) in more.chain(samples) {
        let what = format!("{} {} cannot be made in namespace {namespace}", manifest.kind, manifest.name);
        let tried = || async {
            // Once it is its turn: meanwhile others may have tried the like.
            let (turn, asked, lately) = (calls.turn().await, Instant::now(), &task.inner.lately);
            if likeness.is_some_and(|likeness| lately.accepts(likeness, asked)) {
                return Ok(());
            }
            calls.create(turn, namespace, manifest, true).await?;
            if let Some(likeness) = likeness {
                lately.accepted(likeness, asked);
            }
            Ok(())
        };
        match task.insist(&what, tried).await {
            // Whose it is will be seen when it is made.
            Ok(()) | Err(Refusal::Taken) => {}
            Err(Refusal::Ends(state)) => return Err(state),
        }
    }
    // Only now: what can never succeed needs none.
    TokenSecrets::of(task, manifests).make(tokens).await?;
    for manifest in &manifests.objects {
        make(task, namespace, manifest).await?;
    }
    Ok(())
}

async fn make(task: &Task, namespace: &str, manifest: &Manifest) -> Result<(), AttemptState> {
    let calls = &task.inner.calls;
    let what = format!("{} {} cannot be made in namespace {namespace}", manifest.kind, manifest.name);
    let create = || async {
        // What waits for its turn can't be late.
        let turn = calls.turn().await;
        task.creating(calls.create(turn, namespace, manifest, false)).await
    };
    let made = task.insist(&what, create).await;
    match made {
        Ok(_) => Ok(()),
        Err(Refusal::Ends(state)) => Err(state),
        Err(Refusal::Taken) => match look(task, namespace, manifest).await? {
            // A try that had no answer.
            Some(found) if is_ours(task, &found) => Ok(()),
            Some(found) => Err(infrastructure(format!(
                "the name {} of a {} in namespace {namespace} is taken by {}; it is left alone",
                manifest.name,
                manifest.kind,
                owner(&found)
            ))),
            None => Err(infrastructure(format!("{} {} was deleted by somebody else", manifest.kind, manifest.name))),
        },
    }
}

/// Sees that everything is there.
pub(super) async fn find(task: &Task, manifests: &Manifests) -> Result<(), AttemptState> {
    for manifest in &manifests.objects {
        let found = look(task, &manifests.namespace, manifest).await?;
        if !found.is_some_and(|found| is_ours(task, &found)) {
            task.may_be_late();
            return Err(infrastructure(format!(
                "the agent was restarted, and {} {} is not there: it was not made yet, or somebody deleted it",
                manifest.kind, manifest.name
            )));
        }
    }
    Ok(())
}

/// The object of this name, if there is one.
pub(super) async fn look(
    task: &Task,
    namespace: &str,
    manifest: &Manifest,
) -> Result<Option<DynamicObject>, AttemptState> {
    let calls = &task.inner.calls;
    let api = calls.of(manifest.kind, Some(namespace));
    let what = format!("a look at {} {}", manifest.kind, manifest.name);
    match task.insist(&what, || calls.ask(api.get_opt(&manifest.name))).await {
        Ok(found) => Ok(found),
        Err(Refusal::Ends(state)) => Err(state),
        Err(Refusal::Taken) => Ok(None),
    }
}

pub(super) fn is_ours(task: &Task, found: &DynamicObject) -> bool {
    attempt_of(found.metadata.labels.as_ref()) == Some(task.attempt) && found.metadata.deletion_timestamp.is_none()
}

/// Who has it, for people.
fn owner(found: &DynamicObject) -> String {
    if let Some(attempt) = attempt_of(found.metadata.labels.as_ref()) {
        return match found.metadata.deletion_timestamp {
            Some(_) => format!("attempt {attempt}, which is being deleted"),
            None => format!("attempt {attempt}"),
        };
    }
    let label = found.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
    let manager = || found.metadata.managed_fields.as_ref()?.first()?.manager.as_ref();
    match label.or_else(manager) {
        Some(name) => format!("what {name} made"),
        None => "something that is not Tidewater's".to_owned(),
    }
}

/// A workload's namespace as it was before anything of the attempt was made.
#[derive(Clone)]
pub(super) struct Ground(Option<Namespace>);

impl Ground {
    /// What it demands of pods. One that is still to be made demands nothing.
    pub(super) fn security(&self) -> PodSecurity {
        let labels = self.0.as_ref().and_then(|namespace| namespace.metadata.labels.as_ref());
        match labels.and_then(|labels| labels.get(ENFORCED)).map(String::as_str) {
            Some("restricted") => PodSecurity::Restricted,
            _ => PodSecurity::Usual,
        }
    }
}

/// Looks for a workload's namespace.
pub(super) async fn look_at_namespace(task: &Task, name: &str) -> Result<Ground, AttemptState> {
    let Inner { calls, lately, .. } = &*task.inner;
    let namespaces: Api<Namespace> = Api::all(calls.client());
    let what = format!("a look at namespace {name}");
    let look = || async {
        let (turn, asked) = (calls.turn().await, Instant::now());
        if let Some(ground) = lately.ground(name, asked) {
            return Ok(ground);
        }
        let ground = Ground(calls.ask_in(turn, namespaces.get_opt(name)).await?);
        if ground.0.is_some() {
            lately.saw(name, &ground, asked);
        }
        Ok(ground)
    };
    match task.insist(&what, look).await {
        Ok(ground) => Ok(ground),
        Err(Refusal::Ends(state)) => Err(state),
        Err(Refusal::Taken) => Err(infrastructure(format!("namespace {name} is there and is not"))),
    }
}

/// Makes it where it is not there, if that is allowed.
async fn provide_namespace(task: &Task, name: &str, ground: &Ground) -> Result<(), AttemptState> {
    if ground.0.is_some() {
        return Ok(());
    }
    let calls = &task.inner.calls;
    let namespaces: Api<Namespace> = Api::all(calls.client());
    if !task.inner.settings.make_namespaces {
        return Err(infrastructure(format!(
            "this cluster has no namespace {name}, and its agent may make none; make it, or allow that in the agent's settings"
        )));
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    let labels = [(MANAGED_BY, MANAGER.to_owned()), (CLUSTER, task.inner.settings.cluster.to_string())];
    namespace.metadata.labels = Some(labels.map(|(label, value)| (label.to_owned(), value)).into());
    let parameters = PostParams::default();
    let make = || calls.ask(namespaces.create(&parameters, &namespace));
    match task.insist(&format!("namespace {name} cannot be made"), make).await {
        Ok(_) | Err(Refusal::Taken) => Ok(()),
        Err(Refusal::Ends(state)) => Err(state),
    }
}
