//! What the cluster role is told once, what happens to it, and what it wants done: the words between [`super::Agent`] and
//! the shell around it, or the simulation.

use std::collections::BTreeMap;

use protocol::control::{AgentMessage, AttemptState, ClusterInfo, CoordinatorMessage, LaunchOrder};
use protocol::ids::{AttemptId, CommandNumber, GroupName, MonotonicMs, NodeName, ReplicaId};
use protocol::node::NodeClosed;
use protocol::resources::Resources;
use protocol::sku::Sku;

use super::attempt::{Assignment, MemberAssignment};
use super::nodes::{NodeInput, NodeSession};
use super::offer::Offer;
use super::uplink::Pace;

/// A node as `fleet.toml` declares it. Where a node role reports under the same name, its devices are what it measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredNode {
    /// Its name.
    pub name: NodeName,
    /// Its GPU model.
    pub sku: Option<Sku>,
    /// How many GPUs it has.
    pub devices: u16,
    /// Thousandths of a core that can be given out.
    pub cpu_milli: u64,
    /// MiB of memory that can be given out.
    pub memory_mib: u64,
}

/// A node as Kubernetes' API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its name.
    pub name: NodeName,
    /// Its GPU model, by its label or by its driver's word.
    pub sku: Option<Sku>,
    /// How Kubernetes gives out its devices.
    pub offer: Offer,
    /// Thousandths of a core that Kubernetes gives out there.
    pub cpu_milli: u64,
    /// MiB of memory that Kubernetes gives out there.
    pub memory_mib: u64,
    /// Why it takes no new members; none where it does.
    pub closed: Option<String>,
    /// What it has besides, which is not counted, and why; none where that is nothing.
    pub passed_over: Option<String>,
}

/// What the live pods on a node ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodePods {
    /// Pods that do not say that they are of an attempt. Here and below `gpu_milli` is 1000 for each unit of what the node offers.
    pub others: Resources,
    /// Pods that do, by attempt. Of an attempt that holds something by the journal they are counted there.
    pub attempts: BTreeMap<AttemptId, Resources>,
    /// Those pods by name that are of an attempt or ask for devices.
    pub named: BTreeMap<PodName, PodGpus>,
    /// Where claims give the node's devices out: those of its [`ByClaims`](super::ByClaims) that a claim holds, and for which attempt. They are
    /// among the units above.
    pub claimed: BTreeMap<Box<str>, Option<AttemptId>>,
}

/// A pod's name, as its kubelet has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name there.
    pub name: Box<str>,
}

/// What a pod has to do with GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodGpus {
    /// Whose it is, by its label.
    pub attempt: Option<AttemptId>,
    /// How many units of what its node offers it asks for.
    pub gpus: u16,
}

/// What became known of the cluster's Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubernetesInput {
    /// Nodes changed, or what their pods take. The first of these has all nodes.
    Changed {
        /// Nodes that are there, as they are now, each once.
        nodes: Vec<(ClusterNode, NodePods)>,
        /// Nodes that are not there any more.
        gone: Vec<NodeName>,
    },
    /// Everything that happened up to this long ago has been said.
    Current {
        /// How long ago, in ms.
        age_ms: u64,
    },
}

/// What an agent is told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// What the cluster says of itself.
    pub cluster: ClusterInfo,
    /// Declared nodes.
    pub nodes: Vec<DeclaredNode>,
    /// Whether the nodes are those of a Kubernetes cluster: before all of them are known nothing is launched, for it would be refused.
    pub follows_kubernetes: bool,
    /// Time between two requests for the lease, in ms.
    pub lease_every_ms: u64,
    /// Time after which reports that nobody acknowledged are sent again, in ms.
    pub resend_every_ms: u64,
    /// How often capacity goes out.
    pub pace: Pace,
}

impl AgentConfig {
    /// The usual times for this cluster and these nodes.
    pub fn new(cluster: ClusterInfo, nodes: Vec<DeclaredNode>) -> Self {
        let (follows_kubernetes, pace) = (false, Pace::default());
        Self { cluster, nodes, follows_kubernetes, lease_every_ms: 5_000, resend_every_ms: 3_000, pace }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A session to a replica is up. What was sent on an earlier one may be lost.
    Connected {
        /// The replica.
        replica: ReplicaId,
    },
    /// The session is gone.
    Disconnected {
        /// The replica.
        replica: ReplicaId,
    },
    /// A replica said something, in the order in which it was sent.
    FromCoordinator {
        /// The replica.
        replica: ReplicaId,
        /// What it said.
        message: CoordinatorMessage,
    },
    /// The runtime says how far an attempt is. A final state means that nothing of it is left.
    Runtime {
        /// The attempt.
        attempt: AttemptId,
        /// How far it is.
        state: AttemptState,
    },
    /// The runtime says that members of an attempt whose size was changed are not there, or not any more: nothing of them is left.
    Members {
        /// The attempt.
        attempt: AttemptId,
        /// Which, by group and rank.
        gone: Vec<(GroupName, u32)>,
    },
    /// Something happened on a node role's session.
    Node {
        /// The session.
        session: NodeSession,
        /// What happened.
        input: NodeInput,
    },
    /// Something became known of the cluster's Kubernetes.
    Kubernetes(KubernetesInput),
    /// Time passed.
    Tick,
}

/// What the shell is to do, in order. Everything that an output rests on is durable by the time it is returned.
// Nearly all outputs are sends, so that boxing them would cost an allocation each and save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this on the replica's session; drop it where the session is gone.
    Send {
        /// The replica.
        replica: ReplicaId,
        /// What to send.
        message: AgentMessage,
    },
    /// Start this attempt; comes at most once for an attempt in the life of the journal.
    Start {
        /// The command that ordered it.
        number: CommandNumber,
        /// The order.
        order: Box<LaunchOrder>,
        /// Its members' nodes and devices.
        assignment: Assignment,
    },
    /// Give a running attempt these members, and see that those that leave are gone; may come again.
    Resize {
        /// The order, with its newest placement.
        order: Box<LaunchOrder>,
        /// The members that are to be there.
        assignment: Assignment,
        /// Members that are to go and are not known to be gone.
        leaving: Vec<MemberAssignment>,
        /// Between the polite and the hard end of those, in ms.
        grace_ms: u64,
    },
    /// End this attempt and see that it is gone; may come again.
    Stop {
        /// The attempt.
        attempt: AttemptId,
        /// Between the polite and the hard end, in ms.
        grace_ms: u64,
    },
    /// This attempt, which ends itself otherwise, may go on until then, by the clock of whoever steps the role.
    LetGoOn {
        /// The attempt.
        attempt: AttemptId,
        /// Until when; an earlier word than the last one shortens nothing.
        until: MonotonicMs,
    },
    /// The attempt's end is committed: the runtime may drop what it keeps of it.
    Forget {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A node's frame is missing: ask its node role for a full one.
    WantFullFrame {
        /// Its session.
        session: NodeSession,
    },
    /// End a node role's session and tell it why.
    EndNode {
        /// The session.
        session: NodeSession,
        /// Why, for the program.
        why: NodeClosed,
        /// Why, for a person.
        reason: String,
    },
}
