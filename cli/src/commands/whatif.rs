//! `tidewater whatif`: what would start, move or wait if the fleet, a pool or the line were different. Nothing is changed.

use std::str::FromStr;

use engine::ahead::{Changes, Edit, Fate};
use protocol::ids::{ClusterName, DataName, NodeName, PoolName, Region, WorkloadKey};
use protocol::resources::{Cpu, Memory};
use protocol::sku::Sku;

use crate::args::Global;
use crate::client::default_namespace;
use crate::exit::Failure;
use crate::manifest;
use crate::manifest::pools::Rule;
use crate::render::table::{Table, Tone, cell};
use crate::render::{Out, age, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// What is imagined to be different.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidewater whatif --add-nodes eu-1:4x8xH100                 four more nodes with eight H100 each
  tidewater whatif --add-cluster ap-1:ap-south --add-nodes ap-1:2x8xH100
  tidewater whatif --drain eu-1/gpu-7                        a node less; --drain eu-1: none of that cluster
  tidewater whatif --pools pools.yaml                        other pools
  tidewater whatif -f train.yaml                             one workload more
Edits are made in this order: clusters, nodes, drains, uncordons, pools, data, workloads.")]
pub struct Args {
    /// A cluster joins
    #[arg(long, value_name = "CLUSTER:REGION", value_parser = cluster)]
    add_cluster: Vec<(ClusterName, Region)>,
    /// Nodes come: COUNTxGPUSxMODEL, or COUNT without GPUs; cpu and memory as nodes of the fleet with such GPUs have, unless said
    #[arg(long, value_name = "CLUSTER:NODES[:CPU:MEMORY]")]
    add_nodes: Vec<Nodes>,
    /// A node, or all nodes of a cluster, take no members any more, and what runs there is ended and tried again
    #[arg(long, value_name = "CLUSTER[/NODE]", value_parser = drained)]
    drain: Vec<(ClusterName, Option<NodeName>)>,
    /// A cluster that is cordoned or drained is open again
    #[arg(long, value_name = "CLUSTER")]
    uncordon: Vec<ClusterName>,
    /// Pools are as this manifest says, or - for standard input
    #[arg(long, value_name = "FILE")]
    pools: Vec<String>,
    /// A pool goes
    #[arg(long, value_name = "NAME")]
    delete_pool: Vec<PoolName>,
    /// Data locations are as this manifest says, or - for standard input
    #[arg(long, value_name = "FILE")]
    data: Vec<String>,
    /// A data location goes
    #[arg(long, value_name = "NAME")]
    delete_data: Vec<DataName>,
    /// Workloads of this manifest are submitted, or - for standard input
    #[arg(long, short, value_name = "FILE")]
    file: Vec<String>,
}

/// Nodes that come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Nodes {
    cluster: ClusterName,
    count: u32,
    gpus: u16,
    sku: Option<Sku>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

impl FromStr for Nodes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (cluster, nodes, size) = match parts[..] {
            [cluster, nodes] => (cluster, nodes, None),
            [cluster, nodes, cpu, memory] => (cluster, nodes, Some((cpu, memory))),
            _ => {
                return Err(
                    "write CLUSTER:COUNTxGPUSxMODEL, such as eu-1:4x8xH100, and :CPU:MEMORY behind it where needed"
                        .into(),
                );
            }
        };
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of nodes"));
        let gpus = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of GPUs"));
        let (count, gpus, sku) = match nodes.splitn(3, 'x').collect::<Vec<_>>()[..] {
            [count] => (number(count)?, 0, None),
            [count, gpus_each, sku] => {
                (number(count)?, gpus(gpus_each)?, Some(Sku::parse(sku).map_err(|e| e.to_string())?))
            }
            _ => {
                return Err(format!(
                    "{nodes:?}: write COUNTxGPUSxMODEL, such as 4x8xH100, or COUNT for nodes without GPUs"
                ));
            }
        };
        let (cpu, memory) = match size {
            Some((cpu, memory)) => {
                let cpu = cpu.parse::<Cpu>().map_err(|e| e.to_string())?;
                (Some(cpu), Some(memory.parse::<Memory>().map_err(|e| e.to_string())?))
            }
            None => (None, None),
        };
        Ok(Self {
            cluster: cluster.parse().map_err(|e: protocol::ids::BadName| e.to_string())?,
            count,
            gpus,
            sku,
            cpu,
            memory,
        })
    }
}

fn cluster(text: &str) -> Result<(ClusterName, Region), String> {
    let (name, region) = text.split_once(':').ok_or("write CLUSTER:REGION, such as ap-1:ap-south")?;
    Ok((name.parse().map_err(|e| format!("{e}"))?, region.parse().map_err(|e| format!("{e}"))?))
}

fn drained(text: &str) -> Result<(ClusterName, Option<NodeName>), String> {
    let (name, node) = text.split_once('/').map_or((text, None), |(name, node)| (name, Some(node)));
    let node = node.map(|n| n.parse().map_err(|e| format!("{e}"))).transpose()?;
    Ok((name.parse().map_err(|e| format!("{e}"))?, node))
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let edits = edits(args, global)?;
    let client = connect(global, PATIENCE_TO_READ)?;
    let changes = progress::patiently("looking ahead", client.whatif(&edits)).await?;
    out.object(&changes, || text(&changes, out))
}

fn edits(args: Args, global: &Global) -> Result<Vec<Edit>, Failure> {
    let mut edits: Vec<Edit> = vec![];
    edits.extend(args.add_cluster.into_iter().map(|(cluster, region)| Edit::AddCluster { cluster, region }));
    edits.extend(args.add_nodes.into_iter().map(|n| {
        let Nodes { cluster, count, gpus, sku, cpu, memory } = n;
        Edit::AddNodes { cluster, count, sku, gpus, cpu, memory }
    }));
    edits.extend(args.drain.into_iter().map(|(cluster, node)| match node {
        Some(node) => Edit::DrainNode { cluster, node },
        None => Edit::DrainCluster { cluster, waits: false },
    }));
    edits.extend(args.uncordon.into_iter().map(|cluster| Edit::OpenCluster { cluster }));
    for rule in manifest::pools::read(&args.pools)? {
        match rule {
            Rule::Pool(pool) => {
                let name = pool.metadata.name.as_str().parse();
                let name = name.map_err(|e: protocol::ids::BadName| Failure::input(format!("metadata.name: {e}")))?;
                edits.push(Edit::SetPool { name, spec: Box::new(pool.spec) });
            }
            Rule::Owner(_) => {
                return Err(Failure::input(
                    "ownership rules say where new workloads go: name the pool in the workload instead",
                ));
            }
        }
    }
    edits.extend(args.delete_pool.into_iter().map(|name| Edit::DeletePool { name }));
    for data in manifest::data::read(&args.data)? {
        let name = data.metadata.name.as_str().parse();
        let name = name.map_err(|e: protocol::ids::BadName| Failure::input(format!("metadata.name: {e}")))?;
        edits.push(Edit::SetData { name, spec: Box::new(data.spec) });
    }
    edits.extend(args.delete_data.into_iter().map(|name| Edit::DeleteData { name }));
    for workload in manifest::read(&args.file, global.namespace.as_ref())? {
        let namespace = workload.metadata.namespace.unwrap_or_else(default_namespace);
        let key = WorkloadKey { namespace, name: workload.metadata.name };
        edits.push(Edit::Submit { key, spec: Box::new(workload.spec) });
    }
    match edits.is_empty() {
        true => {
            Err(Failure::input("nothing is different: say what is to be imagined, such as --add-nodes eu-1:4x8xH100"))
        }
        false => Ok(edits),
    }
}

/// What would change, as a table.
pub fn text(changes: &Changes, out: &Out) -> String {
    if changes.changed == 0 {
        return format!("Nothing would change for the {} workloads that have not ended.\n", changes.same);
    }
    let mut table = Table::new(&["WORKLOAD", "NOW", "THEN"]);
    for change in &changes.changes {
        let (before, after) = (&change.before, &change.after);
        table.row(vec![cell(&change.workload), cell(said(before)), (said(after), tone(before, after))]);
    }
    let more = changes.changed.saturating_sub(changes.changes.len() as u64);
    let more = if more > 0 { format!("and {more} more; ") } else { String::new() };
    format!("{}\n{more}{} workloads would stay as they are.\n", table.text(out), changes.same)
}

/// Whether it is for the better.
fn tone(before: &Fate, after: &Fate) -> Tone {
    let start = |fate: &Fate| match fate {
        Fate::Runs { .. } => Some(0),
        Fate::Starts { at, .. } => Some(at.0),
        Fate::Waits { .. } | Fate::Absent => None,
    };
    match (start(before), start(after)) {
        (None, Some(_)) => Tone::Good,
        (Some(before), Some(after)) if after < before => Tone::Good,
        (_, None) => Tone::Bad,
        (Some(before), Some(after)) if after > before => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn said(fate: &Fate) -> String {
    let moved = |from: &Option<ClusterName>, word: &str| match from {
        Some(from) => format!("ends in {from}, {word}"),
        None => word.to_owned(),
    };
    match fate {
        Fate::Absent => "is not there".into(),
        Fate::Runs { cluster } => format!("runs in {cluster}"),
        Fate::Starts { cluster, at, from } => moved(from, &format!("starts {} in {cluster}", age::until(*at))),
        Fate::Waits { why, from } => moved(from, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_as_they_are_written_or_say_what_to_write() {
        let nodes: Nodes = "eu-1:4x8xH100".parse().unwrap();
        assert_eq!((nodes.count, nodes.gpus, nodes.cpu), (4, 8, None));
        let nodes: Nodes = "eu-1:2x1xA100-80GB:16:64Gi".parse().unwrap();
        assert_eq!((nodes.sku, nodes.memory), (Some(Sku::parse("A100-80GB").unwrap()), Some(Memory(65_536))));
        assert_eq!("eu-1:3".parse::<Nodes>().unwrap().count, 3);
        for bad in ["eu-1", "eu-1:4x8", "eu-1:ax8xH100", "eu-1:1x8xH100:4", "EU:1x8xH100", "eu-1:1x8xH100:x:64Gi"] {
            assert!(bad.parse::<Nodes>().is_err(), "{bad}");
        }
    }
}
