//! What came of runs in virtual time: a table, GPUs in use and the line over time, waits by pool and by size.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::plot::{Line, Range, lines, ranges};
use protocol::pool::LineOrder;

use crate::method::waits::{Outcome, Summary, Terms, Trace, by_gpus, by_pool};
use crate::policy::Name;

/// The most points of a line.
const POINTS: usize = 400;

/// A run: its name, and what came of it.
pub type Ran = (String, Outcome);

/// What a run is called: the planner's by its terms, where they are not the usual ones.
pub fn label(policy: Name, terms: Terms) -> String {
    let submitted = terms.order == LineOrder::Submitted;
    match (policy, terms.declared, submitted) {
        (Name::Tidewater, true, false) => format!("{policy} (declared)"),
        (Name::Tidewater, true, true) => format!("{policy} (declared, by submission)"),
        (Name::Tidewater, false, true) => format!("{policy} (by submission)"),
        _ => policy.to_string(),
    }
}

/// One run's figures for programs: times in s, parts of entitlements from 0.
pub fn figures(policy: Name, terms: Terms, s: &Summary) -> Value {
    let round = |v: f64| (v * 100.0).round() / 100.0;
    let part = |v: f64| (v * 10_000.0).round() / 10_000.0;
    json!({
        "policy": policy.to_string(),
        "declared": terms.declared,
        "order": (policy == Name::Tidewater).then_some(terms.order),
        "mean_wait_s": round(s.mean_wait_s),
        "median_wait_s": round(s.median_wait_s),
        "p99_wait_s": round(s.p99_wait_s),
        "mean_slowdown": round(s.mean_slowdown),
        "mean_completion_s": round(s.mean_completion_s),
        "used_percent": round(s.used_percent),
        "preemptions": s.preemptions,
        "lost_gpu_h": round(s.lost_gpu_hours),
        "least_pool": s.least_pool.as_ref().map(|(name, _)| name),
        "least_of_entitlement": s.least_pool.as_ref().map(|(_, of)| part(*of)),
        "least_kept_of_entitlement": s.least_kept.map(part),
    })
}

/// A report's files, each with its name and content.
pub fn waits(trace: &Trace, ran: &[Ran]) -> Vec<(&'static str, String)> {
    let line = |of: fn(&crate::method::waits::Sample) -> f64| -> Vec<Line> {
        let points = |outcome: &Outcome| {
            let every = outcome.curve.len().div_ceil(POINTS).max(1);
            let chunk = |samples: &[crate::method::waits::Sample]| {
                (samples[0].hour / 24.0, samples.iter().map(of).sum::<f64>() / samples.len() as f64)
            };
            outcome.curve.chunks(every).map(chunk).collect()
        };
        ran.iter().map(|(name, outcome)| Line { name: name.clone(), points: points(outcome) }).collect()
    };
    let hours = |waits: BTreeMap<String, (f64, u64)>, series: &str| -> Vec<Range> {
        let range = |(name, (wait, _)): (String, (f64, u64))| {
            let hours = wait / 3600.0;
            Range { name, series: series.to_owned(), low_mean_high: (hours, hours, hours) }
        };
        waits.into_iter().map(range).collect()
    };
    let pools: Vec<Range> = ran.iter().flat_map(|(name, outcome)| hours(by_pool(trace, outcome), name)).collect();
    let sized =
        |outcome: &Outcome| by_gpus(trace, outcome).into_iter().map(|(gpus, w)| (format!("{gpus:>3}"), w)).collect();
    let sizes: Vec<Range> = ran.iter().flat_map(|(name, outcome)| hours(sized(outcome), name)).collect();
    vec![
        ("allocation.svg", lines("GPUs in use", "days", "", &line(|s| s.gpus as f64))),
        ("queue.svg", lines("Jobs that wait", "days", "", &line(|s| s.waiting as f64))),
        ("waits-by-pool.svg", ranges("Mean wait by pool, hours", "", &pools)),
        ("waits-by-size.svg", ranges("Mean wait by GPUs of the job, hours", "", &sizes)),
        ("report.md", table(trace, ran)),
    ]
}

fn table(trace: &Trace, ran: &[Ran]) -> String {
    let mut text = String::from(
        "# Waiting and completion\n\n| policy | mean wait | median | 99% | slowdown | completion | GPU time used | preempted | lost | \
         least pool |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let hours = |s: f64| format!("{:.2} h", s / 3600.0);
    for (name, outcome) in ran {
        let s = Summary::of(trace, outcome);
        let least = s.least_pool.map_or("-".into(), |(pool, part)| format!("{pool}: {part:.3}"));
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {:.2} | {} | {:.1}% | {} | {:.0} GPU-h | {least} |",
            hours(s.mean_wait_s),
            hours(s.median_wait_s),
            hours(s.p99_wait_s),
            s.mean_slowdown,
            hours(s.mean_completion_s),
            s.used_percent,
            s.preemptions,
            s.lost_gpu_hours
        );
    }
    text.push_str("\n![GPUs in use](allocation.svg)\n\n![Jobs that wait](queue.svg)\n");
    for (what, file) in [("pool", "waits-by-pool.svg"), ("GPUs", "waits-by-size.svg")] {
        let rows: Vec<BTreeMap<String, (f64, u64)>> = ran
            .iter()
            .map(|(_, outcome)| match what {
                "pool" => by_pool(trace, outcome),
                _ => by_gpus(trace, outcome).into_iter().map(|(gpus, w)| (format!("{gpus:>4}"), w)).collect(),
            })
            .collect();
        let names: Vec<&str> = ran.iter().map(|(name, _)| name.as_str()).collect();
        let _ = write!(text, "\n# Mean wait by {what}\n\n| {what} | jobs | {} |\n|---|---|", names.join(" | "));
        let _ = writeln!(text, "{}", "---|".repeat(names.len()));
        for (key, (_, jobs)) in rows.first().into_iter().flatten() {
            let wait = |r: &BTreeMap<String, (f64, u64)>| r.get(key).map_or("-".into(), |(wait, _)| hours(*wait));
            let _ = writeln!(text, "| {key} | {jobs} | {} |", rows.iter().map(wait).collect::<Vec<_>>().join(" | "));
        }
        let _ = writeln!(text, "\n![by {what}]({file})");
    }
    text
}
