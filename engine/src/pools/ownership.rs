//! To which pool a workload goes that names none: its owner's, else that of the owner above, and so on, else the shared one.
//!
//! The owner is the workload's namespace, until users have identities.

use protocol::ids::{Namespace, PoolName};

use super::{DEFAULT, MAX_DEPTH, Pools};

impl Pools {
    /// The pool of an owner's workloads that name none. One that takes no workloads any more is passed over.
    pub fn route(&self, owner: &Namespace) -> PoolName {
        let rules =
            std::iter::successors(self.owners().get(owner), |rule| self.owners().get(rule.spec.parent.as_ref()?));
        let pools = rules.take(MAX_DEPTH).filter_map(|rule| rule.spec.pool.as_ref());
        pools.into_iter().find(|pool| self.is_leaf(pool)).unwrap_or(&DEFAULT).clone()
    }
}
