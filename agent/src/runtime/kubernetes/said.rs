//! What controllers say of Jobs and Ray's clusters whose pods they may not make. They say it in events only, and an API server that is
//! asked for those of one object reads all of its namespace: so they are read once for all attempts that ask at about the same time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use protocol::errors::FailureClass;
use tokio::time::Instant;

use super::calls::Calls;
use super::failure;
use super::kinds::Kind;

/// Nobody asks again for longer than this: what nobody asked for since is let go.
const KEPT: Duration = Duration::from_secs(120);

/// What is said of objects of one kind in one namespace.
type About = (Kind, String);

/// Refusals by the name of the object whose pods were refused.
type Refusals = BTreeMap<String, (FailureClass, String)>;

/// What was read last; held while it is read anew, so that all who ask meanwhile wait for one answer.
type Slot = Arc<tokio::sync::Mutex<Option<Heard>>>;

struct Heard {
    /// When it was asked for.
    at: Instant,
    refusals: Refusals,
}

/// What was heard lately.
pub(super) struct Said {
    /// How old what is told may be.
    not_older: Duration,
    slots: Mutex<BTreeMap<About, (Instant, Slot)>>,
}

impl Said {
    /// Tells nothing that is older than that.
    pub(super) fn new(not_older: Duration) -> Self {
        Self { not_older, slots: Mutex::default() }
    }

    /// Why the pods of an object are not made, as its controller said last; none where it says nothing or can't be heard.
    pub(super) async fn of_making(
        &self,
        calls: &Calls,
        namespace: &str,
        kind: Kind,
        name: &str,
    ) -> Option<(FailureClass, String)> {
        let slot = self.slot(kind, namespace);
        let mut heard = slot.lock().await;
        if heard.as_ref().is_none_or(|heard| heard.at.elapsed() >= self.not_older) {
            *heard = Some(Heard { at: Instant::now(), refusals: read(calls, namespace, kind).await });
        }
        heard.as_ref()?.refusals.get(name).cloned()
    }

    fn slot(&self, kind: Kind, namespace: &str) -> Slot {
        let (now, mut slots) = (Instant::now(), self.slots.lock().expect("no holder of this lock panics"));
        slots.retain(|_, (asked, slot)| asked.elapsed() < KEPT || Arc::strong_count(slot) > 1);
        let (asked, slot) = slots.entry((kind, namespace.to_owned())).or_insert_with(|| (now, Slot::default()));
        *asked = now;
        slot.clone()
    }
}

/// Nothing where it can't be read: whoever asks does so again.
async fn read(calls: &Calls, namespace: &str, kind: Kind) -> Refusals {
    let events: Api<Event> = Api::namespaced(calls.client(), namespace);
    let warnings = ListParams::default().fields(&format!("involvedObject.kind={kind},type=Warning"));
    match calls.pages_of(&events, warnings).await {
        Ok((events, _)) => by_object(events),
        Err(error) => {
            tracing::debug!(namespace, %kind, %error, "what is said of pods that are not made is not heard");
            Refusals::new()
        }
    }
}

fn by_object(events: Vec<Event>) -> Refusals {
    let mut all: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for mut event in events {
        if let Some(name) = event.involved_object.name.take() {
            all.entry(name).or_default().push(event);
        }
    }
    all.into_iter().filter_map(|(name, events)| Some((name, failure::of_making(events)?))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn warning(name: &str, at: &str, reason: &str, message: &str) -> Value {
        json!({
            "metadata": {"name": format!("{name}.{at}")}, "involvedObject": {"kind": "Job", "name": name},
            "reason": reason, "message": message, "lastTimestamp": at, "type": "Warning",
        })
    }

    /// An API server that answers every request so, and what it was asked.
    fn server(answer: Value) -> (Calls, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(vec![]));
        let heard = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            heard.lock().unwrap().push(request.uri().to_string());
            let body = Body::from(answer.to_string().into_bytes());
            async move {
                // So that the others ask meanwhile.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Infallible>(Response::new(body))
            }
        });
        (Calls::new(Client::new(service, "default"), Duration::from_secs(5)), asked)
    }

    #[tokio::test]
    async fn one_list_answers_all_who_ask_at_about_the_same_time() {
        let (calls, asked) = server(json!({"metadata": {}, "items": [
            warning("one", "2026-01-01T00:00:00Z", "FailedCreate", "pods \"one-x\" is forbidden: exceeded quota: q"),
            warning("two", "2026-01-01T00:00:01Z", "FailedCreate", "before"),
            warning("two", "2026-01-01T00:00:02Z", "FailedCreate", "and last"),
            warning("four", "2026-01-01T00:00:02Z", "BackoffLimitExceeded", "of something else"),
        ]}));
        let said = Said::new(Duration::from_millis(500));
        let ask = |name: &'static str| said.of_making(&calls, "a", Kind::Job, name);
        let (one, two, three, four) = tokio::join!(ask("one"), ask("two"), ask("three"), ask("four"));
        let quota = "pods \"one-x\" is forbidden: exceeded quota: q".to_owned();
        assert_eq!(one, Some((FailureClass::Capacity, quota)));
        assert_eq!(two, Some((FailureClass::User, "and last".to_owned())));
        assert_eq!((three, four), (None, None));
        let first = asked.lock().unwrap().clone();
        assert_eq!(first.len(), 1, "{first:?}");
        assert!(first[0].starts_with("/api/v1/namespaces/a/events?"), "{first:?}");
        assert!(first[0].contains("involvedObject.kind%3DJob%2Ctype%3DWarning"), "{first:?}");

        assert_eq!(said.of_making(&calls, "b", Kind::Job, "three").await, None);
        assert_eq!(asked.lock().unwrap().len(), 2, "another namespace has a list of its own");
        tokio::time::sleep(Duration::from_millis(550)).await;
        assert!(ask("one").await.is_some());
        assert_eq!(asked.lock().unwrap().len(), 3, "nothing is told that is older than it may be");
    }

    #[tokio::test]
    async fn what_can_t_be_heard_is_nothing() {
        let (calls, _) = server(json!({"items": "what is this"}));
        assert_eq!(Said::new(Duration::from_secs(1)).of_making(&calls, "a", Kind::Job, "one").await, None);
    }
}
