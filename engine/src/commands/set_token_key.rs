//! A replica signs workload tokens with another key from now on, or with none.

use protocol::ids::ReplicaId;

use super::step::Step;
use super::{Outcome, Refusal};
use crate::token_keys::PublicKey;

impl Step<'_> {
    pub(super) fn set_token_key(&mut self, replica: ReplicaId, key: Option<PublicKey>) -> Result<Outcome, Refusal> {
        match self.state.token_keys.set(replica, key, self.now) {
            Ok(()) => Ok(Outcome::Done),
            Err(why) => Err(Refusal::TokenKeyRefused { replica, why }),
        }
    }
}
