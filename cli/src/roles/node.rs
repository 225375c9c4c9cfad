//! `tidewater node`: reads this node's GPUs.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use agent::node::{NodeConfig, NodeSampler, run_once};
use protocol::ids::NodeName;
use protocol::node::NodeFrame;

use crate::args::Format;
use crate::dev::Ended;

/// Reads this node's GPUs through NVML: once, or for ever, one frame a line of what changed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read everything once, with activity over about a second, and end
    #[arg(long)]
    pub once: bool,
    /// The NVML library; left out: the system's
    #[arg(long, value_name = "PATH")]
    pub nvml_lib: Option<PathBuf>,
    /// This node's name; left out: the machine's
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<NodeName>,
    /// Time between two readings of activity and memory, such as 1s
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: protocol::resources::Span,
}

/// Runs the role until it is ended.
pub async fn run(args: Args, format: Format) -> anyhow::Result<()> {
    let node = match args.node_name {
        Some(name) => name,
        None => NodeName::new(rustix::system::uname().nodename().to_string_lossy().to_lowercase())?,
    };
    anyhow::ensure!(args.interval.0 >= 100, "--interval {}: at least 100ms", args.interval);
    let mut config = NodeConfig::new(node, args.nvml_lib);
    config.interval = Duration::from_millis(args.interval.0);
    if args.once {
        let frame = tokio::task::spawn_blocking(move || run_once(config)).await??;
        return print(&frame, format);
    }
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
