//! A new leader's first command: bindings that were planned under an earlier one are refused from here on.

use protocol::ids::Epoch;

use super::step::Step;
use super::{Outcome, Refusal};

impl Step<'_> {
    pub(super) fn open_epoch(&mut self, epoch: Epoch) -> Result<Outcome, Refusal> {
        let current = self.state.epoch;
        if epoch <= current {
            return Err(Refusal::OldEpoch { epoch, current });
        }
        self.state.epoch = epoch;
        Ok(Outcome::Done)
    }
}
