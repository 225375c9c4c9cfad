//! One socket, two kinds of visitors: replicas and agents, told apart by ALPN and held to their certificate's identity.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocol::ids::ReplicaId;
use protocol::quic::{AGENT_ALPN, Identity, PEER_ALPN, peer_identity};
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, Incoming, VarInt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Inbox, agents, peers};
use crate::identity::workload_tokens::Issuer;
use crate::sessions::SessionId;

/// Close code for a visitor that has no business here.
const NOT_WELCOME: VarInt = VarInt::from_u32(1);
/// More connections than this under way make a visitor prove its address first.
const RETRY_ABOVE: usize = 64;

/// Accepts connections until cancelled. Agents get workload tokens of this issuer.
pub async fn accept(
    endpoint: Endpoint,
    voters: BTreeSet<ReplicaId>,
    inbox: Inbox,
    issuer: Option<Arc<Issuer>>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let sessions = Arc::new(AtomicU64::new(1));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = stop.cancelled() => None,
        };
        let Some(incoming) = incoming else { return };
        if !incoming.remote_address_validated() && endpoint.open_connections() > RETRY_ABOVE {
            // A visitor that can't answer at its address costs us one packet.
            let _ = incoming.retry();
            continue;
        }
        let (inbox, voters, stop, sessions) = (inbox.clone(), voters.clone(), stop.clone(), sessions.clone());
        let issuer = issuer.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = visit(incoming, &voters, inbox, issuer, &sessions) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn visit(
    incoming: Incoming,
    voters: &BTreeSet<ReplicaId>,
    inbox: Inbox,
    issuer: Option<Arc<Issuer>>,
    sessions: &AtomicU64,
) {
    let from = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%from, %error, "a connection was not made");
            return;
        }
    };
    let alpn = alpn(&connection);
    let identity = match peer_identity(&connection) {
        Ok(identity) => identity,
        Err(error) => return refuse(&connection, &error.to_string()),
    };
    match (alpn.as_deref(), identity) {
        (Some(PEER_ALPN), Identity::Replica(id)) if voters.contains(&id) => peers::serve(connection, id, inbox).await,
        (Some(AGENT_ALPN), Identity::Cluster(cluster)) => {
            let id = SessionId(sessions.fetch_add(1, Ordering::Relaxed));
            agents::serve(connection, id, cluster, inbox, issuer).await;
        }
        (_, identity) => refuse(&connection, &format!("{identity} may not connect here with this protocol")),
    }
}

fn alpn(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

fn refuse(connection: &Connection, reason: &str) {
    tracing::warn!(from = %connection.remote_address(), reason, "refused a connection");
    connection.close(NOT_WELCOME, reason.as_bytes());
}
