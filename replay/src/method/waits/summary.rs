//! A run in a few figures.

use std::collections::BTreeMap;

use super::{Outcome, Trace};

/// The shortest run that a slowdown is counted against, in ms.
const BOUND_MS: u64 = 600_000;

/// A run in a few figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Waits, in s.
    pub mean_wait_s: f64,
    /// The median.
    pub median_wait_s: f64,
    /// The 99th percentile.
    pub p99_wait_s: f64,
    /// Mean of (wait + run) / max(run, 10 minutes), at least 1.
    pub mean_slowdown: f64,
    /// Mean time from arrival to end, in s.
    pub mean_completion_s: f64,
    /// GPU time used until the last arrival, in percent.
    pub used_percent: f64,
    /// Attempts that were preempted.
    pub preemptions: u64,
    /// GPU time lost with them, in GPU-hours.
    pub lost_gpu_hours: f64,
    /// The pool that had least of what it was entitled to, and what part of that its GPU time was.
    pub least_pool: Option<(String, f64)>,
    /// The least that a pool had of its entitlement moment by moment: what it had beyond it at other times does not count.
    pub least_kept: Option<f64>,
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0u64);
    values.for_each(|v| (sum, count) = (sum + v, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

impl Summary {
    /// Of a run.
    pub fn of(trace: &Trace, outcome: &Outcome) -> Self {
        let mut waits: Vec<u64> = outcome.done.iter().map(|d| d.wait_ms).collect();
        waits.sort_unstable();
        let at = |part: f64| waits.get(((waits.len() as f64 * part) as usize).min(waits.len().saturating_sub(1)));
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let completion = |d: &super::Done| d.ended_ms - trace.jobs[d.job].arrival_ms;
        let slowdown = |d: &super::Done| {
            let bound = trace.jobs[d.job].duration_ms.max(BOUND_MS) as f64;
            (completion(d) as f64 / bound).max(1.0)
        };
        let part = |t: &super::PoolTime, had: f64| if t.entitled > 0.0 { had / t.entitled } else { 1.0 };
        let least = outcome.pools.iter().map(|(name, t)| (name.clone(), part(t, t.held)));
        Self {
            mean_wait_s: mean(waits.iter().map(|w| seconds(*w))),
            median_wait_s: at(0.5).map_or(0.0, |w| seconds(*w)),
            p99_wait_s: at(0.99).map_or(0.0, |w| seconds(*w)),
            mean_slowdown: mean(outcome.done.iter().map(slowdown)),
            mean_completion_s: mean(outcome.done.iter().map(|d| seconds(completion(d)))),
            used_percent: outcome.used_percent,
            preemptions: outcome.preemptions,
            lost_gpu_hours: outcome.lost_gpu_hours,
            least_pool: least.min_by(|a, b| a.1.total_cmp(&b.1)),
            least_kept: outcome.pools.values().map(|t| part(t, t.kept)).min_by(f64::total_cmp),
        }
    }
}

/// Mean wait in s and number of jobs, by a job's key.
fn by<K: Ord>(trace: &Trace, outcome: &Outcome, key: impl Fn(&crate::trace::Job) -> K) -> BTreeMap<K, (f64, u64)> {
    let mut sums: BTreeMap<K, (f64, u64)> = BTreeMap::new();
    for done in &outcome.done {
        let sum = sums.entry(key(&trace.jobs[done.job])).or_default();
        *sum = (sum.0 + done.wait_ms as f64 / 1000.0, sum.1 + 1);
    }
    sums.into_iter().map(|(key, (sum, count))| (key, (sum / count as f64, count))).collect()
}

/// Mean wait in s and number of jobs, by pool.
pub fn by_pool(trace: &Trace, outcome: &Outcome) -> BTreeMap<String, (f64, u64)> {
    by(trace, outcome, |job| job.pool.clone())
}

/// Mean wait in s and number of jobs, by GPUs.
pub fn by_gpus(trace: &Trace, outcome: &Outcome) -> BTreeMap<u32, (f64, u64)> {
    by(trace, outcome, |job| job.gpus)
}
