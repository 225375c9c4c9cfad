//! `tidewater agent`: a member cluster's agent, on declared nodes and this machine's own GPUs, or of a Kubernetes cluster.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use agent::node::NodeConfig;
use anyhow::Context;
use protocol::ids::{ClusterName, NodeName};

use super::{Peer, by_id};
use crate::dev::Ended;
use crate::dev::fleet::Fleet;

/// Runs a member cluster's agent: of a Kubernetes cluster, or with processes of this machine. What it runs goes on while it is away; see
/// `--end-attempts`. Several of one Kubernetes cluster are replicas: one acts, the others wait.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's name in the fleet file
    #[arg(long, value_name = "NAME")]
    pub cluster: ClusterName,
    /// The fleet file; left out: the fleet that `tidewater dev` declares
    #[arg(long, value_name = "FILE")]
    pub fleet: Option<PathBuf>,
    /// Where its journal and attempts are kept; with --kubernetes these are in the cluster, and only logs of what has ended are kept here:
    /// left out, they go with the pods
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes")]
    pub data_dir: Option<PathBuf>,
    /// The folder with ca.pem, cert.pem and key.pem (see `tidewater identity`)
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// A coordinator replica; once for each. A name is looked up for each connection
    #[arg(long = "coordinator", value_name = "ID=HOST:PORT", required = true)]
    pub coordinators: Vec<Peer>,
    /// Read this machine's GPUs as this node of the cluster
    #[arg(long, value_name = "NAME")]
    pub measure_as: Option<NodeName>,
    /// The NVML library; left out: the system's
    #[arg(long, value_name = "PATH", requires = "measure_as")]
    pub nvml_lib: Option<PathBuf>,
    /// Where `tidewater node` of other machines connects (QUIC); a node that the fleet file does not declare too has no cpu
    /// or memory to give out
    #[arg(long, value_name = "ADDRESS")]
    pub listen_nodes: Option<SocketAddr>,
    #[command(flatten)]
    pub kubernetes: super::kubernetes::KubernetesArgs,
    /// On SIGTERM end every attempt too, and wait until all are gone
    #[arg(long)]
    pub end_attempts: bool,
}

/// Runs the role until it is ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let fleet = Fleet::load(args.fleet.as_deref())?;
    let names = || fleet.clusters.iter().map(|c| c.name.to_string()).collect::<Vec<_>>().join(", ");
    let cluster = fleet
        .clusters
        .iter()
        .find(|c| c.name == args.cluster)
        .with_context(|| format!("cluster {} is not in the fleet (it has {})", args.cluster, names()))?;
    let node = args.measure_as.map(|name| {
        let mut config = NodeConfig::new(name, args.nvml_lib);
        // The cluster role calls a node stale after 5 s of silence.
        config.heartbeat = Duration::from_secs(2);
        config
    });
    let listen_nodes = match args.listen_nodes {
        Some(address) => Some(UdpSocket::bind(address).with_context(|| format!("--listen-nodes {address}"))?),
        None => None,
    };
    let kubernetes = args.kubernetes.of(&cluster.name, args.data_dir.as_deref());
    let mut ended = Ended::new()?;
    let mut stand = agent::run::stand(agent::run::Config {
        cluster: cluster.info()?,
        nodes: if kubernetes.is_some() { vec![] } else { cluster.declared()? },
        credentials: crate::dev::federation::credentials(&args.identity)?,
        coordinators: by_id(args.coordinators)?,
        data_dir: args.data_dir.unwrap_or_default(),
        cache_dir: agent::runtime::process::default_cache_dir(),
        runtime_dir: agent::runtime::process::default_runtime_dir(),
        guard: crate::dev::federation::guard()?,
        node,
        listen_nodes,
        kubernetes,
    })
    .await?;
    // For as long as another replica leads.
    tokio::select! {
        led = stand.leads() => led?,
        () = ended.wait() => {
            stand.withdraw().await;
            return Ok(());
        }
    }
    let running = stand.start().await?;
    for (framework, why) in &running.missing {
        tell!("{framework} workloads can't run here: {why}");
    }
    match running.nodes {
        Some(address) => say!("ready: agent of cluster {}, nodes connect to {address}", running.cluster.name),
        None => say!("ready: agent of cluster {}", running.cluster.name),
    }
    ended.wait().await;
    if args.end_attempts {
        running.stop_with_attempts(5_000).await?;
    } else {
        running.stop().await;
    }
    Ok(())
}
