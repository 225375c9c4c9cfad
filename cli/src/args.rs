//! The command line: what can be asked for, and the help that explains it. Each command's own arguments live in its file.

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use protocol::ids::Namespace;
use protocol::resources::Span;

use crate::client::default_namespace;
use crate::{commands, demo, dev, exit, guard, roles};

/// Tidewater makes many Kubernetes clusters work as one pool of GPUs.
#[derive(Debug, Parser)]
#[command(name = "tidewater", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The coordinator, or several with commas between them, tried in turn; left out: the server of the kubeconfig
    /// that TIDEWATER_KUBECONFIG names, or that `tidewater dev` wrote
    #[arg(long, global = true, env = "TIDEWATER_SERVER", hide_env_values = true, value_name = "URL")]
    pub server: Option<String>,
    /// The namespace; left out: the manifest's, else `default`
    #[arg(long, short, global = true, value_name = "NAME")]
    pub namespace: Option<Namespace>,
    /// How to print: table, wide (more columns), json or yaml (the API's objects)
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    #[arg(hide_possible_values = true)]
    pub output: Format,
    /// Never colour; otherwise terminals get colours (see NO_COLOR and CLICOLOR_FORCE)
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Give up after this long, such as 90s or 10m, with exit code 124
    #[arg(long, global = true, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// How long to try again where no answer comes [default: 3s to read, 20s to change]
    #[arg(long, global = true, value_name = "TIME")]
    pub retry_for: Option<Span>,
}

impl Global {
    /// The namespace that was asked for, else `default`.
    pub fn namespace(&self) -> Namespace {
        self.namespace.clone().unwrap_or_else(default_namespace)
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people
    Table,
    /// A table with more columns
    Wide,
    /// The API's objects as JSON
    Json,
    /// The API's objects as YAML
    Yaml,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hand in workloads, from manifests or from the command line
    Submit(Box<commands::submit::Args>),
    /// List workloads or clusters, or show one
    Get(commands::get::Args),
    /// Show everything about a workload: placement, attempts, timeline
    Describe(commands::describe::Args),
    /// Explain why a workload waits, or why it is where it is
    Why(commands::why::Args),
    /// Tell when a workload starts, and on what that rests
    Forecast(commands::forecast::Args),
    /// Print a workload's logs
    Logs(commands::logs::Args),
    /// Show the page of a workload's Ray cluster or Spark application on this machine
    Dashboard(commands::dashboard::Args),
    /// End workloads and keep their records
    Cancel(commands::cancel::Args),
    /// End workloads and remove their records
    Delete(commands::delete::Args),
    /// Say that an attempt is gone which nobody can see any more
    Forget(commands::forget::Args),
    /// Show free GPUs by cluster and model, and whether a gang would fit
    Capacity(commands::capacity::Args),
    /// Tell what would start, move or wait if the fleet, a pool or the line were different
    Whatif(Box<commands::whatif::Args>),
    /// List clusters, or the nodes of one
    Clusters(commands::clusters::Args),
    /// Take clusters out of service and back: cordon, drain, uncordon, remove
    Cluster(commands::cluster::Args),
    /// Show the resource pools: what each is entitled to, holds and waits for
    Pools(commands::pools::Args),
    /// Make, change or remove pools and ownership rules
    Pool(commands::pool::Args),
    /// List data locations, or make, change or remove them
    Data(commands::data::Args),
    /// Start an embedded federation on this machine
    Dev(dev::Args),
    /// Start a federation and run the example workloads on it
    Demo(demo::Args),
    /// Run a trace through the planner, beside other policies
    Replay(commands::replay::Args),
    /// Run a replica of the control plane
    Coordinator(roles::coordinator::Args),
    /// Run a member cluster's agent
    Agent(roles::agent::Args),
    /// Read this node's GPUs for its cluster's agent
    Node(roles::node::Args),
    /// Make the certificate of a replica, an agent or a node
    Identity(roles::identity::Args),
    /// Print a shell's completion script
    Completions(commands::completions::Args),
    /// Supervise one attempt
    #[command(hide = true)]
    Guard(guard::Args),
}

/// The help's groups of commands, in the order in which they are shown.
const GROUPS: &[(&str, &[&str])] = &[
    ("Workloads", &["submit", "get", "describe", "why", "forecast", "logs", "dashboard", "cancel", "delete", "forget"]),
    ("The fleet", &["capacity", "whatif", "clusters", "cluster", "pools", "pool", "data"]),
    ("Try it", &["demo", "dev", "replay"]),
    ("Roles", &["coordinator", "agent", "node", "identity"]),
    ("Shell", &["completions"]),
];

const EXAMPLES: &str = "\
Examples:
  tidewater submit -f train.yaml --wait                      hand it in and wait for its end
  tidewater submit --name smoke --gpus 8 --gpu H100 --count 2 --follow -- python train.py
  tidewater get -A -w                                        watch every workload
  tidewater why train                                        what it waits for, cluster by cluster
  tidewater capacity --sku H100 --gang 4 --gpus-per-node 8   would a gang of 4 nodes start now?";

impl Cli {
    /// Reads this process's command line. Help, version and wrong usage end the process here (codes 0, 0 and 2).
    pub fn from_command_line() -> Self {
        let matches = command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
    }

    /// Reads a command line that is not this process's; for tests.
    #[cfg(test)]
    pub fn from_texts(texts: &[&str]) -> Result<Self, clap::Error> {
        Self::from_arg_matches(&command().try_get_matches_from(texts.iter())?)
    }
}

/// The command line's definition with its help in groups.
pub fn command() -> clap::Command {
    let command = Cli::command();
    let groups = groups(&command);
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} tidewater COMMAND [ARGUMENTS] [OPTIONS]\n\n{groups}Options:\n{{options}}\n\n{EXAMPLES}\n\n{}\n\n\
         `tidewater COMMAND --help` says more about a command.\n",
        exit::HELP
    ))
}

/// The visible commands with what each does, by group.
fn groups(command: &clap::Command) -> String {
    let mut text = String::new();
    for (heading, names) in GROUPS {
        text.push_str(&format!("{heading}:\n"));
        for name in *names {
            let about = command.find_subcommand(name).and_then(|c| c.get_about()).map(ToString::to_string);
            text.push_str(&format!("  {name:<13}{}\n", about.unwrap_or_default()));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_visible_command_is_in_exactly_one_group_and_every_grouped_one_exists() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let definition = Cli::command();
        let mut visible: Vec<&str> =
            definition.get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name).collect();
        grouped.sort_unstable();
        visible.sort_unstable();
        assert_eq!(grouped, visible);
    }

    #[test]
    fn an_identity_is_a_replicas_or_a_clusters_and_never_both() {
        let taken =
            |whose: &[&str]| Cli::from_texts(&[&["tidewater", "identity", "--ca", "ca"], whose].concat()).is_ok();
        assert!(taken(&["--replica", "1"]));
        assert!(taken(&["--cluster", "eu"]));
        assert!(!taken(&[]));
        assert!(!taken(&["--replica", "1", "--cluster", "eu"]));
        assert!(taken(&["--cluster", "eu", "--node", "gpu-1"]));
        assert!(!taken(&["--node", "gpu-1"]));
        assert!(!taken(&["--replica", "1", "--node", "gpu-1"]));
    }

    #[test]
    fn global_options_are_taken_after_the_command() {
        let cli = Cli::from_texts(&["tidewater", "get", "-n", "vision", "-o", "wide", "--timeout", "5m"]).unwrap();
        assert_eq!(cli.global.namespace().as_str(), "vision");
        assert_eq!(cli.global.output, Format::Wide);
        assert_eq!(cli.global.timeout, Some(Span(300_000)));
    }
}
