//! The runtime that an agent was started with, whichever it is.

use bytes::Bytes;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, CommandNumber};
use protocol::workload::Framework;

use super::kubernetes::{KubernetesLog, KubernetesRuntime};
use super::process::{LogStream, ProcessRuntime, Progress, ProvisionError};
use super::{Devices, FrameworkCheck, Runtime, RuntimeError};
use crate::cluster::MemberAssignment;

/// One of the runtimes. Cheap to clone: all clones are one runtime.
#[derive(Clone)]
pub enum AnyRuntime {
    /// Attempts as processes of this machine.
    Process(ProcessRuntime),
    /// Attempts as objects of a Kubernetes cluster.
    Kubernetes(KubernetesRuntime),
}

/// An attempt's log being read.
pub enum AnyLog {
    /// From this machine's files.
    Process(LogStream),
    /// From the cluster's pods.
    Kubernetes(KubernetesLog),
}

impl AnyLog {
    /// The next piece; `None` at the end. May be dropped and called again only between pieces.
    pub async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        match self {
            AnyLog::Process(log) => log.next().await,
            AnyLog::Kubernetes(log) => log.next().await,
        }
    }
}

impl AnyRuntime {
    /// Reads an attempt's log, of all that speaks for the program. The error is what a person reads.
    pub async fn logs(&self, attempt: AttemptId, follow: bool) -> Result<AnyLog, String> {
        match self {
            AnyRuntime::Process(runtime) => {
                runtime.logs(attempt, None, follow).map(AnyLog::Process).map_err(|e| e.to_string())
            }
            AnyRuntime::Kubernetes(runtime) => {
                runtime.logs(attempt, follow).await.map(AnyLog::Kubernetes).map_err(|e| e.to_string())
            }
        }
    }

    /// Ends every attempt and returns once all are gone.
    pub async fn shutdown(&self, grace_ms: u64) -> Result<(), RuntimeError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.shutdown(grace_ms).await,
            AnyRuntime::Kubernetes(runtime) => runtime.shutdown(grace_ms).await,
        }
    }

    /// Installs what a framework needs ahead of its first attempt. In a cluster it comes with the containers' images.
    pub async fn provision(&self, framework: Framework, progress: Progress) -> Result<(), ProvisionError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.provision(framework, progress).await,
            AnyRuntime::Kubernetes(_) => Ok(()),
        }
    }
}

impl Runtime for AnyRuntime {
    async fn start(&self, number: CommandNumber, order: &LaunchOrder, devices: &Devices) -> Result<(), RuntimeError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.start(number, order, devices).await,
            AnyRuntime::Kubernetes(runtime) => runtime.start(number, order, devices).await,
        }
    }

    async fn resize(
        &self,
        order: &LaunchOrder,
        members: &[MemberAssignment],
        leaving: &[MemberAssignment],
        grace_ms: u64,
    ) -> Result<(), RuntimeError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.resize(order, members, leaving, grace_ms).await,
            AnyRuntime::Kubernetes(runtime) => runtime.resize(order, members, leaving, grace_ms).await,
        }
    }

    async fn stop(&self, attempt: AttemptId, grace_ms: u64) -> Result<(), RuntimeError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.stop(attempt, grace_ms).await,
            AnyRuntime::Kubernetes(runtime) => runtime.stop(attempt, grace_ms).await,
        }
    }

    async fn recover(&self) -> Result<Vec<(AttemptId, AttemptState)>, RuntimeError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.recover().await,
            AnyRuntime::Kubernetes(runtime) => runtime.recover().await,
        }
    }

    async fn forget(&self, attempt: AttemptId) -> Result<(), RuntimeError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.forget(attempt).await,
            AnyRuntime::Kubernetes(runtime) => runtime.forget(attempt).await,
        }
    }

    async fn frameworks(&self) -> Vec<FrameworkCheck> {
        match self {
            AnyRuntime::Process(runtime) => runtime.frameworks().await,
            AnyRuntime::Kubernetes(runtime) => runtime.frameworks().await,
        }
    }
}
