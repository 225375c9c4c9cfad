//! What the API server answered a moment ago, where it would answer the same now: of hundreds of attempts that begin within a second the first
//! few ask for all.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::launching::Ground;
use super::manifests::Manifest;

/// How long an answer holds. Short: within about that time controllers make an attempt's pods, and what is left of a quota is less.
const HOLDS: Duration = Duration::from_secs(1);

/// Answers of the last moment.
#[derive(Default)]
pub(super) struct Lately {
    grounds: Answers<String, Ground>,
    accepted: Answers<Likeness, ()>,
}

impl Lately {
    /// A namespace, as it was seen.
    pub(super) fn ground(&self, namespace: &str, now: Instant) -> Option<Ground> {
        self.grounds.find(namespace, now)
    }

    /// So is a namespace that is there, by an answer to what was asked then.
    pub(super) fn saw(&self, namespace: &str, ground: &Ground, asked: Instant) {
        self.grounds.keep(namespace.to_owned(), ground.clone(), asked);
    }

    /// Whether pods like these were tried, and accepted.
    pub(super) fn accepts(&self, pods: Likeness, now: Instant) -> bool {
        self.accepted.find(&pods, now).is_some()
    }

    /// Pods like these were accepted as they were tried then.
    pub(super) fn accepted(&self, pods: Likeness, asked: Instant) {
        self.accepted.keep(pods, (), asked);
    }
}

struct Answers<K, V>(Mutex<BTreeMap<K, (Instant, V)>>);

impl<K, V> Default for Answers<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, V: Clone> Answers<K, V> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, (Instant, V)>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn find<Q: Ord + ?Sized>(&self, question: &Q, now: Instant) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.lock().get(question).filter(|(asked, _)| now < *asked + HOLDS).map(|(_, answer)| answer.clone())
    }

    /// What held no more when this was asked for is let go.
    fn keep(&self, question: K, answer: V, asked: Instant) {
        let mut all = self.lock();
        all.retain(|_, (before, _)| asked < *before + HOLDS);
        all.insert(question, (asked, answer));
    }
}

/// Pods that have this in common differ in their names, in what names their attempts, and in the nodes that were chosen for them: nothing that a
/// quota or a namespace's pod security looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Likeness(u64);

impl Likeness {
    /// Of a pod in a namespace.
    pub(super) fn of(namespace: &str, pod: &Manifest) -> Self {
        let mut spec = pod.object["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("affinity");
            for field in ["containers", "initContainers"] {
                let containers = spec.get_mut(field).and_then(Value::as_array_mut);
                containers.into_iter().flatten().for_each(unnamed);
            }
        }
        let mut hasher = DefaultHasher::new();
        (namespace, spec.to_string()).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Takes out what tells a container which attempt's it is.
fn unnamed(container: &mut Value) {
    if let Some(variables) = container.get_mut("env").and_then(Value::as_array_mut) {
        variables.retain(|v| !v["name"].as_str().is_some_and(|name| name.starts_with("TIDEWATER_")));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::super::kinds::Kind;
    use super::*;

    fn pod(name: &str, node: &str, workload: &str, cpu: &str) -> Manifest {
        let object = json!({"metadata": {"name": name}, "spec": {
            "affinity": {"nodeAffinity": node},
            "containers": [{
                "name": "main", "resources": {"requests": {"cpu": cpu}},
                "env": [{"name": "TIDEWATER_WORKLOAD", "value": workload}, {"name": "OWN", "value": "1"}],
            }],
        }});
        Manifest { kind: Kind::Pod, name: name.to_owned(), object }
    }

    #[test]
    fn pods_are_alike_but_for_names_and_nodes() {
        let one = Likeness::of("a", &pod("one", "n1", "a/one", "1"));
        assert_eq!(one, Likeness::of("a", &pod("two", "n2", "a/two", "1")));
        assert_ne!(one, Likeness::of("b", &pod("one", "n1", "a/one", "1")), "another namespace has another quota");
        assert_ne!(one, Likeness::of("a", &pod("one", "n1", "a/one", "2")));
        let mut other = pod("one", "n1", "a/one", "1");
        other.object["spec"]["containers"][0]["env"][1]["value"] = json!("2");
        assert_ne!(one, Likeness::of("a", &other), "a webhook may look at what is the user's");
    }

    #[test]
    fn an_answer_holds_for_a_moment_from_when_it_was_asked_for() {
        let (lately, asked) = (Lately::default(), Instant::now());
        let (these, others) = (Likeness(1), Likeness(2));
        assert!(!lately.accepts(these, asked));
        lately.accepted(these, asked);
        assert!(lately.accepts(these, asked + HOLDS / 2) && !lately.accepts(others, asked + HOLDS / 2));
        assert!(!lately.accepts(these, asked + HOLDS));
        lately.accepted(others, asked + HOLDS);
        assert_eq!(lately.accepted.lock().len(), 1);
    }
}
