//! An owner's rule is made or changed. Workloads that are in already keep their pool.

use protocol::ids::Namespace;
use protocol::pool::OwnershipSpec;

use super::set_pool::check_expected;
use super::step::Step;
use super::{Expect, Outcome, Refusal};

impl Step<'_> {
    pub(super) fn set_ownership_rule(
        &mut self,
        owner: &Namespace,
        spec: &OwnershipSpec,
        expect: Expect,
    ) -> Result<Outcome, Refusal> {
        let there = self.state.pools.owners().get(owner).map(|rule| (&rule.spec == spec, rule.version));
        if let Some(version) = check_expected(there, expect, || format!("the ownership rule of {owner}"))? {
            return Ok(Outcome::Set { version });
        }
        self.state.pools.check_owner(owner, spec)?;
        self.state.pools.set_owner(owner, spec.clone(), self.now, self.index);
        self.owner_changed(owner);
        Ok(Outcome::Set { version: self.index })
    }
}
