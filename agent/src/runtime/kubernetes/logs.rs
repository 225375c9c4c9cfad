//! Reads the logs of an attempt's pods from the API server, while they grow and after, for as long as the pods are there. What is kept of
//! them then is in `kept.rs`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::io::{AsyncBufRead, AsyncBufReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use protocol::ids::{AttemptId, GroupName};
use tokio::sync::mpsc;

use super::calls::{CallError, Calls};
use super::failure::phase;
use super::manifests::{GROUP, ROLE, of_attempt};
use crate::guard::plan::MEMBER;
use crate::kube::Backoff;
use crate::runtime::members;

/// Pieces that may wait for their reader, of all pods together.
const QUEUE: usize = 64;
/// The index of an Indexed Job's pod.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// What KubeRay writes on each pod of a Ray cluster.
const RAY: &str = "ray.io/cluster";
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
    /// No pod of this worker is there.
    #[error("no pod of worker {0} is in the cluster: it never started there, or has ended and is deleted")]
    NoWorker(u32),
    /// The API server.
    #[error("reading the attempt's logs: {0}")]
    Cluster(String),
    /// The file that is kept of it.
    #[error("reading the attempt's log from {place}: {cause}")]
    Kept {
        /// The file.
        place: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// How far a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// What there is.
    Now,
    /// Until all its pods have ended, also those that have not begun.
    Follow,
    /// Until those of its pods that have begun have ended.
    ToTheEnd,
}

/// Which of an attempt's pods.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose<'a> {
    /// Those that speak for the program.
    Program,
    /// A group's member with this index, which is the worker with this number.
    Worker(&'a GroupName, u32, u32),
}

/// A log being read. Of several pods, whole lines come, each after its member's name.
pub struct KubernetesLog {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    /// Nothing is ever sent: it is closed once the log of every pod was opened, or could not be.
    opening: Option<mpsc::Receiver<()>>,
    /// Whether one of its pods, a member of the gang, had not ended.
    pub(super) members_run: bool,
    /// Whether the pod had not ended that submits a job and prints its log.
    pub(super) submitter_runs: bool,
}

impl KubernetesLog {
    /// One that ends with the last sender of its pieces.
    pub(super) fn channel() -> (mpsc::Sender<std::io::Result<Bytes>>, Self) {
        let (pieces, receiver) = mpsc::channel(QUEUE);
        (pieces, Self { pieces: receiver, opening: None, members_run: false, submitter_runs: false })
    }

    /// Of pods in this namespace; none: in any, among which the API server then has to look.
    pub(super) async fn open(
        calls: &Calls,
        namespace: Option<&str>,
        attempt: AttemptId,
        whose: Whose<'_>,
        reading: Reading,
    ) -> Result<Self, LogError> {
        let pods: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(calls.client(), namespace),
            None => Api::all(calls.client()),
        };
        let listed = calls.pages(&pods, &of_attempt(attempt)).await;
        let (all, _) = listed.map_err(|error: CallError| LogError::Cluster(error.to_string()))?;
        let mut speaking = match whose {
            Whose::Program => those_that_speak(all),
            Whose::Worker(group, index, number) => vec![worker(all, group, index).ok_or(LogError::NoWorker(number))?],
        };
        let several = speaking.len() > 1;
        if reading == Reading::ToTheEnd {
            speaking.retain(|(_, pod)| phase(pod) != "Pending");
        }
        if speaking.is_empty() {
            return Err(LogError::Unknown);
        }
        let (pieces, mut log) = Self::channel();
        let (open, opening) = mpsc::channel(1);
        log.opening = Some(opening);
        for (_, pod) in speaking.iter().filter(|(_, pod)| !matches!(phase(pod), "Succeeded" | "Failed")) {
            *if label(pod, ROLE).is_some() { &mut log.submitter_runs } else { &mut log.members_run } = true;
        }
        for (name, pod) in speaking {
            let prefix = several.then_some(name);
            let reader = Reader { calls: calls.clone(), reading, prefix, pieces: pieces.clone() };
            tokio::spawn(reader.run(pod, open.clone()));
        }
        Ok(log)
    }

    /// Ends once the log of every pod is open, or is known not to be had. Can be had once.
    pub(super) fn opened(&mut self) -> impl Future<Output = ()> + use<> {
        let opening = self.opening.take();
        async move {
            if let Some(mut opening) = opening {
                let _ = opening.recv().await;
            }
        }
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        self.pieces.recv().await
    }
}

/// The pods whose output is the program's, each with its member's name: Ray's submitter prints its driver's log, Spark's driver its own;
/// else all members.
fn those_that_speak(pods: Vec<Pod>) -> Vec<(String, Pod)> {
    let is = |pod: &Pod| label(pod, ROLE).is_some() || label(pod, GROUP).is_some_and(|group| group == "driver");
    let ray = pods.iter().any(|pod| label(pod, RAY).is_some());
    let one = ray || pods.iter().any(is);
    let mut speaking: Vec<(String, Pod)> = pods
        .into_iter()
        .filter(|pod| !one || is(pod))
        .map(|pod| {
            let index = index_of(&pod).map(|index| index.to_string()).unwrap_or_default();
            (format!("{}-{index}", label(&pod, GROUP).unwrap_or_default()), pod)
        })
        .collect();
    speaking.sort_by_key(|(_, pod)| pod.metadata.name.clone());
    speaking
}

fn label(pod: &Pod, name: &str) -> Option<String> {
    pod.metadata.labels.as_ref()?.get(name).cloned()
}

/// A member's pod, with its name.
fn worker(pods: Vec<Pod>, group: &GroupName, index: u32) -> Option<(String, Pod)> {
    let mut members: Vec<(u32, Pod)> = pods
        .into_iter()
        .filter(|pod| label(pod, GROUP).as_deref() == Some(group.as_str()))
        .map(|pod| (index_of(&pod).unwrap_or(u32::MAX), pod))
        .collect();
    // Ray's workers have no numbers: they are counted by name, which stays as long as the pod.
    members.sort_by_key(|(index, pod)| (*index, pod.metadata.name.clone()));
    let numbered = members.iter().any(|(index, _)| *index != u32::MAX);
    let place = match numbered {
        true => members.iter().position(|(own, _)| *own == index)?,
        false => index as usize,
    };
    (place < members.len()).then(|| (format!("{group}-{index}"), members.swap_remove(place).1))
}

/// A member's index in its group, where its pod says it: a Job's own, that in the name of one that is a Job of its own, or Spark's, which
/// counts from 1.
fn index_of(pod: &Pod) -> Option<u32> {
    let number = |text: String| text.parse::<u32>().ok();
    if let Some(executor) = label(pod, "spark-exec-id").and_then(number) {
        return executor.checked_sub(1);
    }
    if label(pod, RAY).is_some() {
        return None;
    }
    let container = pod.spec.as_ref()?.containers.first()?;
    let member = container.env.iter().flatten().find(|variable| variable.name == MEMBER)?.value.clone()?;
    match members::of_name(&member) {
        Some((_, index)) => Some(index),
        None => label(pod, INDEX).and_then(number),
    }
}

struct Reader {
    calls: Calls,
    reading: Reading,
    prefix: Option<String>,
    pieces: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Reader {
    /// `open` is dropped once its log is open.
    async fn run(self, pod: Pod, open: mpsc::Sender<()>) {
        let (Some(name), Some(namespace)) = (&pod.metadata.name, &pod.metadata.namespace) else { return };
        let pods: Api<Pod> = Api::namespaced(self.calls.client(), namespace);
        let follow = self.reading != Reading::Now;
        if self.reading == Reading::Follow && !self.begun(&pods, name).await {
            return;
        }
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|c| c.name.clone());
        let parameters = LogParams { follow, container, ..LogParams::default() };
        let opened = self.calls.ask(pods.log_stream(name, &parameters)).await;
        drop(open);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, group: &str, more: (&str, &str), member: &str) -> Pod {
        let mut labels = json!({GROUP: group});
        labels[more.0] = json!(more.1);
        let env: Value = json!([{"name": MEMBER, "value": member}]);
        let spec = json!({"containers": [{"name": "main", "env": env}]});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap()
    }

    fn found(pods: &[Pod], group: &str, index: u32) -> Option<String> {
        worker(pods.to_vec(), &GroupName::new(group).unwrap(), index).and_then(|(_, pod)| pod.metadata.name)
    }

    #[test]
    fn a_worker_is_found_by_what_its_framework_writes_on_its_pods() {
        let batch = [
            pod("b", "w", (INDEX, "10"), "w-$(RANK)"),
            pod("a", "w", (INDEX, "2"), "w-$(RANK)"),
            pod("c", "x", (INDEX, "0"), "x-0"),
            pod("d", "x", (INDEX, "0"), "x-1"),
        ];
        assert_eq!(found(&batch, "w", 2).as_deref(), Some("a"));
        assert_eq!(found(&batch, "w", 10).as_deref(), Some("b"));
        assert_eq!(found(&batch, "x", 1).as_deref(), Some("d"));
        assert_eq!(found(&batch, "w", 0), None, "its pod is not there");
        let names: Vec<String> = those_that_speak(batch.to_vec()).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["w-2", "w-10", "x-0", "x-1"]);
        let spark = [pod("e2", "e", ("spark-exec-id", "2"), "e"), pod("e1", "e", ("spark-exec-id", "1"), "e")];
        assert_eq!(found(&spark, "e", 0).as_deref(), Some("e1"));
        let ray = [pod("rz", "train-7", (RAY, "c"), "train-7"), pod("ra", "train-7", (RAY, "c"), "train-7")];
        assert_eq!(found(&ray, "train-7", 1).as_deref(), Some("rz"));
        assert_eq!(found(&ray, "train-7", 2), None);
    }
}
