//! A pool's part is raised for what the pool missed, or not any more. How much it missed only the planner knows; that the pool is a
//! leaf, in this epoch, is checked again.

use super::step::Step;
use super::{Outcome, Raising, Refusal};

impl Step<'_> {
    pub(super) fn raise_pool(&mut self, raising: &Raising) -> Result<Outcome, Refusal> {
        let pool = &raising.pool;
        let stale = |why: String| Err(Refusal::StaleRaise { pool: pool.clone(), why });
        if raising.epoch != self.state.epoch {
            return stale(format!("it was planned in epoch {}; now it is {}", raising.epoch, self.state.epoch));
        }
        if self.state.pools.spec(pool).is_none() {
            return stale("the pool is gone".into());
        }
        if raising.raise.is_some() && !self.state.pools.is_leaf(pool) {
            return stale("it has pools below it".into());
        }
        self.state.pools.raise(pool, raising.raise.clone());
        self.pool_changed(pool);
        Ok(Outcome::Done)
    }
}
