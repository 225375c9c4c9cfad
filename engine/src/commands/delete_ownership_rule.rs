//! An owner's rule goes.

use protocol::ids::Namespace;

use super::step::Step;
use super::{Outcome, Refusal};
use crate::pools::PoolFault;

impl Step<'_> {
    pub(super) fn delete_ownership_rule(&mut self, owner: &Namespace) -> Result<Outcome, Refusal> {
        if !self.state.pools.owners().contains_key(owner) {
            return Err(PoolFault::NoRule { owner: owner.clone() }.into());
        }
        self.state.pools.remove_owner(owner, self.index);
        self.owner_changed(owner);
        Ok(Outcome::Done)
    }
}
