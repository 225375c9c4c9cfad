//! `tidewater coordinator`: one replica of the control plane.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;

use anyhow::Context;
use protocol::ids::ReplicaId;

use super::{Peer, by_id};
use crate::dev::Ended;

/// Runs a replica of the control plane; one or three make a federation's coordinator.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// This replica's number, from 1; a wiped disk needs a new one
    #[arg(long)]
    pub id: u64,
    /// Where its log is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The folder with ca.pem, cert.pem and key.pem (see `tidewater identity`)
    #[arg(long, value_name = "DIR")]
    pub identity: PathBuf,
    /// Where it listens for replicas and agents (QUIC)
    #[arg(long, value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where it serves the API and the page; there is no login in this version, so keep it on loopback
    #[arg(long, value_name = "ADDRESS")]
    pub http: SocketAddr,
    /// Another replica; once for each
    #[arg(long = "peer", value_name = "ID=ADDRESS")]
    pub peers: Vec<Peer>,
}

/// Runs the role until it is ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(args.id > 0, "--id 0: replicas are numbered from 1");
    let peers = by_id(args.peers)?;
    anyhow::ensure!(!peers.contains_key(&ReplicaId(args.id)), "--peer names this replica ({}) itself", args.id);
    anyhow::ensure!(matches!(peers.len(), 0 | 2), "{} replicas: one or three make a coordinator", peers.len() + 1);
    let mut ended = Ended::new()?;
    let config = coordinator::run::Config {
        id: ReplicaId(args.id),
        data_dir: args.data_dir,
        credentials: crate::dev::federation::credentials(&args.identity)?,
        quic: UdpSocket::bind(args.listen).with_context(|| format!("--listen {}", args.listen))?,
        peers,
        http: TcpListener::bind(args.http).with_context(|| format!("--http {}", args.http))?,
    };
    let running = coordinator::run::start(config).await?;
    say!("ready: http://{}", running.http);
    ended.wait().await;
    running.stop().await;
    Ok(())
}
