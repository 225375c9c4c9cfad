//! The long-running roles of a federation, each one process.

pub mod agent;
pub mod coordinator;
pub mod identity;
pub mod kubernetes;
pub mod node;

use std::collections::BTreeMap;

use protocol::ids::ReplicaId;
use protocol::quic::Address;

/// One replica and where it listens: `1=127.0.0.1:7600`, `1=coordinator-1.example:7600`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The replica.
    pub id: ReplicaId,
    /// Where it listens.
    pub address: Address,
}

impl std::str::FromStr for Peer {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?}: write a replica's number and address, such as 1=127.0.0.1:7600 or 1=coordinator-1.example:7600"
            )
        };
        let (id, address) = text.split_once('=').ok_or_else(wrong)?;
        let id = id.parse().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
        Ok(Self { id: ReplicaId(id), address: address.parse().map_err(|_| wrong())? })
    }
}

/// Replicas by id; an id that stands there twice is an error.
pub fn by_id(peers: Vec<Peer>) -> anyhow::Result<BTreeMap<ReplicaId, Address>> {
    let mut map = BTreeMap::new();
    for peer in peers {
        if map.insert(peer.id, peer.address).is_some() {
            anyhow::bail!("replica {} is named twice", peer.id);
        }
    }
    Ok(map)
}
