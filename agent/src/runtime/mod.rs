//! Running attempts: what the cluster role asks of a runtime, whichever carries it out.
//!
//! A runtime starts an attempt at most once, ends it on order, says what became of it, and finds everything again after
//! its agent was killed. [`process`] runs attempts as processes of this machine, [`kubernetes`] as objects of a cluster.

pub mod any;
pub mod kubernetes;
pub mod members;
pub mod page;
pub mod process;
pub mod tokens;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, CommandNumber, GroupName, MonotonicMs};
use protocol::workload::Framework;

use crate::cluster::MemberAssignment;

/// How long the logs of an attempt are kept after its end.
pub const LOG_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A change of an attempt's state, sent on the channel that the runtime was made with. The same state may be sent twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// The attempt.
    pub attempt: AttemptId,
    /// How far it is now.
    pub state: AttemptState,
    /// Members that are not there, or not any more, each verified gone, by group and rank: where its size was changed.
    pub gone: Vec<(GroupName, u32)>,
}

/// Which GPUs each member gets: the devices' indices on the member's node, by group and by the member's index in its
/// group (in the order of the placement's nodes). A member that is absent gets none.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Devices {
    /// By group, then by member.
    pub by_group: BTreeMap<GroupName, Vec<Vec<u32>>>,
}

impl Devices {
    /// The devices of one member.
    pub fn of(&self, group: &GroupName, member: u32) -> &[u32] {
        self.by_group.get(group).and_then(|members| members.get(member as usize)).map_or(&[], Vec::as_slice)
    }
}

/// How long Ray's dashboard may take to start, in seconds, by the variables that Ray (2.52) reads: it gives itself 30, and what missed them never
/// answers. Less than an attempt may take to begin.
pub(crate) const DASHBOARD_TIME: [(&str, &str); 2] =
    [("RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT", "240"), ("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "240")];

/// Whether a framework can run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameworkCheck {
    /// The framework.
    pub framework: Framework,
    /// Why it cannot run here and what to do about it; `None` where it can.
    pub missing: Option<String>,
    /// Whether its Kubernetes objects are taken as they are.
    pub takes_manifests: bool,
}

/// Why a runtime could not take an order. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The attempt's record could not be written or read.
    #[error("the record of attempt {attempt} in {place}: {source}; check the disk and the folder's owner")]
    Record {
        /// The attempt.
        attempt: String,
        /// The folder.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime's data folder cannot be used.
    #[error("the folder {place} cannot be used: {source}; check that it exists and belongs to this user")]
    DataDir {
        /// The folder.
        place: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The cluster's API server did not do what it was asked.
    #[error("{what}: {cause}")]
    Cluster {
        /// What was asked for.
        what: &'static str,
        /// What came of it.
        cause: String,
    },
}

/// What the cluster role asks of a runtime.
pub trait Runtime: Send + Sync + 'static {
    /// Takes an attempt: returns once its record is durable; what becomes of it follows as events. An attempt that was
    /// taken (or stopped) before is not started again: its state is sent once more. `number` is that of the command, for a runtime whose
    /// records stand in for the agent's journal.
    fn start(
        &self,
        number: CommandNumber,
        order: &LaunchOrder,
        devices: &Devices,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Gives a running attempt these members and ends those that leave: returns once the order is durable; which are gone follows
    /// as events. A later order replaces an earlier one, and the same may come again. Nothing happens to an attempt that is not there.
    fn resize(
        &self,
        order: &LaunchOrder,
        members: &[MemberAssignment],
        leaving: &[MemberAssignment],
        grace_ms: u64,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Ends an attempt: returns once the order is durable; a final state follows once it is gone. An attempt that was
    /// never taken becomes `Stopped` and can never be started.
    fn stop(&self, attempt: AttemptId, grace_ms: u64) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// An attempt that ends itself otherwise may go on until then, by [`crate::clock`]. Nothing happens to one that is not there.
    fn let_go_on(&self, attempt: AttemptId, until: MonotonicMs);

    /// Finds every attempt that is not forgotten, with its state, and goes on watching those that live. Called once,
    /// before any other order.
    fn recover(&self) -> impl Future<Output = Result<Vec<(AttemptId, AttemptState)>, RuntimeError>> + Send;

    /// Drops the record of an attempt whose final state is acknowledged; its logs are kept for a while.
    fn forget(&self, attempt: AttemptId) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Which frameworks can run here, and what the others lack.
    fn frameworks(&self) -> impl Future<Output = Vec<FrameworkCheck>> + Send;
}
