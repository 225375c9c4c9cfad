//! Reads that wait for the index from which they may be served.
//!
//! All reads that wait when a step begins share one question to the quorum. raft forgets a question when leadership
//! changes or a message is lost, and says nothing: here each read ends, with an index or as failed.

use std::collections::BTreeMap;

use super::config::Limits;
use super::tag::Tag;

/// Why a read was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nobody can be asked.
    #[error("no leader is known: try again")]
    NoLeader,
    /// Too many wait.
    #[error("too many reads are waiting: try again")]
    Overloaded,
    /// The replica has stopped.
    #[error("this replica has stopped")]
    Stopped,
}

#[derive(Debug)]
struct Question {
    reads: Vec<u64>,
    since_tick: u64,
}

#[derive(Debug)]
pub(super) struct Reads {
    mine: Tag,
    timeout_ticks: u64,
    most: usize,
    now: u64,
    questions: u64,
    waiting: Option<Question>,
    asked: BTreeMap<u64, Question>,
    failed: Vec<u64>,
    count: usize,
}

impl Reads {
    pub(super) fn new(mine: Tag, timeout_ticks: u64, limits: Limits) -> Self {
        Self {
            mine,
            timeout_ticks,
            most: limits.max_reads,
            now: 0,
            questions: 0,
            waiting: None,
            asked: BTreeMap::new(),
            failed: Vec::new(),
            count: 0,
        }
    }

    /// A tag of this life.
    pub(super) fn tag(&self, number: u64) -> Tag {
        self.mine.with(number)
    }

    pub(super) fn wait(&mut self, id: u64) -> Result<(), ReadError> {
        if self.count >= self.most {
            return Err(ReadError::Overloaded);
        }
        self.count += 1;
        let now = self.now;
        self.waiting.get_or_insert_with(|| Question { reads: Vec::new(), since_tick: now }).reads.push(id);
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// The question to ask for all that wait.
    pub(super) fn ask(&mut self) -> Option<Vec<u8>> {
        let question = self.waiting.take()?;
        self.questions += 1;
        self.asked.insert(self.questions, question);
        Some(self.tag(self.questions).to_bytes())
    }

    /// The reads that an answer is for: none where it is another life's or came before.
    pub(super) fn answer(&mut self, context: &[u8]) -> Vec<u64> {
        let number = Tag::from_bytes(context).and_then(|tag| tag.number_if_of(self.mine));
        let reads = number.and_then(|number| self.asked.remove(&number)).map_or(Vec::new(), |question| question.reads);
        self.count -= reads.len();
        reads
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
        let oldest = self.now.saturating_sub(self.timeout_ticks);
        if self.waiting.as_ref().is_some_and(|question| question.since_tick < oldest) {
            self.failed.extend(self.waiting.take().map_or(Vec::new(), |question| question.reads));
        }
        // Questions are numbered in the order in which they were asked, so the oldest come first.
        while let Some(first) = self.asked.first_entry().filter(|first| first.get().since_tick < oldest) {
            self.failed.extend(first.remove().reads);
        }
    }

    /// Gives up every question that was asked, but for those that were answered.
    pub(super) fn fail_asked<'a>(&mut self, answered: impl Iterator<Item = &'a [u8]>) {
        let mine = self.mine;
        let answered: Vec<u64> = answered.filter_map(|context| Tag::from_bytes(context)?.number_if_of(mine)).collect();
        let failed = self.asked.extract_if(.., |number, _| !answered.contains(number));
        self.failed.extend(failed.flat_map(|(_, question)| question.reads));
    }

    pub(super) fn take_failed(&mut self) -> Vec<u64> {
        let failed = std::mem::take(&mut self.failed);
        self.count -= failed.len();
        failed
    }
}
