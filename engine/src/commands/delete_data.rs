//! A data location goes. What runs goes on; queued workloads that require it wait until it is back.

use protocol::ids::DataName;

use super::step::Step;
use super::{Outcome, Refusal};
use crate::data::DataFault;

impl Step<'_> {
    pub(super) fn delete_data(&mut self, name: &DataName) -> Result<Outcome, Refusal> {
        if !self.state.data.remove(name, self.index) {
            return Err(DataFault::NoData { name: name.clone() }.into());
        }
        self.data_changed(name);
        Ok(Outcome::Done)
    }
}
