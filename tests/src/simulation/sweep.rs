//! Many seeds, on several threads: each seed is a world of its own on one thread, and what comes of them does not depend on
//! how they were shared out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::SECOND;
use super::planted::Bug;
use super::{Report, combined, planted, run_without};

/// What to run.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The seeds.
    pub seeds: Range<u64>,
    /// How many threads.
    pub jobs: usize,
    /// The bug that the code has, if any.
    pub bug: Option<Bug>,
    /// Faults to leave out, by number, in every seed.
    pub without: BTreeSet<usize>,
    /// Whether to print each seed's story as it goes.
    pub trace: bool,
    /// Whether to stop at the first violation. Then the seeds before it were all run, and the hash is only of those.
    pub stop_early: bool,
}

/// What came of a sweep.
#[derive(Debug, Clone, Default)]
pub struct Total {
    /// Seeds that were run.
    pub seeds: u64,
    /// Virtual time, in hours.
    pub virtual_hours: f64,
    /// Faults that struck.
    pub faults: u64,
    /// Events that happened.
    pub events: u64,
    /// Digest of all seeds' digests in the order of the seeds.
    pub hash: u64,
    /// Reports of the seeds with a violation, in the order of the seeds.
    pub violations: Vec<Report>,
}

/// Runs the seeds; `each` hears of every one as it ends, in any order.
pub fn sweep(what: &Sweep, each: impl Fn(&Report) + Sync) -> Total {
    let next = AtomicU64::new(what.seeds.start);
    // No seed at or above this is begun.
    let end = AtomicU64::new(what.seeds.end);
    let reports: Mutex<BTreeMap<u64, Report>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..what.jobs.max(1) {
            scope.spawn(|| {
                planted::select(what.bug);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let report = run_without(seed, what.trace, &what.without);
                    if what.stop_early && report.violation.is_some() {
                        end.fetch_min(seed + 1, Ordering::Relaxed);
                    }
                    each(&report);
                    reports.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.retain(|seed, _| *seed < end.load(Ordering::Relaxed));
    total(reports)
}

fn total(reports: BTreeMap<u64, Report>) -> Total {
    let virtual_us: u64 = reports.values().map(|r| r.virtual_us).sum();
    Total {
        seeds: reports.len() as u64,
        virtual_hours: virtual_us as f64 / (3_600 * SECOND) as f64,
        faults: reports.values().map(|r| r.faults).sum(),
        events: reports.values().map(|r| r.events).sum(),
        hash: combined(reports.values().map(|r| r.hash)),
        violations: reports.into_values().filter(|r| r.violation.is_some()).collect(),
    }
}
