//! The thread that owns the cluster role: gathers inputs, steps it, hands its outputs on.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use protocol::control::{AgentMessage, AttemptState};
use protocol::ids::{AttemptId, ReplicaId, UnixMs};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::nodes::NodeHandle;
use super::orders::RuntimeOrder;
use crate::clock;
use crate::cluster::{Agent, AgentConfig, Input, Journal, NodeInput, NodeSession, OpenError, Output, StepError};
use crate::kube::leadership::{self, Epochs};

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(50);

/// What the links and the runtime tell the core.
pub enum Event {
    /// A link is up; what the role sends goes here.
    LinkUp(ReplicaId, mpsc::Sender<AgentMessage>),
    /// A node's session is up; what the role wants of that node goes here.
    NodeUp(NodeSession, NodeHandle),
    /// An input for the role.
    Input(Input),
}

/// The cluster role and everything that it answers to.
pub struct Core {
    agent: Agent,
    first: Vec<Output>,
    events: mpsc::Receiver<Event>,
    orders: mpsc::UnboundedSender<RuntimeOrder>,
    /// Where the agent has replicas: by which right it acts.
    epochs: Option<Epochs>,
    links: BTreeMap<ReplicaId, mpsc::Sender<AgentMessage>>,
    nodes: BTreeMap<NodeSession, NodeHandle>,
}

impl Core {
    /// Takes up where the journal left off.
    pub fn open(
        journal: Journal,
        config: AgentConfig,
        recovered: Vec<(AttemptId, AttemptState)>,
        events: mpsc::Receiver<Event>,
        orders: mpsc::UnboundedSender<RuntimeOrder>,
        epochs: Option<Epochs>,
    ) -> Result<Self, OpenError> {
        let (agent, first) = Agent::open(journal, config, recovered, clock::monotonic(), unix_now())?;
        Ok(Self { agent, first, events, orders, epochs, links: BTreeMap::new(), nodes: BTreeMap::new() })
    }

    /// Starts the thread. A journal that fails ends the whole process: only what is durable counts, and the next start reads
    /// it.
    pub fn start(mut self, stop: CancellationToken) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name("agent-core".into()).spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run(&stop)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    // Not `eprintln!`, which panics where stderr is on the same full disk.
                    let _ = writeln!(std::io::stderr(), "the agent cannot go on: {error}");
                    // Told in one line, so without the core dump that a panic leaves.
                    std::process::exit(1);
                }
                Err(_) => std::process::abort(),
            }
        })
    }

    fn run(&mut self, stop: &CancellationToken) -> Result<(), StepError> {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("no timer for the agent's core: {error}"),
        };
        runtime.block_on(self.turn_until_stopped(stop))
    }

    async fn turn_until_stopped(&mut self, stop: &CancellationToken) -> Result<(), StepError> {
        self.must_lead();
        for output in std::mem::take(&mut self.first) {
            self.carry_out(output);
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !stop.is_cancelled() {
            let input = tokio::select! {
                biased;
                _ = ticks.tick() => Input::Tick,
                event = self.events.recv() => match event {
                    None => return Ok(()),
                    Some(Event::LinkUp(replica, queue)) => {
                        self.links.insert(replica, queue);
                        Input::Connected { replica }
                    }
                    Some(Event::NodeUp(session, handle)) => {
                        let input = NodeInput::Opened { node: handle.node.clone() };
                        self.nodes.insert(session, handle);
                        Input::Node { session, input }
                    }
                    Some(Event::Input(input)) => {
                        match &input {
                            Input::Disconnected { replica } => drop(self.links.remove(replica)),
                            Input::Node { session, input: NodeInput::Closed } => drop(self.nodes.remove(session)),
                            _ => {}
                        }
                        input
                    }
                },
                () = stop.cancelled() => return Ok(()),
            };
            let now = clock::monotonic();
            // A process that stood still may find its time over in the middle of this.
            self.must_lead();
            let outputs = self.agent.step(now, unix_now(), input)?;
            let epoch = self.agent.epoch();
            if let Some(epochs) = self.epochs.as_mut().filter(|epochs| !epochs.has(epoch)) {
                // Before anything of a newer epoch is acted upon, whoever leads next knows of it.
                tokio::select! {
                    () = epochs.write(epoch) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            self.must_lead();
            for output in outputs {
                self.carry_out(output);
            }
        }
        Ok(())
    }

    /// Ends the process where another replica may act.
    fn must_lead(&self) {
        if self.epochs.as_ref().is_some_and(|epochs| !epochs.may_act()) {
            leadership::end("its time was over before it could be renewed");
        }
    }

    fn carry_out(&mut self, output: Output) {
        let order = match output {
            Output::Send { replica, message } => {
                // A link that is too far behind ends; the next session begins with a hello and a snapshot.
                if let Some(queue) = self.links.get(&replica)
                    && queue.try_send(message).is_err()
                {
                    self.links.remove(&replica);
                }
                return;
            }
            Output::Start { number, order, assignment } => RuntimeOrder::Start(number, order, assignment),
            Output::Resize { order, assignment, leaving, grace_ms } => {
                RuntimeOrder::Resize(order, assignment, leaving, grace_ms)
            }
            Output::Stop { attempt, grace_ms } => RuntimeOrder::Stop(attempt, grace_ms),
            Output::LetGoOn { attempt, until } => RuntimeOrder::LetGoOn(attempt, until),
            Output::Forget { attempt } => RuntimeOrder::Forget(attempt),
            Output::WantFullFrame { session: NodeSession::OWN } => RuntimeOrder::FullFrame,
            Output::WantFullFrame { session } => {
                if let Some(node) = self.nodes.get(&session) {
                    node.want_full_frame();
                }
                return;
            }
            Output::EndNode { session, why, reason } => {
                tracing::error!(reason, "a node's readings are no longer taken from this connection");
                if let Some(node) = self.nodes.get(&session) {
                    node.end(why, &reason);
                }
                return;
            }
        };
        // The receiver ends only with the process.
        let _ = self.orders.send(order);
    }
}

pub(super) fn unix_now() -> UnixMs {
    UnixMs(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
}
