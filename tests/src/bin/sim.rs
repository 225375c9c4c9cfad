//! Runs the simulation over a range of seeds. A failing seed prints its story and the one line that replays it; the last line
//! of the output is a JSON object with the totals.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::ops::Range;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tests::simulation::planted::{self, Bug};
use tests::simulation::{Report, Sweep, Total, shrink, sweep};

/// Seeds after which a planted bug counts as not found.
const SEEDS_A_BUG: u64 = 200;

/// Drives whole federations in virtual time, each from one seed, and checks what must hold.
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// The seeds to run, as FIRST..END (END is not run).
    #[arg(long, default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// How many seeds run side by side.
    #[arg(long, default_value_t = threads(), value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Plant this bug in the code (`all` tries each in turn and prints what found it). Needs `--features planted`.
    #[arg(long)]
    planted: Option<String>,
    /// Leave these faults out, by number, as a shrunk seed's replay says: N or FROM-TO, with commas between them.
    #[arg(long, value_parser = numbers)]
    without: Option<BTreeSet<usize>>,
    /// Print each seed's story as it goes.
    #[arg(long)]
    trace: bool,
}

fn numbers(text: &str) -> Result<BTreeSet<usize>, String> {
    let wrong = || format!("{text:?}: write numbers of faults, such as 0-4,7");
    let mut all = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        if to - from.min(to) > 10_000 {
            return Err(wrong());
        }
        all.extend(from..=to);
    }
    Ok(all)
}

fn threads() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(256) as u16)
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("{text:?} is no range of seeds: write FIRST..END, such as 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(expected)?;
    let (first, end) = (first.parse().map_err(|_| expected())?, end.parse().map_err(|_| expected())?);
    if first >= end {
        return Err(format!("{text} has no seeds: END must be above FIRST"));
    }
    Ok(first..end)
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            eprintln!("{}", text.lines().next().unwrap_or("error: bad arguments"));
            return ExitCode::from(2);
        }
        Err(help) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
    };
    match arguments.planted.clone() {
        None => report(&arguments, None),
        Some(_) if !planted::POSSIBLE => {
            eprintln!("error: this build has no planted bugs: build it with `--features planted`");
            ExitCode::from(2)
        }
        Some(name) if name == "all" => measure(&arguments),
        Some(name) => match planted::all().into_iter().find(|bug| bug.name == name) {
            Some(bug) => report(&arguments, Some(bug)),
            None => {
                let names: Vec<&str> = planted::all().iter().map(|bug| bug.name).collect();
                eprintln!("error: there is no planted bug {name:?}: choose one of {}, or all", names.join(", "));
                ExitCode::from(2)
            }
        },
    }
}

fn progress(seeds: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr());
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {eta} left {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn run(arguments: &Arguments, bug: Option<Bug>, seeds: Range<u64>, stop_early: bool) -> Total {
    let bar = progress(seeds.end - seeds.start);
    if let Some(bug) = bug {
        bar.set_message(format!("({})", bug.name));
    }
    let what = Sweep {
        seeds,
        jobs: arguments.jobs.into(),
        bug,
        without: arguments.without.clone().unwrap_or_default(),
        trace: arguments.trace,
        stop_early,
    };
    let total = sweep(&what, |_| bar.inc(1));
    bar.finish_and_clear();
    total
}

fn replay(report: &Report, bug: Option<Bug>) -> String {
    let planted = bug.map(|bug| (" --features planted", format!(" --planted {}", bug.name)));
    let (features, planted) = planted.unwrap_or_default();
    format!(
        "cargo run --release -p tests{features} --bin sim -- --seeds {}..{}{planted} --trace",
        report.seed,
        report.seed + 1
    )
}

/// Stories that are printed; more failing seeds get a line each.
const STORIES: usize = 3;

fn report(arguments: &Arguments, bug: Option<Bug>) -> ExitCode {
    let total = run(arguments, bug, arguments.seeds.clone(), false);
    for (number, report) in total.violations.iter().enumerate() {
        let Some(violation) = &report.violation else { continue };
        if number < STORIES {
            violation.story.iter().for_each(|line| println!("{line}"));
        }
        println!("seed {}: {}: {}", report.seed, violation.invariant, violation.what);
        println!("  replay: {}", replay(report, bug));
        if number < STORIES && arguments.without.is_none() {
            planted::select(bug);
            shrunk(report, bug);
        }
    }
    println!(
        r#"{{"seeds":{},"virtual_hours":{:.3},"faults":{},"violations":{},"hash":"{:016x}"}}"#,
        total.seeds,
        total.virtual_hours,
        total.faults,
        total.violations.len(),
        total.hash
    );
    if total.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says which of a failing seed's faults it takes.
fn shrunk(report: &Report, bug: Option<Bug>) {
    let Some(shrunk) = shrink(report) else { return };
    let (left, all) = (shrunk.left(), report.planned.len());
    println!("  takes {} of {all} faults (found in {} runs): {}", left.len(), shrunk.runs, left.join(", "));
    println!("  replay: {} --without {}", replay(report, bug), shrunk.without_text());
}

/// Plants each bug in turn and prints how many seeds it took to find it.
fn measure(arguments: &Arguments) -> ExitCode {
    let first = arguments.seeds.start;
    println!("{:<24} {:>6}  found by", "planted bug", "seeds");
    let mut missed = 0;
    for bug in planted::all() {
        let total = run(arguments, Some(bug), first..first + SEEDS_A_BUG, true);
        match total.violations.first().and_then(|r| Some((r, r.violation.as_ref()?))) {
            Some((report, violation)) => {
                let seeds = report.seed - first + 1;
                println!("{:<24} {seeds:>6}  {} (seed {})", bug.name, violation.invariant, report.seed);
            }
            None => {
                missed += 1;
                println!("{:<24} {:>6}  nothing", bug.name, format!(">{SEEDS_A_BUG}"));
            }
        }
    }
    println!(r#"{{"bugs":{},"missed":{missed}}}"#, planted::all().len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
