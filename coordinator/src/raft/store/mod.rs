//! The log store: entries, hard state, voters, snapshot and identity of one replica, on redb.
//!
//! One `Batch` is one transaction with one sync, whatever is in it: a crash leaves all of it or nothing. The whole log
//! after the last compaction, and the snapshot, are also in memory, so that raft's reads never touch the disk and never
//! fail; who compacts bounds that memory ([`Store::log_bytes`]). Called by `driver` alone, through `begin_life`, `persist`
//! and raft's `Storage` trait (`storage`); `open` makes, opens and checks a store.
//!
//! After a failed `Store::persist` nothing here may be used again: what the disk holds is unknown until it is reopened
//! (an fsync that failed once must not be tried again).

mod open;
mod runs;
mod storage;

use std::collections::VecDeque;

use ::raft::eraftpb;
use protocol::ids::ReplicaId;
use redb::{Database, TableDefinition};

use super::record;
use super::wire::{ConfState, Entry, HardState, Snapshot};
use crate::planted;
use runs::Runs;

pub use open::{FormatError, OpenError};

/// The version of the store's format that this build writes and reads.
pub const FORMAT: u32 = 11;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");

/// Names of the records in the table `state`.
mod name {
    pub const FORMAT: &str = "format";
    pub const IDENTITY: &str = "identity";
    pub const HARD_STATE: &str = "hard state";
    pub const CONF_STATE: &str = "voters";
    pub const TRUNCATED: &str = "truncated";
    pub const SNAPSHOT: &str = "snapshot";
}

/// Whose store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Identity {
    replica: ReplicaId,
    /// How often a driver was started on it. Tells this life's reads and proposals from an earlier one's.
    life: u64,
}

/// The entry before the first one that is still there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
struct Position {
    index: u64,
    term: u64,
}

impl Position {
    fn of(snapshot: &Snapshot) -> Self {
        Self { index: snapshot.index, term: snapshot.term }
    }
}

protocol::limits! {
    Identity: 64,
    Position: 64,
}

/// Drops the log's beginning: its state is in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compaction {
    /// The state that replaces it.
    pub snapshot: Snapshot,
    /// The last entry to drop; at most the snapshot's index.
    pub drop_to: u64,
}

/// What one transaction makes durable.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    /// A leader's snapshot, in place of the whole log.
    pub install: Option<Snapshot>,
    /// Entries to append; whatever the log has from the first of them on is replaced.
    pub entries: &'a [eraftpb::Entry],
    /// Term, vote, commit.
    pub hard_state: Option<HardState>,
    /// The end of the log's beginning.
    pub compaction: Option<Compaction>,
}

/// Why a batch did not become durable. The store must not be used again.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// The store's own transaction failed.
    #[error("log store: can't write ({cause}): free space on its disk or replace it, then start this replica again")]
    Write {
        /// What redb said.
        cause: redb::Error,
    },
    /// A record is larger than it may be.
    #[error("log store: {0}")]
    Record(#[from] protocol::codec::CodecError),
    /// The batch does not follow from what the store holds.
    #[error("log store: {what} (the log holds {first}..={last}): this is a defect, report it")]
    Gap {
        /// What is wrong with it.
        what: &'static str,
        /// The first index of the log.
        first: u64,
        /// The last.
        last: u64,
    },
}

macro_rules! write_errors {
    ($($error:ty),*) => {$(
        impl From<$error> for PersistError {
            fn from(cause: $error) -> Self {
                PersistError::Write { cause: cause.into() }
            }
        }
    )*};
}
write_errors!(redb::StorageError, redb::TransactionError, redb::TableError, redb::CommitError);

/// One replica's log store.
pub struct Store {
    db: Database,
    identity: Identity,
    hard_state: HardState,
    conf_state: ConfState,
    truncated: Position,
    entries: VecDeque<eraftpb::Entry>,
    entry_bytes: u64,
    runs: Runs,
    snapshot: Option<eraftpb::Snapshot>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("identity", &self.identity)
            .field("hard_state", &self.hard_state)
            .field("first", &self.first())
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

fn size(entry: &eraftpb::Entry) -> u64 {
    (entry.data.len() + entry.context.len()) as u64
}

impl Store {
    /// The replica that it belongs to.
    pub fn replica(&self) -> ReplicaId {
        self.identity.replica
    }

    /// The index of the first entry that the log still has, or would have next.
    pub fn first(&self) -> u64 {
        self.truncated.index + 1
    }

    /// The index of the last entry; `first() - 1` where there is none.
    pub fn last(&self) -> u64 {
        self.truncated.index + self.entries.len() as u64
    }

    /// Bytes of the entries that the log holds, on disk and in memory: who drives it compacts by this.
    pub fn log_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// Term, vote and commit as they are on disk.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// Who votes.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// How often a driver was started on it.
    pub fn life(&self) -> u64 {
        self.identity.life
    }

    /// A copy of the entries from `low` to before `high`, as far as the log has them: for checkers and debugging.
    pub fn log(&self, low: u64, high: u64) -> Vec<Entry> {
        let from = low.saturating_sub(self.first()) as usize;
        let to = high.saturating_sub(self.first()) as usize;
        self.entries.iter().take(to).skip(from).map(Into::into).collect()
    }

    /// The latest snapshot.
    pub fn latest_snapshot(&self) -> Option<Snapshot> {
        self.snapshot.as_ref().map(Into::into)
    }

    /// The latest snapshot's index; 0 where there is none.
    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.get_metadata().index)
    }

    /// The term of an entry, where it is known.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.truncated.index {
            return Some(self.truncated.term);
        }
        let offset = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(offset).ok()?).map(|entry| entry.term)
    }

    /// Counts a new start, and writes the voters into a store that has none yet.
    pub(super) fn begin_life(&mut self, voters: ConfState) -> Result<(), PersistError> {
        let identity = Identity { life: self.identity.life + 1, ..self.identity };
        let transaction = self.db.begin_write()?;
        {
            let mut state = transaction.open_table(STATE)?;
            state.insert(name::IDENTITY, record::write(name::IDENTITY.as_bytes(), &identity)?.as_slice())?;
            state.insert(name::CONF_STATE, record::write(name::CONF_STATE.as_bytes(), &voters)?.as_slice())?;
        }
        transaction.commit()?;
        self.identity = identity;
        self.conf_state = voters;
        Ok(())
    }

    /// Makes a batch durable: one transaction, one sync.
    pub(super) fn persist(&mut self, batch: Batch<'_>) -> Result<(), PersistError> {
        self.check(&batch)?;
        let compacted = batch.compaction.as_ref().map(|compaction| self.position_after(compaction, &batch));
        if planted::is("skip-persist") {
            self.take_over(batch, compacted);
            return Ok(());
        }
        let transaction = self.db.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut state = transaction.open_table(STATE)?;
            if let Some(snapshot) = &batch.install {
                self.runs.clear(&mut log)?;
                write_snapshot(&mut state, snapshot)?;
                write_truncated(&mut state, Position::of(snapshot))?;
                let key = name::CONF_STATE;
                state.insert(key, record::write(key.as_bytes(), &snapshot.conf_state)?.as_slice())?;
            }
            let (held, before) = match &batch.install {
                Some(snapshot) => (&VecDeque::new(), Position::of(snapshot)),
                None => (&self.entries, self.truncated),
            };
            self.runs.write(&mut log, held, before, batch.entries)?;
            if let (Some(compaction), Some(position)) = (&batch.compaction, compacted) {
                write_snapshot(&mut state, &compaction.snapshot)?;
                write_truncated(&mut state, position)?;
                let last = batch.entries.last().map_or(before.index + held.len() as u64, |entry| entry.index);
                self.runs.drop_to(&mut log, position.index, last)?;
            }
            if let Some(hard_state) = &batch.hard_state {
                let key = name::HARD_STATE;
                state.insert(key, record::write(key.as_bytes(), hard_state)?.as_slice())?;
            }
        }
        transaction.commit()?;
        self.take_over(batch, compacted);
        Ok(())
    }

    /// A batch that does not follow from the log would leave a hole that nothing can mend: refused before anything is
    /// written.
    fn check(&self, batch: &Batch<'_>) -> Result<(), PersistError> {
        let (first, last) = match &batch.install {
            Some(snapshot) => (snapshot.index + 1, snapshot.index),
            None => (self.first(), self.last()),
        };
        let gap = |what| Err(PersistError::Gap { what, first, last });
        if let Some(entry) = batch.entries.first()
            && !(first..=last + 1).contains(&entry.index)
        {
            return gap("entries to append do not follow the log");
        }
        if batch.entries.windows(2).any(|pair| pair[1].index != pair[0].index + 1) {
            return gap("entries to append are not in order");
        }
        let end = batch.entries.last().map_or(last, |entry| entry.index);
        if let Some(compaction) = &batch.compaction
            && (compaction.drop_to + 1 < first || compaction.drop_to > compaction.snapshot.index.min(end))
        {
            return gap("a compaction drops what its snapshot does not hold");
        }
        Ok(())
    }

    fn position_after(&self, compaction: &Compaction, batch: &Batch<'_>) -> Position {
        let index = compaction.drop_to;
        let appended = batch.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term);
        let installed =
            || batch.install.as_ref().filter(|snapshot| snapshot.index == index).map(|snapshot| snapshot.term);
        // `check` has shown that the index lies in the log or just before it.
        let term = appended.or_else(installed).or_else(|| self.term_of(index)).unwrap_or(compaction.snapshot.term);
        Position { index, term }
    }

    /// Brings what is in memory to what is now on disk.
    fn take_over(&mut self, batch: Batch<'_>, compacted: Option<Position>) {
        if let Some(snapshot) = batch.install {
            self.truncated = Position::of(&snapshot);
            self.conf_state = snapshot.conf_state.clone();
            self.entries.clear();
            self.entry_bytes = 0;
            self.snapshot = Some(snapshot.into());
        }
        if let Some(first) = batch.entries.first() {
            let kept = (first.index - self.first()) as usize;
            self.entry_bytes -= self.entries.drain(kept..).map(|entry| size(&entry)).sum::<u64>();
            self.entry_bytes += batch.entries.iter().map(size).sum::<u64>();
            self.entries.extend(batch.entries.iter().cloned());
        }
        if let (Some(compaction), Some(position)) = (batch.compaction, compacted) {
            let dropped = (position.index - self.truncated.index) as usize;
            self.entry_bytes -= self.entries.drain(..dropped).map(|entry| size(&entry)).sum::<u64>();
            self.truncated = position;
            self.snapshot = Some(compaction.snapshot.into());
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
    }
}

type StateTable<'t> = redb::Table<'t, &'static str, &'static [u8]>;

fn write_snapshot(state: &mut StateTable<'_>, snapshot: &Snapshot) -> Result<(), PersistError> {
    let sealed = record::write(name::SNAPSHOT.as_bytes(), snapshot)?;
    state.insert(name::SNAPSHOT, sealed.as_slice())?;
    Ok(())
}

fn write_truncated(state: &mut StateTable<'_>, position: Position) -> Result<(), PersistError> {
    let sealed = record::write(name::TRUNCATED.as_bytes(), &position)?;
    state.insert(name::TRUNCATED, sealed.as_slice())?;
    Ok(())
}
