//! Follows all objects of one kind: lists them in pages, then watches from there on. What is lost on the way is made up for
//! by watching again from the last version seen, or, where the server does not keep it any more, by listing anew.
//!
//! A watch is asked to end after [`WATCH_SECONDS`], and to say its version (a bookmark) before it does: so a server that lives is
//! heard from that often, even where nothing happens, and one that is not has stalled.

use std::time::Duration;

use kube::Client;
use kube::core::Request;
use kube::core::params::{ListParams, WatchParams};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::http::{Failure, Lines, json, send};
use super::objects::{Event, Metadata, NodeObject, Page, PageMetadata, PodObject, Refusal};
use super::seen::{self, SeenPod};
use crate::cluster::ClusterNode;

/// Objects of a page.
const PAGE: u32 = 500;
/// How long a watch lasts.
const WATCH_SECONDS: u32 = 15;
/// A server that ends watches at once is not asked more often than this.
const BETWEEN_WATCHES: Duration = Duration::from_secs(1);

/// A kind of objects.
pub(super) trait Kind: DeserializeOwned + Send + 'static {
    /// What is kept of one.
    type Seen: Send + 'static;
    /// Their name, for errors.
    const NAME: &'static str;
    /// Where they are.
    const PATH: &'static str;
    /// Which of them the server sends.
    const FIELDS: Option<&'static str>;
    /// Whether every server has this kind.
    const ALWAYS_SERVED: bool = true;
    fn metadata(&self) -> &Metadata;
    /// What tells one from all others, at any time.
    fn key(&self) -> Option<&str>;
    /// What is kept; none where that is nothing.
    fn seen(&self) -> Option<Self::Seen>;
}

impl Kind for NodeObject {
    type Seen = Result<ClusterNode, String>;
    const NAME: &'static str = "nodes";
    const PATH: &'static str = "/api/v1/nodes";
    const FIELDS: Option<&'static str> = None;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<&str> {
        self.metadata.name.as_deref()
    }

    fn seen(&self) -> Option<Self::Seen> {
        Some(seen::node(self))
    }
}

impl Kind for PodObject {
    type Seen = SeenPod;
    const NAME: &'static str = "pods";
    const PATH: &'static str = "/api/v1/pods";
    /// One that stops being one of these is told as deleted.
    const FIELDS: Option<&'static str> = Some("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed");

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn key(&self) -> Option<&str> {
        self.metadata.uid.as_deref()
    }

    fn seen(&self) -> Option<SeenPod> {
        seen::pod(self)
    }
}

/// What became known of the objects of one kind.
#[derive(Debug)]
pub(super) enum News<Seen> {
    /// These are all, by key.
    All(Vec<(Box<str>, Seen)>),
    /// This one is new, or is this now.
    Put(Box<str>, Seen),
    /// This one is none any more.
    Gone(Box<str>),
    /// Nothing else happened up to now.
    Heard,
    /// The server can't be followed at the moment.
    Trouble(String),
    /// The server has no such kind: there are none.
    NotServed,
}

impl<Seen> News<Seen> {
    /// Whether it says of all objects of the kind.
    pub fn is_whole(&self) -> bool {
        matches!(self, News::All(_) | News::NotServed)
    }
}

/// Why nothing is followed any more: nobody wants the news, or the server does not have this kind.
struct Over;

/// Why a list or a watch stopped.
enum Stop {
    Over,
    Failed(Failure),
}

impl From<Over> for Stop {
    fn from(_: Over) -> Self {
        Stop::Over
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Stop::Failed(failure)
    }
}

/// Follows the objects of a kind until nobody listens, or until the server turns out not to have a kind that it need not have.
pub(super) async fn follow<K: Kind>(client: Client, news: Sender<News<K::Seen>>) {
    let mut follower = Follower::<K> { client, news, backoff: Backoff::new(), version: None };
    while follower.turn().await.is_ok() {}
}

struct Follower<K: Kind> {
    client: Client,
    news: Sender<News<K::Seen>>,
    backoff: Backoff,
    /// Up to where everything is known.
    version: Option<String>,
}

impl<K: Kind> Follower<K> {
    async fn turn(&mut self) -> Result<(), Over> {
        let outcome = match self.version.clone() {
            None => self.list().await,
            Some(version) => self.watch(&version).await,
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(Stop::Over) => Err(Over),
            Err(Stop::Failed(Failure::Refused { code: 404, .. })) if !K::ALWAYS_SERVED => Err(Over),
            Err(Stop::Failed(failure)) => {
                if matches!(failure, Failure::Gone) {
                    self.version = None;
                }
                self.tell(News::Trouble(format!("{}: {failure}", K::NAME))).await?;
                sleep(self.backoff.next(failure.retry_after())).await;
                Ok(())
            }
        }
    }

    /// Reads all pages. Only once the last is here do they count: half of a list would take the other half for gone.
    async fn list(&mut self) -> Result<(), Stop> {
        let mut all = vec![];
        let mut token = None;
        loop {
            let mut params = ListParams::default().limit(PAGE);
            (params.field_selector, params.continue_token) = (K::FIELDS.map(str::to_owned), token);
            let request = Request::new(K::PATH).list(&params).map_err(|e| Failure::Broken(e.to_string()))?;
            let page: Page<K> = json(send(&self.client, request).await?).await?;
            all.extend(page.items.iter().flatten().filter_map(|o| Some((o.key()?.into(), o.seen()?))));
            let PageMetadata { resource_version, token: next } = page.metadata;
            token = next.filter(|token| !token.is_empty());
            if token.is_none() {
                let version = resource_version.ok_or_else(|| {
                    Failure::Broken("the API server's list does not say of which version it is".to_owned())
                })?;
                self.tell(News::All(all)).await?;
                self.version = Some(version);
                return Ok(());
            }
        }
    }

    /// Watches until the server ends it, as it was asked to.
    async fn watch(&mut self, version: &str) -> Result<(), Stop> {
        let began = Instant::now();
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        (params.bookmarks, params.field_selector) = (true, K::FIELDS.map(str::to_owned));
        let request = Request::new(K::PATH).watch(&params, version).map_err(|e| Failure::Broken(e.to_string()))?;
        let mut lines = Lines::new(send(&self.client, request).await?);
        while let Some(line) = lines.next().await? {
            let news = self.read(line)?;
            self.backoff.reset();
            self.tell(news).await?;
        }
        self.backoff.reset();
        self.tell(News::Heard).await?;
        if let Some(early) = BETWEEN_WATCHES.checked_sub(began.elapsed()) {
            sleep(early).await;
        }
        Ok(())
    }

    fn read(&mut self, line: &[u8]) -> Result<News<K::Seen>, Failure> {
        let event = match serde_json::from_slice::<Event<K>>(line) {
            Ok(event) if event.kind != "ERROR" => event,
            // The object of an error is none of these.
            other => {
                let refusal = serde_json::from_slice::<Event<Refusal>>(line).ok().filter(|event| event.kind == "ERROR");
                let why = other.err().map_or_else(String::new, |e| format!(": {e}"));
                let broken = || Failure::Broken(format!("an event of the API server's watch makes no sense{why}"));
                return Err(refusal.map_or_else(broken, |event| event.object.into()));
            }
        };
        let object = event.object;
        let news = match (&*event.kind, object.key()) {
            ("BOOKMARK", _) => News::Heard,
            (_, None) => return Err(Failure::Broken("an object in the API server's watch has no name".to_owned())),
            ("DELETED", Some(key)) => News::Gone(key.into()),
            ("ADDED" | "MODIFIED", Some(key)) => match object.seen() {
                Some(seen) => News::Put(key.into(), seen),
                None => News::Gone(key.into()),
            },
            (other, _) => return Err(Failure::Broken(format!("the API server's watch has an event {other:?}"))),
        };
        if let Some(version) = &object.metadata().resource_version {
            self.version = Some(version.clone());
        }
        Ok(news)
    }

    async fn tell(&self, news: News<K::Seen>) -> Result<(), Over> {
        self.news.send(news).await.map_err(|_| Over)
    }
}
