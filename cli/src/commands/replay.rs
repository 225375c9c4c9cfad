//! `tidewater replay`: a trace through the very planner, in virtual time, beside baseline policies. Asks no server.

mod waits;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocol::pool::LineOrder;
use replay::fleet::{NodeRow, Split};
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
  nodes   … a column `cluster` says in which one each is; without it the nodes are split as --clusters and --split say
  jobs    name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec]   gpu_milli below 1000 is a share of one GPU; gpu_spec is A|B
  jobs    job,pool,arrival_s,gpus,duration_s                       jobs with times, which want nodes with equal GPUs

Method waits (jobs with times): each comes at its time and runs for as long as it says, in virtual time. A job of up to a node's GPUs
needs one node, a larger one whole nodes of one cluster. A pool's reservation is in proportion to its GPU time, and all of them are the
fleet, or as much of it as --reserved says; in its line those go first that have had the least (--pool-order). What is preempted goes on from its last checkpoint, one each half hour. Wait is all the
time between a job's arrival and its end in which it did not run.
Baselines know no pools and preempt nobody: one line, first come, first served, in which those behind may start where the first does not
fit. strict-fifo is first-fit where everybody waits for the first.
With -o json a line each: policy, declared, order (of the pools, where there are such), reserved_percent, mean_wait_s, median_wait_s, p99_wait_s,
mean_slowdown of (wait + run) / max(run, 10 min), mean_completion_s, used_percent (GPU time until the last arrival), preemptions, lost_gpu_h (run again after a checkpoint), least_pool,
least_of_entitlement (its GPU time over what it was entitled to while it had demand; the least of all pools), least_kept_of_entitlement
(the same moment by moment: what a pool has beyond its part at one time makes up for nothing at another).

Method saturation (jobs without times): the jobs in an order drawn by the seed, then jobs drawn at random until 1.3 times the GPUs are asked for; one
that fits nowhere is skipped, nothing ends; counted is how much of the GPUs is given out.

Examples:
  tidewater replay --nodes nodes.csv --jobs jobs.csv --seed 1
  tidewater replay --nodes nodes.csv --jobs jobs.csv --policy tidewater,fgd --clusters 4 --report out
  tidewater replay --method saturation --nodes nodes.csv --jobs jobs.csv --seed 7 --policy fgd -o json
  tidewater replay --jobs philly.csv --policy all --report out
  tidewater replay --jobs philly.csv --declared --pool-order submitted -o json
  tidewater replay --jobs philly.csv --reserved 80    # do pools with large gangs fare better?")]
pub struct Args {
    /// How jobs arrive and what is counted [default: waits for jobs with times, else saturation]
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// The list of nodes [default for jobs with times: three clusters of 16, 12 and 9 nodes with eight GPUs each]
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// The list of jobs
    #[arg(long, value_name = "FILE")]
    jobs: PathBuf,
    /// Which order of arrivals
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Policies, with commas between them, or `all`: tidewater, first-fit, best-fit, most-free-memory, random, first-to-admit, fgd; for jobs
    /// with times also strict-fifo
    #[arg(long, default_value = "tidewater", value_name = "NAMES")]
    policy: String,
    /// Into how many clusters the nodes are split
    #[arg(long, default_value_t = 1, value_name = "N")]
    clusters: usize,
    /// By what they are split
    #[arg(long, value_enum, default_value_t = By::Random)]
    split: By,
    /// Tell the planner how long each job runs, as if its owner had declared it
    #[arg(long)]
    declared: bool,
    /// Who goes first in the pools' lines, for jobs with times: `order` of a pool
    #[arg(long, value_enum, default_value_t = PoolOrder::LeastServed, value_name = "ORDER")]
    pool_order: PoolOrder,
    /// How much of the fleet all pools' reservations are, for jobs with times; the rest is divided by shares
    #[arg(long, default_value_t = 100, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(..=100))]
    reserved: u64,
    /// Write a table and plots here
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

/// Who goes first in the pools' lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PoolOrder {
    /// Whoever has had the least GPU time
    LeastServed,
    /// Whoever was submitted first
    Submitted,
}

impl From<PoolOrder> for LineOrder {
    fn from(order: PoolOrder) -> Self {
        match order {
            PoolOrder::LeastServed => LineOrder::LeastServed,
            PoolOrder::Submitted => LineOrder::Submitted,
        }
    }
}

/// How jobs arrive and what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// GPUs given out before nothing fits any more
    Saturation,
    /// How long jobs wait, in virtual time
    Waits,
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
    let jobs = table_of(&args.jobs)?;
    let timed = matches!(trace::format(&jobs), Ok(trace::Format::Jobs));
    let method = args.method.unwrap_or(if timed { Method::Waits } else { Method::Saturation });
    let policies = policies(&args.policy, method)?;
    let nodes = match &args.nodes {
        Some(file) => trace::nodes(&table_of(file)?).map_err(bad)?,
        None if method == Method::Waits => replay::generate::three_clusters(),
        None => return Err(Failure::input("--nodes is missing: name the list of nodes").into()),
    };
    if args.clusters == 0 || args.clusters > nodes.len().max(1) {
        let there = nodes.len();
        return Err(Failure::input(format!("--clusters {}: there are {there} nodes to split", args.clusters)).into());
    }
    let split = if args.split == By::Model { Split::Model } else { Split::Random };
    match method {
        Method::Saturation => {
            saturation(&args, global, out, &policies, (&nodes, Clusters { count: args.clusters, split }), &jobs)
        }
        Method::Waits => {
            if args.nodes.is_some() && args.clusters > 1 {
                return Err(Failure::input(
                    "--clusters says nothing for jobs with times: name each node's cluster in the list",
                )
                .into());
            }
            waits::run(&args, global, out, &policies, nodes, trace::jobs(&jobs).map_err(bad)?)
        }
    }
}

fn bad(e: impl std::fmt::Display) -> Failure {
    Failure::input(e.to_string())
}

fn table_of(file: &Path) -> Result<trace::Table, Failure> {
    trace::Table::read(file).map_err(bad)
}

fn saturation(
    args: &Args,
    global: &Global,
    out: &Out,
    policies: &[Name],
    (nodes, clusters): (&[NodeRow], Clusters),
    jobs: &trace::Table,
) -> anyhow::Result<()> {
    if args.declared {
        return Err(Failure::input("--declared is for jobs with times: nothing ends at saturation").into());
    }
    if args.reserved != 100 {
        return Err(Failure::input("--reserved is for jobs with times: others have no pools").into());
    }
    let pods = trace::pods(jobs).map_err(bad)?;
    let mut ran = vec![];
    for policy in policies.iter().copied() {
        let bar = bar(&policy.to_string(), 130, "% asked for");
        let outcome = saturate(nodes, &pods, clusters, policy, args.seed, |arrived| bar.set_position(arrived));
        bar.finish_and_clear();
        ran.push((policy, outcome.map_err(bad)?));
    }
    if let Some(folder) = &args.report {
        write(folder, replay::report::saturation(&ran), out)?;
    }
    if matches!(global.output, Format::Json) {
        return ran.iter().try_for_each(|(policy, outcome)| out.print(&line(*policy, args.seed, outcome)));
    }
    out.print(&table(&ran).text(out))
}

fn policies(text: &str, method: Method) -> Result<Vec<Name>, Failure> {
    if text == "all" {
        return Ok(if method == Method::Waits { Name::waits().collect() } else { Name::ALL.to_vec() });
    }
    let bad = |e: &dyn std::fmt::Display| Failure::input(format!("--policy: {e}"));
    let one = |name: &str| match name.trim().parse::<Name>() {
        Ok(Name::StrictFifo) if method == Method::Saturation => {
            Err(bad(&"strict-fifo is for jobs with times: nobody waits in line at saturation"))
        }
        other => other.map_err(|e| bad(&e)),
    };
    text.split(',').map(one).collect()
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

fn write(folder: &Path, files: Vec<(&'static str, String)>, out: &Out) -> anyhow::Result<()> {
    use anyhow::Context;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, content) in files {
        let file = folder.join(name);
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    out.note(&format!("the report is in {}", folder.display()));
    Ok(())
}

/// How far a run is; hidden where standard error is no terminal.
fn bar(name: &str, length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(&format!("{{msg}} {{wide_bar}} {{pos}}{what} {{elapsed:>4}}"));
    bar.set_style(style.expect("a constant template is valid"));
    bar.set_message(name.to_owned());
    bar
}
