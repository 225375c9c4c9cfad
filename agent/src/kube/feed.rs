//! Gathers what became known of nodes and pods and tells the cluster role, a few times a second: what changed, and up to
//! when everything is known.

use std::time::Duration;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::follow::{News, follow};
use super::objects::{NodeObject, PodObject};
use super::store::Store;
use crate::cluster::{KUBERNETES_SILENT_AFTER_MS, KubernetesInput};

/// Changes are gathered for so long: a node that gets a hundred pods changes once.
const GATHER: Duration = Duration::from_millis(75);
/// How often the cluster role hears that it is up to date.
const SAY_CURRENT: Duration = Duration::from_secs(1);
/// News that may wait. Whoever reads the API server waits while it is full.
const WAITING: usize = 1024;

/// Follows the cluster's nodes and pods, and tells `inbox` of them, until it is stopped or nobody listens. Nothing is told before `tell` says
/// so, and then at once.
pub async fn run(
    client: Client,
    inbox: mpsc::Sender<KubernetesInput>,
    tell: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let (node_news, nodes) = mpsc::channel(WAITING);
    let (pod_news, pods) = mpsc::channel(WAITING);
    let store = Store::default();
    let feed = Feed { nodes, pods, inbox, tell, store, nodes_at: None, pods_at: None, silent: false };
    tokio::select! {
        () = follow::<NodeObject>(client.clone(), node_news) => {}
        () = follow::<PodObject>(client, pod_news) => {}
        () = feed.run() => {}
        () = stop.cancelled() => {}
    }
}

struct Feed {
    nodes: mpsc::Receiver<News<<NodeObject as super::follow::Kind>::Seen>>,
    pods: mpsc::Receiver<News<<PodObject as super::follow::Kind>::Seen>>,
    inbox: mpsc::Sender<KubernetesInput>,
    tell: watch::Receiver<bool>,
    store: Store,
    /// Up to when all nodes are known.
    nodes_at: Option<Instant>,
    pods_at: Option<Instant>,
    /// Known to a person as out of date.
    silent: bool,
}

impl Feed {
    async fn run(mut self) {
        let mut ticks = interval(GATHER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_at: Option<Instant> = None;
        let mut trouble = String::new();
        loop {
            tokio::select! {
                news = self.nodes.recv() => match news {
                    Some(News::Trouble(why)) => trouble = why,
                    Some(news) => {
                        // Nothing is known before the first list.
                        if self.nodes_at.is_some() || matches!(news, News::All(_)) {
                            self.nodes_at = Some(Instant::now());
                        }
                        self.store.nodes(news);
                    }
                    None => return,
                },
                news = self.pods.recv() => match news {
                    Some(News::Trouble(why)) => trouble = why,
                    Some(news) => {
                        if self.pods_at.is_some() || matches!(news, News::All(_)) {
                            self.pods_at = Some(Instant::now());
                        }
                        self.store.pods(news);
                    }
                    None => return,
                },
                _ = ticks.tick() => {
                    for complaint in self.store.take_complaints() {
                        tracing::error!("{complaint}");
                    }
                    self.complain(&trouble);
                    if !*self.tell.borrow() {
                        continue;
                    }
                    if let Some(changed) = self.store.take_news() {
                        // What goes with it is true of the moment at which it was read, so that it goes first.
                        if self.inbox.send(changed).await.is_err() {
                            return;
                        }
                    }
                    if said_at.is_none_or(|at| at.elapsed() >= SAY_CURRENT)
                        && let (Some(nodes_at), Some(pods_at)) = (self.nodes_at, self.pods_at)
                    {
                        said_at = Some(Instant::now());
                        let age_ms = u64::try_from(nodes_at.min(pods_at).elapsed().as_millis()).unwrap_or(u64::MAX);
                        if self.inbox.send(KubernetesInput::Current { age_ms }).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Tells a person when the API server is lost and when it is back.
    fn complain(&mut self, trouble: &str) {
        let known = |at: Option<Instant>| at.map(|at| at.elapsed());
        let age = known(self.nodes_at).zip(known(self.pods_at)).map(|(nodes, pods)| nodes.max(pods));
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
