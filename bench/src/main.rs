//! Benchmarks: `cargo run --release -p bench -- NAME [--save]`. Prints a table, then as its last line one JSON object with the
//! figures. One file a benchmark; what they share is the processes that are measured (`built`, `federation`), the clients
//! (`clients`, `load`), how runs share the cores (`workers`) and how a result is written down (`result`).

mod agent_scale;
mod built;
mod clients;
mod decide;
mod dispatch;
mod durable;
mod etcd;
mod failover;
mod federation;
mod footprint;
mod ingest;
mod jobs;
mod load;
mod nodes;
mod quality;
mod result;
mod start_latency;
mod usage;
mod waits;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, ValueEnum};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Node updates a second a core into the coordinator's columns
    Ingest,
    /// Durable submissions a second, 3 replicas, beside a 3-member etcd
    Durable,
    /// The leader is killed: time until the next workload is placed
    Failover,
    /// Memory and CPU of the node role with 8 GPUs
    Footprint,
    /// Decisions a second, and the time of one, on up to 125,000 nodes
    Decide,
    /// GPUs given out at saturation, by list and policy
    Quality,
    /// The agent of 5,000 Kubernetes nodes and 100,000 pods
    AgentScale,
    /// Jobs a second into three API servers, beside what these take raw
    Dispatch,
    /// From a submission to the container's first word on a real node, beside a plain create
    StartLatency,
    /// How long jobs of the Philly trace wait, by policy
    Waits,
}

/// Measures one thing, prints a table and, as the last line, one JSON object.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// What to measure
    name: Name,
    /// Write the result to bench/results/NAME.json, with machine, commit, command and date
    #[arg(long)]
    save: bool,
    /// Only see that it works: a few seconds, the figures mean nothing and are not saved
    #[arg(long, conflicts_with = "save")]
    quick: bool,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            eprintln!("{}", one_line(&error));
            return ExitCode::from(2);
        }
    };
    let measured = match args.name {
        Name::Ingest => ingest::run(args.quick),
        Name::Durable => durable::run(args.quick),
        Name::Failover => failover::run(args.quick),
        Name::Footprint => footprint::run(args.quick),
        Name::Decide => decide::run(args.quick),
        Name::Quality => quality::run(args.quick, args.save),
        Name::AgentScale => agent_scale::run(args.quick),
        Name::Dispatch => dispatch::run(args.quick),
        Name::StartLatency => start_latency::run(args.quick),
        Name::Waits => waits::run(args.quick, args.save),
    };
    let name = args.name.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    match measured.and_then(|figures| result::tell(&name, figures, args.save)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong with the arguments, in one line, and what there is.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ").trim_end_matches(':');
    let names: Vec<String> =
        Name::value_variants().iter().filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned())).collect();
    let usage = Args::command().render_usage().to_string().replace("Usage: ", "");
    format!("{what}; usage: {usage}, NAME one of {}", names.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_told_in_one_line_with_the_names_there_are() {
        let told = one_line(&Args::try_parse_from(["bench", "speed"]).unwrap_err());
        assert!(!told.contains('\n') && told.contains("speed") && told.contains("durable, failover"), "{told}");
        let told = one_line(&Args::try_parse_from(["bench"]).unwrap_err());
        assert!(!told.contains('\n') && told.contains("durable"), "{told}");
    }
}
