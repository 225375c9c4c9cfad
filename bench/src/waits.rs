//! How long jobs wait: the Philly trace in virtual time through the planner and the baselines (`replay::method::waits`), the planner with
//! and without declared run times, with pools that serve the least served first and by submission. Skipped, with a word, where the trace is not on this machine.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use protocol::pool::LineOrder;
use replay::generate::three_clusters;
use replay::method::waits::{Outcome, Summary, Terms, Trace, by_gpus, by_pool};
use replay::policy::Name;
use replay::report::{figures, label};
use replay::trace::{Table, jobs};
use serde_json::{Map, Value, json};

use crate::quality::traces;
use crate::result::{Figures, load_average, round, table};
use crate::workers::each;

/// How many jobs, the first of the trace, are enough to see that it works.
const QUICK: usize = 300;

/// Every run: a policy and the planner's terms.
fn runs() -> Vec<(Name, Terms)> {
    let (least, first) = (LineOrder::LeastServed, LineOrder::Submitted);
    // Those that take longest come first.
    let ours = [(least, false), (least, true), (first, false), (first, true)];
    let ours = ours.map(|(order, declared)| (Name::Tidewater, Terms { declared, order }));
    let others = Name::waits().filter(|name| *name != Name::Tidewater).map(|name| (name, Terms::default()));
    ours.into_iter().chain(others).collect()
}

struct Ran {
    policy: Name,
    terms: Terms,
    outcome: Outcome,
    seconds: f64,
}

/// Does every run, on every core.
fn all(trace: &Trace) -> Result<Vec<Ran>> {
    let (runs, bars) = (runs(), MultiProgress::new());
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {pos} jobs ended {elapsed:>4}")?;
    each(runs.len(), |at| {
        let (policy, terms) = runs[at];
        let bar = bars.add(ProgressBar::new(trace.jobs.len() as u64).with_style(style.clone()));
        bar.set_message(label(policy, terms));
        let started = Instant::now();
        let outcome = trace.run(policy, terms, 0, |ended| bar.set_position(ended))?;
        bar.finish_and_clear();
        Ok(Ran { policy, terms, outcome, seconds: started.elapsed().as_secs_f64() })
    })
}

/// Measures; with `save`, the plots go beside the figures.
pub fn run(quick: bool, save: bool) -> Result<Figures> {
    let load_before = load_average();
    let mut rows =
        table(&["policy", "mean wait", "median", "99%", "slowdown", "completion", "used", "lost GPU-h", "least pool"]);
    let mut json = Map::new();
    json.insert("load_average_before".into(), json!(load_before));
    let file = traces("philly").join("seed-0.csv");
    if !file.exists() {
        eprintln!("skipped: the trace is not at {} (see TIDEWATER_TRACES)", file.display());
        json.insert("runs".into(), json!([]));
        return Ok(Figures { table: rows, json });
    }
    let mut list = jobs(&Table::read(&file)?)?;
    list.truncate(if quick { QUICK } else { list.len() });
    let trace = Trace::new(three_clusters(), list)?;
    let ran = all(&trace)?;
    let mut found = vec![];
    for run in &ran {
        let s = Summary::of(&trace, &run.outcome);
        let hours = |seconds: f64| format!("{:.1} h", seconds / 3600.0);
        rows.add_row([
            label(run.policy, run.terms),
            hours(s.mean_wait_s),
            hours(s.median_wait_s),
            hours(s.p99_wait_s),
            format!("{:.1}", s.mean_slowdown),
            hours(s.mean_completion_s),
            format!("{:.1}%", s.used_percent),
            format!("{:.0}", s.lost_gpu_hours),
            s.least_pool.as_ref().map_or("-".into(), |(pool, part)| format!("{pool} {part:.3}")),
        ]);
        found.push(one(&trace, run, &s));
    }
    json.insert("jobs".into(), json!(trace.jobs.len()));
    json.insert("runs".into(), Value::Array(found));
    if save {
        let drawn: Vec<replay::report::Ran> =
            ran.into_iter().map(|run| (label(run.policy, run.terms), run.outcome)).collect();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        for (file, content) in replay::report::waits(&trace, &drawn) {
            if file.ends_with(".svg") {
                std::fs::write(folder.join(format!("waits-{}", file.trim_start_matches("waits-"))), content)?;
            }
        }
    }
    Ok(Figures { table: rows, json })
}

/// One run's figures: those of `tidewater replay`, then by size and by pool.
fn one(trace: &Trace, run: &Ran, s: &Summary) -> Value {
    let mut figures = figures(run.policy, run.terms, s);
    let sizes: Map<String, Value> = by_gpus(trace, &run.outcome)
        .into_iter()
        .map(|(gpus, (wait, jobs))| (gpus.to_string(), json!({ "jobs": jobs, "mean_wait_s": round(wait) })))
        .collect();
    let part = |held: f64, entitled: f64| if entitled > 0.0 { round(held / entitled) } else { 1.0 };
    let pools: Map<String, Value> = by_pool(trace, &run.outcome)
        .into_iter()
        .map(|(pool, (wait, jobs))| {
            let time = run.outcome.pools.get(&pool).copied().unwrap_or_default();
            let of = json!({
                "jobs": jobs, "mean_wait_s": round(wait), "reservation": trace.pools.get(&pool).map(|p| p.reservation),
                "of_entitlement": part(time.held, time.entitled), "kept_of_entitlement": part(time.kept, time.entitled),
            });
            (pool, of)
        })
        .collect();
    figures["by_gpus"] = Value::Object(sizes);
    figures["by_pool"] = Value::Object(pools);
    figures["wall_s"] = json!(round(run.seconds));
    figures
}
