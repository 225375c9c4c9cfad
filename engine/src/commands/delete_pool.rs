//! A pool goes: only an empty leaf, to which no rule leads.

use protocol::ids::PoolName;

use super::step::Step;
use super::{Outcome, Refusal};

impl Step<'_> {
    pub(super) fn delete_pool(&mut self, name: &PoolName) -> Result<Outcome, Refusal> {
        let live = self.state.usage(name).map_or(0, |usage| usage.live);
        self.state.pools.check_delete(name, live)?;
        self.state.pools.remove(name, self.index);
        self.pool_changed(name);
        Ok(Outcome::Done)
    }
}
