//! Who the other end is: the SPIFFE id in its certificate, and nothing that it says itself.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Credentials;
use crate::ids::{ClusterName, NodeName, ReplicaId};

/// The trust domain of this federation's certificates.
const DOMAIN: &str = "spiffe://tidewater/";

/// Who holds a certificate of the federation's CA.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A coordinator replica: `spiffe://tidewater/replica/1`.
    Replica(ReplicaId),
    /// A cluster's agent: `spiffe://tidewater/cluster/eu-west-1`.
    Cluster(ClusterName),
    /// A node of a cluster: `spiffe://tidewater/cluster/eu-west-1/node/gpu-1`.
    Node(ClusterName, NodeName),
}

/// The name under which a replica's certificate is checked by those who connect to it, wherever it runs.
pub fn replica_server_name(id: ReplicaId) -> String {
    format!("replica-{id}.tidewater.internal")
}

/// The name under which an agent's certificate is checked by its nodes, wherever it runs.
pub fn agent_server_name(cluster: &ClusterName) -> String {
    format!("{cluster}.cluster.tidewater.internal")
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Replica(id) => write!(f, "{DOMAIN}replica/{id}"),
            Identity::Cluster(name) => write!(f, "{DOMAIN}cluster/{name}"),
            Identity::Node(cluster, node) => write!(f, "{DOMAIN}cluster/{cluster}/node/{node}"),
        }
    }
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The other end showed no certificate.
    #[error("the other end has no certificate")]
    NoCertificate,
    /// It can't be parsed.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// It must have exactly one SPIFFE id.
    #[error("the certificate has {0} URI names; it must have exactly one")]
    NotOneUri(usize),
    /// The id is none of ours.
    #[error("{0:?} is no identity of this federation")]
    Foreign(String),
}

impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let foreign = || IdentityError::Foreign(uri.chars().take(200).collect());
        let (kind, name) = uri.strip_prefix(DOMAIN).and_then(|rest| rest.split_once('/')).ok_or_else(foreign)?;
        match kind {
            "replica" => match name.parse::<u64>() {
                // Only the canonical spelling: `01` is nobody.
                Ok(id) if id > 0 && id.to_string() == name => Ok(Identity::Replica(ReplicaId(id))),
                _ => Err(foreign()),
            },
            "cluster" => match name.split_once("/node/") {
                None => ClusterName::new(name).map(Identity::Cluster).map_err(|_| foreign()),
                Some((cluster, node)) => match (ClusterName::new(cluster), NodeName::new(node)) {
                    (Ok(cluster), Ok(node)) => Ok(Identity::Node(cluster, node)),
                    _ => Err(foreign()),
                },
            },
            _ => Err(foreign()),
        }
    }
}

/// The identity in a certificate: one's own, or one that TLS has verified.
fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
    let malformed = |e: String| IdentityError::Malformed(e);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| malformed(e.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|e| malformed(e.to_string()))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None })
        .collect();
    match uris[..] {
        [uri] => uri.parse(),
        _ => Err(IdentityError::NotOneUri(uris.len())),
    }
}

impl Credentials {
    /// Who holds them.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        identity_of(&self.certificate)
    }
}

/// The identity of the other end of a connection.
pub fn peer_identity(connection: &quinn::Connection) -> Result<Identity, IdentityError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(IdentityError::NoCertificate)?;
    identity_of(chain.first().ok_or(IdentityError::NoCertificate)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_from_its_uri() {
        let cluster = || ClusterName::new("eu-west-1").unwrap();
        let node = Identity::Node(cluster(), NodeName::new("gpu-1.rack.2").unwrap());
        for identity in [Identity::Replica(ReplicaId(3)), Identity::Cluster(cluster()), node] {
            assert_eq!(identity.to_string().parse::<Identity>().unwrap(), identity);
        }
    }

    #[test]
    fn only_the_canonical_spelling_of_this_federation_is_an_identity() {
        for uri in [
            "spiffe://tidewater/replica/0",
            "spiffe://tidewater/replica/01",
            "spiffe://tidewater/replica/+1",
            "spiffe://tidewater/cluster/EU",
            "spiffe://tidewater/cluster/a/b",
            "spiffe://tidewater/cluster/",
            "spiffe://other/replica/1",
            "https://tidewater/replica/1",
            "spiffe://tidewater/node/1",
            "spiffe://tidewater/cluster/eu/node/",
            "spiffe://tidewater/cluster//node/a",
            "spiffe://tidewater/cluster/eu/node/a/b",
            "spiffe://tidewater/cluster/eu/node/A",
            "spiffe://tidewater/cluster/eu/node/a/node/b",
        ] {
            assert!(uri.parse::<Identity>().is_err(), "{uri}");
        }
    }
}
