//! Keeps [`Seen`] up to date: one list and watch for each kind, of everything that carries this cluster's label. A watch is begun anew several
//! times a minute, so that one that nothing comes through any more is found out, before the client takes silence for the server's end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{WatchEvent, WatchParams};
use kube::core::DynamicObject;
use kube::{Api, Resource};
use protocol::ids::AttemptId;
use serde::de::DeserializeOwned;

use super::calls::Calls;
use super::kinds::Kind;
use super::manifests::attempt_of;
use super::seen::{Seen, Thing, trimmed};
use crate::kube::Backoff;

/// How long the API server is asked to keep a watch open, and how long past that it has to end it.
const WATCH: (u32, Duration) = (20, Duration::from_secs(28));
/// Between two looks for a kind that the cluster does not know yet.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);

/// Watches until dropped.
pub(super) async fn all(calls: Calls, labels: String, seen: Arc<Seen>) {
    let pods = reflect(Kind::Pod, Api::<Pod>::all(calls.client()), &calls, &labels, &seen, |pod| {
        Some((attempt_of(pod.metadata.labels.as_ref())?, Thing::Pod(Box::new(trimmed(pod)))))
    });
    let owners = Kind::OWNERS.map(|kind| {
        let (calls, labels, seen) = (&calls, &labels, &seen);
        async move {
            reflect(kind, calls.of(kind, None), calls, labels, seen, |object: DynamicObject| {
                let attempt = attempt_of(object.metadata.labels.as_ref())?;
                Some((attempt, Thing::owner(kind, object)?))
            })
            .await
        }
    });
    tokio::join!(pods, futures_util::future::join_all(owners));
}

/// Why a watch ended.
enum Ended {
    /// As it must now and then; the next goes on from this version.
    At(String),
    /// What it was to go on from is not known any more, or the connection is gone.
    Anew,
}

async fn reflect<K>(
    kind: Kind,
    api: Api<K>,
    calls: &Calls,
    labels: &str,
    seen: &Seen,
    thing: impl Fn(K) -> Option<(AttemptId, Thing)>,
) where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut backoff = Backoff::new();
    loop {
        let mut version = match calls.pages(&api, labels).await {
            Ok((objects, version)) => {
                seen.replace(kind, objects.into_iter().filter_map(&thing).collect());
                version
            }
            Err(error) if error.is_not_found() => {
                tokio::time::sleep(UNKNOWN_KIND).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(%kind, %error, "what runs in the cluster is not seen for now");
                backoff.wait().await;
                continue;
            }
        };
        backoff = Backoff::new();
        while let Ended::At(later) = watch(kind, &api, labels, version, seen, &thing).await {
            version = later;
        }
        // A server that ends every watch at once is not asked without a pause.
        backoff.wait().await;
    }
}

async fn watch<K>(
    kind: Kind,
    api: &Api<K>,
    labels: &str,
    mut version: String,
    seen: &Seen,
    thing: &impl Fn(K) -> Option<(AttemptId, Thing)>,
) -> Ended
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let parameters = WatchParams::default().labels(labels).timeout(WATCH.0);
    let whole = tokio::time::timeout(WATCH.1, async {
        let mut events = match api.watch(&parameters, &version).await {
            Ok(events) => events.boxed(),
            Err(error) => return Err(error),
        };
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.meta().resource_version.clone().unwrap_or_default();
                    if let Some((attempt, thing)) = thing(object) {
                        seen.put(attempt, thing);
                    }
                }
                WatchEvent::Deleted(object) => {
                    version = object.meta().resource_version.clone().unwrap_or_default();
                    let (attempt, name) = (attempt_of(object.meta().labels.as_ref()), object.meta().name.as_ref());
                    if let (Some(attempt), Some(name)) = (attempt, name) {
                        seen.remove(attempt, kind, name);
                    }
                }
                WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
            }
        }
        Ok(())
    });
    match whole.await {
        Ok(Ok(())) => Ended::At(version),
        Ok(Err(error)) => {
            tracing::debug!(%kind, %error, "a watch broke off");
            Ended::Anew
        }
        Err(_) => {
            tracing::warn!(%kind, "a watch fell silent");
            Ended::Anew
        }
    }
}
