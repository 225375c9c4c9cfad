//! Whether a token is issued, by the state alone, and what it says.

use engine::state::State;
use protocol::ids::{AttemptId, ClusterName, Namespace, PoolName, UnixMs, WorkloadKey};
use protocol::resources::Span;
use protocol::token::TokenRequest;
use serde::Serialize;
use uuid::Uuid;

use super::url::IssuerUrl;

/// Why no token is issued, in words for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No workload has such an attempt.
    #[error("attempt {0} is not on record")]
    Unknown(AttemptId),
    /// It ended.
    #[error("attempt {0} is not alive any more")]
    Ended(AttemptId),
    /// It is another cluster's.
    #[error("attempt {attempt} is not bound to cluster {cluster}, whose agent asks")]
    Elsewhere {
        /// The attempt.
        attempt: AttemptId,
        /// Who asks.
        cluster: ClusterName,
    },
    /// Its workload did not ask for it.
    #[error("workload {workload} names no token for {audience:?} (spec.tokens)")]
    NotNamed {
        /// The workload.
        workload: WorkloadKey,
        /// The audience.
        audience: String,
    },
    /// The replica's key is not agreed upon, or too old.
    #[error(
        "this coordinator has no key that the others agreed upon; it has in a moment, once a quorum of them is there"
    )]
    NoKey,
    /// A read came to nothing.
    #[error("no quorum of coordinators answered in time")]
    NoQuorum,
    /// The system gives no random numbers.
    #[error("this coordinator can't sign: its system gives no random numbers")]
    NotSigned,
}

/// What a token says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub workload: WorkloadKey,
    pub attempt: AttemptId,
    pub cluster: ClusterName,
    pub pool: PoolName,
    /// Its namespace, where an ownership rule knows that.
    pub owner: Option<Namespace>,
    pub audience: String,
    pub life: Span,
}

/// Whether this cluster's agent gets this token: for an attempt that lives there, and for an audience that its specification names.
pub(super) fn judge(state: &State, cluster: &ClusterName, request: &TokenRequest) -> Result<Grant, Denial> {
    let TokenRequest { attempt, audience } = request;
    let workload = state.by_uid.get(&attempt.workload).and_then(|key| state.workloads.get(key));
    let workload = workload.ok_or(Denial::Unknown(*attempt))?;
    let found = workload.attempts.iter().find(|a| a.number == attempt.number).ok_or(Denial::Unknown(*attempt))?;
    if found.cluster != *cluster {
        return Err(Denial::Elsewhere { attempt: *attempt, cluster: cluster.clone() });
    }
    if found.ended_at.is_some() {
        return Err(Denial::Ended(*attempt));
    }
    let named = workload.spec.tokens.iter().find(|token| token.audience == *audience).ok_or_else(|| {
        Denial::NotNamed { workload: workload.key.clone(), audience: audience.chars().take(80).collect() }
    })?;
    let namespace = &workload.key.namespace;
    Ok(Grant {
        workload: workload.key.clone(),
        attempt: *attempt,
        cluster: cluster.clone(),
        pool: workload.pool.clone(),
        owner: state.pools.owners().contains_key(namespace).then(|| namespace.clone()),
        audience: audience.clone(),
        life: named.life(),
    })
}

/// What stands in a token.
#[derive(Debug, Serialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    #[serde(rename = "tidewater.dev")]
    own: Own,
}

/// What only Tidewater knows.
#[derive(Debug, Serialize)]
struct Own {
    cluster: ClusterName,
    namespace: Namespace,
    workload: String,
    attempt: String,
    pool: PoolName,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Namespace>,
}

impl Claims {
    /// When the token expires, in seconds since 1970.
    pub(super) fn expires(&self) -> u64 {
        self.exp
    }
}

impl Grant {
    /// The claims of a token that is issued now under this id.
    pub(super) fn claims(&self, issuer: &IssuerUrl, now: UnixMs, id: Uuid) -> Claims {
        let WorkloadKey { namespace, name } = &self.workload;
        let issued = now.0 / 1000;
        Claims {
            iss: issuer.to_string(),
            sub: format!("tidewater:workload:{namespace}:{name}"),
            aud: self.audience.clone(),
            iat: issued,
            nbf: issued,
            exp: issued + self.life.0 / 1000,
            jti: id.to_string(),
            own: Own {
                cluster: self.cluster.clone(),
                namespace: namespace.clone(),
                workload: name.to_string(),
                attempt: self.attempt.to_string(),
                pool: self.pool.clone(),
                owner: self.owner.clone(),
            },
        }
    }
}
