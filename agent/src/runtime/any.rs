//! The runtime that an agent was started with, whichever it is.

use bytes::Bytes;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, CommandNumber, MonotonicMs};
use protocol::workload::Framework;

use super::kubernetes::{self, KubernetesLog, KubernetesRuntime};
use super::page::{Page, PageError};
use super::process::{self, LogStream, ProcessRuntime, Progress, ProvisionError};
use super::tokens::TokenSource;
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

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnyLogError {
    /// From this machine's files.
    #[error(transparent)]
    Process(#[from] process::LogError),
    /// From the cluster's pods.
    #[error(transparent)]
    Kubernetes(#[from] kubernetes::LogError),
}

impl AnyLogError {
    /// Whether the attempt has a log, and the worker that was asked for has none.
    pub fn is_of_worker(&self) -> bool {
        matches!(
            self,
            AnyLogError::Process(process::LogError::NoMember { .. })
                | AnyLogError::Kubernetes(kubernetes::LogError::NoWorker(_))
        )
    }
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
    /// Reads an attempt's log: of all that speaks for the program, or of one worker.
    pub async fn logs(&self, attempt: AttemptId, worker: Option<u32>, follow: bool) -> Result<AnyLog, AnyLogError> {
        match self {
            AnyRuntime::Process(runtime) => {
                let member = worker.map(|number| runtime.worker(attempt, number)).transpose()?;
                Ok(AnyLog::Process(runtime.logs(attempt, member.as_deref(), follow)?))
            }
            AnyRuntime::Kubernetes(runtime) => Ok(AnyLog::Kubernetes(runtime.logs(attempt, worker, follow).await?)),
        }
    }

    /// Connects to the page that a live attempt serves itself.
    pub async fn page(&self, attempt: AttemptId) -> Result<Page, PageError> {
        match self {
            AnyRuntime::Process(runtime) => runtime.page(attempt).await,
            AnyRuntime::Kubernetes(runtime) => runtime.page(attempt).await,
        }
    }

    /// From whom attempts get their tokens; said once, before any attempt begins.
    pub fn take_tokens_from(&self, source: TokenSource) {
        match self {
            AnyRuntime::Process(runtime) => runtime.take_tokens_from(source),
            AnyRuntime::Kubernetes(runtime) => runtime.take_tokens_from(source),
        }
    }

    /// Ends once an attempt is gone, or is not known here.
    pub async fn ended(&self, attempt: AttemptId) {
        match self {
            AnyRuntime::Process(runtime) => runtime.ended(attempt).await,
            AnyRuntime::Kubernetes(runtime) => runtime.ended(attempt).await,
        }
    }

    /// Whether its attempts end themselves once nobody lets them go on, where they are to.
    pub fn fences(&self) -> bool {
        match self {
            AnyRuntime::Process(_) => true,
            AnyRuntime::Kubernetes(runtime) => runtime.fences(),
        }
    }

    /// Whether there are secrets that workloads can name.
    pub fn has_secrets(&self) -> bool {
        match self {
            AnyRuntime::Process(_) => false,
            AnyRuntime::Kubernetes(_) => true,
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

    fn let_go_on(&self, attempt: AttemptId, until: MonotonicMs) {
        match self {
            AnyRuntime::Process(runtime) => runtime.let_go_on(attempt, until),
            AnyRuntime::Kubernetes(runtime) => runtime.let_go_on(attempt, until),
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
