//! Who may come in as a node: whoever has a certificate of a node of this cluster, and, where the cluster is Kubernetes, a pod of the node role
//! by the token that its kubelet gave it. Until it is known who a visitor is nothing but that token is read of it.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::{ClusterName, NodeName};
use protocol::node::{NodeClosed, NodeToken};
use protocol::quic::{Identity, IdentityError, peer_identity, read_frame, welcome};
use quinn::Connection;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::kube::review::{ReviewError, Reviewed, Reviewer};

/// How long a visitor may take to show its token.
const SHOW: Duration = Duration::from_secs(5);
/// A token is taken from one node at most this often, and a review that failed is tried again after so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Who a visitor is, and for how long.
pub enum Entry {
    /// A node with a certificate.
    Certified(NodeName),
    /// A node whose token was reviewed.
    Reviewed(Reviewed, Arc<Reviewer>),
}

/// A visitor that is not let in, or not any longer.
pub struct Refused {
    /// Why, for the program.
    pub why: NodeClosed,
    /// Why, for a person.
    pub reason: String,
}

impl Refused {
    fn not_welcome(reason: String) -> Self {
        Self { why: NodeClosed::NotWelcome, reason }
    }
}

impl From<ReviewError> for Refused {
    fn from(error: ReviewError) -> Self {
        let why = match error {
            ReviewError::Refused(_) => NodeClosed::NotWelcome,
            ReviewError::NotNow(_) => NodeClosed::NotNow,
        };
        Self { why, reason: error.to_string() }
    }
}

impl Entry {
    /// Finds out who this is, and lets it open the stream of its frames.
    pub async fn of(
        connection: &Connection,
        cluster: &ClusterName,
        reviewer: Option<&Arc<Reviewer>>,
    ) -> Result<Self, Refused> {
        let entry = match (peer_identity(connection), reviewer) {
            (Ok(Identity::Node(of, node)), _) if of == *cluster => Self::Certified(node),
            (Ok(other), _) => return Err(Refused::not_welcome(format!("{other} is no node of cluster {cluster}"))),
            (Err(IdentityError::NoCertificate), Some(reviewer)) => {
                // The first has to come at once.
                let shown = timeout(SHOW, shown(connection)).await.unwrap_or_else(|_| Err(late()));
                Self::Reviewed(reviewer.review(&shown?).await?, reviewer.clone())
            }
            (Err(error), _) => return Err(Refused::not_welcome(error.to_string())),
        };
        welcome(connection);
        Ok(entry)
    }

    /// The node.
    pub fn node(&self) -> &NodeName {
        match self {
            Self::Certified(node) => node,
            Self::Reviewed(reviewed, _) => &reviewed.node,
        }
    }

    /// Returns once it may stay no longer: a token has to be followed by the next before it is over.
    pub async fn over(&self, connection: &Connection) -> Refused {
        let Self::Reviewed(first, reviewer) = self else { return std::future::pending().await };
        let mut until = first.until;
        loop {
            match timeout_at(until, next(connection, reviewer)).await {
                Ok(Ok(reviewed)) if reviewed.node == first.node => until = reviewed.until,
                Ok(Ok(Reviewed { node, .. })) => {
                    let reason = format!("it came in as node {}, and now shows a token of node {node}", first.node);
                    return Refused::not_welcome(reason);
                }
                Ok(Err(refused)) => return refused,
                Err(_) => {
                    let reason =
                        "its token has expired, and it has shown no newer one that could be reviewed".to_owned();
                    return Refused { why: NodeClosed::Expired, reason };
                }
            }
            sleep(PAUSE.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
}

/// The token on the next stream that the visitor opens.
async fn shown(connection: &Connection) -> Result<String, Refused> {
    let bad = |reason: String| Refused { why: NodeClosed::BadFrame, reason };
    let mut stream = connection.accept_uni().await.map_err(|e| bad(e.to_string()))?;
    match timeout(SHOW, read_frame::<NodeToken>(&mut stream)).await {
        Ok(Ok(Some(NodeToken { token }))) => Ok(token),
        Ok(Ok(None)) => Err(bad("it ended its stream without a token".to_owned())),
        Ok(Err(error)) => Err(bad(error.to_string())),
        Err(_) => Err(late()),
    }
}

fn late() -> Refused {
    Refused { why: NodeClosed::BadFrame, reason: format!("no token within {} s", SHOW.as_secs()) }
}

/// The review of the next token, tried until it is known whose that is.
async fn next(connection: &Connection, reviewer: &Reviewer) -> Result<Reviewed, Refused> {
    let token = shown(connection).await?;
    loop {
        match reviewer.review(&token).await {
            Ok(reviewed) => return Ok(reviewed),
            Err(refused @ ReviewError::Refused(_)) => return Err(refused.into()),
            Err(ReviewError::NotNow(why)) => {
                tracing::warn!(from = %connection.remote_address(), why, "a node's next token can't be reviewed yet");
                sleep(PAUSE).await;
            }
        }
    }
}
