//! `tidewater get`: lists, single objects, and watching either.

use protocol::api::{List, WorkloadObject};
use protocol::ids::WorkloadName;

use super::{clusters, key};
use crate::args::{Format, Global};
use crate::client::{Change, Client, Scope};
use crate::exit::Failure;
use crate::render::{Out, progress, workload};
use crate::server::{PATIENCE_TO_CHANGE, PATIENCE_TO_READ, connect};

/// What to show.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidewater get                 workloads of the namespace\n  tidewater get -A -o wide      of all namespaces, with their messages\n  \
tidewater get train -o yaml   one workload, whole\n  tidewater get train -w        a line for each change\n  tidewater get clusters\n  tidewater get nodes eu-west-1 nodes of a cluster, with their GPUs"
)]
pub struct Args {
    /// `workloads`, `clusters`, `nodes` and a cluster, or names of workloads
    #[arg(value_name = "workloads|clusters|nodes|NAME", default_value = "workloads", hide_default_value = true)]
    what: Vec<String>,
    /// Workloads of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Stay, and print each change as it happens
    #[arg(long, short)]
    watch: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let (kind, rest) = match args.what.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => ("workloads", &[][..]),
    };
    let names = match kind {
        "clusters" | "cluster" => {
            if args.watch {
                return Err(Failure::input("clusters can't be watched: leave --watch out").into());
            }
            if let [name, ..] = rest {
                return Err(Failure::input(format!("`get clusters` takes no names: write `clusters {name}`")).into());
            }
            return clusters::list(&connect(global, PATIENCE_TO_READ)?, out).await;
        }
        "nodes" | "node" => {
            if args.watch {
                return Err(Failure::input("nodes can't be watched: leave --watch out").into());
            }
            let [cluster] = rest else {
                let say = "say whose nodes: `get nodes CLUSTER`, one of `tidewater clusters`";
                return Err(Failure::input(say).into());
            };
            let cluster = cluster.parse().map_err(|e| Failure::input(format!("{e}")))?;
            return clusters::nodes(&connect(global, PATIENCE_TO_READ)?, &cluster, out).await;
        }
        "workloads" | "workload" => rest,
        _ => &args.what[..],
    };
    let names: Vec<WorkloadName> =
        names.iter().map(|name| name.parse().map_err(|e| Failure::input(format!("{e}")))).collect::<Result<_, _>>()?;
    if args.all_namespaces && !names.is_empty() {
        return Err(Failure::input("a name is looked up in one namespace: leave --all-namespaces out").into());
    }
    let scope = if args.all_namespaces { Scope::All } else { Scope::Namespace(global.namespace()) };
    if args.watch {
        let scope = match &names[..] {
            [one] => Scope::Workload(key(one, global)),
            _ => scope,
        };
        return watch(&connect(global, PATIENCE_TO_CHANGE)?, scope, &names, out).await;
    }
    let client = connect(global, PATIENCE_TO_READ)?;
    if names.is_empty() { list(&client, scope, out).await } else { some(&client, &names, global, out).await }
}

async fn list(client: &Client, scope: Scope, out: &Out) -> anyhow::Result<()> {
    let list = progress::patiently("waiting for the server", client.list(&scope)).await?;
    if list.items.is_empty() && out.for_people() {
        out.note(&match &scope {
            Scope::All | Scope::Workload(_) => "No workloads.".to_owned(),
            Scope::Namespace(namespace) => format!("No workloads in namespace {namespace}."),
        });
        return Ok(());
    }
    out.object(&list, || workload::list(&list.items, out, scope == Scope::All))
}

async fn some(client: &Client, names: &[WorkloadName], global: &Global, out: &Out) -> anyhow::Result<()> {
    let mut items = vec![];
    for name in names {
        items.push(progress::patiently("waiting for the server", client.get(&key(name, global))).await?);
    }
    match &items[..] {
        [one] => out.object(one, || workload::list(&items, out, false)),
        _ => {
            let list = List {
                api_version: protocol::api::API_VERSION.into(),
                kind: "WorkloadList".into(),
                metadata: protocol::api::ListMetadata { resource_version: String::new() },
                items,
            };
            out.object(&list, || workload::list(&list.items, out, false))
        }
    }
}

/// Prints workloads as they are and a line, or an object, for each change, until it is interrupted.
async fn watch(client: &Client, scope: Scope, names: &[WorkloadName], out: &Out) -> anyhow::Result<()> {
    let namespaces = scope == Scope::All;
    let mut changes = client.changes(scope);
    let mut widths = Widths::default();
    loop {
        let (object, gone) = match changes.next().await? {
            Change::Now(object) => (object, false),
            Change::Gone(object) => (object, true),
        };
        if !names.is_empty() && !names.contains(&object.metadata.name) {
            continue;
        }
        match out.format {
            Format::Table | Format::Wide => out.print(&widths.line(&object, gone, namespaces, out))?,
            // One object a line, so that whatever reads along needs no end of the list.
            Format::Json => out.print(&format!("{}\n", serde_json::to_string(&event(&object, gone))?))?,
            Format::Yaml => out.object(&event(&object, gone), String::new).and_then(|()| out.print("---\n"))?,
        }
    }
}

fn event(object: &WorkloadObject, gone: bool) -> serde_json::Value {
    serde_json::json!({"type": if gone { "DELETED" } else { "MODIFIED" }, "object": object})
}

/// Lines of a table that is still growing: columns only ever get wider.
#[derive(Default)]
struct Widths(Vec<usize>);

impl Widths {
    fn line(&mut self, object: &WorkloadObject, gone: bool, namespaces: bool, out: &Out) -> String {
        let columns = workload::columns(out.wide(), namespaces);
        let mut row = workload::row(object, out.wide(), namespaces);
        if gone && let Some(phase) = row.get_mut(1 + usize::from(namespaces)) {
            phase.0 = "Deleted".to_owned();
        }
        let mut text = String::new();
        if self.0.is_empty() {
            self.0 = columns.iter().map(|c| c.len().max(12)).collect();
            text.push_str(&self.join(columns.iter().map(|c| c.trim_start_matches('#'))));
        }
        for (width, (cell, _)) in self.0.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        text.push_str(&self.join(row.iter().map(|(cell, _)| cell.as_str())));
        text
    }

    fn join<'a>(&self, cells: impl Iterator<Item = &'a str>) -> String {
        let line: String = cells.zip(&self.0).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        line.trim_end().to_owned() + "\n"
    }
}
