//! The core's thread: gathers what came in, steps the replica, carries out what it answers. The only owner of the replica.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};

use engine::commands::Command;
use protocol::control::{LogRequest, PageRequest};
use protocol::ids::{ClusterName, MonotonicMs, ReplicaId, UnixMs};
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::handle::{Change, Consistency, Job, NoPage, ProposeError, Reply, Request};
use crate::replica::{Fatal, Input, Now, Output, Replica, RequestId};
use crate::sessions::SessionId;
use crate::transport::{AgentLink, Event, PeerLinks, open_page, read_log};

/// Events and requests that are gathered into one Raft batch at most.
const GATHER: usize = 4096;
/// Commands that may wait for those before them; more are told to come again.
const MOST_HELD: usize = 100_000;

/// The core and everything that it answers to.
pub struct Core {
    replica: Replica,
    events: mpsc::Receiver<Event>,
    requests: mpsc::UnboundedReceiver<Request>,
    changes: broadcast::Sender<Change>,
    peers: PeerLinks,
    agents: HashMap<SessionId, AgentLink>,
    proposals: HashMap<RequestId, Reply>,
    reads: HashMap<RequestId, Job>,
    /// On a leader, commands that came while others are on their way to a quorum: they share the next batch. A sync and the
    /// messages around it cost the same for one command as for a hundred, so one batch after the other serves many clients
    /// sooner than many small ones at a time, and a single client never waits.
    held: Vec<(Command, Reply)>,
    next_request: u64,
    /// Where log readers run: not on this thread.
    spawner: tokio::runtime::Handle,
    stop: CancellationToken,
    started: Instant,
}

impl Core {
    /// A core over an opened replica.
    pub fn new(
        replica: Replica,
        events: mpsc::Receiver<Event>,
        requests: mpsc::UnboundedReceiver<Request>,
        changes: broadcast::Sender<Change>,
        peers: PeerLinks,
        spawner: tokio::runtime::Handle,
        stop: CancellationToken,
    ) -> Self {
        Self {
            replica,
            events,
            requests,
            changes,
            peers,
            agents: HashMap::new(),
            proposals: HashMap::new(),
            reads: HashMap::new(),
            held: Vec::new(),
            next_request: 0,
            spawner,
            stop,
            started: Instant::now(),
        }
    }

    /// Starts the thread. A panic or a fatal error on it ends the whole process: a replica whose state is in doubt serves no
    /// one.
    pub fn start(mut self, id: ReplicaId, tick_ms: u64) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name(format!("core-{id}")).spawn(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run(tick_ms)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    // Not `eprintln!`, which panics where stderr is on the same full disk.
                    let _ = writeln!(std::io::stderr(), "coordinator {id} cannot go on: {error}");
                    // Told in one line, so without the core dump that a panic leaves.
                    std::process::exit(1);
                }
                Err(_) => std::process::abort(),
            }
        })
    }

    fn run(&mut self, tick_ms: u64) -> Result<(), Fatal> {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => panic!("no timer for the core: {error}"),
        };
        runtime.block_on(self.turn_until_stopped(tick_ms))
    }

    async fn turn_until_stopped(&mut self, tick_ms: u64) -> Result<(), Fatal> {
        let mut ticks = tokio::time::interval(Duration::from_millis(tick_ms));
        // After a pause, one tick: a burst would look like a long silence of the leader.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut events, mut requests) = (Vec::new(), Vec::new());
        while !self.stop.is_cancelled() {
            let mut ticked = false;
            tokio::select! {
                biased;
                _ = ticks.tick() => ticked = true,
                n = self.events.recv_many(&mut events, GATHER) => if n == 0 { return Ok(()) },
                n = self.requests.recv_many(&mut requests, GATHER) => if n == 0 { return Ok(()) },
                () = self.stop.cancelled() => return Ok(()),
            }
            // Whatever else is there already shares the batch.
            while events.len() < GATHER
                && let Ok(event) = self.events.try_recv()
            {
                events.push(event);
            }
            while requests.len() < GATHER
                && let Ok(request) = self.requests.try_recv()
            {
                requests.push(request);
            }
            let now = self.now();
            if ticked {
                self.replica.handle(now, Input::Tick)?;
            }
            for event in events.drain(..) {
                self.event(now, event)?;
            }
            for request in requests.drain(..) {
                self.request(now, request)?;
            }
            if !self.replica.is_replicating() {
                for (command, reply) in std::mem::take(&mut self.held) {
                    self.propose(now, command, reply)?;
                }
            }
            for output in self.replica.flush(now)? {
                self.carry_out(now, output);
            }
        }
        Ok(())
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Now { mono: MonotonicMs(self.started.elapsed().as_millis() as u64), unix: UnixMs(unix) }
    }

    fn event(&mut self, now: Now, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Agent(session, link) => {
                self.agents.insert(session, link);
                Ok(())
            }
            Event::Input(input) => {
                if let Input::AgentClosed(session) = &input {
                    self.agents.remove(session);
                }
                self.replica.handle(now, input)
            }
        }
    }

    fn next_id(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn propose(&mut self, now: Now, command: Command, reply: Reply) -> Result<(), Fatal> {
        let id = self.next_id();
        self.proposals.insert(id, reply);
        self.replica.handle(now, Input::Propose(id, command))
    }

    fn request(&mut self, now: Now, request: Request) -> Result<(), Fatal> {
        match request {
            Request::Propose { reply, .. } if self.held.len() >= MOST_HELD => {
                self.replica.view(now, |view| reply(Err(ProposeError::Overloaded), view));
                Ok(())
            }
            Request::Propose { command, reply } => {
                self.held.push((command, reply));
                Ok(())
            }
            Request::Read { consistency: Consistency::Stale, job } => {
                self.replica.view(now, |view| job(Ok(view)));
                Ok(())
            }
            Request::Read { consistency: Consistency::Linearizable, job } => {
                let id = self.next_id();
                self.reads.insert(id, job);
                self.replica.handle(now, Input::Read(id))
            }
            Request::Logs { question, chunks } => {
                let link = self.link_of(&question.cluster);
                let request =
                    LogRequest { attempt: question.attempt, follow: question.follow, worker: question.worker };
                self.spawner.spawn(async move {
                    match link {
                        Some(link) => read_log(link, request, chunks).await,
                        None => {
                            let reason = format!(
                                "cluster {} is not connected to this coordinator, so its logs can't be read now",
                                question.cluster
                            );
                            let _ = chunks.send(Err(reason)).await;
                        }
                    }
                });
                Ok(())
            }
            Request::Page { cluster, attempt, mut answer } => {
                let link = self.link_of(&cluster);
                self.spawner.spawn(async move {
                    let opening = async {
                        let no_link = || NoPage::NoAgent("its cluster is not connected to this coordinator".to_owned());
                        let link = link.ok_or_else(no_link)?;
                        open_page(link, PageRequest { attempt }).await
                    };
                    tokio::select! {
                        opened = opening => drop(answer.send(opened)),
                        () = answer.closed() => {}
                    }
                });
                Ok(())
            }
        }
    }

    /// The way to a cluster's agent, if it is connected here.
    fn link_of(&self, cluster: &ClusterName) -> Option<AgentLink> {
        self.replica.session_of(cluster).and_then(|session| self.agents.get(&session)).cloned()
    }

    fn carry_out(&mut self, now: Now, output: Output) {
        match output {
            // A dropped message is like one lost on the way: Raft sends again.
            Output::Peer(to, frame) => {
                self.peers.send(to, frame);
            }
            Output::Agent(session, message) => {
                if let Some(link) = self.agents.get(&session) {
                    link.send(message);
                }
            }
            Output::CloseAgent(session, reason) => {
                if let Some(link) = self.agents.remove(&session) {
                    link.close(&reason);
                }
            }
            Output::Proposed(id, result) => {
                if let Some(reply) = self.proposals.remove(&id) {
                    self.replica.view(now, |view| reply(result, view));
                }
            }
            Output::ReadReady(id, result) => {
                if let Some(job) = self.reads.remove(&id) {
                    match result {
                        Ok(()) => self.replica.view(now, |view| job(Ok(view))),
                        Err(error) => job(Err(error)),
                    }
                }
            }
            Output::Changed(change) => {
                // Nobody may be watching.
                let _ = self.changes.send(change);
            }
        }
    }
}
