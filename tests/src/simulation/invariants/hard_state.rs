//! 17: hard state never goes back: after any crash a replica still knows every term, vote and entry by which others may have
//! acted on its word.

use std::collections::BTreeMap;

use coordinator::raft::wire::{HardState, MessageKind, PeerMessage};

use super::Invariant;
use crate::simulation::facts::Fact;

/// What one replica has bound itself to.
#[derive(Default)]
struct Word {
    term: u64,
    votes: BTreeMap<u64, u64>,
    /// The last entry that it said to hold, by the term in which it said so.
    held: BTreeMap<u64, u64>,
    durable: HardState,
}

#[derive(Default)]
pub(crate) struct HardStates {
    words: BTreeMap<usize, Word>,
}

impl Word {
    fn said(&mut self, message: &PeerMessage) -> Result<(), String> {
        let term = message.term;
        match message.kind {
            // They speak of a term that may never come, and bind to nothing. A forwarded read has no term.
            MessageKind::RequestPreVote | MessageKind::RequestPreVoteResponse | MessageKind::ReadIndex => return Ok(()),
            MessageKind::RequestVote => self.vote(term, message.from.0)?,
            MessageKind::RequestVoteResponse if !message.reject => self.vote(term, message.to.0)?,
            MessageKind::AppendResponse if !message.reject => {
                let held = self.held.entry(term).or_default();
                *held = (*held).max(message.index);
            }
            _ => {}
        }
        self.term = self.term.max(term);
        Ok(())
    }

    fn vote(&mut self, term: u64, candidate: u64) -> Result<(), String> {
        let first = *self.votes.entry(term).or_insert(candidate);
        if first != candidate {
            return Err(format!("voted for {first} and for {candidate} in term {term}"));
        }
        Ok(())
    }

    fn found(&self, hard: HardState, last: u64) -> Result<(), String> {
        if hard.term < self.term {
            return Err(format!("spoke in term {} and came back in term {}", self.term, hard.term));
        }
        if let Some(candidate) = self.votes.get(&hard.term)
            && hard.vote != *candidate
        {
            return Err(format!("voted for {candidate} in term {} and came back with vote {}", hard.term, hard.vote));
        }
        // In a later term another leader may have cut its log.
        if let Some(held) = self.held.get(&hard.term)
            && last < *held
        {
            return Err(format!("confirmed entry {held} in term {} and came back with {last}", hard.term));
        }
        Ok(())
    }

    fn grew(&self, hard: HardState) -> Result<(), String> {
        let before = self.durable;
        let back = hard.term < before.term
            || hard.commit < before.commit
            || (hard.term == before.term && before.vote != 0 && hard.vote != before.vote);
        if back { Err(format!("went from {before:?} to {hard:?}")) } else { Ok(()) }
    }
}

impl Invariant for HardStates {
    fn name(&self) -> &'static str {
        "17 hard state never goes back"
    }

    fn observe(&mut self, _at_us: u64, fact: &Fact<'_>) -> Result<(), String> {
        let (replica, outcome) = match fact {
            Fact::Says { replica, message } => (replica, self.words.entry(*replica).or_default().said(message)),
            Fact::Durable { replica, hard } => {
                let word = self.words.entry(*replica).or_default();
                let outcome = word.grew(*hard);
                word.durable = *hard;
                (replica, outcome)
            }
            Fact::Reopened { replica, hard, last } => {
                let word = self.words.entry(*replica).or_default();
                (replica, word.found(*hard, *last).and_then(|()| word.grew(*hard)))
            }
            _ => return Ok(()),
        };
        outcome.map_err(|what| format!("replica {} {what}", replica + 1))
    }
}
