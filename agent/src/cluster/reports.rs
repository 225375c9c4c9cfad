//! To whom reports go, and when they go again: at once to the leader, again to a new leader, and again every few seconds
//! until they are committed. The records themselves are [`super::Agent`]'s.

use protocol::control::AgentMessage;
use protocol::ids::{MonotonicMs, ReplicaId};

use super::attempt::Record;
use super::interface::Output;

/// The way of reports.
#[derive(Debug)]
pub(crate) struct Reports {
    /// The replica whose lease or command counted last: the only one that can commit a report.
    leader: Option<ReplicaId>,
    sent_at: MonotonicMs,
}

impl Reports {
    pub fn new(now: MonotonicMs) -> Self {
        Self { leader: None, sent_at: now }
    }

    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// This replica leads. If that is news, it gets everything that is not acknowledged.
    pub fn follow<'a>(&mut self, replica: ReplicaId, records: impl Iterator<Item = &'a Record>, out: &mut Vec<Output>) {
        if self.leader != Some(replica) {
            self.leader = Some(replica);
            self.send_open(records, out);
        }
    }

    pub fn disconnected(&mut self, replica: ReplicaId) {
        if self.leader == Some(replica) {
            self.leader = None;
        }
    }

    /// Sends the report on one attempt to the leader. Without one it waits: the next session's hello carries it, and the next leader
    /// gets it.
    pub fn send(&self, record: &Record, out: &mut Vec<Output>) {
        if let (Some(replica), Some(report)) = (self.leader, record.report()) {
            out.push(Output::Send { replica, message: AgentMessage::Report(report.clone()) });
        }
    }

    /// Sends everything that is not acknowledged.
    pub fn send_open<'a>(&self, records: impl Iterator<Item = &'a Record>, out: &mut Vec<Output>) {
        for record in records.filter(|r| !r.is_acked()) {
            self.send(record, out);
        }
    }

    /// Whether it is time to send open reports again; if so, the time starts anew.
    pub fn due(&mut self, now: MonotonicMs, every_ms: u64) -> bool {
        let due = now.since(self.sent_at) >= every_ms;
        if due {
            self.sent_at = now;
        }
        due
    }
}
