//! `tidewater identity`: makes the certificates of a federation's own CA.

use std::path::PathBuf;

use coordinator::identity::ca::Ca;
use protocol::ids::{ClusterName, ReplicaId};
use protocol::quic::Identity;

/// Makes the certificate of a replica or an agent, and the federation's CA the first time. Prints the identity's folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of the certificate authority; made if it is not there. Its ca.key makes members: keep it apart
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// For this coordinator replica
    #[arg(long, value_name = "ID", required_unless_present = "cluster", conflicts_with = "cluster")]
    pub replica: Option<u64>,
    /// For this cluster's agent
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let identity = match (args.replica, args.cluster) {
        (Some(id), _) => {
            anyhow::ensure!(id > 0, "--replica 0: replicas are numbered from 1");
            Identity::Replica(ReplicaId(id))
        }
        (None, Some(name)) => Identity::Cluster(name),
        (None, None) => anyhow::bail!("say whose it is: --replica ID or --cluster NAME"),
    };
    println!("{}", Ca::open(&args.ca)?.issue(&identity)?.display());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn an_identity_is_a_replicas_or_a_clusters_and_never_both() {
        let parse = |text: &str| Command::try_parse_from(text.split(' ')).map(|c| (c.args.replica, c.args.cluster));
        assert_eq!(parse("identity --ca ca --replica 2").unwrap(), (Some(2), None));
        assert!(parse("identity --ca ca --cluster eu").unwrap().1.is_some());
        assert!(parse("identity --ca ca").is_err());
        assert!(parse("identity --ca ca --replica 2 --cluster eu").is_err());
    }
}
