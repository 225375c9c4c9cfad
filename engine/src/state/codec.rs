//! How the state is stored in a snapshot: the facts alone. What is derived from them is made again by the reader, so that
//! it can't disagree with them.

use std::collections::BTreeMap;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use super::{Indices, State, Workload};

protocol::limits! { State: 1024 * 1024 * 1024 }

impl Encode for State {
    fn encode<E: Encoder>(&self, e: &mut E) -> Result<(), EncodeError> {
        self.epoch.encode(e)?;
        self.applied.encode(e)?;
        self.now.encode(e)?;
        self.submitted.encode(e)?;
        self.clusters.encode(e)?;
        self.removed.encode(e)?;
        self.deleted.encode(e)?;
        self.pools.encode(e)?;
        self.data.encode(e)?;
        self.durations.encode(e)?;
        self.token_keys.encode(e)?;
        (self.workloads.len() as u64).encode(e)?;
        self.workloads.values().try_for_each(|w| w.encode(e))
    }
}

impl<C> Decode<C> for State {
    fn decode<D: Decoder<Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        let mut state = State {
            epoch: Decode::decode(d)?,
            applied: Decode::decode(d)?,
            now: Decode::decode(d)?,
            submitted: Decode::decode(d)?,
            clusters: BTreeMap::decode(d)?,
            removed: BTreeMap::decode(d)?,
            deleted: Decode::decode(d)?,
            pools: Decode::decode(d)?,
            data: Decode::decode(d)?,
            durations: Decode::decode(d)?,
            token_keys: Decode::decode(d)?,
            ..State::default()
        };
        for _ in 0..u64::decode(d)? {
            let workload = Workload::decode(d)?;
            if state.by_uid.insert(workload.uid, workload.key.clone()).is_some() {
                return Err(DecodeError::OtherString(format!("two workloads have the uid {}", workload.uid)));
            }
            if let Some(other) = state.workloads.insert(workload.key.clone(), workload) {
                return Err(DecodeError::OtherString(format!("two workloads have the name {}", other.key)));
            }
        }
        state.indices = Indices::rebuilt(state.workloads.values());
        Ok(state)
    }
}
bincode::impl_borrow_decode!(State);
