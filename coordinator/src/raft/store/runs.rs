//! How the log lies in its table: one record holds a run of neighbouring entries, under the index of the first of them.
//!
//! What one batch appends becomes one run. A record of its own for each entry cost more than all the rest of a replica's work
//! on it: an insert into a B-tree moves half a page, and a batch of a thousand has as many. Called by `store` alone.

use std::collections::VecDeque;

use ::raft::eraftpb;
use bincode::{Decode, Encode};
use redb::{ReadableTable, StorageError, Table};

use super::{PersistError, Position};
use crate::raft::record;
use crate::raft::wire::Entry;

/// The table of runs while it is written.
pub(super) type LogTable<'t> = Table<'t, u64, &'static [u8]>;

/// A run that has this many bytes takes no more entries, so that one is never far above it (the largest entry is
/// [`MAX_PROPOSAL_BYTES`](crate::raft::wire::MAX_PROPOSAL_BYTES)).
const FULL_RUN_BYTES: u64 = 1024 * 1024;

/// Neighbouring entries.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Run(Vec<Entry>);

protocol::limits! {
    Run: 8 * 1024 * 1024,
}

/// Where the runs begin, in growing order.
#[derive(Debug, Default)]
pub(super) struct Runs(VecDeque<u64>);

impl Runs {
    /// Takes every run out.
    pub(super) fn clear(&mut self, log: &mut LogTable<'_>) -> Result<(), StorageError> {
        self.0.clear();
        log.retain(|_, _| false)
    }

    /// Writes entries in place of whatever the log has from the first of them on. `held` is what it has, and the first of that
    /// follows `truncated`.
    pub(super) fn write(
        &mut self,
        log: &mut LogTable<'_>,
        held: &VecDeque<eraftpb::Entry>,
        truncated: Position,
        entries: &[eraftpb::Entry],
    ) -> Result<(), PersistError> {
        let Some(first) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        let (mut run, mut bytes) = (Vec::with_capacity(entries.len()), 0);
        if first <= truncated.index + held.len() as u64 {
            // The run that `first` is in the middle of is written anew with what stays of it.
            let from = self.begin_of(first);
            log.retain_in(from.., |_, _| false)?;
            self.0.truncate(self.0.partition_point(|begin| *begin < from));
            let stays = held.iter().filter(|entry| (from..first).contains(&entry.index));
            run.extend(stays.inspect(|entry| bytes += super::size(entry)).map(Entry::from));
        }
        for entry in entries {
            if bytes >= FULL_RUN_BYTES {
                self.seal(log, &mut run)?;
                bytes = 0;
            }
            bytes += super::size(entry);
            run.push(entry.into());
        }
        self.seal(log, &mut run)
    }

    fn seal(&mut self, log: &mut LogTable<'_>, run: &mut Vec<Entry>) -> Result<(), PersistError> {
        let Some(begin) = run.first().map(|entry| entry.index) else { return Ok(()) };
        let sealed = record::write(&begin.to_be_bytes(), &Run(std::mem::take(run)))?;
        log.insert(begin, sealed.as_slice())?;
        self.0.push_back(begin);
        Ok(())
    }

    /// Where the run that holds this entry begins.
    fn begin_of(&self, index: u64) -> u64 {
        let after = self.0.partition_point(|begin| *begin <= index);
        after.checked_sub(1).map_or(index, |at| self.0[at])
    }

    /// Takes out the runs that end at `index` or before. One that goes on beyond it stays whole: who reads it again leaves
    /// its beginning out.
    pub(super) fn drop_to(&mut self, log: &mut LogTable<'_>, index: u64, last: u64) -> Result<(), StorageError> {
        let over = if index >= last { u64::MAX } else { self.begin_of(index + 1) };
        let kept = self.0.partition_point(|begin| *begin < over);
        if kept > 0 {
            log.retain_in(..over, |_, _| false)?;
            self.0.drain(..kept);
        }
        Ok(())
    }

    /// Reads the runs and gives the entries after `truncated`; what does not follow is told with its place.
    pub(super) fn read(
        log: &impl ReadableTable<u64, &'static [u8]>,
        truncated: Position,
    ) -> Result<(Runs, Vec<Entry>), ReadError> {
        let mut runs = Runs::default();
        let mut entries = Vec::new();
        let (mut expected, mut term) = (None, 0);
        for row in log.iter()? {
            let (begin, sealed) = row?;
            let begin = begin.value();
            let damaged =
                |cause: String| ReadError::Damaged { what: format!("the run of entries from {begin}"), cause };
            let Run(run) =
                record::read(&begin.to_be_bytes(), sealed.value()).map_err(|cause| damaged(cause.to_string()))?;
            // The first run may begin at any entry up to the first that is wanted.
            let mut next = expected.unwrap_or(begin.min(truncated.index + 1));
            if begin != next {
                return Err(damaged(format!("entry {next} should be in its place")));
            }
            for entry in run {
                if entry.index != next {
                    return Err(damaged(format!("it holds entry {} where {next} should be", entry.index)));
                }
                if entry.term < term || (entry.index > truncated.index && entry.term < truncated.term) {
                    let before = term.max(truncated.term);
                    let cause = format!("entry {next}: its term {} is below its predecessor's {before}", entry.term);
                    return Err(damaged(cause));
                }
                (next, term) = (next + 1, entry.term);
                if entry.index > truncated.index {
                    entries.push(entry);
                }
            }
            expected = Some(next);
            runs.0.push_back(begin);
        }
        Ok((runs, entries))
    }
}

/// Why runs could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// The disk failed, or redb found damage.
    Storage(StorageError),
    /// A run is not what was written.
    Damaged {
        /// Which.
        what: String,
        /// How that was seen.
        cause: String,
    },
}

impl From<StorageError> for ReadError {
    fn from(cause: StorageError) -> Self {
        ReadError::Storage(cause)
    }
}
