//! The tokens of an attempt in its pods: a Secret for each, which is made before them, and a projected volume where the specification wants its
//! file. What is in a Secret is no part of what is laid out here: it comes from the coordinators, and again before it expires.

use protocol::ids::{AttemptId, WorkloadKey};
use protocol::workload::{TOKEN_FILE, token_variable};
use serde_json::{Value, json};

use super::names::name_of;
use super::pod::{Access, Volume, variable};
use super::{Kind, Layout, Manifest};

/// The key of a Secret under which the token is: also the file's name.
pub(in crate::runtime::kubernetes) const KEY: &str = TOKEN_FILE;

/// The name of the Secret of an attempt's token with this index. It follows from the attempt alone, and nobody else has a use for it: whoever ends
/// the attempt knows it without a look.
pub(in crate::runtime::kubernetes) fn token_secret(key: &WorkloadKey, attempt: AttemptId, index: usize) -> String {
    name_of(key, attempt, &format!("token-{}", index + 1), 63)
}

impl Layout<'_> {
    fn token_secret(&self, index: usize) -> String {
        token_secret(&self.order.key, self.order.attempt, index)
    }

    /// A Secret for each token, with nothing in it.
    pub(super) fn token_secrets(&self) -> Vec<Manifest> {
        let one = |index| {
            let name = self.token_secret(index);
            let metadata = self.metadata(&name, self.labels());
            let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"});
            Manifest { kind: Kind::Secret, name, object }
        };
        (0..self.order.spec.tokens.len()).map(one).collect()
    }

    /// The variables that say where the files are.
    pub(super) fn token_variables(&self) -> impl Iterator<Item = Value> {
        let all = self.order.spec.tokens.iter().enumerate();
        all.map(|(index, token)| {
            let file = format!("{}/{TOKEN_FILE}", token.mount_path.trim_end_matches('/'));
            variable(&token_variable(index), &file)
        })
    }

    /// Gives the files to a pod with one container. A kubelet starts none before the Secret has the key, and passes on what comes later.
    pub(super) fn mount_tokens(&self, template: &mut Value) {
        for (index, token) in self.order.spec.tokens.iter().enumerate() {
            let secret = json!({"name": self.token_secret(index), "items": [{"key": KEY, "path": TOKEN_FILE}]});
            let (name, of) = (format!("token-{index}"), json!({"projected": {"sources": [{"secret": secret}]}}));
            Volume { name: &name, of, path: &token.mount_path, access: Access::Read }.mount(template);
        }
    }
}
