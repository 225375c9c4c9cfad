//! `tidewater dev`: a whole federation in one process, on loopback: three coordinators, the fleet's clusters, its own CA,
//! and the process runtime, so that workloads really run, on this machine.

pub mod federation;
pub mod fleet;
mod gpus;
mod place;

use std::path::PathBuf;

use anyhow::Context;

pub use federation::{Federation, Settings};

/// Starts an embedded federation on this machine, for trying things out.
///
/// When it is ready it has written DATA_DIR/kubeconfig and prints `ready: URL`. It ends on SIGTERM or Ctrl-C, and leaves no
/// process behind; workloads that had not ended are tried again at the next start on the same folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where everything is kept; left out: tidewater/dev in $XDG_DATA_HOME or ~/.local/share
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the first coordinator serves HTTP on 127.0.0.1; 0 takes any free port
    #[arg(long, default_value_t = 7700)]
    pub port: u16,
    /// The clusters and their nodes; left out: three clusters in two regions
    #[arg(long, value_name = "FILE")]
    pub fleet: Option<PathBuf>,
    /// The NVML library, for measuring this machine's GPUs; left out: the system's, where there is one
    #[arg(long, value_name = "PATH")]
    pub nvml_lib: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let data_dir = match args.data_dir {
        Some(dir) => dir,
        None => {
            place::default_data_dir().context("there is no home folder: say where to keep things with --data-dir")?
        }
    };
    let fleet = fleet::Fleet::load(args.fleet.as_deref())?;
    let settings = Settings { data_dir, port: args.port, fleet, nvml_lib: args.nvml_lib };
    // Asked for first, so that a signal during the start ends it in order too.
    let mut ended = Ended::new()?;
    let federation = tokio::select! {
        federation = Federation::start(settings) => federation?,
        () = ended.wait() => return Ok(()),
    };
    federation.print_ready();
    ended.wait().await;
    tell!("stopping: ending what runs");
    federation.stop().await
}

/// SIGTERM or SIGINT.
pub struct Ended {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Ended {
    /// From now on these signals do not end the process by themselves.
    pub fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
