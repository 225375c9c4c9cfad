//! The cluster role as one state machine. [`Agent::step`] reads as the list of what it does; each part is a file beside
//! this one. The shell calls it for everything that happens and at least every 50 ms with [`Input::Tick`].

use std::collections::BTreeMap;

use protocol::control::{AgentMessage, AttemptReport, AttemptState, CoordinatorMessage, LaunchOrder, Order, StopOrder};
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, CommandNumber, Epoch, Incarnation, MonotonicMs, ReplicaId, UnixMs};

use super::attempt::{Assignment, Launched, Progress, Record};
use super::fence;
use super::inbox::{Held, Inbox, Verdict};
use super::interface::{AgentConfig, Input, KubernetesInput, Output};
use super::journal::{Journal, JournalError};
use super::lease::Lease;
use super::nodes::Nodes;
use super::reports::Reports;
use super::size::resize_again;
use super::table::Table;
use super::uplink::Uplink;
use crate::planted;

/// Between the polite and the hard end of something that runs without a record, in ms.
const UNOWNED_GRACE_MS: u64 = 5_000;

/// Why an agent cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a step failed. The process must end: only what is in the journal counts, and it is read again at the next start.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The journal failed; nothing of this step's outputs may leave.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A step failed before.
    #[error("the agent's journal failed before: end the process and start it again")]
    Dead,
}

struct Session {
    uplink: Uplink,
    lease_asked_at: MonotonicMs,
}

/// The cluster role.
pub struct Agent {
    config: AgentConfig,
    pub(super) journal: Journal,
    pub(super) records: BTreeMap<AttemptId, Record>,
    inbox: Inbox,
    /// The highest command whose effect was on record when it was opened.
    included: CommandNumber,
    lease: Lease,
    /// Whether an attempt was launched that begins only once it is told that it may.
    leave_wanted: bool,
    pub(super) reports: Reports,
    pub(super) table: Table,
    nodes: Nodes,
    sessions: BTreeMap<ReplicaId, Session>,
    dead: bool,
    /// For the planted bug `ack-before-journal`: progress that is written one step late.
    late: Vec<AttemptId>,
}

impl Agent {
    /// Takes up where the journal left off. `recovered` is everything that the runtime found after the restart, alive or
    /// ended; what it did not find, it has verified to be gone. The outputs are to be carried out first.
    pub fn open(
        mut journal: Journal,
        config: AgentConfig,
        recovered: Vec<(AttemptId, AttemptState)>,
        now: MonotonicMs,
        unix: UnixMs,
    ) -> Result<(Self, Vec<Output>), OpenError> {
        let mut contents = journal.take_contents();
        let mut table = Table::new(&config.nodes);
        for record in contents.records.values_mut().filter(|r| !r.is_final()) {
            let is_acked = record.is_acked();
            if let Some(launched) = &mut record.launched {
                if is_acked {
                    launched.free_untold();
                }
                table.hold(&launched.order, &launched.held());
            }
        }
        let mut agent = Self {
            inbox: Inbox::new(contents.last_command, contents.epoch),
            included: contents.included,
            // Nonces of different lives do not meet unless a life asked 2^20 times a millisecond.
            lease: Lease::new(unix.0 << 20),
            leave_wanted: false,
            reports: Reports::new(now),
            records: contents.records,
            nodes: Nodes::default(),
            sessions: BTreeMap::new(),
            dead: false,
            late: Vec::new(),
            config,
            journal,
            table,
        };
        let mut out = Vec::new();
        agent.recover(recovered.into_iter().collect(), unix, &mut out)?;
        agent.journal.commit()?;
        Ok((agent, out))
    }

    fn recover(
        &mut self,
        mut found: BTreeMap<AttemptId, AttemptState>,
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let known: Vec<AttemptId> = self.records.keys().copied().collect();
        for attempt in known {
            let state = found.remove(&attempt);
            let record = &self.records[&attempt];
            if record.is_final() {
                // Ended and gone, by its record; whatever else the runtime holds under its name is nobody's.
                if state.is_some_and(|s| !s.is_final()) {
                    out.push(Output::Stop { attempt, grace_ms: UNOWNED_GRACE_MS });
                }
                continue;
            }
            let stop = record.progress.stop.clone();
            match state {
                Some(state) => {
                    if let Some(stop) = stop
                        && !state.is_final()
                        && !planted::is("forget-stop")
                    {
                        out.push(Output::Stop { attempt, grace_ms: stop.grace_ms });
                    } else if !state.is_final() {
                        // What it had made of the newest size when the agent died is not known.
                        out.extend(record.launched.as_ref().and_then(resize_again));
                    }
                    self.observe(attempt, state, unix, out)?;
                }
                None if stop.is_some() => self.observe(attempt, AttemptState::Stopped, unix, out)?,
                None => self.observe(attempt, lost_in_restart(), unix, out)?,
            }
        }
        for (attempt, state) in found {
            out.push(unowned(attempt, &state));
        }
        Ok(())
    }

    /// Takes one input. The journal is committed before this returns.
    pub fn step(&mut self, now: MonotonicMs, unix: UnixMs, input: Input) -> Result<Vec<Output>, StepError> {
        if self.dead {
            return Err(StepError::Dead);
        }
        let result = self.step_inner(now, unix, input);
        self.dead = result.is_err();
        Ok(result?)
    }

    fn step_inner(&mut self, now: MonotonicMs, unix: UnixMs, input: Input) -> Result<Vec<Output>, JournalError> {
        let mut out = Vec::new();
        self.write_late()?;
        match input {
            Input::Connected { replica } => self.connected(replica, now, &mut out),
            Input::Disconnected { replica } => self.disconnected(replica),
            Input::FromCoordinator { replica, message } => self.heard(replica, message, now, &mut out),
            Input::Runtime { attempt, state } => self.observe(attempt, state, unix, &mut out)?,
            Input::Members { attempt, gone } => self.members_gone(attempt, &gone, unix, &mut out)?,
            Input::Node { session, input } => self.nodes.take(&mut self.table, session, input, now, &mut out),
            Input::Kubernetes(KubernetesInput::Changed { nodes, gone }) => {
                self.table.kubernetes_changed(nodes, &gone, now)
            }
            Input::Kubernetes(KubernetesInput::Current { age_ms }) => self.table.kubernetes_current(age_ms, now),
            // Only here: a pass over all nodes for each node's frame would be quadratic.
            Input::Tick => self.table.tick(now),
        }
        self.carry_out_commands(now, unix, &mut out)?;
        self.ask_for_leases(now, &mut out);
        if self.reports.due(now, self.config.resend_every_ms) {
            self.reports.send_open(self.records.values(), &mut out);
        }
        self.send_capacity(now, &mut out);
        self.journal.commit()?;
        Ok(out)
    }

    fn connected(&mut self, replica: ReplicaId, now: MonotonicMs, out: &mut Vec<Output>) {
        self.disconnected(replica);
        self.sessions.insert(replica, Session { uplink: Uplink::new(self.config.pace), lease_asked_at: now });
        self.greet(replica, now, out);
    }

    /// Says who this is and what it holds, and asks for a lease at once: a new leader's is wanted soonest.
    fn greet(&mut self, replica: ReplicaId, now: MonotonicMs, out: &mut Vec<Output>) {
        let hello = AgentMessage::Hello {
            cluster: self.config.cluster.clone(),
            incarnation: self.journal.incarnation(),
            last_command: self.last_command(),
            attempts: self.records.values().filter_map(Record::report).cloned().collect(),
        };
        out.push(Output::Send { replica, message: hello });
        self.ask_for_lease(replica, now, out);
    }

    fn disconnected(&mut self, replica: ReplicaId) {
        self.sessions.remove(&replica);
        self.lease.disconnected(replica);
        self.inbox.disconnected(replica);
        self.reports.disconnected(replica);
    }

    fn heard(&mut self, replica: ReplicaId, message: CoordinatorMessage, now: MonotonicMs, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&replica) else {
            return; // Said on a session that is gone.
        };
        match message {
            CoordinatorMessage::SnapshotWanted => session.uplink.want_snapshot(),
            CoordinatorMessage::HelloWanted => self.greet(replica, now, out),
            CoordinatorMessage::Lease { nonce, epoch, ttl_ms, attempts } => {
                let old = epoch < self.inbox.epoch() && !planted::is("ignore-epoch");
                if !old && let Some(asked_at) = self.lease.grant(replica, nonce, ttl_ms) {
                    self.saw_epoch(epoch);
                    self.reports.follow(replica, self.records.values(), out);
                    fence::let_go_on(&self.records, &attempts, asked_at, out);
                }
            }
            CoordinatorMessage::Command { number, epoch, order } => {
                self.command(Held { replica, number, epoch, order }, out);
            }
            CoordinatorMessage::ReportCommitted { attempt, revision } => self.acknowledged(attempt, revision, out),
            // The shell shows these; they change nothing here.
            CoordinatorMessage::Welcome { .. } | CoordinatorMessage::Refused { .. } => {}
        }
    }

    fn saw_epoch(&mut self, epoch: Epoch) {
        if self.inbox.saw_epoch(epoch) {
            self.journal.set_epoch(epoch);
        }
    }

    fn command(&mut self, held: Held, out: &mut Vec<Output>) {
        let (replica, attempt) = (held.replica, attempt_of(&held.order));
        self.saw_epoch(held.epoch);
        match self.inbox.offer(held) {
            Verdict::OldEpoch => {}
            Verdict::Duplicate => {
                if let Some(report) = self.records.get(&attempt).and_then(Record::report) {
                    out.push(Output::Send { replica, message: AgentMessage::Report(report.clone()) });
                }
            }
            Verdict::Queued => self.reports.follow(replica, self.records.values(), out),
        }
    }

    fn carry_out_commands(
        &mut self,
        now: MonotonicMs,
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let knows_nodes = !self.config.follows_kubernetes || self.table.has_all_nodes();
        while let Some(held) = self.inbox.next(knows_nodes && self.lease.is_valid(now)) {
            if !planted::is("launch-twice") {
                self.journal.set_last_command(held.number);
            }
            match held.order {
                Order::Launch(order) => self.launch(held.number, order, unix, out)?,
                Order::Stop(order) => self.stop(order, unix, out)?,
                Order::Resize(order) => self.resize(held.number, *order, unix, out)?,
            }
        }
        Ok(())
    }

    fn launch(
        &mut self,
        number: CommandNumber,
        order: Box<LaunchOrder>,
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let attempt = order.attempt;
        if let Some(record) = self.records.get(&attempt) {
            if !planted::is("launch-twice") {
                // Under whatever number it comes: an attempt is started once.
                self.reports.send(record, out);
                return Ok(());
            }
            self.table.release(attempt);
        }
        let (state, launched) = match self.table.reserve(&order) {
            Ok(assignment) => (AttemptState::Accepted, Some(Launched { order: *order, assignment, sized: None })),
            Err(message) => (AttemptState::Failed { class: FailureClass::Capacity, message, exit_code: None }, None),
        };
        if let Some(launched) = &launched {
            self.journal.put_launched(attempt, launched)?;
            self.leave_wanted |= launched.order.spec.fence().is_some();
            let (order, assignment) = (Box::new(launched.order.clone()), launched.assignment.clone());
            out.push(Output::Start { number, order, assignment });
        }
        self.enter(attempt, state, launched, None, unix, out)
    }

    fn stop(&mut self, order: StopOrder, unix: UnixMs, out: &mut Vec<Output>) -> Result<(), JournalError> {
        let attempt = order.attempt;
        match self.records.get_mut(&attempt) {
            None => self.enter(attempt, AttemptState::Stopped, None, Some(order), unix, out),
            Some(record) if record.is_final() => {
                self.reports.send(record, out);
                Ok(())
            }
            Some(record) => {
                out.push(Output::Stop { attempt, grace_ms: order.grace_ms });
                record.progress.stop = Some(order);
                self.journal.put_progress(&record.progress)
            }
        }
    }

    /// Makes an attempt's first record, durable with this step, and reports it.
    fn enter(
        &mut self,
        attempt: AttemptId,
        state: AttemptState,
        launched: Option<Launched>,
        stop: Option<StopOrder>,
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let revision = self.records.get(&attempt).map_or(0, |r| r.progress.report.revision) + 1;
        let report = AttemptReport { attempt, revision, state, resized: None, at: unix };
        let unrecorded = launched.is_some() && !self.journal.lasts();
        self.records.insert(attempt, Record { launched, progress: Progress { report, acked: 0, stop }, unrecorded });
        self.say(attempt, out)
    }

    /// Takes in how far an attempt is.
    fn observe(
        &mut self,
        attempt: AttemptId,
        state: AttemptState,
        unix: UnixMs,
        out: &mut Vec<Output>,
    ) -> Result<(), JournalError> {
        let Some(record) = self.records.get_mut(&attempt) else {
            out.push(unowned(attempt, &state));
            return Ok(());
        };
        if record.is_final() {
            if !state.is_final() {
                out.push(Output::Stop { attempt, grace_ms: UNOWNED_GRACE_MS });
            }
            return Ok(());
        }
        let state = self.table.explained(attempt, state);
        let has_begun = record.unrecorded && (state == AttemptState::Accepted || state.is_final());
        record.unrecorded &= !has_begun;
        let report = &mut record.progress.report;
        if state == report.state || state == AttemptState::Accepted {
            return if has_begun { self.say(attempt, out) } else { Ok(()) };
        }
        report.revision += 1;
        report.state = state;
        report.at = unix;
        if record.is_final() {
            self.table.release(attempt);
        }
        self.say(attempt, out)
    }

    /// Journals an attempt's progress and reports it to the leader.
    pub(super) fn say(&mut self, attempt: AttemptId, out: &mut Vec<Output>) -> Result<(), JournalError> {
        let record = &self.records[&attempt];
        self.reports.send(record, out);
        if planted::is("ack-before-journal") {
            self.late.push(attempt);
            return Ok(());
        }
        self.journal.put_progress(&record.progress)
    }

    fn write_late(&mut self) -> Result<(), JournalError> {
        for attempt in std::mem::take(&mut self.late) {
            if let Some(record) = self.records.get(&attempt) {
                self.journal.put_progress(&record.progress)?;
            }
        }
        Ok(())
    }

    fn acknowledged(&mut self, attempt: AttemptId, revision: u64, out: &mut Vec<Output>) {
        let Some(record) = self.records.get_mut(&attempt) else { return };
        let progress = &mut record.progress;
        // No further than what was said: a later revision must not count as acknowledged before it exists.
        progress.acked = progress.acked.max(revision.min(progress.report.revision));
        if !record.is_acked() {
            return;
        }
        if record.is_final() {
            self.records.remove(&attempt);
            self.journal.remove(attempt);
            out.push(Output::Forget { attempt });
        } else if let Some(launched) = &mut record.launched
            && launched.free_untold()
        {
            self.table.hold(&launched.order, &launched.held());
        }
    }

    fn ask_for_leases(&mut self, now: MonotonicMs, out: &mut Vec<Output>) {
        // What waits for leave to begin need not wait for the next round.
        let every = if std::mem::take(&mut self.leave_wanted) { 0 } else { self.config.lease_every_ms };
        let due = self.sessions.iter().filter(|(_, s)| now.since(s.lease_asked_at) >= every);
        for replica in due.map(|(r, _)| *r).collect::<Vec<_>>() {
            self.ask_for_lease(replica, now, out);
        }
    }

    fn ask_for_lease(&mut self, replica: ReplicaId, now: MonotonicMs, out: &mut Vec<Output>) {
        if let Some(session) = self.sessions.get_mut(&replica) {
            session.lease_asked_at = now;
            let nonce = self.lease.request(replica, now);
            out.push(Output::Send { replica, message: AgentMessage::LeaseRequest { nonce } });
        }
    }

    fn send_capacity(&mut self, now: MonotonicMs, out: &mut Vec<Output>) {
        // Until a frame may go, changes collect in the table: noting them for every session at every step would cost more
        // than the frames.
        if !self.sessions.values().any(|s| s.uplink.may_send(now)) {
            return;
        }
        // Every command up to here has its effect in the table: its launch is held there, or was refused.
        let watermark = self.last_command();
        for (&replica, session) in &mut self.sessions {
            session.uplink.note(&self.table);
            if let Some(frame) = session.uplink.poll(&self.table, watermark, now) {
                out.push(Output::Send { replica, message: AgentMessage::Capacity(frame) });
            }
        }
        self.table.clear_changed();
    }

    /// The latest word on every attempt that there is a record of.
    pub fn attempts(&self) -> impl Iterator<Item = &AttemptReport> {
        self.records.values().map(|r| &r.progress.report)
    }

    /// Where an attempt's members run and on which devices, while there is a record of its launch.
    pub fn assignment(&self, attempt: AttemptId) -> Option<&Assignment> {
        Some(&self.records.get(&attempt)?.launched.as_ref()?.assignment)
    }

    /// Whether it may launch at this moment.
    pub fn lease_valid(&self, now: MonotonicMs) -> bool {
        self.lease.is_valid(now)
    }

    /// When its lease ends or ended.
    pub fn lease_until(&self) -> Option<MonotonicMs> {
        self.lease.until()
    }

    /// Which life of its data directory this is.
    pub fn incarnation(&self) -> Incarnation {
        self.journal.incarnation()
    }

    /// The highest command that it acted upon, by its records.
    pub fn last_command(&self) -> CommandNumber {
        self.inbox.last().max(self.included)
    }

    /// The highest epoch that it saw.
    pub fn epoch(&self) -> Epoch {
        self.inbox.epoch()
    }

    /// How many commands wait for a lease.
    pub fn commands_waiting(&self) -> usize {
        self.inbox.waiting()
    }

    /// The replica that it takes for the leader.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.reports.leader()
    }

    /// The capacity table.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

fn attempt_of(order: &Order) -> AttemptId {
    match order {
        Order::Launch(launch) => launch.attempt,
        Order::Stop(stop) => stop.attempt,
        Order::Resize(resize) => resize.attempt,
    }
}

fn lost_in_restart() -> AttemptState {
    AttemptState::Failed {
        class: FailureClass::Infrastructure,
        message: "the agent restarted in mid-launch and nothing of the attempt was left running".into(),
        exit_code: None,
    }
}

/// What to do about something that the runtime holds and nobody ordered.
fn unowned(attempt: AttemptId, state: &AttemptState) -> Output {
    if state.is_final() { Output::Forget { attempt } } else { Output::Stop { attempt, grace_ms: UNOWNED_GRACE_MS } }
}
