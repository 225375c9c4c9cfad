//! Who leads, as one replica sees it: what to ask the API server next, and what its answers mean. Pure: time comes in.
//!
//! The rules are those of client-go's leader election, and stricter in three points. A leader counts from when it *asked* for a renewal, and
//! stops at its deadline, which is shorter than the Lease's duration. A candidate counts the duration from when it *saw* the Lease change, on its own
//! clock; any change begins it anew. Nobody compares the times that stand in the Lease: they are for people. Where no Lease is, a
//! leader may have had one that somebody deleted: whoever makes it anew leads only once that leader must have stopped.

use protocol::ids::MonotonicMs;

use super::lease::Seen;
use super::settings::LeaseTimes;

/// Between two looks of a candidate, in ms: a Lease that was released is taken that soon.
const LOOK_MS: u64 = 250;

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Ask this, now.
    Ask(Ask),
    /// Nothing, until then.
    Wait(MonotonicMs),
    /// End: the Lease is lost.
    Lost(Lost),
}

/// What to ask the API server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask {
    /// Read the Lease.
    Look,
    /// Make it, or take it over from what was read.
    Take(Option<Seen>),
    /// Write it again, over what was written last.
    Renew(Seen),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The Lease is so: read, or just written.
    Is(Seen),
    /// There is none.
    Absent,
    /// It was changed meanwhile, or made by somebody else; nothing was written.
    Conflict,
    /// Nothing that helps; it may have been written all the same.
    Failed,
}

/// How a leader lost the Lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    /// No renewal succeeded in time.
    #[error("it could not be renewed within {} s", .deadline_ms / 1000)]
    Deadline { deadline_ms: u64 },
    /// Somebody else has it.
    #[error("{holder} has it now")]
    Taken { holder: String },
    /// Nobody has it: a person gave it away or deleted it.
    #[error("somebody deleted it or took its holder out")]
    Gone,
}

#[derive(Debug)]
enum Standing {
    Candidate {
        look_at: MonotonicMs,
        /// Somebody else's Lease, with when it was first seen so.
        other: Option<(Seen, MonotonicMs)>,
        /// Since when there is none.
        absent_since: Option<MonotonicMs>,
        take: Option<Option<Seen>>,
    },
    Leader {
        lease: Seen,
        /// From then on it may act.
        from: MonotonicMs,
        /// From then on it may not.
        until: MonotonicMs,
        renew_at: MonotonicMs,
        /// Somebody changed the Lease: whose is it?
        look: bool,
    },
    Lost(Lost),
}

/// One replica in the election.
#[derive(Debug)]
pub(super) struct Election {
    me: String,
    times: LeaseTimes,
    standing: Standing,
}

impl Election {
    /// A candidate of this name, which no other replica ever has.
    pub(super) fn new(me: String, times: LeaseTimes, now: MonotonicMs) -> Self {
        let standing = Standing::Candidate { look_at: now, other: None, absent_since: None, take: None };
        Self { me, times, standing }
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: MonotonicMs) -> Next {
        match &mut self.standing {
            Standing::Candidate { take, look_at, .. } => match take.take() {
                Some(over) => Next::Ask(Ask::Take(over)),
                None if now >= *look_at => Next::Ask(Ask::Look),
                None => Next::Wait(*look_at),
            },
            Standing::Leader { until, .. } if now >= *until => {
                let lost = Lost::Deadline { deadline_ms: self.times.deadline_ms() };
                self.standing = Standing::Lost(lost.clone());
                Next::Lost(lost)
            }
            Standing::Leader { look: true, renew_at, .. } if now >= *renew_at => Next::Ask(Ask::Look),
            Standing::Leader { lease, renew_at, .. } if now >= *renew_at => Next::Ask(Ask::Renew(lease.clone())),
            Standing::Leader { from, until, renew_at, .. } => {
                let begin = if now < *from { *from } else { *until };
                Next::Wait((*until).min(*renew_at).min(begin))
            }
            Standing::Lost(lost) => Next::Lost(lost.clone()),
        }
    }

    /// Something is to be written into the Lease at once.
    pub(super) fn hurry(&mut self, now: MonotonicMs) {
        if let Standing::Leader { renew_at, .. } = &mut self.standing {
            *renew_at = (*renew_at).min(now);
        }
    }

    /// What was asked at `asked` has come to this, now.
    pub(super) fn answered(&mut self, ask: &Ask, asked: MonotonicMs, answer: Answer, now: MonotonicMs) {
        match (&self.standing, ask) {
            (Standing::Candidate { .. }, Ask::Look) => self.candidate_saw(answer, now),
            (Standing::Candidate { .. }, _) => self.took(asked, answer, now),
            (Standing::Leader { .. }, Ask::Look) => self.leader_saw(answer, now),
            (Standing::Leader { .. }, _) => self.renewed(asked, answer, now),
            (Standing::Lost(_), _) => {}
        }
    }

    fn candidate_saw(&mut self, answer: Answer, now: MonotonicMs) {
        let Standing::Candidate { look_at, other, absent_since, take } = &mut self.standing else { return };
        *look_at = now.plus(LOOK_MS);
        match answer {
            Answer::Absent => {
                absent_since.get_or_insert(now);
                *take = Some(None);
            }
            // An earlier request of this very replica, which had no answer: it leads by an answer only, so that it asks again.
            Answer::Is(seen) if seen.holder.is_none() || seen.holder.as_ref() == Some(&self.me) => {
                *take = Some(Some(seen));
            }
            Answer::Is(seen) => {
                *absent_since = None;
                if other.as_ref().is_none_or(|(known, _)| known.version != seen.version) {
                    *other = Some((seen, now));
                }
                if let Some((seen, since)) = other
                    && now.since(*since) >= self.times.duration_ms().max(seen.duration_ms)
                {
                    *take = Some(Some(seen.clone()));
                }
            }
            Answer::Conflict | Answer::Failed => {}
        }
    }

    fn took(&mut self, asked: MonotonicMs, answer: Answer, now: MonotonicMs) {
        let Standing::Candidate { look_at, absent_since, .. } = &mut self.standing else { return };
        match answer {
            Answer::Is(lease) => {
                let from = absent_since.map_or(asked, |since| since.plus(self.times.duration_ms()));
                let (until, renew_at) = (asked.plus(self.times.deadline_ms()), asked.plus(self.times.retry_ms()));
                self.standing = Standing::Leader { lease, from, until, renew_at, look: false };
            }
            Answer::Conflict => *look_at = now,
            Answer::Absent | Answer::Failed => *look_at = now.plus(LOOK_MS),
        }
    }

    fn renewed(&mut self, asked: MonotonicMs, answer: Answer, now: MonotonicMs) {
        let Standing::Leader { lease, until, renew_at, look, .. } = &mut self.standing else { return };
        match answer {
            Answer::Is(written) => {
                *lease = written;
                *until = (*until).max(asked.plus(self.times.deadline_ms()));
                *renew_at = asked.plus(self.times.retry_ms());
            }
            Answer::Conflict => (*look, *renew_at) = (true, now),
            Answer::Absent => self.standing = Standing::Lost(Lost::Gone),
            Answer::Failed => *renew_at = now.plus(self.times.retry_ms()),
        }
    }

    fn leader_saw(&mut self, answer: Answer, now: MonotonicMs) {
        let Standing::Leader { lease, renew_at, look, .. } = &mut self.standing else { return };
        match answer {
            // A renewal that had no answer, or a person who changed something else: it is written over.
            Answer::Is(seen) if seen.holder.as_ref() == Some(&self.me) => {
                (*lease, *look, *renew_at) = (seen, false, now);
            }
            Answer::Is(Seen { holder: Some(holder), .. }) => self.standing = Standing::Lost(Lost::Taken { holder }),
            Answer::Is(_) | Answer::Absent => self.standing = Standing::Lost(Lost::Gone),
            Answer::Conflict | Answer::Failed => *renew_at = now.plus(self.times.retry_ms()),
        }
    }

    /// Up to when it may act, where it may now.
    pub(super) fn acts(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        match &self.standing {
            Standing::Leader { from, until, .. } if (*from..*until).contains(&now) => Some(*until),
            _ => None,
        }
    }

    /// Whether others may take the Lease from it at once. Not while a leader may act whose Lease was deleted: then they wait as long as this one
    /// would have.
    pub(super) fn may_release(&self, now: MonotonicMs) -> bool {
        match &self.standing {
            Standing::Candidate { absent_since, .. } => absent_since.is_none(),
            Standing::Leader { from, .. } => now >= *from,
            Standing::Lost(_) => false,
        }
    }

    /// From when on it may act by what it holds, and until when.
    pub(super) fn holds(&self) -> Option<(MonotonicMs, MonotonicMs)> {
        match &self.standing {
            Standing::Leader { from, until, .. } => Some((*from, *until)),
            _ => None,
        }
    }

    /// The Lease as it was last known to be; none where it was not read yet or there is none.
    pub(super) fn lease(&self) -> Option<&Seen> {
        match &self.standing {
            Standing::Leader { lease, .. } => Some(lease),
            Standing::Candidate { other: Some((seen, _)), .. } => Some(seen),
            _ => None,
        }
    }
}
