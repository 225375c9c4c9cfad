//! QUIC around the replica's core: links to the other replicas, sessions of agents, on one socket.
//!
//! Nothing is decided here: frames become inputs, outputs become frames. What can't be sent to a peer is dropped (Raft sends
//! again); what can't be sent to an agent ends its session (the next one is told all that is outstanding).

mod accept;
mod agents;
mod pages;
mod peers;
#[cfg(test)]
mod tests;
mod tokens;

use tokio::sync::mpsc;

use crate::replica::Input;

pub use accept::accept;
pub use agents::{AgentLink, read_log};
pub use pages::open_page;
pub use peers::PeerLinks;

/// What the transport tells the core's loop.
pub enum Event {
    /// An input for the replica.
    Input(Input),
    /// An agent's session, and the way to it; comes before its first input.
    Agent(crate::sessions::SessionId, AgentLink),
}

/// The way into the core. Bounded: when the core is behind, the links wait, and QUIC's flow control with them.
pub type Inbox = mpsc::Sender<Event>;

/// Events that may wait for the core.
pub const INBOX: usize = 8192;
