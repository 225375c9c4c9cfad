//! What would change if the fleet, a pool or the line were different? The time to come is looked at twice, as it is and with the edits,
//! and what becomes of each workload is compared.

use std::collections::BTreeMap;

use protocol::ids::{ClusterName, UnixMs, WorkloadKey};
use serde::{Deserialize, Serialize};

use super::{Ahead, Edit, EditFault};
use crate::capacity::Capacity;
use crate::lifecycle::Phase;
use crate::plan::{Memory, plan};
use crate::state::State;

/// The most workloads that an answer names.
const NAMED: usize = 1_000;

/// What becomes of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "kind")]
pub enum Fate {
    /// It is not there.
    Absent,
    /// It goes on where it is.
    Runs {
        /// Where.
        cluster: ClusterName,
    },
    /// It starts.
    Starts {
        /// Where.
        cluster: ClusterName,
        /// When.
        at: UnixMs,
        /// Where it runs before: it is moved.
        from: Option<ClusterName>,
    },
    /// It waits, and nobody knows for how long.
    Waits {
        /// Why, in one sentence.
        why: String,
        /// Where it runs before: it is ended to make room, or for its node's sake.
        from: Option<ClusterName>,
    },
}

/// A workload of which something else becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FateChange {
    /// Its name.
    pub workload: String,
    /// What becomes of it as things are.
    pub before: Fate,
    /// What becomes of it with the edits.
    pub after: Fate,
}

/// What the edits change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Now.
    pub now: UnixMs,
    /// Workloads of which something else becomes, by name; at most 1,000.
    pub changes: Vec<FateChange>,
    /// How many there are.
    pub changed: u64,
    /// How many workloads that have not ended stay as they are.
    pub same: u64,
}

/// Compares the time to come as it is and with the edits. Takes the state, capacity and what the planner remembers to itself. A fault comes
/// with the place of its edit.
pub fn whatif(
    state: State,
    capacity: Capacity,
    memory: Memory,
    at: UnixMs,
    edits: &[Edit],
) -> Result<Changes, (usize, EditFault)> {
    let mut edited = Ahead::new(state.clone(), capacity.clone(), memory.clone(), at);
    let now = edited.now;
    // Who runs where is told before the edits: some of them end what runs.
    let there = running(&state);
    for (number, edit) in edits.iter().enumerate() {
        edited.edit(number, edit).map_err(|fault| (number, fault))?;
    }
    let mut before = fates(Ahead::new(state, capacity, memory, at), &there);
    let mut changes = vec![];
    let (mut changed, mut same) = (0, 0);
    for (key, after) in fates(edited, &there) {
        let before = before.remove(&key).unwrap_or(Fate::Absent);
        if alike(&before, &after) {
            same += 1;
            continue;
        }
        changed += 1;
        if changes.len() < NAMED {
            changes.push(FateChange { workload: key.to_string(), before, after });
        }
    }
    Ok(Changes { now, changes, changed, same })
}

/// Whether a person would call it the same: words of a reason may differ.
fn alike(before: &Fate, after: &Fate) -> bool {
    match (before, after) {
        (Fate::Waits { from: a, .. }, Fate::Waits { from: b, .. }) => a == b,
        (before, after) => before == after,
    }
}

fn running(state: &State) -> BTreeMap<WorkloadKey, ClusterName> {
    let live = state.indices.live.iter().flat_map(|(cluster, there)| there.values().map(move |key| (cluster, key)));
    live.map(|(cluster, key)| (key.clone(), cluster.clone())).collect()
}

/// What becomes of every workload that has not ended.
fn fates(mut ahead: Ahead, there: &BTreeMap<WorkloadKey, ClusterName>) -> BTreeMap<WorkloadKey, Fate> {
    let mut fates: BTreeMap<WorkloadKey, Fate> = BTreeMap::new();
    let live = ahead.state.workloads.values().filter(|w| !w.phase.is_terminal()).map(|w| w.key.clone());
    let all: Vec<WorkloadKey> = live.collect();
    loop {
        for started in ahead.settle() {
            let from = there.get(&started.key).cloned();
            let starts = Fate::Starts { cluster: started.cluster, at: ahead.now, from };
            fates.entry(started.key).or_insert(starts);
        }
        if !ahead.has_time() || ahead.advance().is_none() {
            break;
        }
    }
    let reasons = plan(&ahead.state, &ahead.capacity, ahead.now, 1).waiting;
    for key in all {
        let Some(workload) = ahead.state.workloads.get(&key).filter(|_| !fates.contains_key(&key)) else { continue };
        let fate = match there.get(&key) {
            Some(cluster) if workload.phase != Phase::Queued => Fate::Runs { cluster: cluster.clone() },
            from => {
                let why =
                    reasons.get(&workload.uid).map_or_else(|| "waits, far behind in line".into(), |w| w.to_string());
                Fate::Waits { why, from: from.cloned() }
            }
        };
        fates.insert(key, fate);
    }
    fates
}
