//! Gathers what became known of nodes, pods, slices of devices and claims, and tells the cluster role, a few times a second: what changed, and up to
//! when everything is known.

use std::time::Duration;

use kube::Client;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::dra::{ClaimObject, SliceObject, follow_where_served};
use super::follow::{Kind, News, follow};
use super::objects::{NodeObject, PodObject};
use super::store::Store;
use crate::cluster::{KUBERNETES_SILENT_AFTER_MS, KubernetesInput};

/// Changes are gathered for so long: a node that gets a hundred pods changes once.
const GATHER: Duration = Duration::from_millis(75);
/// How often the cluster role hears that it is up to date.
const SAY_CURRENT: Duration = Duration::from_secs(1);
/// News that may wait. Whoever reads the API server waits while it is full.
const WAITING: usize = 1024;

/// Follows the cluster's nodes and pods, and where it has them slices of devices and claims, and tells `inbox` of them, until it is stopped or nobody listens. Nothing is told before `tell` says
/// so, and then at once.
pub async fn run(
    client: Client,
    inbox: mpsc::Sender<KubernetesInput>,
    tell: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let (node_news, nodes) = mpsc::channel(WAITING);
    let (pod_news, pods) = mpsc::channel(WAITING);
    let (slice_news, slices) = mpsc::channel(WAITING);
    let (claim_news, claims) = mpsc::channel(WAITING);
    let (store, heard, trouble) = (Store::default(), Heard::default(), String::new());
    let feed = Feed { nodes, pods, slices, claims, inbox, tell, store, heard, trouble, silent: false };
    tokio::select! {
        () = follow::<NodeObject>(client.clone(), node_news) => {}
        () = follow::<PodObject>(client.clone(), pod_news) => {}
        () = follow_where_served(client, slice_news, claim_news) => {}
        () = feed.run() => {}
        () = stop.cancelled() => {}
    }
}

type NewsOf<K> = News<<K as Kind>::Seen>;

/// Up to when everything of a kind is known.
#[derive(Debug, Clone, Copy, Default)]
enum UpTo {
    /// Nothing is known before the first list.
    #[default]
    Nothing,
    Then(Instant),
    /// There are none to hear of.
    Always,
}

impl UpTo {
    /// Takes note of news; the text of trouble is handed back.
    fn hear<Seen>(&mut self, news: News<Seen>) -> Result<News<Seen>, String> {
        match (&news, *self) {
            (News::Trouble(_), _) => {}
            (News::NotServed, _) => *self = UpTo::Always,
            (News::All(_), _) | (_, UpTo::Then(_)) => *self = UpTo::Then(Instant::now()),
            (_, UpTo::Nothing | UpTo::Always) => {}
        }
        match news {
            News::Trouble(why) => Err(why),
            news => Ok(news),
        }
    }
}

/// The same of all kinds.
#[derive(Debug, Default)]
struct Heard {
    nodes: UpTo,
    pods: UpTo,
    slices: UpTo,
    claims: UpTo,
}

impl Heard {
    /// How long ago all was known; none where something is not known yet.
    fn age(&self) -> Option<Duration> {
        let ages = [self.nodes, self.pods, self.slices, self.claims].map(|kind| match kind {
            UpTo::Nothing => None,
            UpTo::Then(at) => Some(at.elapsed()),
            UpTo::Always => Some(Duration::ZERO),
        });
        ages.into_iter().try_fold(Duration::ZERO, |oldest, age| Some(oldest.max(age?)))
    }
}

struct Feed {
    nodes: mpsc::Receiver<NewsOf<NodeObject>>,
    pods: mpsc::Receiver<NewsOf<PodObject>>,
    slices: mpsc::Receiver<NewsOf<SliceObject>>,
    claims: mpsc::Receiver<NewsOf<ClaimObject>>,
    inbox: mpsc::Sender<KubernetesInput>,
    tell: watch::Receiver<bool>,
    store: Store,
    heard: Heard,
    /// Why something could not be followed, when it last was so.
    trouble: String,
    /// Known to a person as out of date.
    silent: bool,
}

impl Feed {
    async fn run(mut self) {
        let mut ticks = interval(GATHER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_at: Option<Instant> = None;
        loop {
            let heard = tokio::select! {
                Some(news) = self.nodes.recv() => self.heard.nodes.hear(news).map(|news| self.store.nodes(news)),
                Some(news) = self.pods.recv() => self.heard.pods.hear(news).map(|news| self.store.pods(news)),
                Some(news) = self.slices.recv() => self.heard.slices.hear(news).map(|news| self.store.slices(news)),
                Some(news) = self.claims.recv() => self.heard.claims.hear(news).map(|news| self.store.claims(news)),
                _ = ticks.tick() => {
                    if self.tick(&mut said_at).await.is_err() {
                        return;
                    }
                    Ok(())
                }
            };
            if let Err(why) = heard {
                self.trouble = why;
            }
        }
    }

    /// Says what there is to say. An error: nobody listens any more.
    async fn tick(&mut self, said_at: &mut Option<Instant>) -> Result<(), SendError<KubernetesInput>> {
        for complaint in self.store.take_complaints() {
            tracing::error!("{complaint}");
        }
        self.complain();
        if !*self.tell.borrow() {
            return Ok(());
        }
        if let Some(changed) = self.store.take_news() {
            // What goes with it is true of the moment at which it was read, so that it goes first.
            self.inbox.send(changed).await?;
        }
        if said_at.is_none_or(|at| at.elapsed() >= SAY_CURRENT)
            && let Some(age) = self.heard.age()
        {
            *said_at = Some(Instant::now());
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            self.inbox.send(KubernetesInput::Current { age_ms }).await?;
        }
        Ok(())
    }

    /// Tells a person when the API server is lost and when it is back.
    fn complain(&mut self) {
        let (age, trouble) = (self.heard.age(), &*self.trouble);
        let silent = age.is_none_or(|age| age > Duration::from_millis(KUBERNETES_SILENT_AFTER_MS));
        match (silent, self.silent) {
            (true, false) if age.is_some() || !trouble.is_empty() => {
                self.silent = true;
                tracing::error!(
                    why = trouble,
                    "the API server can't be followed: nothing is placed on its nodes meanwhile"
                );
            }
            (false, true) => {
                self.silent = false;
                tracing::info!("the API server can be followed again");
            }
            _ => {}
        }
    }
}
