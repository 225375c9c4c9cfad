//! How the edges (HTTP, pages, tests) talk to a replica's core: requests on a channel, answers on one-shot channels.
//!
//! The core is one thread that owns Raft, state, sessions and planner. A read is a closure that the core runs once the
//! wished consistency is reached, so that no lock is needed; it must be short.

use engine::capacity::Capacity;
use engine::commands::{Command, Outcome, Refusal};
use engine::plan::{Memory, Plan};
use engine::state::State;
use protocol::api::NodeStatus;
use protocol::ids::{
    AttemptId, ClusterName, DataName, Epoch, LogIndex, Namespace, PoolName, ReplicaId, UnixMs, WorkloadKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot};

/// How recent a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Everything acknowledged before the read began is seen (ReadIndex through the leader).
    Linearizable,
    /// What this replica has applied, at once.
    Stale,
}

/// What a read sees.
pub struct View<'a> {
    /// The replicated state as of `state.applied`.
    pub state: &'a State,
    /// Capacity as this replica hears it from the agents.
    pub capacity: &'a Capacity,
    /// The last plan of this replica, where it leads; else none (compute with `engine::plan` where needed).
    pub plan: Option<&'a Plan>,
    /// What the planner of this replica remembers: nothing yet where it does not lead.
    pub memory: &'a Memory,
    /// Nodes and their devices one by one, where this replica keeps them.
    pub fleet: Option<&'a dyn NodeSource>,
    /// This replica's place in the cluster.
    pub status: &'a ReplicaStatus,
    /// Now, by this replica's clock.
    pub now: UnixMs,
}

/// Where a view finds nodes with their devices one by one; [`Capacity`] has only sums.
pub trait NodeSource {
    /// All nodes of a cluster, in row order; empty for a cluster that is not known.
    fn nodes(&self, cluster: &ClusterName) -> Vec<NodeStatus>;

    /// At most `limit` of them, the first ones: a page shows no more, and a read must be short.
    fn first_nodes(&self, cluster: &ClusterName, limit: usize) -> Vec<NodeStatus> {
        let mut nodes = self.nodes(cluster);
        nodes.truncate(limit);
        nodes
    }
}

/// A replica's place in the coordinator cluster.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// This replica.
    pub id: ReplicaId,
    /// The leader that it knows, if any.
    pub leader: Option<ReplicaId>,
    /// Its Raft term.
    pub term: Epoch,
    /// The last entry that it applied.
    pub applied: LogIndex,
    /// The last entry that it knows to be committed.
    pub committed: LogIndex,
    /// All replicas.
    pub voters: Vec<ReplicaId>,
}

impl ReplicaStatus {
    /// Whether this replica leads.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.id)
    }
}

/// Why a command came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The engine refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No leader took it within the time; it may still take effect. Sending the same command again is safe.
    #[error("no leader confirmed the command in time; sending it again is safe")]
    Unconfirmed,
    /// Too much is in flight; nothing changed.
    #[error("overloaded: try again in a moment")]
    Overloaded,
    /// The process is going away.
    #[error("this coordinator is shutting down")]
    ShuttingDown,
}

/// Why a read got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No quorum confirmed within the time.
    #[error("no quorum of coordinators answered in time")]
    NoQuorum,
    /// The process is going away.
    #[error("this coordinator is shutting down")]
    ShuttingDown,
}

/// Something changed in the replicated state, for watchers.
///
/// The core sends it before it serves any read that sees the change, so that a read can take in everything up to
/// `state.applied` by draining its receiver. A replica whose state was replaced by a snapshot sends one change that names
/// every workload and cluster of the old and of the new state.
#[derive(Debug, Clone)]
pub struct Change {
    /// The entry that did it.
    pub index: LogIndex,
    /// Workloads that changed or went.
    pub workloads: Vec<WorkloadKey>,
    /// Clusters that changed.
    pub clusters: Vec<ClusterName>,
    /// Pools that changed, came or went.
    pub pools: Vec<PoolName>,
    /// Owners whose rules changed, came or went.
    pub owners: Vec<Namespace>,
    /// Data locations that changed, came or went.
    pub data: Vec<DataName>,
}

/// Runs in the core with a view, or with why there is none.
pub type Job = Box<dyn FnOnce(Result<&View<'_>, ReadError>) + Send>;

/// Runs in the core with what came of a command, and with a view that has it if it was committed and applied here.
pub type Reply = Box<dyn FnOnce(Result<Outcome, ProposeError>, &View<'_>) + Send>;

/// What an edge asks of the core.
pub enum Request {
    /// Commit this command.
    Propose {
        /// The command.
        command: Command,
        /// What to run with the answer.
        reply: Reply,
    },
    /// Run this with a view.
    Read {
        /// How recent the view must be.
        consistency: Consistency,
        /// What to run.
        job: Job,
    },
    /// Read an attempt's log.
    Logs {
        /// Which log.
        question: LogQuestion,
        /// Where the chunks go; dropping the receiver ends it.
        chunks: mpsc::Sender<Result<Vec<u8>, String>>,
    },
    /// Connect to the page that an attempt serves itself.
    Page {
        /// Where the attempt is.
        cluster: ClusterName,
        /// The attempt.
        attempt: AttemptId,
        /// Where the connection goes, or why there is none; dropping the receiver ends the try.
        answer: oneshot::Sender<Result<Page, NoPage>>,
    },
}

/// Why there is no connection to a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPage {
    /// The attempt's agent does not answer here; another replica may hear it.
    #[error("{0}")]
    NoAgent(String),
    /// Its agent says why.
    #[error("{0}")]
    Refused(String),
}

/// A connection to an attempt's own page.
pub struct Page {
    /// What the page asks a visitor for, where it does: the secret of this attempt alone.
    pub token: Option<String>,
    /// Its bytes both ways.
    pub bytes: Box<dyn Bytes>,
}

/// Bytes both ways.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Which log, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuestion {
    /// Where the attempt is or was.
    pub cluster: ClusterName,
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether to go on until the attempt ends.
    pub follow: bool,
    /// Of one worker alone, counted from 0 through the placement without Ray's head and Spark's driver.
    pub worker: Option<u32>,
}

/// A way to a replica's core. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::UnboundedSender<Request>,
    changes: broadcast::Sender<Change>,
}

impl Handle {
    /// A handle, and the core's end of it.
    pub fn new() -> (Handle, mpsc::UnboundedReceiver<Request>, broadcast::Sender<Change>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (changes, _) = broadcast::channel(4096);
        (Handle { requests, changes: changes.clone() }, receiver, changes)
    }

    /// Commits a command and waits for what came of it. On a follower it goes to the leader.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.propose_and_look(command, |outcome, _| outcome.clone()).await
    }

    /// As [`Handle::propose`], and on success runs `look` on the core's thread with a view that has the command: an answer that
    /// shows what became of it needs no second turn of the core. Must be short.
    pub async fn propose_and_look<T: Send + 'static>(
        &self,
        command: Command,
        look: impl FnOnce(&Outcome, &View<'_>) -> T + Send + 'static,
    ) -> Result<T, ProposeError> {
        let (answer, answered) = oneshot::channel();
        let reply: Reply = Box::new(move |result, view| {
            // A client that went away wants no answer.
            let _ = answer.send(result.map(|outcome| look(&outcome, view)));
        });
        self.requests.send(Request::Propose { command, reply }).map_err(|_| ProposeError::ShuttingDown)?;
        answered.await.map_err(|_| ProposeError::ShuttingDown)?
    }

    /// Runs `look` on the core's thread with a view of the wished consistency. Must be short.
    pub async fn read<T: Send + 'static>(
        &self,
        consistency: Consistency,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |view| {
            // A reader that went away wants no answer.
            let _ = reply.send(view.map(look));
        });
        self.requests.send(Request::Read { consistency, job }).map_err(|_| ReadError::ShuttingDown)?;
        answer.await.map_err(|_| ReadError::ShuttingDown)?
    }

    /// Changes from now on. A receiver that lags too far is told so and must list again.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// An attempt's log, in chunks.
    pub fn logs(&self, question: LogQuestion) -> mpsc::Receiver<Result<Vec<u8>, String>> {
        let (chunks, receiver) = mpsc::channel(16);
        // If the core is gone, the dropped sender ends the stream.
        let _ = self.requests.send(Request::Logs { question, chunks });
        receiver
    }

    /// A connection to the page that an attempt serves itself.
    pub async fn page(&self, cluster: ClusterName, attempt: AttemptId) -> Result<Page, NoPage> {
        let gone = || NoPage::NoAgent("this coordinator is shutting down".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Page { cluster, attempt, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
