//! Keeps [`Seen`] up to date: one list and watch for each kind, of everything that carries this cluster's label. A watch is begun anew several
//! times a minute, so that one that nothing comes through any more is found out, before the client takes silence for the server's end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicResourceScope};
use kube::{Api, Resource};
use protocol::ids::AttemptId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

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
            let api = Api::<Brief>::all_with(calls.client(), &kind.resource());
            reflect(kind, api, calls, labels, seen, |object| {
                let attempt = attempt_of(object.metadata.labels.as_ref())?;
                Some((attempt, Thing::owner(kind, object.metadata.name?, object.status)))
            })
            .await
        }
    });
    tokio::join!(pods, futures_util::future::join_all(owners));
}

/// What is read of an object whose status says how an attempt goes. All else is passed over as it comes: specifications and
/// the notes of who manages which field are most of a Job's text.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Written")]
struct Brief {
    metadata: ObjectMeta,
    status: Value,
}

#[derive(Deserialize)]
struct Written {
    metadata: WrittenMetadata,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMetadata {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    resource_version: Option<String>,
}

impl From<Written> for Brief {
    fn from(Written { metadata, status }: Written) -> Self {
        let WrittenMetadata { name, labels, resource_version } = metadata;
        Self { metadata: ObjectMeta { name, labels, resource_version, ..ObjectMeta::default() }, status }
    }
}

impl Resource for Brief {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn api_version(of: &ApiResource) -> Cow<'_, str> {
        of.api_version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
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
