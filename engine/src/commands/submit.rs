//! A workload enters the queue. The specification is checked again: what is in the log must hold for every later command,
//! whoever proposed it.

use std::sync::Arc;

use protocol::ids::{PoolName, Uid, WorkloadKey, WorkloadName};
use protocol::workload::{SpecError, WorkloadSpec};

use super::step::Step;
use super::{Outcome, Refusal};
use crate::lifecycle::Phase;
use crate::pools::PoolFault;
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
        let pool = self.pool_of(key, spec)?;
        if let Some(way) = self.state.cycle(key, spec) {
            return Err(Refusal::Invalid(vec![circle(&way)]));
        }
        if spec.placement.same_cluster_as.as_ref() == Some(&key.name) {
            let problem = "it names the workload itself, which would never be placed: leave it out".into();
            return Err(Refusal::Invalid(vec![SpecError { field: "spec.placement.sameClusterAs".into(), problem }]));
        }
        let awaits = self.state.awaits(key, spec);
        let order = self.state.submitted;
        self.state.submitted += 1;
        let mut workload = Workload {
            key: key.clone(),
            uid,
            spec: Arc::new(spec.clone()),
            pool,
            order,
            submitted_at: self.now,
            late_ms: 0,
            served: 0,
            phase: Phase::Queued,
            attempts: vec![],
            user_failures: 0,
            not_before: None,
            awaits,
            ended_at: None,
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

    /// The pool that it names, else its owner's.
    fn pool_of(&self, key: &WorkloadKey, spec: &WorkloadSpec) -> Result<PoolName, Refusal> {
        let pools = &self.state.pools;
        let fault =
            |e: PoolFault| Refusal::Invalid(vec![SpecError { field: "spec.pool".into(), problem: e.to_string() }]);
        let pool = match &spec.pool {
            Some(pool) => {
                pools.check_takes_workloads(pool).map_err(fault)?;
                pool.clone()
            }
            None => pools.route(&key.namespace),
        };
        pools.check_may_submit(&pool, &key.namespace).map_err(fault)?;
        Ok(pool)
    }
}

/// What is wrong with a workload that would wait for itself.
fn circle(way: &[WorkloadName]) -> SpecError {
    let way = way.iter().map(ToString::to_string).collect::<Vec<_>>().join(" needs ");
    SpecError {
        field: "spec.dependsOn".into(),
        problem: format!("{way}, so that none could ever start: leave one out"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use protocol::ids::{LogIndex, Namespace, UnixMs, WorkloadName};
    use protocol::resources::{Cpu, Gpus, Memory};
    use protocol::workload::{BatchSpec, GroupSpec};

    use super::*;
    use crate::commands::Command;
    use crate::state::State;

    #[test]
    fn a_copy_of_a_submission_that_comes_after_the_deletion_brings_nothing_back() {
        let key = WorkloadKey { namespace: Namespace::new("a").unwrap(), name: WorkloadName::new("late").unwrap() };
        let group = GroupSpec {
            name: protocol::ids::GroupName::new("workers").unwrap(),
            count: Some(1),
            min: None,
            max: None,
            cpu: Cpu(1000),
            memory: Memory(1),
            gpus: Gpus(0),
            gpu: vec![],
        };
        let batch = BatchSpec { command: vec!["true".into()], image: None, groups: vec![group] };
        let spec = Box::new(WorkloadSpec { batch: Some(batch), ..WorkloadSpec::default() });
        let submit = Command::Submit { key: key.clone(), uid: Uid(7), spec: spec.clone() };
        let mut state = State::default();
        state.apply(LogIndex(1), &submit, UnixMs(1)).outcome.unwrap();
        state.apply(LogIndex(2), &Command::Delete { key: key.clone() }, UnixMs(2)).outcome.unwrap();
        let copy = state.apply(LogIndex(3), &submit, UnixMs(3));
        assert_eq!(copy.outcome, Ok(Outcome::Submitted { version: LogIndex(3), existed: true }));
        assert!(state.workloads.is_empty());
        // The name is free for another submission.
        let other = Command::Submit { key, uid: Uid(8), spec };
        let outcome = state.apply(LogIndex(4), &other, UnixMs(4)).outcome;
        assert_eq!(outcome, Ok(Outcome::Submitted { version: LogIndex(4), existed: false }));
    }
}
