//! What replicas say to each other: Raft's messages, and commands on their way to the leader.

use bincode::{Decode, Encode};
use engine::commands::Command;
use protocol::ids::ReplicaId;

use super::{Now, ProposalId, Replica};
use crate::handle::ProposeError;
use crate::raft::wire::PeerMessage;

/// One message between replicas.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PeerFrame {
    /// Raft's own.
    Raft(PeerMessage),
    /// A follower passes a command on. It answers its client when it applies the entry with this id.
    Forward {
        /// The proposal.
        id: ProposalId,
        /// The command.
        command: Command,
    },
    /// The command was not taken; nothing changed.
    ForwardRefused {
        /// The proposal.
        id: ProposalId,
        /// Whether there is too much in flight; else the receiver does not lead.
        overloaded: bool,
    },
}

protocol::limits! {
    PeerFrame: 64 * 1024 * 1024,
}

impl Replica {
    pub(super) fn peer(&mut self, now: Now, from: ReplicaId, frame: PeerFrame) {
        match frame {
            PeerFrame::Raft(message) => {
                if let Err(refused) = self.driver.receive(from, message) {
                    tracing::warn!(%from, %refused, "refused a peer's message");
                }
            }
            PeerFrame::Forward { id, command } => {
                if let Err(error) = self.append_for(now, id, command) {
                    let overloaded = error == ProposeError::Overloaded;
                    self.outputs.push(super::Output::Peer(from, PeerFrame::ForwardRefused { id, overloaded }));
                }
            }
            PeerFrame::ForwardRefused { id, overloaded } => {
                let error = if overloaded { ProposeError::Overloaded } else { ProposeError::Unconfirmed };
                self.answer(id, Err(error));
            }
        }
    }
}

impl PeerFrame {
    /// Whether it carries a snapshot of the state, which may be large.
    pub fn has_snapshot(&self) -> bool {
        matches!(self, PeerFrame::Raft(message) if message.snapshot.is_some())
    }
}
