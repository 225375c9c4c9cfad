//! `tidewater node`: reads this node's GPUs, and streams them to the cluster's agent or prints them.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use agent::node::{NodeConfig, NodeSampler, kubelet, run_once};
use agent::run::node::{NodeLink, Notice, Pass};
use anyhow::Context;
use protocol::ids::{ClusterName, NodeName};
use protocol::node::NodeFrame;
use protocol::quic::Address;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::args::Format;
use crate::dev::Ended;

/// Reads this node's GPUs through NVML and streams what changed to its cluster's agent; without --agent prints it, one
/// frame a line.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read everything once, with activity over about a second, and end
    #[arg(long)]
    pub once: bool,
    /// The cluster's agent, where it listens for nodes (`tidewater agent --listen-nodes`)
    #[arg(long, value_name = "HOST:PORT", requires = "who", conflicts_with = "once")]
    pub agent: Option<String>,
    /// The folder with this node's ca.pem, cert.pem and key.pem (see `tidewater identity --node`)
    #[arg(long, value_name = "DIR", requires = "agent", group = "who")]
    pub identity: Option<PathBuf>,
    /// In a pod, instead of an identity: the file of its projected service account token
    #[arg(long, value_name = "FILE", requires_all = ["agent", "ca", "cluster", "node_name"], group = "who")]
    pub token: Option<PathBuf>,
    /// The certificate of the federation's CA, by which the agent is known
    #[arg(long, value_name = "FILE", requires = "token")]
    pub ca: Option<PathBuf>,
    /// The cluster whose agent it is
    #[arg(long, value_name = "NAME", requires = "token")]
    pub cluster: Option<ClusterName>,
    /// The NVML library; left out: the system's
    #[arg(long, value_name = "PATH")]
    pub nvml_lib: Option<PathBuf>,
    /// The socket on which this node's kubelet says whose pods have which GPUs (/var/lib/kubelet/pod-resources/kubelet.sock); it is root's
    #[arg(long, value_name = "SOCKET", conflicts_with = "once")]
    pub pod_resources: Option<PathBuf>,
    /// This node's name; left out: the certificate's, or without one the machine's
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<NodeName>,
    /// Time between two readings of activity and memory, such as 1s
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: protocol::resources::Span,
}

/// Runs the role until it is ended.
pub async fn run(args: Args, format: Format) -> anyhow::Result<()> {
    anyhow::ensure!(args.interval.0 >= 100, "--interval {}: at least 100ms", args.interval);
    let link = link(&args)?;
    let node = match (args.node_name, &link) {
        (Some(name), Some(link)) if name != link.node => anyhow::bail!(
            "--node-name {name}: the certificate is for node {}; leave --node-name out, or make {name} a certificate of its \
             own (tidewater identity --cluster {} --node {name})",
            link.node,
            link.cluster
        ),
        (_, Some(link)) => link.node.clone(),
        (Some(name), None) => name,
        (None, None) => NodeName::new(rustix::system::uname().nodename().to_string_lossy().to_lowercase())?,
    };
    let mut config = NodeConfig::new(node, args.nvml_lib);
    config.interval = Duration::from_millis(args.interval.0);
    if args.once {
        let frame = tokio::task::spawn_blocking(move || run_once(config)).await??;
        return print(&frame, format);
    }
    match link {
        Some(link) => stream(link, config, args.pod_resources).await,
        None => print_frames(config, args.pod_resources).await,
    }
}

/// The link to the agent, where one is named.
fn link(args: &Args) -> anyhow::Result<Option<NodeLink>> {
    let Some(agent) = &args.agent else { return Ok(None) };
    let address: Address = agent.parse().with_context(|| format!("--agent {agent}"))?;
    if let Some(identity) = &args.identity {
        let credentials = crate::dev::federation::credentials(identity)?;
        let link = NodeLink::new(&credentials, address);
        return link.map(Some).with_context(|| format!("--identity {}", identity.display()));
    }
    match (&args.token, &args.ca, &args.cluster, &args.node_name) {
        (Some(token), Some(ca), Some(cluster), Some(node)) => {
            let (cluster, node, token) = (cluster.clone(), node.clone(), token.clone());
            let link = NodeLink::with_token(Pass { cluster, node, token, ca: ca.clone() }, address);
            link.map(Some).with_context(|| format!("--ca {}", ca.display()))
        }
        // The command line asks for all of them.
        _ => Ok(None),
    }
}

/// Asks the kubelet, where there is one to ask; never ends.
async fn ask(kubelet: Option<PathBuf>, sampler: &NodeSampler) {
    match kubelet {
        Some(socket) => kubelet::follow(socket, sampler, |news| tell!("{news}")).await,
        None => std::future::pending().await,
    }
}

async fn stream(link: NodeLink, mut config: NodeConfig, kubelet: Option<PathBuf>) -> anyhow::Result<()> {
    // The cluster role calls a node stale after 5 s of silence.
    config.heartbeat = Duration::from_secs(2);
    let (cluster, node) = (link.cluster.clone(), link.node.clone());
    let mut ended = Ended::new()?;
    let (sampler, frames) = NodeSampler::start(config)?;
    say!("ready: node {node} of cluster {cluster}");
    let stop = CancellationToken::new();
    let notice = |notice| match notice {
        Notice::Connected(address) => say!("streams to the agent at {address}"),
        Notice::Down(why) => tell!("{why}; trying again"),
    };
    let until_ended = async {
        ended.wait().await;
        stop.cancel();
    };
    let streams = async { tokio::join!(link.run(&sampler, frames, stop.clone(), notice), until_ended) };
    tokio::select! {
        _ = streams => {}
        () = ask(kubelet, &sampler) => {}
    }
    sampler.stop();
    Ok(())
}

async fn print_frames(config: NodeConfig, kubelet: Option<PathBuf>) -> anyhow::Result<()> {
    let (sampler, frames) = NodeSampler::start(config)?;
    let printed = tokio::select! {
        printed = print_each(frames) => printed,
        () = ask(kubelet, &sampler) => Ok(()),
    };
    sampler.stop();
    printed
}

async fn print_each(mut frames: mpsc::Receiver<NodeFrame>) -> anyhow::Result<()> {
    let mut ended = Ended::new()?;
    loop {
        let frame = tokio::select! {
            frame = frames.recv() => frame,
            () = ended.wait() => None,
        };
        let Some(frame) = frame else { break };
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &frame)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

fn print(frame: &NodeFrame, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(frame)?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(frame)?),
        Format::Table | Format::Wide => {
            let unknown = || "unknown".to_owned();
            println!("driver: {}", serde_json::to_string(&frame.driver)?);
            for device in &frame.devices {
                let activity = device.activity.map_or_else(unknown, |a| format!("{}% ({:?})", a.percent, a.source));
                let memory = match (device.memory_used_mib, device.memory_total_mib) {
                    (Some(used), Some(total)) => format!("{used} of {total} MiB"),
                    _ => unknown(),
                };
                println!("{} {} activity {activity}, memory {memory}, {:?}", device.index, device.sku, device.health);
            }
        }
    }
    Ok(())
}
