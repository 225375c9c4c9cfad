//! `tidewater node`: reads this node's GPUs, and streams them to the cluster's agent or prints them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::node::{NodeConfig, NodeSampler, run_once};
use agent::run::node::{NodeLink, Notice};
use anyhow::Context;
use protocol::ids::NodeName;
use protocol::node::NodeFrame;
use protocol::quic::Address;
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
    #[arg(long, value_name = "HOST:PORT", requires = "identity", conflicts_with = "once")]
    pub agent: Option<String>,
    /// The folder with this node's ca.pem, cert.pem and key.pem (see `tidewater identity --node`)
    #[arg(long, value_name = "DIR", requires = "agent")]
    pub identity: Option<PathBuf>,
    /// The NVML library; left out: the system's
    #[arg(long, value_name = "PATH")]
    pub nvml_lib: Option<PathBuf>,
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
    let link = match (&args.agent, &args.identity) {
        (Some(agent), Some(identity)) => Some(link(agent, identity)?),
        _ => None,
    };
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
        Some(link) => stream(link, config).await,
        None => print_frames(config).await,
    }
}

/// The link of this identity to the agent at `HOST:PORT`.
fn link(agent: &str, identity: &Path) -> anyhow::Result<NodeLink> {
    let agent: Address = agent.parse().with_context(|| format!("--agent {agent}"))?;
    let credentials = crate::dev::federation::credentials(identity)?;
    NodeLink::new(&credentials, agent).with_context(|| format!("--identity {}", identity.display()))
}

async fn stream(link: NodeLink, mut config: NodeConfig) -> anyhow::Result<()> {
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
    tokio::join!(link.run(&sampler, frames, stop.clone(), notice), until_ended);
    sampler.stop();
    Ok(())
}

async fn print_frames(config: NodeConfig) -> anyhow::Result<()> {
    let mut ended = Ended::new()?;
    let (sampler, mut frames) = NodeSampler::start(config)?;
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
    sampler.stop();
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
