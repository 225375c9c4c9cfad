//! `tidewater clusters`: the member clusters, or the nodes of one.

use protocol::ids::ClusterName;

use crate::args::Global;
use crate::client::Client;
use crate::render::{Out, clusters, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// Which cluster, if one is meant.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show the nodes of this cluster
    name: Option<ClusterName>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let client = connect(global, PATIENCE_TO_READ)?;
    match args.name {
        None => list(&client, out).await,
        Some(name) => nodes(&client, &name, out).await,
    }
}

/// Prints a cluster's nodes.
pub async fn nodes(client: &Client, name: &ClusterName, out: &Out) -> anyhow::Result<()> {
    let nodes = progress::patiently("waiting for the server", client.nodes(name)).await?;
    out.object(&nodes, || clusters::nodes(&nodes.items, out))
}

/// Prints the clusters.
pub async fn list(client: &Client, out: &Out) -> anyhow::Result<()> {
    let list = progress::patiently("waiting for the server", client.clusters()).await?;
    out.object(&list, || clusters::list(&list.items, out))
}
