//! `tidewater identity`: makes the certificates of a federation's own CA.

use std::path::PathBuf;

use coordinator::identity::ca::Ca;
use protocol::ids::{ClusterName, NodeName, ReplicaId};
use protocol::quic::Identity;

/// Makes the certificate of a replica, an agent or a node, and the federation's CA the first time. Prints the identity's
/// folder.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("whose").required(true).multiple(false).args(["replica", "cluster"]))]
pub struct Args {
    /// The folder of the certificate authority; made if it is not there. Its ca.key makes members: keep it apart
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// For this coordinator replica
    #[arg(long, value_name = "ID")]
    pub replica: Option<u64>,
    /// For this cluster's agent, or with --node for a node of it
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// For this node of the cluster
    #[arg(long, value_name = "NAME", requires = "cluster", conflicts_with = "replica")]
    pub node: Option<NodeName>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let identity = match (args.replica, args.cluster) {
        (Some(id), _) => {
            anyhow::ensure!(id > 0, "--replica 0: replicas are numbered from 1");
            Identity::Replica(ReplicaId(id))
        }
        (None, Some(cluster)) => match args.node {
            Some(node) => Identity::Node(cluster, node),
            None => Identity::Cluster(cluster),
        },
        (None, None) => anyhow::bail!("say whose it is: --replica ID, --cluster NAME, or --cluster NAME --node NAME"),
    };
    println!("{}", Ca::open(&args.ca)?.issue(&identity)?.display());
    Ok(())
}
