//! The tokens of an attempt as Secrets beside its pods: made before them, replaced so that the kubelets pass new ones on, and ended with the rest.
//! Neither the record nor any message has a token's text.
//!
//! An agent may make, replace and delete Secrets, and never reads, lists or patches any: each of those would show it what others keep. So it finds them
//! by name. The names follow from the attempt, whose id they have a hash of, and nobody else has a use for them: what has one is the attempt's.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DeleteParams;
use protocol::control::AttemptState;
use protocol::ids::AttemptId;
use protocol::token::TokenText;
use protocol::workload::MAX_TOKENS;
use serde_json::json;

use super::attempt::{Place, Refusal, Task};
use super::calls::{CallError, Calls, Made};
use super::kinds::Kind;
use super::manifests::{Manifest, Manifests, TOKEN_KEY, token_secret, workload_of};
use crate::kube::Backoff;
use crate::runtime::tokens::{Shelf, Tokens};

/// How many Secrets are deleted at once, for one attempt.
const AT_ONCE: usize = 16;

/// The Secrets of one attempt.
pub(super) struct TokenSecrets<'a> {
    task: &'a Task,
    namespace: &'a str,
    all: &'a [Manifest],
}

impl<'a> TokenSecrets<'a> {
    pub(super) fn of(task: &'a Task, manifests: &'a Manifests) -> Self {
        Self { task, namespace: &manifests.namespace, all: &manifests.tokens }
    }

    /// Makes each, with its token in it. The error is the state in which the attempt ends instead.
    pub(super) async fn make(&self, tokens: &mut Tokens) -> Result<(), AttemptState> {
        for (index, manifest) in self.all.iter().enumerate() {
            let text = tokens.first(index, |why| self.task.wait_for(why)).await;
            self.make_one(&with_token(manifest, &text)).await?;
        }
        Ok(())
    }

    async fn make_one(&self, manifest: &Manifest) -> Result<(), AttemptState> {
        let (task, namespace) = (self.task, self.namespace);
        let (calls, name) = (&task.inner.calls, &manifest.name);
        let what = format!("Secret {name} cannot be made in namespace {namespace}");
        let create = || self.create(manifest);
        let replace = || async {
            match calls.replace(namespace, manifest).await {
                Err(error) if error.is_not_found() => Ok(None),
                replaced => replaced.map(Some),
            }
        };
        let mut backoff = Backoff::new();
        loop {
            match task.insist(&what, create).await {
                Ok(made) => {
                    self.know(name, made);
                    return Ok(());
                }
                Err(Refusal::Ends(state)) => return Err(state),
                Err(Refusal::Taken) => {}
            }
            // By a try that had no answer, most likely. It is not taken for that unseen, for it can't be read: whatever it is, all of it is replaced.
            // Deleting it first would do no better, and would leave a moment without it.
            match task.insist(&what, replace).await {
                Ok(Some(there)) => {
                    self.know(name, there);
                    return Ok(());
                }
                Err(Refusal::Ends(state)) => return Err(state),
                // It went meanwhile.
                Ok(None) | Err(Refusal::Taken) => backoff.wait().await,
            }
        }
    }

    async fn create(&self, manifest: &Manifest) -> Result<Made, CallError> {
        let calls = &self.task.inner.calls;
        // What waits for its turn can't be late.
        let turn = calls.turn().await;
        self.task.creating(calls.create(turn, self.namespace, manifest, false)).await
    }

    /// From here on none but this one is replaced.
    fn know(&self, name: &str, secret: Made) {
        if let Some(uid) = secret.uid() {
            self.task.lock_secret_uids().insert(name.to_owned(), uid);
        }
    }
}

/// A Secret with its token in it. The API server makes base64 of it.
fn with_token(manifest: &Manifest, text: &TokenText) -> Manifest {
    let mut manifest = manifest.clone();
    manifest.object["stringData"] = json!({TOKEN_KEY: text.reveal()});
    manifest
}

impl Shelf for TokenSecrets<'_> {
    /// Replaces the one that is there. One that somebody deleted is made anew, since the pods wait for it.
    async fn put(&self, index: usize, text: &TokenText) -> Result<(), String> {
        let Some(manifest) = self.all.get(index) else { return Ok(()) };
        let (name, namespace) = (&manifest.name, self.namespace);
        let failed = |error: CallError| format!("Secret {name} in namespace {namespace}: {error}");
        let made_anew = with_token(manifest, text);
        let mut manifest = made_anew.clone();
        let uid = self.task.lock_secret_uids().get(name).cloned();
        if let Some(uid) = &uid {
            manifest.object["metadata"]["uid"] = json!(uid);
        }
        match self.task.inner.calls.replace(namespace, &manifest).await {
            Ok(there) => {
                self.know(name, there);
                return Ok(());
            }
            // To an API server one that is not there has another uid, as has one that somebody put in its place.
            Err(error) if error.is_not_found() || (uid.is_some() && error.is_conflict()) => {}
            Err(error) => return Err(failed(error)),
        }
        // By its name alone from here on: a create that has no answer may be carried out, and what somebody put there gives way at the next try.
        self.task.lock_secret_uids().remove(name);
        let made = self.create(&made_anew).await.map_err(failed)?;
        tracing::warn!(attempt = %self.task.attempt, name, namespace, "a token's Secret was gone, and is made anew");
        self.know(name, made);
        Ok(())
    }
}

/// The Secrets of an attempt that has ended. Each is ordered to go until an order finds none: so it is seen to be gone without being read.
pub(super) struct GoingSecrets {
    attempt: AttemptId,
    /// Whether it is on record which there are. Else all are tried that the attempt could have.
    on_record: bool,
    /// Namespace and name of each.
    all: BTreeSet<(String, String)>,
    gone: BTreeSet<(String, String)>,
}

impl GoingSecrets {
    pub(super) fn of(attempt: AttemptId, place: &Place) -> Self {
        let namespace = place.namespace.as_deref().unwrap_or_default();
        let all = place.secrets.iter().map(|name| (namespace.to_owned(), name.clone())).collect();
        Self { attempt, on_record: place.namespace.is_some(), all, gone: BTreeSet::new() }
    }

    /// Whatever was seen to be gone may have come since.
    pub(super) fn look_again(&mut self) {
        self.gone.clear();
    }

    /// Orders those to go that are not gone, and says which are still there: what holds them is a finalizer of somebody else's. `beside` are other objects
    /// of the attempt, which say where it is if no record does. On an error some were not ordered to go.
    pub(super) async fn go<'o>(
        &mut self,
        calls: &Calls,
        beside: impl Iterator<Item = &'o ObjectMeta>,
    ) -> Result<Vec<String>, CallError> {
        if !self.on_record {
            for key in beside.filter_map(workload_of).collect::<BTreeSet<_>>() {
                let names = (0..MAX_TOKENS).map(|index| token_secret(&key, self.attempt, index));
                self.all.extend(names.map(|name| (key.namespace.to_string(), name)));
            }
        }
        let left: Vec<_> = self.all.difference(&self.gone).cloned().collect();
        let mut outcome = Ok(vec![]);
        for some in left.chunks(AT_ONCE) {
            let deletes = join_all(some.iter().map(|(namespace, name)| delete(calls, namespace, name))).await;
            for (secret, deleted) in some.iter().zip(deletes) {
                let is_gone = match deleted {
                    // An agent that may not delete any made none.
                    Err(error) if error.is_forbidden() && !self.on_record => true,
                    Err(error) => {
                        outcome = Err(error);
                        continue;
                    }
                    Ok(is_gone) => is_gone,
                };
                if is_gone {
                    self.gone.insert(secret.clone());
                } else if let Ok(there) = &mut outcome {
                    there.push(format!("Secret {}", secret.1));
                }
            }
        }
        outcome
    }
}

/// Whether it is gone. By its name, not by a uid: an agent that was restarted knows none. In the background, for in the foreground a Secret would be kept
/// until it is collected, and shown in the answer.
async fn delete(calls: &Calls, namespace: &str, name: &str) -> Result<bool, CallError> {
    let how = DeleteParams::background();
    let order = || calls.delete(Kind::Secret, namespace, name, &how);
    // The first finds it, the second that it has gone, unless something holds it.
    Ok(!order().await? || !order().await?)
}
