//! Attempts that end themselves once nobody lets them go on (`onClusterLoss: failover`), as the leader keeps them. With each lease it says
//! which attempts of the cluster may go on. An attempt counts its time from when its agent *asked*, the leader from when it
//! *answered*, so the attempt is gone before the leader says so. A new leader knows of no answer, and counts from when it first sees the
//! attempt: whatever a leader before it answered was asked for before the new one was elected (ReadIndex).

use std::collections::{BTreeMap, BTreeSet};

use engine::commands::{Command, Fence, fence_passes_after};
use engine::state::{Attempt, State, Workload};
use protocol::ids::{AttemptId, ClusterName, Epoch, Incarnation, MonotonicMs};

use super::LEASE_MS;
use crate::planted;

/// Between two looks at who has ended, in ms.
const LOOK_EVERY_MS: u64 = 1_000;

/// Who was let go on in this reign, and when.
#[derive(Debug, Default)]
pub struct Fences {
    /// When each was last let go on, or else first seen.
    since: BTreeMap<AttemptId, MonotonicMs>,
    /// Attempts of which a command says that they are gone, on its way into the log: none of them is let go on any more.
    passing: BTreeSet<AttemptId>,
    looked_at: Option<MonotonicMs>,
}

/// Live attempts in a cluster that end themselves, each with the time after which it is gone for certain, in ms.
fn fenced<'a>(
    state: &'a State,
    cluster: &'a ClusterName,
) -> impl Iterator<Item = (AttemptId, &'a Workload, &'a Attempt, u64)> {
    state.live_in(cluster).filter_map(|(workload, attempt)| {
        let after = fence_passes_after(&workload.spec)?;
        Some((workload.attempt_id(attempt.number), workload, attempt, after))
    })
}

impl Fences {
    /// A reign begins or ends: nothing is known.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Which attempts the agent in this life may be told to let go on, as of a lease that is answered now.
    pub fn let_go_on(
        &mut self,
        state: &State,
        cluster: &ClusterName,
        incarnation: Incarnation,
        now: MonotonicMs,
    ) -> Vec<AttemptId> {
        let held = fenced(state, cluster).filter(|(_, _, attempt, _)| attempt.incarnation == incarnation);
        let may: Vec<AttemptId> = held.map(|(id, ..)| id).filter(|id| !self.passing.contains(id)).collect();
        self.since.extend(may.iter().map(|id| (*id, now)));
        may
    }

    /// Attempts that nobody sees and that are gone by now.
    pub fn passed(&mut self, state: &State, epoch: Epoch, now: MonotonicMs) -> Vec<Command> {
        if self.looked_at.is_some_and(|at| now.since(at) < LOOK_EVERY_MS) {
            return vec![];
        }
        self.looked_at = Some(now);
        let mut live = BTreeSet::new();
        let mut gone = Vec::new();
        for (cluster, member) in &state.clusters {
            for (id, workload, attempt, after) in fenced(state, cluster) {
                live.insert(id);
                let since = *self.since.entry(id).or_insert(now);
                let seen = member.lost_since.is_none() && member.incarnation == attempt.incarnation;
                let after = if planted::is("fence-too-early") { LEASE_MS } else { after };
                if !seen && now.since(since) >= after && self.passing.insert(id) {
                    let (key, uid, attempt) = (workload.key.clone(), workload.uid, attempt.number);
                    gone.push(Command::Fence(Box::new(Fence { epoch, key, uid, attempt })));
                }
            }
        }
        self.since.retain(|id, _| live.contains(id));
        gone
    }

    /// A command of this was applied, whatever came of it, or is lost for certain.
    pub fn settled(&mut self, fence: &Fence) {
        self.passing.remove(&AttemptId { workload: fence.uid, number: fence.attempt });
    }
}
