//! Which commands are acted upon, and when: each number once, in order, never under an old epoch, launches only under a
//! lease. Holds commands that wait; touches nothing else. [`super::Agent`] carries out what comes out.

use std::collections::VecDeque;

use protocol::control::Order;
use protocol::ids::{CommandNumber, Epoch, ReplicaId};

use crate::planted;

/// A command that is neither a duplicate nor old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub replica: ReplicaId,
    pub number: CommandNumber,
    pub epoch: Epoch,
    pub order: Order,
}

/// What became of a command that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits for its turn.
    Queued,
    /// It was acted upon before: say again how its attempt is.
    Duplicate,
    /// A leader that was since replaced sent it; dropped.
    OldEpoch,
}

/// The inbox.
#[derive(Debug)]
pub(crate) struct Inbox {
    last: CommandNumber,
    epoch: Epoch,
    held: VecDeque<Held>,
}

impl Inbox {
    pub fn new(last: CommandNumber, epoch: Epoch) -> Self {
        Self { last, epoch, held: VecDeque::new() }
    }

    /// The highest number that was acted upon.
    pub fn last(&self) -> CommandNumber {
        self.last
    }

    /// The highest epoch seen.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Takes note of an epoch; true where it is higher than any before. What older leaders left waiting is dropped: the
    /// new leader sends it again, if it still stands.
    pub fn saw_epoch(&mut self, epoch: Epoch) -> bool {
        if epoch <= self.epoch {
            return false;
        }
        self.epoch = epoch;
        if !planted::is("ignore-epoch") {
            self.held.retain(|h| h.epoch >= epoch);
        }
        true
    }

    /// Takes in a command, whose epoch was noted before.
    pub fn offer(&mut self, held: Held) -> Verdict {
        if held.epoch < self.epoch && !planted::is("ignore-epoch") {
            return Verdict::OldEpoch;
        }
        if held.number <= self.last {
            return Verdict::Duplicate;
        }
        // A leader numbers what it sends on a session in growing order; the same number twice is a duplicate in waiting.
        match self.held.binary_search_by_key(&held.number, |h| h.number) {
            Ok(at) => self.held[at] = held,
            Err(at) => self.held.insert(at, held),
        }
        Verdict::Queued
    }

    /// The next command whose turn it is. A launch or resize that may not begin waits, and everything behind it: acting on a higher
    /// number first would make the lower one a duplicate.
    pub fn next(&mut self, may_launch: bool) -> Option<Held> {
        let first = self.held.front()?;
        if matches!(first.order, Order::Launch(_) | Order::Resize(_)) && !may_launch {
            return None;
        }
        let held = self.held.pop_front()?;
        self.last = held.number;
        Some(held)
    }

    /// A session ended: what it sent and was not acted upon is sent again on a later one.
    pub fn disconnected(&mut self, replica: ReplicaId) {
        self.held.retain(|h| h.replica != replica);
    }

    /// How many commands wait.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use protocol::control::{StopCause, StopOrder};
    use protocol::ids::{AttemptId, AttemptNumber, Uid};

    use super::*;

    fn stop(replica: u64, number: u64, epoch: u64) -> Held {
        let attempt = AttemptId { workload: Uid(1), number: AttemptNumber(1) };
        Held {
            replica: ReplicaId(replica),
            number: CommandNumber(number),
            epoch: Epoch(epoch),
            order: Order::Stop(StopOrder { attempt, cause: StopCause::Cancelled, grace_ms: 0 }),
        }
    }

    #[test]
    fn a_number_comes_out_once_however_often_it_goes_in() {
        let mut inbox = Inbox::new(CommandNumber(3), Epoch(1));
        assert_eq!(inbox.offer(stop(1, 3, 1)), Verdict::Duplicate);
        assert_eq!(inbox.offer(stop(1, 4, 1)), Verdict::Queued);
        assert_eq!(inbox.offer(stop(1, 4, 1)), Verdict::Queued);
        assert_eq!(inbox.next(true).map(|h| h.number), Some(CommandNumber(4)));
        assert_eq!(inbox.next(true), None);
        assert_eq!(inbox.offer(stop(1, 4, 1)), Verdict::Duplicate);
    }

    #[test]
    fn a_newer_epoch_replaces_what_older_leaders_left_waiting() {
        let mut inbox = Inbox::new(CommandNumber(0), Epoch(1));
        inbox.offer(stop(1, 1, 1));
        inbox.offer(stop(1, 2, 1));
        assert!(inbox.saw_epoch(Epoch(2)) && !inbox.saw_epoch(Epoch(2)));
        assert_eq!(inbox.offer(stop(2, 2, 2)), Verdict::Queued);
        assert_eq!(inbox.offer(stop(1, 3, 1)), Verdict::OldEpoch);
        assert_eq!(inbox.next(true), Some(stop(2, 2, 2)));
        assert_eq!(inbox.next(true), None);
    }

    #[test]
    fn an_ended_session_takes_its_waiting_commands_along() {
        let mut inbox = Inbox::new(CommandNumber(0), Epoch(1));
        inbox.offer(stop(1, 1, 1));
        inbox.disconnected(ReplicaId(1));
        assert_eq!((inbox.waiting(), inbox.last()), (0, CommandNumber(0)));
    }
}
