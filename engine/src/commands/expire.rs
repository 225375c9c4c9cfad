//! The record of an ended workload goes by itself, as its specification says: `ttlAfterFinished` after its end. The planner
//! proposes it when it is due. Here it is checked again by the log's own time, and by the uid, for another workload may have
//! the name by now.

use protocol::ids::{Uid, WorkloadKey};

use super::step::Step;
use super::{Outcome, Refusal};

impl Step<'_> {
    pub(super) fn expire(&mut self, key: &WorkloadKey, uid: Uid) -> Result<Outcome, Refusal> {
        let workload = self.state.workloads.get(key).filter(|w| w.uid == uid);
        let workload = workload.ok_or_else(|| Refusal::NoWorkload { key: key.clone() })?;
        let due = workload.expires_at();
        if due.is_none_or(|at| at > self.now) {
            return Err(Refusal::NotDue { key: key.clone(), due, now: self.now });
        }
        // It has ended, so the record goes at once, and its uid stays known as that of any deleted one.
        self.change(key, |w, _| w.delete_requested = true);
        Ok(Outcome::Done)
    }
}
