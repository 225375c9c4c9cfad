//! List, then watch, for ever: lost connections are taken up again where they broke, and after a gap that is too long
//! the difference of two lists stands in for what was missed. No change is told twice, none is skipped for good.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use protocol::api::WorkloadObject;

use super::{Client, ClientError, Event, Scope, Watch};

/// The pause after a watch that ended without a word.
const PAUSE: Duration = Duration::from_millis(200);

/// What happened to a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is like this now.
    Now(Box<WorkloadObject>),
    /// It is gone; this was its last state.
    Gone(Box<WorkloadObject>),
}

/// A scope's workloads and every change to them. See [`Client::changes`].
pub struct Changes {
    client: Client,
    scope: Scope,
    known: BTreeMap<(String, String), WorkloadObject>,
    version: Option<String>,
    watch: Option<Watch>,
    pending: VecDeque<Change>,
}

impl Changes {
    pub(super) fn new(client: Client, scope: Scope) -> Self {
        Self { client, scope, known: BTreeMap::new(), version: None, watch: None, pending: VecDeque::new() }
    }

    /// The next change. It waits until there is one; an error means that the server is gone for longer than the
    /// client's patience, or that it refuses.
    pub async fn next(&mut self) -> Result<Change, ClientError> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(change);
            }
            let Some(version) = self.version.clone() else {
                self.list().await?;
                continue;
            };
            let Some(watch) = &mut self.watch else {
                match self.client.watch(&self.scope, &version).await {
                    Ok(watch) => self.watch = Some(watch),
                    Err(ClientError::Refused { status, .. }) if status.code == 410 => self.version = None,
                    Err(e) => return Err(e),
                }
                continue;
            };
            match watch.next().await {
                Ok(Some(event)) => self.take(event),
                Ok(None) | Err(ClientError::Unreachable { .. }) => {
                    self.watch = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Changed(object) => self.now(*object),
            Event::Deleted(object) => {
                self.advance(object.metadata.resource_version.clone());
                // A watch may begin by telling the last event once more.
                if self.known.remove(&key(&object)).is_some() {
                    self.pending.push_back(Change::Gone(object));
                }
            }
            Event::Bookmark(version) => self.advance(Some(version).filter(|v| !v.is_empty())),
            Event::Expired => {
                self.watch = None;
                self.version = None;
            }
        }
    }

    fn now(&mut self, object: WorkloadObject) {
        self.advance(object.metadata.resource_version.clone());
        if self.known.get(&key(&object)) != Some(&object) {
            self.known.insert(key(&object), object.clone());
            self.pending.push_back(Change::Now(Box::new(object)));
        }
    }

    fn advance(&mut self, version: Option<String>) {
        self.version = version.or(self.version.take());
    }

    async fn list(&mut self) -> Result<(), ClientError> {
        let list = self.client.list(&self.scope).await?;
        let mut before = std::mem::take(&mut self.known);
        for object in list.items {
            if before.remove(&key(&object)).as_ref() != Some(&object) {
                self.pending.push_back(Change::Now(Box::new(object.clone())));
            }
            self.known.insert(key(&object), object);
        }
        self.pending.extend(before.into_values().map(|gone| Change::Gone(Box::new(gone))));
        self.version = Some(list.metadata.resource_version);
        Ok(())
    }
}

fn key(object: &WorkloadObject) -> (String, String) {
    let namespace = object.metadata.namespace.as_ref().map(ToString::to_string).unwrap_or_default();
    (namespace, object.metadata.name.to_string())
}
