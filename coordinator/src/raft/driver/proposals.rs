//! Proposals that wait for the next step.
//!
//! They go to raft as one message, and so to each peer in one. (raft's own `batch_append` is off: it appends to a waiting
//! message that has no entries whatever index that message stands at, and such a message corrupts a follower's log.)

use ::raft::eraftpb;

use super::tag::Tag;

#[derive(Debug, Default)]
pub(super) struct Proposals {
    ids: Vec<u64>,
    entries: Vec<eraftpb::Entry>,
    bytes: usize,
}

impl Proposals {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the payloads that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, tag: Tag, payload: Vec<u8>) {
        self.bytes += payload.len();
        self.ids.push(tag.number);
        self.entries.push(eraftpb::Entry {
            data: payload.into(),
            context: tag.to_bytes().into(),
            ..eraftpb::Entry::default()
        });
    }

    /// All that wait: the callers' numbers, and the message for raft.
    pub(super) fn take(&mut self, from: u64) -> (Vec<u64>, eraftpb::Message) {
        let Proposals { ids, entries, .. } = std::mem::take(self);
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = from;
        message.set_entries(entries.into());
        (ids, message)
    }
}
