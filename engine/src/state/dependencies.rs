//! What a workload waits for besides room: that others of its namespace succeed, or have a place beside which it is to be.
//!
//! A success is remembered by those that wait for it, the moment that it comes: what becomes of the record afterwards does not
//! matter. So does an end without success, only so that `why` can tell of it once the record is gone: it never ends the wait,
//! for a workload of that name may be submitted again.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use protocol::ids::{ClusterName, WorkloadKey, WorkloadName};
use protocol::workload::WorkloadSpec;
use serde::{Deserialize, Serialize};

use super::{State, Workload};
use crate::lifecycle::Phase;
use crate::reasons::WaitCause;

/// How a workload is that another waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(rename_all = "camelCase")]
pub struct Awaited {
    /// Its name, in the same namespace.
    pub workload: WorkloadName,
    /// Where it is; none: it is not on record.
    pub phase: Option<Phase>,
    /// How the last one of that name ended which did not succeed, where it is not on record any more.
    pub ended: Option<Phase>,
}

/// By name, what has not succeeded yet, with how it ended where it did.
pub(crate) type Awaits = BTreeMap<WorkloadName, Option<Phase>>;

fn sibling(of: &WorkloadKey, name: &WorkloadName) -> WorkloadKey {
    WorkloadKey { namespace: of.namespace.clone(), name: name.clone() }
}

impl State {
    /// What a new workload has to wait for.
    pub(crate) fn awaits(&self, key: &WorkloadKey, spec: &WorkloadSpec) -> Awaits {
        let now = |name: &WorkloadName| self.workloads.get(&sibling(key, name)).map(|w| w.phase);
        let names = spec.depends_on.iter().map(|d| &d.workload);
        let open = names.filter(|name| now(name) != Some(Phase::Succeeded));
        open.map(|name| (name.clone(), now(name).filter(|phase| phase.is_terminal()))).collect()
    }

    /// Every workload for which this one still waits, by name.
    pub(crate) fn awaited(&self, workload: &Workload) -> Vec<Awaited> {
        let told = workload.awaits.iter().map(|(name, ended)| {
            let phase = self.workloads.get(&sibling(&workload.key, name)).map(|w| w.phase);
            Awaited { workload: name.clone(), phase, ended: ended.filter(|_| phase.is_none()) }
        });
        told.collect()
    }

    /// Beside which other workload this one is to be and where that is, or was last; none where it may be anywhere.
    ///
    /// # Errors
    /// It waits until the other is placed.
    pub(crate) fn beside(&self, workload: &Workload) -> Result<Option<(WorkloadName, ClusterName)>, WaitCause> {
        let Some(name) = &workload.spec.placement.same_cluster_as else { return Ok(None) };
        let other = self.workloads.get(&sibling(&workload.key, name));
        match other.and_then(|w| w.attempts.last()) {
            Some(attempt) => Ok(Some((name.clone(), attempt.cluster.clone()))),
            None => Err(WaitCause::Companion { workload: name.clone(), phase: other.map(|w| w.phase) }),
        }
    }

    /// Who waits for this one.
    pub(crate) fn dependents(&self, key: &WorkloadKey) -> Vec<WorkloadKey> {
        self.indices.dependents.get(key).into_iter().flatten().cloned().collect()
    }

    /// The way from a new workload over what it would wait for back to itself, if there is one: none of them could ever start.
    pub(crate) fn cycle(&self, key: &WorkloadKey, spec: &WorkloadSpec) -> Option<Vec<WorkloadName>> {
        let first = || spec.depends_on.iter().map(|d| &d.workload);
        if first().any(|name| *name == key.name) {
            return Some(vec![key.name.clone(), key.name.clone()]);
        }
        // Only one for which somebody waits already can close a circle.
        if !self.indices.dependents.contains_key(key) {
            return None;
        }
        let mut from: BTreeMap<&WorkloadName, &WorkloadName> = first().map(|name| (name, &key.name)).collect();
        let mut open: Vec<&WorkloadName> = first().collect();
        let mut seen: BTreeSet<&WorkloadName> = BTreeSet::new();
        while let Some(at) = open.pop() {
            if *at == key.name {
                let mut way = vec![at.clone()];
                let mut back = from.get(at);
                while let Some(name) = back {
                    way.push((*name).clone());
                    back = from.get(*name).filter(|_| **name != key.name);
                }
                way.reverse();
                return Some(way);
            }
            if !seen.insert(at) {
                continue;
            }
            let next = self.workloads.get(&sibling(key, at)).filter(|w| !w.phase.is_terminal());
            for name in next.into_iter().flat_map(|w| w.awaits.keys()).filter(|name| !seen.contains(*name)) {
                from.insert(name, at);
                open.push(name);
            }
        }
        None
    }
}

impl Workload {
    /// Another ended, for which this one may wait.
    pub(crate) fn hears_of(&mut self, name: &WorkloadName, ended: Phase) {
        if ended == Phase::Succeeded {
            self.awaits.remove(name);
        } else if let Some(known) = self.awaits.get_mut(name) {
            *known = Some(ended);
        }
    }

    /// Whether it waits for others to succeed.
    pub fn is_dependent(&self) -> bool {
        !self.awaits.is_empty()
    }
}
