//! Reads the logs of an attempt's pods from the API server, while they grow and after, for as long as the pods are there.

use std::time::Duration;

use bytes::Bytes;
use futures_util::io::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use protocol::ids::AttemptId;
use tokio::sync::mpsc;

use super::calls::{CallError, Calls};
use super::failure::phase;
use super::manifests::{GROUP, ROLE, of_attempt};
use crate::kube::Backoff;

/// Pieces that may wait for their reader, of all pods together.
const QUEUE: usize = 64;
/// How often a pod that has not begun is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The longest line that is kept whole.
const LINE: usize = 64 * 1024;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No pods of this attempt are there.
    #[error("no pod of this attempt is in the cluster: it never started there, or has ended and is deleted")]
    Unknown,
    /// The API server.
    #[error("reading the attempt's logs: {0}")]
    Cluster(String),
}

/// A log being read. Of several pods, whole lines come, each after its member's name.
pub struct KubernetesLog {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
}

impl KubernetesLog {
    pub(super) async fn open(calls: &Calls, attempt: AttemptId, follow: bool) -> Result<Self, LogError> {
        let pods: Api<Pod> = Api::all(calls.client());
        let listed = calls.ask(pods.list(&ListParams::default().labels(&of_attempt(attempt)))).await;
        let all = listed.map_err(|error: CallError| LogError::Cluster(error.to_string()))?.items;
        let speaking = those_that_speak(all);
        if speaking.is_empty() {
            return Err(LogError::Unknown);
        }
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let several = speaking.len() > 1;
        for (name, pod) in speaking {
            let reader =
                Reader { calls: calls.clone(), follow, prefix: several.then_some(name), pieces: pieces.clone() };
            tokio::spawn(reader.run(pod));
        }
        Ok(Self { pieces: receiver })
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        self.pieces.recv().await
    }
}

/// The pods whose output is the program's, each with its member's name: Ray's submitter prints its driver's log, Spark's driver its own;
/// else all members.
fn those_that_speak(pods: Vec<Pod>) -> Vec<(String, Pod)> {
    let label = |pod: &Pod, name: &str| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
    let is = |pod: &Pod| label(pod, ROLE).is_some() || label(pod, GROUP).is_some_and(|group| group == "driver");
    let ray = pods.iter().any(|pod| label(pod, "ray.io/cluster").is_some());
    let one = ray || pods.iter().any(is);
    let mut speaking: Vec<(String, Pod)> = pods
        .into_iter()
        .filter(|pod| !one || is(pod))
        .map(|pod| {
            let index = label(&pod, "batch.kubernetes.io/job-completion-index").unwrap_or_default();
            (format!("{}-{index}", label(&pod, GROUP).unwrap_or_default()), pod)
        })
        .collect();
    speaking.sort_by_key(|(_, pod)| pod.metadata.name.clone());
    speaking
}

struct Reader {
    calls: Calls,
    follow: bool,
    prefix: Option<String>,
    pieces: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Reader {
    async fn run(self, pod: Pod) {
        let (Some(name), Some(namespace)) = (&pod.metadata.name, &pod.metadata.namespace) else { return };
        let pods: Api<Pod> = Api::namespaced(self.calls.client(), namespace);
        if self.follow && !self.begun(&pods, name).await {
            return;
        }
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|c| c.name.clone());
        let parameters = LogParams { follow: self.follow, container, ..LogParams::default() };
        let opened = self.calls.ask(pods.log_stream(name, &parameters)).await;
        let ended = match opened {
            Ok(stream) => self.copy(stream).await,
            Err(error) => Err(std::io::Error::other(error.to_string())),
        };
        if let Err(error) = ended {
            let _ = self.pieces.send(Err(error)).await;
        }
    }

    /// Waits until its containers run or have run; false where it went before.
    async fn begun(&self, pods: &Api<Pod>, name: &str) -> bool {
        let mut backoff = Backoff::new();
        loop {
            match self.calls.ask(pods.get_opt(name)).await {
                Ok(Some(pod)) if phase(&pod) != "Pending" => return true,
                Ok(Some(_)) => tokio::time::sleep(LOOK).await,
                Ok(None) => return false,
                Err(_) => backoff.wait().await,
            }
            if self.pieces.is_closed() {
                return false;
            }
        }
    }

    async fn copy(&self, stream: impl AsyncBufRead) -> std::io::Result<()> {
        futures_util::pin_mut!(stream);
        let mut line = Vec::new();
        loop {
            let piece = tokio::select! {
                piece = stream.fill_buf() => piece?,
                // Nobody reads it any more.
                () = self.pieces.closed() => return Ok(()),
            };
            let (taken, last) = (piece.len(), piece.is_empty());
            line.extend_from_slice(piece);
            stream.as_mut().consume_unpin(taken);
            let whole = match (&self.prefix, last) {
                (_, true) | (None, _) => line.len(),
                (Some(_), false) => match line.iter().rposition(|c| *c == b'\n') {
                    Some(end) => end + 1,
                    None if line.len() >= LINE => line.len(),
                    None => continue,
                },
            };
            let ready: Vec<u8> = line.drain(..whole).collect();
            if !ready.is_empty() && self.pieces.send(Ok(self.named(&ready, last))).await.is_err() {
                return Ok(());
            }
            if last {
                return Ok(());
            }
        }
    }

    /// Each line after its member's name, where there are several.
    fn named(&self, lines: &[u8], last: bool) -> Bytes {
        let Some(prefix) = &self.prefix else { return Bytes::copy_from_slice(lines) };
        let mut out = Vec::with_capacity(lines.len() + prefix.len() + 4);
        for line in lines.split_inclusive(|c| *c == b'\n') {
            out.extend_from_slice(format!("{prefix} | ").as_bytes());
            out.extend_from_slice(line);
        }
        if last && !out.ends_with(b"\n") {
            out.push(b'\n');
        }
        out.into()
    }
}
