//! `tidewater coordinator`: one replica of the control plane.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::Context;
use coordinator::identity::workload_tokens::IssuerUrl;
use protocol::ids::ReplicaId;
use protocol::quic::{Address, Credentials, Identity};

use super::{Peer, by_id};
use crate::dev::Ended;

/// Runs a replica of the control plane; one or three make a federation's coordinator.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// This replica's number, from 1; a wiped disk needs a new one. Left out: that of its certificate
    #[arg(long)]
    pub id: Option<u64>,
    /// Where its log is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The folder with ca.pem, cert.pem and key.pem (see `tidewater identity`)
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// Where it listens for replicas and agents (QUIC)
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where it serves the API and the page; there is no login in this version, so keep it on loopback, or where the network lets
    /// in nobody but those who may do everything
    #[arg(long, value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// A replica; once for each. Itself among them is left out, so that all can be started alike. A name is looked up for each
    /// connection
    #[arg(long = "peer", value_name = "ID=HOST:PORT")]
    pub peers: Vec<Peer>,
    /// Issues tokens to workloads that ask for them (spec.tokens), by this name: the https URL under which whoever verifies them
    /// reaches the coordinators' API; the same for all replicas. Left out: no tokens
    #[arg(long, value_name = "URL")]
    pub workload_issuer: Option<IssuerUrl>,
}

/// Runs the role until it is ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.id != Some(0), "--id 0: replicas are numbered from 1");
    let given = args.id.map(ReplicaId);
    let peers = by_id(args.peers)?;
    // What can be seen without the certificate is told first.
    if let Some(id) = given {
        others(id, &peers)?;
    }
    let credentials = crate::dev::federation::credentials(&args.identity)?;
    let id = given.map_or_else(|| of_certificate(&credentials, &args.identity), Ok)?;
    let mut ended = Ended::new()?;
    let config = coordinator::run::Config {
        id,
        data_dir: args.data_dir,
        credentials,
        quic: UdpSocket::bind(args.listen).with_context(|| format!("--listen {}", args.listen))?,
        peers: others(id, &peers)?,
        http: TcpListener::bind(args.http).with_context(|| format!("--http {}", args.http))?,
        workload_issuer: args.workload_issuer,
    };
    let running = coordinator::run::start(config).await?;
    say!("ready: http://{}", running.http);
    ended.wait().await;
    running.stop().await;
    Ok(())
}

/// The other replicas.
fn others(id: ReplicaId, all: &BTreeMap<ReplicaId, Address>) -> anyhow::Result<BTreeMap<ReplicaId, Address>> {
    let others: BTreeMap<_, _> = all.iter().filter(|(other, _)| **other != id).map(|(i, a)| (*i, a.clone())).collect();
    let count = others.len() + 1;
    anyhow::ensure!(matches!(count, 1 | 3), "replica {id} would be one of {count}: one or three make a coordinator");
    Ok(others)
}

/// Whose certificate it is.
fn of_certificate(credentials: &Credentials, folder: &Path) -> anyhow::Result<ReplicaId> {
    match credentials.identity().with_context(|| format!("--identity {}", folder.display()))? {
        Identity::Replica(id) => Ok(id),
        other => anyhow::bail!(
            "--identity {}: its certificate is for {other}, which is no replica; make one with `tidewater identity --replica ID`",
            folder.display()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn named(peers: &[&str]) -> BTreeMap<ReplicaId, Address> {
        by_id(peers.iter().map(|peer| peer.parse().unwrap()).collect()).unwrap()
    }

    #[test]
    fn all_replicas_can_be_given_the_same_list() {
        let all = named(&["1=a:1", "2=b:1", "3=c:1"]);
        for id in 1..=3 {
            let others = others(ReplicaId(id), &all).unwrap();
            assert_eq!((others.len(), others.contains_key(&ReplicaId(id))), (2, false));
        }
        assert!(others(ReplicaId(1), &named(&[])).unwrap().is_empty());
        assert!(others(ReplicaId(1), &named(&["1=a:1"])).unwrap().is_empty());
    }

    #[test]
    fn another_number_of_replicas_is_refused() {
        let of = |id, peers: &[&str]| others(ReplicaId(id), &named(peers)).unwrap_err().to_string();
        // Number 2 is meant to be another.
        assert!(of(2, &["2=b:1", "3=c:1"]).contains("one of 2: one or three"));
        assert!(of(4, &["1=a:1", "2=b:1", "3=c:1"]).contains("one of 4: one or three"));
    }

    #[test]
    fn its_number_is_its_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let ca = coordinator::identity::ca::Ca::open(dir.path()).unwrap();
        let of =
            |identity: &Identity| of_certificate(&Credentials::load(&ca.issue(identity).unwrap()).unwrap(), dir.path());
        assert_eq!(of(&Identity::Replica(ReplicaId(3))).unwrap(), ReplicaId(3));
        let other = of(&Identity::Cluster("eu".parse().unwrap())).unwrap_err().to_string();
        assert!(other.contains("spiffe://tidewater/cluster/eu, which is no replica"), "{other}");
    }
}
