//! One step of a replica: what it must persist, send and apply, in the order that keeps raft's promises.
//!
//! A leader's messages may leave before its own disk has the entries (Ongaro's thesis, 10.2.1: its own vote for an entry
//! only counts once it is durable); everything that a follower or candidate says may leave only after. Which is which,
//! raft decides; the two are kept apart here.

use ::raft::eraftpb;
use bytes::Bytes;
use protocol::ids::ReplicaId;

use super::tag::Tag;
use super::{Driver, Fatal};
use crate::raft::store::{Batch, Compaction};
use crate::raft::wire::PeerMessage;

/// Who leads, as one replica knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    /// The leader.
    pub leader: Option<ReplicaId>,
    /// Whether this replica leads. It knows all that was committed before once it was given an entry of this term.
    pub is_self_leader: bool,
    /// The term: a leader's epoch.
    pub term: u64,
}

/// An entry to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The command; empty in a new leader's first entry.
    pub payload: Bytes,
    /// The caller's number for it, where this driver proposed it in its present life.
    pub own: Option<u64>,
}

/// A state that replaces the caller's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledSnapshot {
    /// The last entry that it includes.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The state.
    pub bytes: Vec<u8>,
}

/// What the caller must do after a step was persisted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To send, in order for each peer.
    pub messages: Vec<(ReplicaId, PeerMessage)>,
    /// Replaces the state, before `committed` is applied.
    pub installed_snapshot: Option<InstalledSnapshot>,
    /// To apply, in order.
    pub committed: Vec<Committed>,
    /// Reads and the index that must be applied before they are served.
    pub reads: Vec<(u64, u64)>,
    /// Reads that got no index: to be tried again.
    pub failed_reads: Vec<u64>,
    /// Proposals that were taken, and will certainly never be committed: to be tried again.
    pub dropped: Vec<u64>,
    /// Who leads, where that has changed.
    pub role: Option<Role>,
}

/// A step that has begun. It must be persisted: one that is dropped stops the driver, as a crash would.
#[must_use = "a step that is not persisted stops the driver"]
pub struct Step<'a> {
    driver: &'a mut Driver,
    ready: Option<::raft::Ready>,
    early: Vec<(ReplicaId, PeerMessage)>,
}

impl Driver {
    /// Begins a step, where there is anything to do.
    pub fn begin(&mut self) -> Result<Option<Step<'_>>, Fatal> {
        if !self.usable {
            return Err(Fatal::Stopped);
        }
        if self.role_changed() {
            // Whoever was asked may lead no more, and raft does not say so. Answers that are here already stay good.
            let answered = self.node.raft.read_states.iter().map(|state| state.request_ctx.as_slice());
            self.reads.fail_asked(answered);
        }
        self.pass_proposals();
        self.ask_for_reads();
        let to_tell = self.reads.has_failed() || !self.dropped.is_empty() || self.role_changed();
        if !self.node.has_ready() && self.compaction.is_none() && !to_tell {
            return Ok(None);
        }
        self.usable = false;
        let mut ready = self.node.has_ready().then(|| self.node.ready());
        let early = outbound(ready.as_mut().map_or(Vec::new(), ::raft::Ready::take_messages))?;
        Ok(Some(Step { driver: self, ready, early }))
    }

    /// A whole step: begins, persists, and gives everything to send in one list. None where there is nothing to do.
    pub fn ready(&mut self) -> Result<Option<Ready>, Fatal> {
        let Some(mut step) = self.begin()? else {
            return Ok(None);
        };
        let mut messages = step.take_early_messages();
        let mut ready = step.persist()?;
        messages.append(&mut ready.messages);
        Ok(Some(Ready { messages, ..ready }))
    }

    fn role_changed(&self) -> bool {
        self.reported != Some(self.role())
    }

    fn ask_for_reads(&mut self) {
        // raft drops the question of a leader that has not committed in its own term yet: hold it back until then.
        let can_answer = !self.is_leader() || self.node.raft.commit_to_current_term();
        if self.reads.is_waiting()
            && can_answer
            && self.leader().is_some()
            && let Some(context) = self.reads.ask()
        {
            self.node.read_index(context);
        }
    }

    /// THE place where a step becomes durable: nothing that depends on it has left yet, everything that does comes after.
    fn persist_before_sending(&mut self, ready: Option<&::raft::Ready>) -> Result<(), Fatal> {
        let install = ready.map(::raft::Ready::snapshot).filter(|snapshot| !snapshot.is_empty());
        if let Some(hard_state) = ready.and_then(::raft::Ready::hs) {
            self.hard_state = hard_state.into();
        }
        let compaction = self.compaction.take().filter(|c| still_of_use(c, install));
        // A commit index that moved needs no sync: it is found again from the peers.
        if !ready.is_some_and(::raft::Ready::must_sync) && compaction.is_none() {
            return Ok(());
        }
        let batch = Batch {
            install: install.map(Into::into),
            entries: ready.map_or(&[][..], |ready| ready.entries()),
            hard_state: Some(self.hard_state),
            compaction,
        };
        Ok(self.node.mut_store().persist(batch)?)
    }

    fn committed(&mut self, entries: Vec<eraftpb::Entry>) -> Vec<Committed> {
        let mine = self.reads.tag(0);
        let given = |entry: eraftpb::Entry| Committed {
            index: entry.index,
            term: entry.term,
            own: Tag::from_bytes(&entry.context).and_then(|tag| tag.number_if_of(mine)),
            payload: entry.data,
        };
        let committed: Vec<_> = entries.into_iter().map(given).collect();
        self.given_out = committed.last().map_or(self.given_out, |entry| entry.index);
        committed
    }
}

impl Step<'_> {
    /// Messages that may be sent before the step is persisted, and should be: the peers' disks then work at the same time.
    pub fn take_early_messages(&mut self) -> Vec<(ReplicaId, PeerMessage)> {
        std::mem::take(&mut self.early)
    }

    /// Makes the step durable and gives what may be sent and applied now. Early messages that were not taken come first.
    pub fn persist(self) -> Result<Ready, Fatal> {
        let Step { driver, ready, early } = self;
        driver.persist_before_sending(ready.as_ref())?;
        let mut out = Ready { messages: early, ..Ready::default() };
        if let Some(mut ready) = ready {
            out.messages.extend(outbound(ready.take_persisted_messages())?);
            if !ready.snapshot().is_empty() {
                let metadata = ready.snapshot().get_metadata();
                driver.given_out = metadata.index;
                out.installed_snapshot = Some(InstalledSnapshot {
                    index: metadata.index,
                    term: metadata.term,
                    bytes: ready.snapshot().data.to_vec(),
                });
            }
            for state in ready.take_read_states() {
                out.reads.extend(driver.reads.answer(&state.request_ctx).into_iter().map(|id| (id, state.index)));
            }
            out.committed = driver.committed(ready.take_committed_entries());
            let mut light = driver.node.advance_append(ready);
            out.messages.extend(outbound(light.take_messages())?);
            out.committed.extend(driver.committed(light.take_committed_entries()));
            if let Some(commit) = light.commit_index() {
                driver.hard_state.commit = commit;
            }
            driver.node.advance_apply();
        }
        out.failed_reads = driver.reads.take_failed();
        out.dropped = std::mem::take(&mut driver.dropped);
        if driver.role_changed() {
            out.role = Some(driver.role());
            driver.reported = out.role;
        }
        driver.usable = true;
        Ok(out)
    }
}

/// A leader's snapshot may have overtaken the caller's.
fn still_of_use(compaction: &Compaction, install: Option<&eraftpb::Snapshot>) -> bool {
    install.is_none_or(|snapshot| compaction.snapshot.index > snapshot.get_metadata().index)
}

fn outbound(messages: Vec<eraftpb::Message>) -> Result<Vec<(ReplicaId, PeerMessage)>, Fatal> {
    let one = |message: &eraftpb::Message| Ok((ReplicaId(message.to), PeerMessage::try_from(message)?));
    messages.iter().map(one).collect()
}
