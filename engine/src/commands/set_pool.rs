//! A pool is made or changed. What is set must keep every rule of the tree, whatever came before it in the log.

use protocol::ids::{LogIndex, PoolName};
use protocol::pool::PoolSpec;

use super::step::Step;
use super::{Expect, Outcome, Refusal};
use crate::pools::PoolFault;

impl Step<'_> {
    pub(super) fn set_pool(&mut self, name: &PoolName, spec: &PoolSpec, expect: Expect) -> Result<Outcome, Refusal> {
        let there = self.state.pools.get(name).map(|pool| (&pool.spec == spec, pool.version));
        if let Some(version) = check_expected(there, expect, || format!("pool {name}"))? {
            return Ok(Outcome::Set { version });
        }
        let live = |pool: &PoolName| self.state.usage(pool).map_or(0, |usage| usage.live);
        self.state.pools.check_set(name, spec, live)?;
        self.state.pools.set(name, spec.clone(), self.now, self.index);
        for key in self.state.out_of_line(name) {
            // It takes its place as it is entered anew.
            self.change(&key, |_, _| {});
        }
        self.pool_changed(name);
        Ok(Outcome::Set { version: self.index })
    }
}

/// Whether what is there is as was expected: some version where it already is as it is to be (the request came twice), none
/// where it is to be set. `there`: whether it is the same, and its version.
pub(super) fn check_expected(
    there: Option<(bool, LogIndex)>,
    expect: Expect,
    what: impl Fn() -> String,
) -> Result<Option<LogIndex>, Refusal> {
    if let Some((true, version)) = there {
        return Ok(Some(version));
    }
    match (expect, there) {
        (Expect::Absent, Some(_)) => Err(Refusal::Exists { what: what() }),
        (Expect::Version(expected), _) if there.map(|(_, version)| version) != Some(expected) => {
            let now = there.map_or(0, |(_, version)| version.0);
            Err(PoolFault::Changed { expected: expected.0, now }.into())
        }
        _ => Ok(None),
    }
}
