//! What will happen, in order of virtual time; what is due at the same moment happens in the order in which it was planned.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use agent::cluster::Input as AgentInput;
use coordinator::replica::{Input as ReplicaInput, PeerFrame};
use protocol::control::AttemptState;
use protocol::ids::AttemptId;

use super::clients::Answer;
use super::faults::Fault;
use super::network::Trouble;
use super::process::Process;
use super::runtime::Name;

/// Something that will happen. Replicas, agents, clusters and clients are named by their place, from 0.
pub(crate) enum Event {
    /// A process's timer; `life` tells a timer of an earlier life.
    Tick { process: Process, life: u64 },
    /// A replica gathered its inputs.
    Flush { replica: usize, life: u64 },
    /// A message between replicas arrives.
    Peer { from: usize, to: usize, frame: PeerFrame },
    /// A replica hears of the fate of what it sent, or another thing of its own.
    Own { replica: usize, life: u64, input: ReplicaInput },
    /// The next message of a link's stream is due at its end.
    Carry { link: u64, up: bool },
    /// One end of a link learns that the connection is there.
    Opened { link: u64, at_agent: bool },
    /// One end of a link learns that the connection is gone.
    Closed { link: u64, at_agent: bool },
    /// All links are looked after: idle ones end, missing ones are made.
    TendLinks,
    /// The runtime takes the next order of its agent.
    TakeOrder { cluster: usize, life: u64 },
    /// An attempt goes on.
    Run { cluster: usize, attempt: AttemptId, state: AttemptState },
    /// An attempt ends itself, unless it was let go on meanwhile.
    Fence { cluster: usize, attempt: AttemptId },
    /// A member of an attempt ends.
    MemberEnds { cluster: usize, attempt: AttemptId, member: Name },
    /// An agent hears from its runtime.
    Agent { agent: usize, life: u64, input: AgentInput },
    /// A client begins an operation.
    Client { client: usize },
    /// An operation reaches a replica.
    Ask { operation: u64, replica: usize },
    /// A client hears an answer.
    Hear { operation: u64, answer: Answer },
    /// A client has waited long enough for this try.
    GiveUp { operation: u64, attempt: u32 },
    /// A fault begins; its number names its own stream of chance.
    Fault(usize, Fault),
    /// Trouble that a fault put off begins.
    Trouble { trouble: Trouble, until_us: u64 },
    /// A partition or weather of this number is over.
    Heal(u64),
    /// A paused process goes on.
    Resume { process: Process, life: u64 },
    /// A crashed process starts again.
    Restart { process: Process },
    /// The person looks at what nobody else sees.
    Operator,
    /// Faults are over: everything is mended.
    Calm,
    /// Is everything done?
    Look,
}

struct Planned {
    at_us: u64,
    number: u64,
    event: Event,
}

impl Planned {
    fn key(&self) -> (u64, u64) {
        (self.at_us, self.number)
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// The queue.
#[derive(Default)]
pub(crate) struct Queue {
    planned: BinaryHeap<Reverse<Planned>>,
    number: u64,
}

impl Queue {
    pub fn add(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        self.planned.push(Reverse(Planned { at_us, number: self.number, event }));
    }

    pub fn next(&mut self) -> Option<(u64, Event)> {
        self.planned.pop().map(|Reverse(planned)| (planned.at_us, planned.event))
    }
}
