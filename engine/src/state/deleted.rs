//! Uids of workloads whose record went a short while ago. A copy of a submission can arrive after its workload was submitted,
//! run and deleted: it must not bring the workload back, whose attempts would then count from 1 again.

use std::collections::{BTreeMap, BTreeSet};

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use protocol::ids::{Uid, UnixMs};

/// How long a deleted uid is known, in ms: far longer than any copy can be on its way.
const KEPT_MS: u64 = 3_600_000;
/// The most that are known: 24 bytes each in a snapshot.
const MOST: usize = 100_000;

/// Deleted uids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deleted {
    by_uid: BTreeMap<Uid, UnixMs>,
    by_time: BTreeSet<(UnixMs, Uid)>,
}

impl Deleted {
    /// Whether this uid's workload was deleted a short while ago.
    pub fn knows(&self, uid: Uid) -> bool {
        self.by_uid.contains_key(&uid)
    }

    /// A record goes now. Forgets what went long ago.
    pub(super) fn add(&mut self, uid: Uid, now: UnixMs) {
        if let Some(before) = self.by_uid.insert(uid, now) {
            self.by_time.remove(&(before, uid));
        }
        self.by_time.insert((now, uid));
        while let Some(&(at, oldest)) = self.by_time.first()
            && (self.by_time.len() > MOST || at.0.saturating_add(KEPT_MS) < now.0)
        {
            self.by_time.pop_first();
            self.by_uid.remove(&oldest);
        }
    }
}

impl Encode for Deleted {
    fn encode<E: Encoder>(&self, e: &mut E) -> Result<(), EncodeError> {
        self.by_time.encode(e)
    }
}

impl<C> Decode<C> for Deleted {
    fn decode<D: Decoder<Context = C>>(d: &mut D) -> Result<Self, DecodeError> {
        let by_time = BTreeSet::<(UnixMs, Uid)>::decode(d)?;
        let by_uid: BTreeMap<Uid, UnixMs> = by_time.iter().map(|(at, uid)| (*uid, *at)).collect();
        if by_uid.len() != by_time.len() {
            return Err(DecodeError::OtherString("a uid was deleted twice".into()));
        }
        Ok(Self { by_uid, by_time })
    }
}
bincode::impl_borrow_decode!(Deleted);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_uid_is_known_for_an_hour_and_then_forgotten() {
        let mut deleted = Deleted::default();
        deleted.add(Uid(1), UnixMs(0));
        deleted.add(Uid(2), UnixMs(KEPT_MS));
        assert!(deleted.knows(Uid(1)) && deleted.knows(Uid(2)));
        deleted.add(Uid(3), UnixMs(KEPT_MS + 1));
        assert!(!deleted.knows(Uid(1)) && deleted.knows(Uid(2)) && deleted.knows(Uid(3)));
    }
}
