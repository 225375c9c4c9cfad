//! Linearizable reads and lease confirmations: both wait for a quorum's word that the leader still leads (ReadIndex), reads
//! also until that index is applied here.

use std::collections::BTreeMap;

use protocol::ids::{LogIndex, MonotonicMs};

use super::{Now, Output, Replica, RequestId};
use crate::handle::ReadError;
use crate::planted;

#[derive(Debug, Clone, Copy)]
enum Asker {
    Edge(RequestId),
    Lease(u64),
}

#[derive(Debug)]
struct Waiter {
    asker: Asker,
    deadline: MonotonicMs,
    /// Known once the quorum answered.
    index: Option<LogIndex>,
}

/// Reads under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    next: u64,
    under_way: BTreeMap<u64, Waiter>,
}

impl Replica {
    pub(super) fn read_for(&mut self, now: Now, request: RequestId) {
        if planted::is("stale-read") {
            return self.outputs.push(Output::ReadReady(request, Ok(())));
        }
        self.start_read(now, Asker::Edge(request));
    }

    pub(super) fn confirm_lease(&mut self, now: Now, token: u64) {
        self.start_read(now, Asker::Lease(token));
    }

    fn start_read(&mut self, now: Now, asker: Asker) {
        self.reads.next += 1;
        let id = self.reads.next;
        let deadline = now.mono.plus(self.settings.patience_ms);
        self.reads.under_way.insert(id, Waiter { asker, deadline, index: None });
        // Without a leader it stays: it is asked again when there is one, within its patience.
        let _ = self.driver.read_index(id);
    }

    /// A leader is known: reads without an index are asked (again).
    pub(super) fn ask_again(&mut self) {
        for (id, waiter) in &self.reads.under_way {
            if waiter.index.is_none() {
                let _ = self.driver.read_index(*id);
            }
        }
    }

    /// A quorum confirmed: what was committed when the read began is at most `index`.
    pub(super) fn read_confirmed(&mut self, now: Now, id: u64, index: LogIndex) {
        let Some(waiter) = self.reads.under_way.get_mut(&id) else { return };
        waiter.index = Some(index);
        if let Asker::Lease(token) = waiter.asker {
            let asks = self.sessions.leadership_confirmed(token, &self.state, now.mono);
            self.carry_out(now, asks);
        }
    }

    /// Lets reads go whose index is applied.
    pub(super) fn finish_reads(&mut self) {
        let applied = self.state.applied;
        let done: Vec<u64> = self
            .reads
            .under_way
            .iter()
            .filter(|(_, w)| w.index.is_some_and(|i| i <= applied))
            .map(|(id, _)| *id)
            .collect();
        for id in done {
            self.end_read(id, Ok(()));
        }
    }

    /// Raft lost the question: it is asked again while its patience lasts.
    pub(super) fn read_lost(&mut self, id: u64) {
        if self.reads.under_way.contains_key(&id) {
            let _ = self.driver.read_index(id);
        }
    }

    fn end_read(&mut self, id: u64, result: Result<(), ReadError>) {
        let Some(waiter) = self.reads.under_way.remove(&id) else { return };
        match waiter.asker {
            Asker::Edge(request) => self.outputs.push(Output::ReadReady(request, result)),
            Asker::Lease(token) if result.is_err() => self.sessions.confirmation_failed(token),
            Asker::Lease(_) => {}
        }
    }

    pub(super) fn expire_reads(&mut self, now: Now) {
        let over: Vec<u64> =
            self.reads.under_way.iter().filter(|(_, w)| now.mono >= w.deadline).map(|(id, _)| *id).collect();
        for id in over {
            self.end_read(id, Err(ReadError::NoQuorum));
        }
    }
}
