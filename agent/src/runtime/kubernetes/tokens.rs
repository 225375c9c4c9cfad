//! The tokens of an attempt as Secrets beside its pods: made before them, changed in place so that the kubelets pass new ones on, and ended with
//! the rest (`ending.rs`). Neither the record nor any message has a token's text.

use protocol::control::AttemptState;
use protocol::token::TokenText;
use serde_json::{Value, json};

use super::attempt::{Refusal, Task};
use super::failure::infrastructure;
use super::kinds::Kind;
use super::launching::is_ours;
use super::manifests::{Manifest, Manifests, TOKEN_KEY, of_attempt};
use crate::runtime::tokens::{Shelf, Tokens};

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
            let mut manifest = manifest.clone();
            manifest.object["stringData"] = data(&text)["stringData"].take();
            self.make_one(&manifest).await?;
        }
        Ok(())
    }

    async fn make_one(&self, manifest: &Manifest) -> Result<(), AttemptState> {
        let (task, namespace) = (self.task, self.namespace);
        let (calls, name) = (&task.inner.calls, &manifest.name);
        let create = || async {
            // What waits for its turn can't be late.
            let turn = calls.turn().await;
            task.creating(calls.create(turn, namespace, manifest, false)).await
        };
        match task.insist(&format!("Secret {name} cannot be made in namespace {namespace}"), create).await {
            Ok(_) => return Ok(()),
            Err(Refusal::Ends(state)) => return Err(state),
            Err(Refusal::Taken) => {}
        }
        // By a try that had no answer, unless it is another's. Listed, so that no right is needed to read others.
        let labels = of_attempt(task.attempt);
        let list = || calls.list(Kind::Secret, Some(namespace), &labels);
        match task.insist(&format!("a look at Secret {name}"), list).await {
            Ok(found) if found.iter().any(|s| s.metadata.name.as_ref() == Some(name) && is_ours(task, s)) => Ok(()),
            Err(Refusal::Ends(state)) => Err(state),
            Ok(_) | Err(Refusal::Taken) => Err(infrastructure(format!(
                "the name {name} of a Secret in namespace {namespace} is taken; what has it is left alone"
            ))),
        }
    }
}

/// What is changed of a Secret. The API server makes base64 of it.
fn data(text: &TokenText) -> Value {
    json!({"stringData": {TOKEN_KEY: text.reveal()}})
}

impl Shelf for TokenSecrets<'_> {
    /// Changes the one that is there, and never makes one: what somebody deleted stays so.
    async fn put(&self, index: usize, text: &TokenText) -> Result<(), String> {
        let Some(manifest) = self.all.get(index) else { return Ok(()) };
        let (name, namespace) = (&manifest.name, self.namespace);
        match self.task.inner.calls.patch(Kind::Secret, namespace, name, &data(text)).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => {
                Err(format!("Secret {name} in namespace {namespace} is not there: somebody deleted it"))
            }
            Err(error) => Err(format!("Secret {name} in namespace {namespace}: {error}")),
        }
    }
}
