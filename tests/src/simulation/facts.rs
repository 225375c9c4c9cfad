//! What is seen of a world: the only thing that invariants look at. Most are of what crosses a boundary (a message, an order
//! to a runtime, an answer to a client); the rest is read from disks and states, as data.

use std::fmt;

use agent::cluster::{Assignment, MemberAssignment};
use coordinator::raft::Store;
use coordinator::raft::wire::{HardState, PeerMessage};
use engine::commands::Command;
use engine::state::State;
use protocol::control::{AgentMessage, AttemptState, LaunchOrder, Order};
use protocol::ids::{AttemptId, CommandNumber, Epoch, LogIndex, ReplicaId, Uid, UnixMs, WorkloadKey};
use protocol::workload::WorkloadSpec;

use super::process::Process;
use super::runtime::Name;

/// What came of bits turned over on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Opening refused.
    Refused,
    /// It opened, and holds what was written.
    Harmless,
    /// It opened, and holds something else.
    Served(String),
}

/// Something that was seen.
pub(crate) enum Fact<'a> {
    /// A client sends a submission for the first time.
    Submitting { uid: Uid, key: &'a WorkloadKey, spec: &'a WorkloadSpec },
    /// A client was told that its submission is in.
    Submitted { uid: Uid },
    /// A client asks for an end for the first time.
    Ending { uid: Uid, delete: bool },
    /// A client was told that the end is coming.
    Ended { uid: Uid, delete: bool },
    /// A client was refused what it may not be refused.
    Refused { what: String },
    /// A client's linearizable read, begun at `since_us`, sees this.
    Read { since_us: u64, state: &'a State },
    /// A replica's state after entries were applied.
    Applied { state: &'a State, changed: &'a [WorkloadKey] },
    /// The hash of a replica's state after an index.
    Hash { replica: usize, index: u64, hash: u32 },
    /// A replica holds this to be committed.
    Committed { replica: usize, index: u64, term: u64, digest: u64 },
    /// A command of the log that is committed.
    Entry { index: LogIndex, at: UnixMs, command: &'a Command },
    /// A replica became leader.
    Elected { replica: usize, term: u64, store: &'a Store },
    /// A replica says this to a peer.
    Says { replica: usize, message: &'a PeerMessage },
    /// A replica's hard state, which it holds to be durable.
    Durable { replica: usize, hard: HardState },
    /// A replica's disk as it was found after a restart.
    Reopened { replica: usize, hard: HardState, last: u64 },
    /// A binding that was planned in an old epoch was proposed late, and this came of it.
    LateBinding { planned_in: Epoch, taken: bool },
    /// Bits were turned over on a copy of a disk.
    Aged { process: Process, damage: Damage },
    /// A command, or a lease that answers an open request, reached an agent, which made it its own.
    AgentHeard { agent: usize, replica: ReplicaId, epoch: Epoch, command: Option<(CommandNumber, &'a Order)> },
    /// Whom an agent takes for the leader now.
    AgentFollows { agent: usize, leader: Option<ReplicaId> },
    /// An agent says this on a session.
    AgentSays { agent: usize, session: u64, message: &'a AgentMessage },
    /// An agent orders its runtime to start an attempt.
    StartOrdered { agent: usize, attempt: AttemptId },
    /// An agent orders its runtime to stop an attempt.
    StopOrdered { agent: usize, attempt: AttemptId },
    /// A runtime took an attempt: from now on it may be alive.
    Taken { cluster: usize, order: &'a LaunchOrder, assignment: &'a Assignment },
    /// What a runtime took begins to run.
    Begun { cluster: usize, attempt: AttemptId },
    /// Members came to an attempt that a runtime holds: these, of all that are to be there.
    MembersCame { cluster: usize, order: &'a LaunchOrder, assignment: &'a Assignment, members: &'a [MemberAssignment] },
    /// A member of an attempt is gone, which goes on.
    MemberGone { cluster: usize, attempt: AttemptId, member: &'a Name },
    /// A runtime's attempt is gone.
    Gone { cluster: usize, attempt: AttemptId, state: &'a AttemptState },
    /// A process started.
    Started { process: Process },
    /// A process died because the world wanted it to.
    Crashed { process: Process, how: &'a str },
    /// A process died by itself.
    Died { process: Process, cause: String },
    /// A process went on though its disk had failed.
    WentOn { process: Process },
    /// An agent's machine is gone with all that ran on it, and an empty one takes its place.
    Replaced { agent: usize },
    /// A fault began.
    Fault { what: String },
    /// Faults are over.
    Calm,
    /// Everything is done.
    Done { states: Vec<&'a State> },
    /// Not everything was done in time; this is left.
    Stuck { left: String },
}

impl Fact<'_> {
    /// The fact as a line of the story; none for what comes too often to be told.
    pub fn text(&self) -> Option<String> {
        let text = match self {
            Fact::Submitting { uid, key, .. } => format!("a client submits {key} ({})", Short(*uid)),
            Fact::Submitted { uid } => format!("{} is acknowledged", Short(*uid)),
            Fact::Ending { uid, delete } => format!("a client asks to {} {}", end(*delete), Short(*uid)),
            Fact::Ended { uid, delete } => format!("to {} {} is acknowledged", end(*delete), Short(*uid)),
            Fact::Refused { what } => format!("a client is refused: {what}"),
            Fact::Elected { replica, term, .. } => format!("replica {} leads in term {term}", replica + 1),
            Fact::Reopened { replica, hard, last } => format!("replica {} found {hard:?}, log to {last}", replica + 1),
            Fact::LateBinding { planned_in, taken } => {
                format!(
                    "a binding of epoch {planned_in} came late and was {}",
                    if *taken { "taken" } else { "refused" }
                )
            }
            Fact::Aged { process, damage } => format!("bits of {process}'s disk turned over: {damage:?}"),
            Fact::AgentHeard { agent, epoch, command: Some((number, order)), .. } => {
                let what = match order {
                    Order::Launch(launch) => format!("launch {}", Attempt(launch.attempt)),
                    Order::Resize(resize) => format!("resize {}", Attempt(resize.attempt)),
                    Order::Stop(stop) => format!("stop {}", Attempt(stop.attempt)),
                };
                format!("agent {} hears command {number} of epoch {epoch}: {what}", agent + 1)
            }
            Fact::AgentSays { agent, message: AgentMessage::Report(report), .. } => {
                let attempt = Attempt(report.attempt);
                format!("agent {} reports {attempt} revision {}: {:?}", agent + 1, report.revision, report.state)
            }
            Fact::AgentSays { agent, session, message: AgentMessage::Hello { last_command, attempts, .. } } => {
                let held = attempts.len();
                format!("agent {} says hello on session {session}: command {last_command}, {held} attempts", agent + 1)
            }
            Fact::StartOrdered { agent, attempt } => {
                format!("agent {} orders the start of {}", agent + 1, Attempt(*attempt))
            }
            Fact::StopOrdered { agent, attempt } => {
                format!("agent {} orders the end of {}", agent + 1, Attempt(*attempt))
            }
            Fact::Begun { cluster, attempt } => format!("{} begins in cluster {}", Attempt(*attempt), cluster + 1),
            Fact::Taken { cluster, order, .. } => format!("runtime {} takes {}", cluster + 1, Attempt(order.attempt)),
            Fact::MembersCame { cluster, order, members, .. } => {
                format!("runtime {}: {} members come to {}", cluster + 1, members.len(), Attempt(order.attempt))
            }
            Fact::MemberGone { cluster, attempt, member: (group, rank) } => {
                format!("runtime {}: member {group}-{rank} of {} is gone", cluster + 1, Attempt(*attempt))
            }
            Fact::Gone { cluster, attempt, state } => {
                format!("runtime {}: {} is gone: {state:?}", cluster + 1, Attempt(*attempt))
            }
            Fact::Started { process } => format!("{process} starts"),
            Fact::Crashed { process, how } => format!("{process} crashes ({how})"),
            Fact::Died { process, cause } => format!("{process} died: {cause}"),
            Fact::WentOn { process } => format!("{process} goes on though its disk failed"),
            Fact::Replaced { agent } => format!("fault: the machine of agent {} is replaced", agent + 1),
            Fact::Fault { what } => format!("fault: {what}"),
            Fact::Calm => "faults are over".into(),
            Fact::Done { .. } => "everything is done".into(),
            Fact::Stuck { left } => format!("left: {left}"),
            Fact::Hash { .. }
            | Fact::Read { .. }
            | Fact::Applied { .. }
            | Fact::Committed { .. }
            | Fact::Entry { .. }
            | Fact::Says { .. }
            | Fact::Durable { .. }
            | Fact::AgentHeard { command: None, .. }
            | Fact::AgentFollows { .. }
            | Fact::AgentSays { .. } => return None,
        };
        Some(text)
    }
}

fn end(delete: bool) -> &'static str {
    if delete { "delete" } else { "cancel" }
}

/// A uid as short as a story needs it: uids of a world differ in their lowest bits.
pub(crate) struct Short(pub Uid);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0.0 & 0xffff)
    }
}

/// An attempt, as short.
pub(crate) struct Attempt(pub AttemptId);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", Short(self.0.workload), self.0.number)
    }
}
