//! Sessions of node roles: who may speak for a node, which frames enter the table, and when a full one is asked for. Owned
//! by [`super::Agent`], which steps it; the sockets are in the shell.
//!
//! A session may speak for one node, the one in its certificate or of its token. Of two sessions of one node the newer one counts: the older
//! is most often what a node left behind that was killed and is back.

use std::collections::BTreeMap;

use protocol::ids::{MonotonicMs, NodeName};
use protocol::node::{Holders, MAX_HELD, NodeClosed, NodeFrame};

use super::interface::Output;
use super::table::{FrameOutcome, MAX_DEVICES, Table};

/// Frames that were on their way when a full one was asked for must not each ask again, in ms.
const ASK_AGAIN_MS: u64 = 2_000;

/// One connection of a node role, or the node role in the agent's own process. Numbers are never used again in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeSession(pub u64);

impl NodeSession {
    /// The node role in the agent's own process.
    pub const OWN: NodeSession = NodeSession(0);
}

/// What happened on a node's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeInput {
    /// It is up; its certificate or token is this node's.
    Opened {
        /// The node.
        node: NodeName,
    },
    /// It sent readings.
    Frame(NodeFrame),
    /// It is gone.
    Closed,
}

#[derive(Debug)]
struct Session {
    node: NodeName,
    /// A full frame came, and every one since.
    whole: bool,
    asked_at: Option<MonotonicMs>,
}

/// The sessions.
#[derive(Debug, Default)]
pub(crate) struct Nodes(BTreeMap<NodeSession, Session>);

impl Nodes {
    /// Takes one input; what enters the table has entered when this returns. A node whose session is gone keeps its row, and
    /// is stale once it has been silent for long enough.
    pub fn take(
        &mut self,
        table: &mut Table,
        session: NodeSession,
        input: NodeInput,
        now: MonotonicMs,
        out: &mut Vec<Output>,
    ) {
        match input {
            NodeInput::Opened { node } => self.opened(session, node, out),
            NodeInput::Frame(frame) => self.frame(table, session, &frame, now, out),
            NodeInput::Closed => drop(self.0.remove(&session)),
        }
    }

    fn opened(&mut self, session: NodeSession, node: NodeName, out: &mut Vec<Output>) {
        let older: Vec<NodeSession> = self.0.iter().filter(|(_, s)| s.node == node).map(|(id, _)| *id).collect();
        for older in older {
            let reason =
                format!("a newer connection speaks for node {node}: is another process started with its name?");
            self.end(older, NodeClosed::Replaced, reason, out);
        }
        self.0.insert(session, Session { node, whole: false, asked_at: None });
    }

    fn frame(
        &mut self,
        table: &mut Table,
        id: NodeSession,
        frame: &NodeFrame,
        now: MonotonicMs,
        out: &mut Vec<Output>,
    ) {
        let Some(session) = self.0.get_mut(&id) else {
            return; // Said on a session that was ended.
        };
        if let Err(reason) = check(&session.node, frame) {
            return self.end(id, NodeClosed::BadFrame, reason, out);
        }
        session.whole = (frame.full || session.whole) && table.node_frame(frame, now) == FrameOutcome::Joined;
        if session.whole {
            session.asked_at = None;
        } else if session.asked_at.is_none_or(|at| now.since(at) >= ASK_AGAIN_MS) {
            session.asked_at = Some(now);
            out.push(Output::WantFullFrame { session: id });
        }
    }

    fn end(&mut self, session: NodeSession, why: NodeClosed, reason: String, out: &mut Vec<Output>) {
        self.0.remove(&session);
        out.push(Output::EndNode { session, why, reason });
    }
}

/// What no node role would send.
fn check(node: &NodeName, frame: &NodeFrame) -> Result<(), String> {
    if &frame.node != node {
        return Err(format!("this is the session of node {node}; the frame says that it is of node {}", frame.node));
    }
    if let Some(device) = frame.devices.iter().find(|d| d.index >= MAX_DEVICES) {
        return Err(format!("GPU {}: a node has at most {MAX_DEVICES} GPUs", device.index));
    }
    match &frame.holders {
        Some(Holders::Known { pods }) if pods.iter().map(|p| p.devices.len().max(1)).sum::<usize>() > MAX_HELD => {
            Err(format!("pods of a node hold at most {MAX_HELD} devices"))
        }
        _ => Ok(()),
    }
}
