//! Connections to the pages of attempts in the cluster: through the API server to the pod that serves it, as `kubectl port-forward` does.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use protocol::control::AttemptState;
use protocol::ids::AttemptId;
use protocol::workload::{Framework, WorkloadSpec};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::Inner;
use super::calls::{CallError, Calls};
use super::failure::{name_of as name_of_pod, phase};
use super::manifests::GROUP;
use crate::runtime::page::{Page, PageError, REACH, name_of};

/// What Ray's head serves its dashboard on.
const RAY_PORT: u16 = 8265;
/// What Spark's driver serves its UI on, unless its properties say otherwise.
const SPARK_PORT: u16 = 4040;
/// The property that does.
const SPARK_PORT_PROPERTY: &str = "spark.ui.port";
/// A pod can't be told that its visitor has said the last word. Programs that end their side and still listen are rare, browsers that close
/// one connection of many are not: so it is not waited for longer.
const LINGER: Duration = Duration::from_secs(2);

pub(super) async fn open(inner: &Inner, attempt: AttemptId) -> Result<Page, PageError> {
    let state = inner.lock_live().get(&attempt).map(|handle| handle.state.borrow().clone());
    let state = state.filter(|state| !state.is_final()).ok_or(PageError::NoAttempt)?;
    let record = inner.records.read(attempt).await.map_err(|error| PageError::Record(error.to_string()))?;
    let order = record.and_then(|kept| kept.record.order).ok_or(PageError::NoAttempt)?;
    let (whose, group, port) = place(&order.spec)?;
    let objects = inner.seen.objects(attempt);
    let Some(pod) = objects.pods.values().find(|pod| serves(pod, group)) else {
        let missing = match state {
            AttemptState::Starting { waiting_for } => format!("the attempt waits for {waiting_for}"),
            _ => format!("no {group}'s pod runs"),
        };
        return Err(PageError::NotYet { whose, missing });
    };
    let unreachable = |cause: String| PageError::Unreachable { whose, cause };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let opening = PodPort::open(&inner.calls, namespace, name_of_pod(pod), port);
    match tokio::time::timeout(REACH, opening).await {
        Ok(Ok(port)) => Ok(Page::new(port, None, LINGER)),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("the API server takes longer than {} s", REACH.as_secs()))),
    }
}

/// What a workload's page is called, which group's pod serves it and on which port.
fn place(spec: &WorkloadSpec) -> Result<(&'static str, &'static str, u16), PageError> {
    let framework = spec.framework().map_err(|error| PageError::Record(error.to_string()))?;
    let whose = name_of(framework)?;
    Ok(match framework {
        Framework::Spark => (whose, "driver", port_of(spec).unwrap_or(SPARK_PORT)),
        _ => (whose, "head", RAY_PORT),
    })
}

fn port_of(spec: &WorkloadSpec) -> Option<u16> {
    spec.spark_property(SPARK_PORT_PROPERTY)?.trim().parse().ok().filter(|port| *port != 0)
}

fn serves(pod: &Pod, group: &str) -> bool {
    let of_group = pod.metadata.labels.as_ref().and_then(|labels| labels.get(GROUP)).is_some_and(|own| own == group);
    of_group && phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none()
}

/// A connection to a port of a pod.
struct PodPort {
    bytes: DuplexStream,
    /// What went wrong beyond the API server, where something does.
    error: Option<BoxFuture<'static, Option<String>>>,
    forwarder: Portforwarder,
}

impl PodPort {
    async fn open(calls: &Calls, namespace: &str, pod: &str, port: u16) -> Result<Self, CallError> {
        let pods: Api<Pod> = Api::namespaced(calls.client(), namespace);
        let mut forwarder = calls.ask(pods.portforward(pod, &[port])).await?;
        let error = forwarder.take_error(port).map(FutureExt::boxed);
        let bytes = forwarder.take_stream(port);
        let bytes = bytes.ok_or_else(|| CallError::NoAnswer(format!("it has no port {port}")))?;
        Ok(Self { bytes, error, forwarder })
    }
}

impl AsyncRead for PodPort {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        // Asked first: the end of the bytes comes right behind it.
        if let Some(error) = &mut self.error
            && let Poll::Ready(said) = error.poll_unpin(cx)
        {
            self.error = None;
            if let Some(said) = said {
                return Poll::Ready(Err(std::io::Error::other(said)));
            }
        }
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl AsyncWrite for PodPort {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    /// The API server knows no end of one way alone: told of it, it would end both.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for PodPort {
    fn drop(&mut self) {
        // Else it would wait for the API server's word on the end.
        self.forwarder.abort();
    }
}

#[cfg(test)]
mod tests;
