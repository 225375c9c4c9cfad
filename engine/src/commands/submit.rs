//! A workload enters the queue. The specification is checked again: what is in the log must hold for every later command,
//! whoever proposed it.

use std::sync::Arc;

use protocol::ids::{Uid, WorkloadKey};
use protocol::workload::WorkloadSpec;

use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::Phase;
use crate::state::{Happening, Workload};

impl Step<'_> {
    pub(super) fn submit(&mut self, key: &WorkloadKey, uid: Uid, spec: &WorkloadSpec) -> Result<Outcome, Refusal> {
        if let Some(there) = self.state.workloads.get(key) {
            // The same uid is the same submission, heard twice: its sender never learnt of the first answer.
            return if there.uid == uid {
                Ok(Outcome::Submitted { version: there.version, existed: true })
            } else {
                Err(Refusal::NameTaken { key: key.clone(), uid: there.uid })
            };
        }
        if let Some(other) = self.state.by_uid.get(&uid) {
            return Err(Refusal::UidTaken { key: other.clone(), uid });
        }
        if self.state.deleted.knows(uid) {
            // A copy that comes after all is over. It was taken once, and that is all its sender may hear.
            return Ok(Outcome::Submitted { version: self.index, existed: true });
        }
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(Refusal::Invalid(problems));
        }
        let order = self.state.submitted;
        self.state.submitted += 1;
        let mut workload = Workload {
            key: key.clone(),
            uid,
            spec: Arc::new(spec.clone()),
            order,
            submitted_at: self.now,
            phase: Phase::Queued,
            attempts: vec![],
            user_failures: 0,
            not_before: None,
            cancel_requested: false,
            delete_requested: false,
            created: self.index,
            version: self.index,
            timeline: vec![],
        };
        workload.remember(Happening::Submitted, self.now);
        self.add(workload);
        Ok(Outcome::Submitted { version: self.index, existed: false })
    }
}
