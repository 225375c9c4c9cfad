//! From Raft's ready parts to the state: apply what is committed, answer who waits, and send effects while this replica
//! reigns. Also snapshots of the state.

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use engine::commands::Command;
use engine::state::State;
use protocol::ids::{Epoch, LogIndex};

use super::proposals::Entry;
use super::{Fatal, Now, Output, PeerFrame, Replica, planned};
use crate::handle::Change;
use crate::raft::driver::{Committed, CompactError};

/// The format of a state snapshot.
const SNAPSHOT_FORMAT: u16 = 11;

/// Bytes of a snapshot that may be taken whenever enough entries were applied.
const CHEAP_SNAPSHOT: u64 = 1024 * 1024;

#[derive(Encode, Decode)]
struct StateSnapshot {
    format: u16,
    /// Of the encoded state: a replica that installs it holds what the sender held.
    hash: u32,
    state: Vec<u8>,
}

protocol::limits! {
    StateSnapshot: 1024 * 1024 * 1024,
}

pub(super) fn read_snapshot(index: LogIndex, bytes: &[u8]) -> Result<State, Fatal> {
    let unreadable = |cause: String| Fatal::Unreadable { index, cause };
    let snapshot: StateSnapshot = protocol::codec::decode_body(bytes).map_err(|e| unreadable(e.to_string()))?;
    if snapshot.format != SNAPSHOT_FORMAT {
        return Err(unreadable(format!(
            "snapshot format {} (this build reads {SNAPSHOT_FORMAT}): start the version that wrote it",
            snapshot.format
        )));
    }
    if crc32fast::hash(&snapshot.state) != snapshot.hash {
        return Err(unreadable("the snapshot's state does not have the hash that it names".into()));
    }
    protocol::codec::decode_body(&snapshot.state).map_err(|e| unreadable(e.to_string()))
}

impl Replica {
    /// One round of Raft's Ready; false when there was nothing to do.
    pub(super) fn ready(&mut self, now: Now) -> Result<bool, Fatal> {
        let Some(ready) = self.driver.ready()? else { return Ok(false) };
        for (to, message) in ready.messages {
            self.outputs.push(Output::Peer(to, PeerFrame::Raft(message)));
        }
        if let Some(role) = ready.role {
            let leader_changed = self.status.leader != role.leader || self.status.term != Epoch(role.term);
            self.status.leader = role.leader;
            self.status.term = Epoch(role.term);
            if leader_changed {
                self.role_changed(now);
            }
        }
        if let Some(snapshot) = ready.installed_snapshot {
            let installed = read_snapshot(LogIndex(snapshot.index), &snapshot.bytes)?;
            let before = std::mem::replace(&mut self.state, installed);
            self.tell_all_changed(before);
            self.planner.forget();
            self.last_snapshot = LogIndex(snapshot.index);
            self.snapshot_bytes = snapshot.bytes.len() as u64;
            self.status.applied = self.state.applied;
        }
        for number in ready.dropped {
            self.proposal_dropped(number);
        }
        for committed in ready.committed {
            if let Some(number) = committed.own {
                self.proposal_committed(number);
            }
            self.apply(now, committed)?;
        }
        self.status.committed = self.status.applied.max(LogIndex(self.driver.commit_index()));
        for (id, index) in ready.reads {
            self.read_confirmed(now, id, LogIndex(index));
        }
        for id in ready.failed_reads {
            self.read_lost(id);
        }
        self.finish_reads();
        Ok(true)
    }

    /// A snapshot replaced the state: watchers hear of everything that may have changed, come or gone in it.
    fn tell_all_changed(&mut self, before: State) {
        let names = |state: &State| state.pools.all().into_keys().cloned().collect::<BTreeSet<_>>();
        let pools = &names(&before) | &names(&self.state);
        let owners: BTreeSet<_> =
            before.pools.owners().keys().chain(self.state.pools.owners().keys()).cloned().collect();
        let data: BTreeSet<_> = before.data.all().keys().chain(self.state.data.all().keys()).cloned().collect();
        let mut workloads: BTreeSet<_> = before.workloads.into_keys().collect();
        workloads.extend(self.state.workloads.keys().cloned());
        let mut clusters: BTreeSet<_> = before.clusters.into_keys().collect();
        clusters.extend(self.state.clusters.keys().cloned());
        self.outputs.push(Output::Changed(Change {
            index: self.state.applied,
            workloads: workloads.into_iter().collect(),
            clusters: clusters.into_iter().collect(),
            pools: pools.into_iter().collect(),
            owners: owners.into_iter().collect(),
            data: data.into_iter().collect(),
        }));
    }

    fn role_changed(&mut self, now: Now) {
        let leads = self.status.leads();
        if self.reign.is_some() && (!leads || self.reign != Some(self.status.term)) {
            self.end_reign();
        }
        self.leader_changed(now);
        self.ask_again();
        if leads && self.epoch_proposed != Some(self.status.term) {
            self.epoch_proposed = Some(self.status.term);
            self.propose_own(now, Command::OpenEpoch { epoch: self.status.term });
        }
    }

    fn end_reign(&mut self) {
        self.reign = None;
        self.planned.clear();
        self.sessions.end_reign();
        self.planner.forget();
    }

    fn apply(&mut self, now: Now, committed: Committed) -> Result<(), Fatal> {
        let index = LogIndex(committed.index);
        if committed.payload.is_empty() {
            self.state.applied = index;
            self.status.applied = index;
            return Ok(());
        }
        let entry: Entry = protocol::codec::decode_body(&committed.payload)
            .map_err(|e| Fatal::Unreadable { index, cause: e.to_string() })?;
        let applied = self.state.apply(index, &entry.command, entry.at);
        self.status.applied = index;
        if let Some(planned) = planned(&entry.command) {
            self.planned.remove(&planned);
        }
        if let Command::OpenEpoch { epoch } = &entry.command
            && self.status.leads()
            && *epoch == self.status.term
            && applied.outcome.is_ok()
        {
            self.reign = Some(*epoch);
            let asks = self.sessions.begin_reign(*epoch, now.mono);
            self.carry_out(now, asks);
        }
        self.planner.state_changed();
        if applied.outcome.is_err() && matches!(entry.command, Command::Join { .. }) {
            // Its cluster was removed meanwhile: it has not joined, and is turned away.
            self.sessions.proposal_lost(&entry.command);
        }
        let asks = self.sessions.committed(&entry.command, applied.effects);
        self.carry_out(now, asks);
        self.answer(entry.id, applied.outcome.map_err(Into::into));
        let rules_changed = !applied.pools.is_empty() || !applied.owners.is_empty() || !applied.data.is_empty();
        if !applied.changed.is_empty() || !applied.clusters.is_empty() || rules_changed {
            self.outputs.push(Output::Changed(Change {
                index,
                workloads: applied.changed,
                clusters: applied.clusters,
                pools: applied.pools,
                owners: applied.owners,
                data: applied.data,
            }));
        }
        Ok(())
    }

    pub(super) fn snapshot_if_due(&mut self) -> Result<(), Fatal> {
        let applied = self.state.applied;
        if applied.0 < self.last_snapshot.0 + self.settings.snapshot_every {
            return Ok(());
        }
        // A large state is written again only once the log has grown as large: over time the two cost the same.
        if self.snapshot_bytes > CHEAP_SNAPSHOT && self.driver.store().log_bytes() < self.snapshot_bytes {
            return Ok(());
        }
        let unwritable = |cause: String| Fatal::Unreadable { index: applied, cause };
        let state = protocol::codec::encode_body(&self.state).map_err(|e| unwritable(e.to_string()))?;
        let snapshot = StateSnapshot { format: SNAPSHOT_FORMAT, hash: crc32fast::hash(&state), state };
        let bytes = protocol::codec::encode_body(&snapshot).map_err(|e| unwritable(e.to_string()))?;
        self.snapshot_bytes = bytes.len() as u64;
        self.last_snapshot = applied;
        match self.driver.compact(applied.0, bytes, self.settings.keep_entries) {
            // The log grows on, and nothing is lost; tried again after as many entries.
            Err(CompactError::TooLarge { bytes }) => {
                tracing::error!(bytes, "the state is too large for a snapshot: delete workloads that have ended");
                Ok(())
            }
            compacted => Ok(compacted?),
        }
    }

    /// A hash of the replicated state, to compare replicas at the same index.
    pub fn state_hash(&self) -> u32 {
        let bytes = protocol::codec::encode_body(&self.state).expect("a state within its limit encodes");
        crc32fast::hash(&bytes)
    }
}
