//! Whose a proposal or a read is: replica, which life of it, and a number in that life.
//!
//! The life makes it safe to count from 1 again after a restart: an answer to an earlier life's read would carry an index
//! that is too old.

use protocol::ids::ReplicaId;

/// Bytes of a tag.
pub(super) const TAG_BYTES: usize = 24;

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub replica: ReplicaId,
    life: u64,
    pub number: u64,
}

impl Tag {
    pub(super) fn new(replica: ReplicaId, life: u64, number: u64) -> Self {
        Self { replica, life, number }
    }

    /// Another number in the same life.
    pub(super) fn with(self, number: u64) -> Self {
        Self { number, ..self }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.replica.0, self.life, self.number].into_iter().flat_map(u64::to_be_bytes).collect()
    }

    /// None where the bytes are no tag.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; TAG_BYTES] = bytes.try_into().ok()?;
        let (words, _) = bytes.as_chunks::<8>();
        let [replica, life, number] = [words[0], words[1], words[2]].map(u64::from_be_bytes);
        Some(Self { replica: ReplicaId(replica), life, number })
    }

    /// The number, where the tag is of the same replica and life as `other`.
    pub(super) fn number_if_of(self, other: Tag) -> Option<u64> {
        (self.with(0) == other.with(0)).then_some(self.number)
    }
}
