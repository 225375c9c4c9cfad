//! `tidewater replay`: a trace through the very planner, in virtual time, beside baseline policies. Asks no server.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use replay::fleet::Split;
use replay::method::saturation::{Clusters, Outcome, run as saturate};
use replay::policy::Name;
use replay::trace;

use crate::args::{Format, Global};
use crate::exit::Failure;
use crate::render::Out;
use crate::render::table::{Table, cell};

/// What to replay, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are comma-separated and known by their header:
  nodes   sn,cpu_milli,memory_mib,gpu,model
  jobs    name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec]   gpu_milli below 1000 is a share of one GPU; gpu_spec is A|B

Method saturation: the jobs in an order drawn by the seed, then jobs drawn at random until 1.3 times the GPUs are asked for; one
that fits nowhere is skipped, nothing ends; counted is how much of the GPUs is given out.

Examples:
  tidewater replay --nodes nodes.csv --jobs jobs.csv --seed 1
  tidewater replay --nodes nodes.csv --jobs jobs.csv --policy tidewater,fgd --clusters 4 --report out
  tidewater replay --method saturation --nodes nodes.csv --jobs jobs.csv --seed 7 --policy fgd -o json")]
pub struct Args {
    /// How jobs arrive and what is counted
    #[arg(long, value_enum, default_value_t = Method::Saturation)]
    method: Method,
    /// The list of nodes
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,
    /// The list of jobs
    #[arg(long, value_name = "FILE")]
    jobs: PathBuf,
    /// Which order of arrivals
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Policies, with commas between them, or `all`: tidewater, first-fit, best-fit, most-free-memory, random, first-to-admit, fgd
    #[arg(long, default_value = "tidewater", value_name = "NAMES")]
    policy: String,
    /// Into how many clusters the nodes are split
    #[arg(long, default_value_t = 1, value_name = "N")]
    clusters: usize,
    /// By what they are split
    #[arg(long, value_enum, default_value_t = By::Random)]
    split: By,
    /// Write a table and plots here
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// How jobs arrive and what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// GPUs given out before nothing fits any more
    Saturation,
}

/// By what nodes are split into clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// By lot
    Random,
    /// Nodes of one model stay together
    Model,
}

/// Runs the command.
pub fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let bad = |e: &dyn std::fmt::Display| Failure::input(e.to_string());
    let Method::Saturation = args.method;
    let policies = policies(&args.policy)?;
    let read = |file: &Path| trace::Table::read(file).map_err(|e| bad(&e));
    let nodes = trace::nodes(&read(&args.nodes)?).map_err(|e| bad(&e))?;
    let pods = trace::pods(&read(&args.jobs)?).map_err(|e| bad(&e))?;
    if args.clusters == 0 || args.clusters > nodes.len().max(1) {
        return Err(bad(&format!("--clusters {}: there are {} nodes to split", args.clusters, nodes.len())).into());
    }
    let split = if args.split == By::Model { Split::Model } else { Split::Random };
    let clusters = Clusters { count: args.clusters, split };
    let mut ran = vec![];
    for policy in policies {
        let bar = bar(policy);
        let outcome = saturate(&nodes, &pods, clusters, policy, args.seed, |arrived| bar.set_position(arrived));
        bar.finish_and_clear();
        ran.push((policy, outcome.map_err(|e| bad(&e))?));
    }
    if let Some(folder) = &args.report {
        write(folder, &ran)?;
        out.note(&format!("the report is in {}", folder.display()));
    }
    if matches!(global.output, Format::Json) {
        return ran.iter().try_for_each(|(policy, outcome)| out.print(&line(*policy, args.seed, outcome)));
    }
    out.print(&table(&ran).text(out))
}

fn policies(text: &str) -> Result<Vec<Name>, Failure> {
    if text == "all" {
        return Ok(Name::ALL.to_vec());
    }
    text.split(',').map(|name| name.trim().parse().map_err(|e| Failure::input(format!("--policy: {e}")))).collect()
}

/// One JSON object on a line of its own, percent with two decimals.
fn line(policy: Name, seed: u64, outcome: &Outcome) -> String {
    format!(
        "{{\"policy\":\"{policy}\",\"seed\":{seed},\"allocated_at_100\":{:.2},\"allocated_at_130\":{:.2}}}\n",
        outcome.at_100, outcome.at_130
    )
}

fn table(ran: &[(Name, Outcome)]) -> Table {
    let mut table = Table::new(&["POLICY", "#AT 100%", "#AT 130%", "#PLACED", "#CAME"]);
    for (policy, outcome) in ran {
        let (placed, came) = outcome.accepted.values().fold((0, 0), |(p, c), (placed, came)| (p + placed, c + came));
        let percent = |value: f64| cell(format!("{value:.2}%"));
        table.row(vec![cell(policy), percent(outcome.at_100), percent(outcome.at_130), cell(placed), cell(came)]);
    }
    table
}

fn write(folder: &Path, ran: &[(Name, Outcome)]) -> anyhow::Result<()> {
    use anyhow::Context;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, content) in replay::report::saturation(ran) {
        let file = folder.join(name);
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// How far a run is; hidden where standard error is no terminal.
fn bar(policy: Name) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(130), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}% asked for {elapsed:>4}");
    bar.set_style(style.expect("a constant template is valid"));
    bar.set_message(policy.to_string());
    bar
}
