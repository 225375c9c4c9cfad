//! Commands on their way into the log, and who waits for what comes of them.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use engine::commands::{Command, Outcome};
use protocol::ids::{LogIndex, MonotonicMs, ReplicaId, UnixMs};

use super::{Now, Output, PeerFrame, Replica, RequestId, planned};
use crate::handle::ProposeError;
use crate::planted;
use crate::raft::driver::ProposeError as AppendError;

/// Names a proposal in the whole coordinator cluster, over restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ProposalId {
    /// Whose client waits.
    pub replica: ReplicaId,
    /// Which run of that replica's process.
    pub boot: u64,
    /// Its number there.
    pub number: u64,
}

/// What an entry of the log holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Entry {
    pub id: ProposalId,
    pub at: UnixMs,
    pub command: Command,
}

protocol::limits! {
    Entry: 4 * 1024 * 1024,
}

/// The command of a log entry's payload, and when it was proposed; none where it is not one. For checkers.
pub fn command_of(payload: &[u8]) -> Option<(Command, UnixMs)> {
    let entry: Entry = protocol::codec::decode_body(payload).ok()?;
    Some((entry.command, entry.at))
}

#[derive(Debug)]
struct Waiter {
    request: RequestId,
    deadline: MonotonicMs,
    /// Kept until a leader is known.
    unsent: Option<Command>,
}

/// Proposals of this replica's clients that are not applied yet.
#[derive(Debug)]
pub struct Proposals {
    replica: ReplicaId,
    boot: u64,
    next: u64,
    waiters: BTreeMap<ProposalId, Waiter>,
    /// What this replica's driver took in this leadership and has not committed, by the number that it was given.
    taken: BTreeMap<u64, Taken>,
}

/// Who is to hear if Raft drops a proposal after all.
#[derive(Debug)]
enum Taken {
    /// A client of the replica that the id names.
    Client(ProposalId),
    /// Whoever makes it again.
    Own(Command),
}

/// For the planted bug `ack-before-commit`: an answer that nobody has agreed to.
fn early_answer(command: &Command) -> Option<Outcome> {
    matches!(command, Command::Submit { .. }).then_some(Outcome::Submitted { version: LogIndex(0), existed: false })
}

/// The most requests that may wait at once; more are told to come again.
const MOST_WAITING: usize = 100_000;

impl Proposals {
    pub(super) fn new(replica: ReplicaId, boot: u64) -> Self {
        Self { replica, boot, next: 0, waiters: BTreeMap::new(), taken: BTreeMap::new() }
    }

    fn id(&mut self) -> ProposalId {
        self.next += 1;
        ProposalId { replica: self.replica, boot: self.boot, number: self.next }
    }
}

impl Replica {
    /// A client's command: into the log here if this replica leads, else to the leader, else kept until there is one.
    pub(super) fn propose_for(&mut self, now: Now, request: RequestId, command: Command) {
        if self.proposals.waiters.len() >= MOST_WAITING {
            self.outputs.push(Output::Proposed(request, Err(ProposeError::Overloaded)));
            return;
        }
        let id = self.proposals.id();
        let deadline = now.mono.plus(self.settings.patience_ms);
        let early = planted::is("ack-before-commit").then(|| early_answer(&command)).flatten();
        let unsent = self.send_on(now, id, command);
        if let (Some(outcome), None) = (early, &unsent) {
            return self.outputs.push(Output::Proposed(request, Ok(outcome)));
        }
        if let Some(Err(error)) = unsent {
            self.outputs.push(Output::Proposed(request, Err(error)));
            return;
        }
        let unsent = unsent.and_then(Result::ok);
        self.proposals.waiters.insert(id, Waiter { request, deadline, unsent });
    }

    /// Tries to get a command on its way. None: done. Some(Ok(command)): no leader is known yet.
    fn send_on(&mut self, now: Now, id: ProposalId, command: Command) -> Option<Result<Command, ProposeError>> {
        match self.status.leader {
            Some(leader) if leader == self.settings.id => self.append_for(now, id, command).err().map(Err),
            Some(leader) => {
                self.outputs.push(Output::Peer(leader, PeerFrame::Forward { id, command }));
                None
            }
            None => Some(Ok(command)),
        }
    }

    /// This leader's own command (sessions, planner). If it is lost, its maker makes it again.
    pub(super) fn propose_own(&mut self, now: Now, command: Command) {
        let id = self.proposals.id();
        match self.append(now, id, command.clone()) {
            Ok(number) => {
                self.proposals.taken.insert(number, Taken::Own(command));
            }
            Err(_) => self.own_lost(&command),
        }
    }

    fn own_lost(&mut self, command: &Command) {
        self.sessions.proposal_lost(command);
        if let Some(planned) = planned(command) {
            self.planned.remove(&planned);
        }
    }

    /// Appends a client's command, of this replica or of one that passed it on, to the log of this leader.
    pub(super) fn append_for(&mut self, now: Now, id: ProposalId, command: Command) -> Result<(), ProposeError> {
        let number = self.append(now, id, command)?;
        self.proposals.taken.insert(number, Taken::Client(id));
        Ok(())
    }

    fn append(&mut self, now: Now, id: ProposalId, command: Command) -> Result<u64, ProposeError> {
        let entry = Entry { id, at: now.unix, command };
        let bytes = protocol::codec::encode_body(&entry).map_err(|_| ProposeError::Overloaded)?;
        // The driver's number is this replica's own: an id that was passed on may have another's number.
        let number = self.proposals.id().number;
        self.driver.propose(number, bytes).map_err(|error| match error {
            AppendError::NotLeader { .. } => ProposeError::Unconfirmed,
            AppendError::Stopped => ProposeError::ShuttingDown,
            AppendError::Overloaded | AppendError::TooLarge { .. } => ProposeError::Overloaded,
        })?;
        Ok(number)
    }

    /// The driver's proposal with this number is committed: nobody has to hear of a loss any more.
    pub(super) fn proposal_committed(&mut self, number: u64) {
        self.proposals.taken.remove(&number);
    }

    /// Raft dropped a proposal that it had taken: it is certain that nothing came of it.
    pub(super) fn proposal_dropped(&mut self, number: u64) {
        match self.proposals.taken.remove(&number) {
            Some(Taken::Own(command)) => self.own_lost(&command),
            Some(Taken::Client(id)) if id.replica == self.settings.id => self.answer(id, Err(ProposeError::Overloaded)),
            Some(Taken::Client(id)) => {
                let refused = PeerFrame::ForwardRefused { id, overloaded: true };
                self.outputs.push(Output::Peer(id.replica, refused));
            }
            None => {}
        }
    }

    /// How many proposals are on their way.
    #[cfg(test)]
    pub(super) fn proposals_taken(&self) -> usize {
        self.proposals.taken.len()
    }

    /// Tells a waiting client what came of its command.
    pub(super) fn answer(&mut self, id: ProposalId, result: Result<Outcome, ProposeError>) {
        if let Some(waiter) = self.proposals.waiters.remove(&id) {
            self.outputs.push(Output::Proposed(waiter.request, result));
        }
    }

    /// The leader changed. What went to the old one may be lost: clients hear so and may send again; what waited goes on.
    pub(super) fn leader_changed(&mut self, now: Now) {
        self.proposals.taken.clear();
        let ids: Vec<ProposalId> = self.proposals.waiters.keys().copied().collect();
        for id in ids {
            let Some(waiter) = self.proposals.waiters.get_mut(&id) else { continue };
            match waiter.unsent.take() {
                None => self.answer(id, Err(ProposeError::Unconfirmed)),
                Some(command) => match self.send_on(now, id, command) {
                    None => {}
                    Some(Ok(command)) => {
                        if let Some(waiter) = self.proposals.waiters.get_mut(&id) {
                            waiter.unsent = Some(command);
                        }
                    }
                    Some(Err(error)) => self.answer(id, Err(error)),
                },
            }
        }
    }

    /// Requests whose time is over are answered.
    pub(super) fn expire(&mut self, now: Now) {
        let over: Vec<ProposalId> =
            self.proposals.waiters.iter().filter(|(_, w)| now.mono >= w.deadline).map(|(id, _)| *id).collect();
        for id in over {
            self.answer(id, Err(ProposeError::Unconfirmed));
        }
        self.expire_reads(now);
    }
}
