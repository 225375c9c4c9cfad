//! Clusters that take nothing new, for a person said so: cordoned, perhaps drained as well, or removed. All of it is in the log, so
//! that it outlives every coordinator and every agent.

use bincode::{Decode, Encode};
use protocol::ids::{CommandNumber, UnixMs};
use protocol::workload::Preemptible;
use serde::Serialize;

use super::{Attempt, Cluster, Workload};
use crate::lifecycle::{Event, Phase};
use crate::planted;

/// Nothing new is placed in the cluster. What runs there goes on, unless it is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Cordon {
    /// Since when.
    pub since: UnixMs,
    /// Who said so and why, in their words; may be empty.
    pub reason: String,
    /// How what runs there is ended, where it is.
    pub drain: Option<Drain>,
}

/// What runs in the cluster is ended, keeps its place in line and goes on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Since when.
    pub since: UnixMs,
    /// Whether that goes for what may not be preempted too; else that is waited for.
    pub force: bool,
    /// How many attempts may be ending there at the same time; none: as many as there are.
    pub max_at_once: Option<u32>,
}

/// A cluster that was removed: its agent is refused until a person lets it in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// When.
    pub at: UnixMs,
    /// Who said so and why, in their words; may be empty.
    pub reason: String,
    /// The highest command number given out for it: where it joins again, they go on from there.
    #[serde(skip)]
    pub last_command: CommandNumber,
    /// It may join again.
    pub readmitted: bool,
}

/// What a drain means for one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnderDrain {
    /// Its end was asked for; it is not seen to be gone yet.
    Ending,
    /// It is to be ended.
    Ends,
    /// It may not be preempted: it is waited for.
    WaitedFor,
    /// Nobody sees whether it runs, so nobody can end it.
    Unseen,
}

impl Cluster {
    /// Whether anything new may be placed there, as far as people say.
    pub fn takes_members(&self) -> bool {
        self.cordon.is_none() || planted::is("bind-into-cordoned")
    }

    /// How it is drained, where it is.
    pub fn drain(&self) -> Option<&Drain> {
        self.cordon.as_ref()?.drain.as_ref()
    }
}

impl Drain {
    /// What it means for an attempt that lives in its cluster.
    pub fn means(&self, workload: &Workload, attempt: &Attempt) -> UnderDrain {
        match workload.phase.after(Event::Preempt) {
            _ if attempt.stop.is_some() => UnderDrain::Ending,
            Some(Phase::Draining) if self.force || workload.spec.preemptible == Preemptible::Yes => UnderDrain::Ends,
            Some(Phase::Draining) => UnderDrain::WaitedFor,
            _ => UnderDrain::Unseen,
        }
    }
}
