//! What the API server has of every attempt, as far as its watches have told: the pods, trimmed, and the objects whose state says how an
//! attempt goes. Whoever waits for an attempt is woken by each change of it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::Pod;
use kube::core::DynamicObject;
use protocol::ids::AttemptId;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::kinds::Kind;

/// The objects of one attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    /// Its pods by name, trimmed. All objects of an attempt are in one namespace.
    pub pods: BTreeMap<String, Pod>,
    /// What else is watched, by kind and name.
    pub owners: BTreeMap<(Kind, String), Value>,
}

impl Objects {
    /// An object that is not a pod.
    pub(super) fn owner(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.owners.get(&(kind, name.to_owned()))
    }

    /// Whether an object is there.
    pub(super) fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Pod => self.pods.contains_key(name),
            kind => self.owner(kind, name).is_some(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.owners.is_empty()
    }
}

/// One object as a watch tells it.
#[derive(Debug, Clone)]
pub(super) enum Thing {
    Pod(Box<Pod>),
    Owner(Kind, String, Value),
}

impl Thing {
    /// An object that was looked at: of all that it is only its status is kept, or what is kept of a pod.
    pub(super) fn looked_at(kind: Kind, mut object: DynamicObject) -> Option<Self> {
        if kind == Kind::Pod {
            return Some(Thing::Pod(Box::new(trimmed(object.try_parse().ok()?))));
        }
        let status = object.data.get_mut("status").map(Value::take).unwrap_or_default();
        Some(Self::owner(kind, object.metadata.name?, status))
    }

    /// An object that is not a pod, with its status.
    pub(super) fn owner(kind: Kind, name: String, status: Value) -> Self {
        Thing::Owner(kind, name, json!({"status": status}))
    }

    fn kind(&self) -> Kind {
        match self {
            Thing::Pod(_) => Kind::Pod,
            Thing::Owner(kind, ..) => *kind,
        }
    }

    fn name(&self) -> &str {
        match self {
            Thing::Pod(pod) => pod.metadata.name.as_deref().unwrap_or_default(),
            Thing::Owner(_, name, _) => name,
        }
    }
}

#[derive(Default)]
struct Entry {
    objects: Objects,
    changed: watch::Sender<u64>,
}

/// All attempts' objects.
#[derive(Default)]
pub(super) struct Seen {
    attempts: Mutex<BTreeMap<AttemptId, Entry>>,
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptId, Entry>> {
        self.attempts.lock().expect("no holder of this lock panics")
    }

    /// What is known of an attempt.
    pub(super) fn objects(&self, attempt: AttemptId) -> Objects {
        self.lock().get(&attempt).map(|entry| entry.objects.clone()).unwrap_or_default()
    }

    /// Whether nothing is known of an attempt.
    pub(super) fn has_none(&self, attempt: AttemptId) -> bool {
        self.lock().get(&attempt).is_none_or(|entry| entry.objects.is_empty())
    }

    /// Attempts of which something is known.
    pub(super) fn attempts(&self) -> Vec<AttemptId> {
        self.lock().iter().filter(|(_, entry)| !entry.objects.is_empty()).map(|(attempt, _)| *attempt).collect()
    }

    /// Changes with each change of this attempt's objects.
    pub(super) fn changes(&self, attempt: AttemptId) -> watch::Receiver<u64> {
        self.lock().entry(attempt).or_default().changed.subscribe()
    }

    /// Nobody waits for this attempt any more.
    pub(super) fn forget(&self, attempt: AttemptId) {
        let mut attempts = self.lock();
        if attempts.get(&attempt).is_some_and(|entry| entry.objects.is_empty()) {
            attempts.remove(&attempt);
        }
    }

    /// An object is so.
    pub(super) fn put(&self, attempt: AttemptId, thing: Thing) {
        let mut attempts = self.lock();
        let entry = attempts.entry(attempt).or_default();
        match thing {
            Thing::Pod(pod) => {
                entry.objects.pods.insert(pod.metadata.name.clone().unwrap_or_default(), *pod);
            }
            Thing::Owner(kind, name, value) => {
                entry.objects.owners.insert((kind, name), value);
            }
        }
        entry.changed.send_modify(|n| *n += 1);
    }

    /// An object is gone.
    pub(super) fn remove(&self, attempt: AttemptId, kind: Kind, name: &str) {
        let mut attempts = self.lock();
        let Some(entry) = attempts.get_mut(&attempt) else { return };
        match kind {
            Kind::Pod => drop(entry.objects.pods.remove(name)),
            _ => drop(entry.objects.owners.remove(&(kind, name.to_owned()))),
        }
        entry.changed.send_modify(|n| *n += 1);
        if entry.objects.is_empty() && entry.changed.receiver_count() == 0 {
            attempts.remove(&attempt);
        }
    }

    /// These are all of a kind: whatever else was known of it is gone.
    pub(super) fn replace(&self, kind: Kind, all: Vec<(AttemptId, Thing)>) {
        let mut there: BTreeMap<AttemptId, Vec<String>> = BTreeMap::new();
        for (attempt, thing) in all {
            debug_assert_eq!(thing.kind(), kind);
            there.entry(attempt).or_default().push(thing.name().to_owned());
            self.put(attempt, thing);
        }
        let mut gone = vec![];
        for (attempt, entry) in self.lock().iter() {
            let known: Vec<&String> = match kind {
                Kind::Pod => entry.objects.pods.keys().collect(),
                _ => entry.objects.owners.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name).collect(),
            };
            let there = there.get(attempt);
            let vanished = known.into_iter().filter(|name| !there.is_some_and(|names| names.contains(name)));
            gone.extend(vanished.map(|name| (*attempt, name.clone())));
        }
        for (attempt, name) in gone {
            self.remove(attempt, kind, &name);
        }
    }
}

/// What is kept of a pod: names, labels, where it is and how it is. The rest of its specification is ours.
pub(super) fn trimmed(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    if let Some(spec) = pod.spec.take() {
        pod.spec = Some(k8s_openapi::api::core::v1::PodSpec { node_name: spec.node_name, ..Default::default() });
    }
    pod
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Thing {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        Thing::Pod(Box::new(pod))
    }

    #[test]
    fn a_new_list_takes_away_what_vanished_and_nothing_of_another_kind() {
        let seen = Seen::default();
        let one: AttemptId = "00000000-0000-0000-0000-000000000001-1".parse().unwrap();
        let two: AttemptId = "00000000-0000-0000-0000-000000000002-1".parse().unwrap();
        let changes = seen.changes(one);
        seen.put(one, pod("a"));
        seen.put(one, pod("b"));
        seen.put(two, pod("c"));
        seen.put(two, Thing::Owner(Kind::Job, "j".to_owned(), Value::Null));
        seen.replace(Kind::Pod, vec![(one, pod("b"))]);
        assert_eq!(seen.objects(one).pods.keys().collect::<Vec<_>>(), ["b"]);
        assert!(seen.objects(two).pods.is_empty() && seen.objects(two).owner(Kind::Job, "j").is_some());
        assert!(changes.has_changed().unwrap());
        seen.replace(Kind::Job, vec![]);
        assert!(seen.has_none(two));
        assert_eq!(seen.attempts(), [one]);
    }
}
