//! Single requests to the API server: each with a bound on its time, and with an error that says what it means for the attempt. So many at
//! once and no more: each has a connection of its own, and a gang that is launched or ended beside thousands of others waits its turn.

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{DynamicObject, Request, Status};
use kube::{Api, Client, Resource};
use protocol::errors::FailureClass;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::kinds::Kind;
use super::manifests::{MANAGER, Manifest};
use crate::kube::with_causes;

/// Requests under way at once. An API server takes most creates a second from about here on; more only wait there, each with a connection.
const AT_ONCE: usize = 64;
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// What became of a request that did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// The API server refused.
    #[error("the API server said {}: {}", .0.code, .0.message)]
    Refused(Box<Status>),
    /// No answer came. It may be carried out all the same.
    #[error("the API server does not answer: {0}")]
    NoAnswer(String),
}

/// What a refusal means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It may be otherwise in a moment.
    Later,
    /// It may be so for a moment only, as an API server starts or as a namespace begins.
    SoonOrNever(FailureClass),
    /// An object of this name is there.
    Taken,
    /// It will stay so.
    Never(FailureClass),
}

impl CallError {
    pub(super) fn meaning(&self) -> Meaning {
        let status = match self {
            CallError::NoAnswer(_) => return Meaning::Later,
            CallError::Refused(status) => status,
        };
        let says = |text: &str| status.message.contains(text);
        match status.code {
            408 | 410 | 429 | 500.. | 0 => Meaning::Later,
            409 if status.reason == "AlreadyExists" => Meaning::Taken,
            409 => Meaning::Later,
            401 => Meaning::SoonOrNever(FailureClass::Infrastructure),
            403 if says("exceeded quota") => Meaning::Never(FailureClass::Capacity),
            403 if says("violates PodSecurity") || says("denied the request") => Meaning::Never(FailureClass::User),
            403 => Meaning::SoonOrNever(FailureClass::Infrastructure),
            404 => Meaning::SoonOrNever(FailureClass::Infrastructure),
            _ => Meaning::Never(FailureClass::User),
        }
    }

    /// Whether what was asked for may be carried out yet: also where the API server says that it had no time, or no word from its store.
    pub(super) fn is_open(&self) -> bool {
        match self {
            CallError::NoAnswer(_) => true,
            CallError::Refused(status) => status.code >= 500,
        }
    }

    /// Whether asking again is no use, by what the agent may and may not do.
    pub(super) fn is_for_good(&self) -> bool {
        matches!(self, CallError::Refused(status) if matches!(status.code, 401 | 403 | 404))
    }

    /// Whether the agent may not do so.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, CallError::Refused(status) if status.code == 403)
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, CallError::Refused(status) if status.code == 404)
    }

    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, CallError::Refused(status) if status.code == 409)
    }
}

/// Requests with the rights of one client.
#[derive(Clone)]
pub(super) struct Calls {
    client: Client,
    timeout: Duration,
    turns: Arc<Semaphore>,
}

/// The right to one request, given back when it is dropped.
pub(super) type Turn = OwnedSemaphorePermit;

impl Calls {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until one more request may be made.
    pub(super) async fn turn(&self) -> Turn {
        self.turns.clone().acquire_owned().await.expect("nothing closes it")
    }

    /// One request, for as long as a request may take once it is its turn.
    pub(super) async fn ask<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        self.ask_in(self.turn().await, request).await
    }

    /// The same, once it is its turn.
    pub(super) async fn ask_in<T>(
        &self,
        _turn: Turn,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(CallError::Refused(status)),
            Ok(Err(error)) => Err(CallError::NoAnswer(with_causes(&error))),
            Err(_) => Err(CallError::NoAnswer(format!("not within {} s", self.timeout.as_secs()))),
        }
    }

    /// Objects of a kind in a namespace, or in all.
    pub(super) fn of(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &kind.resource()),
            None => Api::all_with(self.client(), &kind.resource()),
        }
    }

    /// Makes an object, or only tries whether it would be taken.
    pub(super) async fn create(
        &self,
        turn: Turn,
        namespace: &str,
        manifest: &Manifest,
        dry_run: bool,
    ) -> Result<Made, CallError> {
        let parameters = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
        self.post(turn, &self.of(manifest.kind, Some(namespace)), &parameters, &manifest.object).await
    }

    /// Makes an object where this kind's are.
    pub(super) async fn post<K: Resource>(
        &self,
        turn: Turn,
        api: &Api<K>,
        parameters: &PostParams,
        object: &impl Serialize,
    ) -> Result<Made, CallError> {
        let request = Request::new(api.resource_url()).create(parameters, said(object)?);
        self.ask_in(turn, self.client.request(request.map_err(unsayable)?)).await
    }

    /// Puts an object, all of it, in the place of the one of its name; refused where there is none. If it says a uid, only in the place of the
    /// one that has it.
    pub(super) async fn replace(&self, namespace: &str, manifest: &Manifest) -> Result<Made, CallError> {
        let parameters = PostParams { dry_run: false, field_manager: Some(MANAGER.to_owned()) };
        let api = self.of(manifest.kind, Some(namespace));
        let request = Request::new(api.resource_url()).replace(&manifest.name, &parameters, said(&manifest.object)?);
        self.ask(self.client.request(request.map_err(unsayable)?)).await
    }

    /// All objects of a kind with these labels. A kind that the cluster does not know has none.
    pub(super) async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<DynamicObject>, CallError> {
        match self.pages(&self.of(kind, namespace), labels).await {
            Err(error) if error.is_not_found() => Ok(vec![]),
            listed => listed.map(|(found, _)| found),
        }
    }

    /// All objects with these labels, page by page, and the version of the list.
    pub(super) async fn pages<K>(&self, api: &Api<K>, labels: &str) -> Result<(Vec<K>, String), CallError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        self.pages_of(api, ListParams::default().labels(labels)).await
    }

    /// All objects of which this holds, page by page, and the version of the list.
    pub(super) async fn pages_of<K>(&self, api: &Api<K>, which: ListParams) -> Result<(Vec<K>, String), CallError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let (mut found, mut page) = (vec![], which.limit(PAGE));
        loop {
            let listed = self.ask(api.list(&page)).await?;
            found.extend(listed.items);
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok((found, listed.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Deletes an object, and says whether there was one, which may still be going; that there was none is no error.
    pub(super) async fn delete(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        parameters: &DeleteParams,
    ) -> Result<bool, CallError> {
        match self.ask(self.of(kind, Some(namespace)).delete(name, parameters)).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What is read of the answer to a create or a replacement, which is the whole object.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Made {
    metadata: MadeMetadata,
}

#[derive(Debug, Clone, Deserialize)]
struct MadeMetadata {
    uid: Option<String>,
}

impl Made {
    /// The object's uid, as the API server gave it.
    pub(super) fn uid(self) -> Option<String> {
        self.metadata.uid
    }
}

/// An object as it is sent.
fn said(object: &impl Serialize) -> Result<Vec<u8>, CallError> {
    serde_json::to_vec(object).map_err(unsayable)
}

fn unsayable(error: impl Display) -> CallError {
    CallError::NoAnswer(format!("the request cannot be said: {error}"))
}
