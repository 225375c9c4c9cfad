//! The node role alone, in its smallest process: reads GPUs and, with `--print`, writes each frame as a line of JSON.
//!
//! `node_loop [--nvml-lib PATH] [--node-name NAME] [--interval MS] [--once] [--print]`. The footprint benchmark measures it.

use std::error::Error;
use std::time::Duration;

use agent::node::{NodeConfig, NodeSampler, run_once};
use protocol::ids::NodeName;

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = NodeConfig::new(NodeName::new("node")?, None);
    let (mut once, mut print) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--nvml-lib" => config.nvml_lib = Some(value()?.into()),
            "--node-name" => config.node = NodeName::new(value()?)?,
            "--interval" => config.interval = Duration::from_millis(value()?.parse()?),
            "--once" => once = true,
            "--print" => print = true,
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    if once {
        println!("{}", serde_json::to_string_pretty(&run_once(config)?)?);
        return Ok(());
    }
    let (_sampler, mut frames) = NodeSampler::start(config)?;
    while let Some(frame) = frames.blocking_recv() {
        if print {
            println!("{}", serde_json::to_string(&frame)?);
        }
    }
    Ok(())
}
