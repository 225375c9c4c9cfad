//! Every cluster's capacity as its agent streams it: columns in memory, soft state, never in the log. Each replica keeps
//! its own; the replica's core calls it with frames and reads it for the planner and for people. Touches no clock.

mod columns;
mod freshness;
mod intake;
mod query;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use engine::capacity::{Capacity, ClusterCapacity, Nodes};
use protocol::capacity::CapacityFrame;
use protocol::ids::{ClusterName, MonotonicMs};

use columns::Table;
use freshness::Freshness;
pub use intake::IntakeError;

/// One cluster's stream and what it has said so far.
#[derive(Debug)]
struct Stream {
    /// The session whose frames are taken.
    session: u64,
    /// Whether that session is still open.
    open: bool,
    /// None until the session's snapshot; then the last frame's number.
    sequence: Option<u64>,
    /// Kept over sessions: old capacity ages, but is shown until a new snapshot replaces it.
    table: Option<Table>,
    freshness: Freshness,
}

/// All clusters' capacity.
#[derive(Debug, Default)]
pub struct Fleet {
    streams: BTreeMap<ClusterName, Stream>,
    /// The planner's view, brought up to date by [`Fleet::capacity`].
    view: Capacity,
}

impl Fleet {
    /// Takes a frame that came in on a session. Sessions of one cluster have growing numbers; each starts with a
    /// snapshot. After an error nothing of the frame was taken.
    pub fn intake(
        &mut self,
        cluster: &ClusterName,
        session: u64,
        frame: CapacityFrame,
        now: MonotonicMs,
    ) -> Result<(), IntakeError> {
        let stream = match self.streams.get_mut(cluster) {
            Some(stream) => stream,
            None => self.streams.entry(cluster.clone()).or_insert_with(|| Stream::new(session)),
        };
        stream.intake(session, frame, now)
    }

    /// A session ended. What it said is kept and ages until a new session's snapshot replaces it.
    pub fn forget_session(&mut self, cluster: &ClusterName, session: u64) {
        if let Some(stream) = self.streams.get_mut(cluster)
            && stream.session == session
        {
            stream.open = false;
            stream.sequence = None;
        }
    }

    /// A cluster left the federation.
    pub fn remove(&mut self, cluster: &ClusterName) {
        self.streams.remove(cluster);
        self.view.clusters.remove(cluster);
    }

    /// The planner's view as of now. Only rows that changed since the last call are worked out again.
    pub fn capacity(&mut self, now: MonotonicMs) -> &Capacity {
        for (name, stream) in &mut self.streams {
            let Some(table) = &mut stream.table else { continue };
            let view = match self.view.clusters.get_mut(name) {
                Some(view) => view,
                None => self.view.clusters.entry(name.clone()).or_insert_with(|| ClusterCapacity {
                    sequence: 0,
                    watermark: table.watermark,
                    age_ms: 0,
                    fresh: false,
                    nodes: Nodes::default(),
                }),
            };
            table.refresh(&mut view.nodes);
            view.sequence = table.sequence;
            view.watermark = table.watermark;
            view.age_ms = stream.freshness.age_ms(now);
            view.fresh = stream.freshness.is_fresh(now);
        }
        &self.view
    }

    /// The planner's view as of the last call of [`Fleet::capacity`].
    pub fn last_capacity(&self) -> &Capacity {
        &self.view
    }
}
