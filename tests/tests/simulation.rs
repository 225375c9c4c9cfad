//! The simulation as a test: many seeds, the same run from the same seed, and every planted bug found.

use std::collections::BTreeSet;
use std::thread::available_parallelism;

use tests::simulation::{Report, Sweep, planted, sweep};

/// Seeds of every run of the tests. More: `cargo run --release -p tests --bin sim -- --seeds 0..100000`.
const SEEDS: u64 = 1_000;
/// A planted bug that is not found within so many seeds counts as missed.
const SEEDS_A_BUG: u64 = 200;

fn jobs() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn told(report: &Report) -> String {
    let Some(violation) = &report.violation else { return format!("seed {}: nothing", report.seed) };
    format!(
        "{}\nseed {}: {}: {}\n  replay: cargo run --release -p tests --bin sim -- --seeds {}..{} --trace",
        violation.story.join("\n"),
        report.seed,
        violation.invariant,
        violation.what,
        report.seed,
        report.seed + 1
    )
}

#[test]
fn a_thousand_seeds_of_faults_break_no_invariant() {
    let what =
        Sweep { seeds: 0..SEEDS, jobs: jobs(), bug: None, without: BTreeSet::new(), trace: false, stop_early: true };
    let total = sweep(&what, |_| {});
    assert!(total.violations.is_empty(), "{}", told(&total.violations[0]));
    assert_eq!(total.seeds, SEEDS);
    assert!(total.faults > 2 * SEEDS && total.virtual_hours > 5.0, "{total:?}");
}

#[test]
fn the_same_seeds_give_the_same_hash_whatever_runs_beside_them() {
    let what = Sweep { seeds: 7..17, jobs: 1, bug: None, without: BTreeSet::new(), trace: false, stop_early: false };
    let alone = sweep(&what, |_| {});
    let beside = sweep(&Sweep { jobs: 4, ..what.clone() }, |_| {});
    assert_eq!((alone.hash, alone.events, alone.faults), (beside.hash, beside.events, beside.faults));
    let others = sweep(&Sweep { seeds: 17..18, ..what }, |_| {});
    assert_ne!(alone.hash, others.hash);
}

#[test]
#[cfg_attr(not(feature = "planted"), ignore = "bugs are planted only with `--features planted`")]
fn every_planted_bug_is_found() {
    let bugs = planted::all();
    assert!(bugs.len() >= 10, "{bugs:?}");
    for bug in bugs {
        let seeds = 0..SEEDS_A_BUG;
        let total = sweep(
            &Sweep { seeds, jobs: jobs(), bug: Some(bug), without: BTreeSet::new(), trace: false, stop_early: true },
            |_| {},
        );
        let found = total.violations.first().and_then(|r| Some((r.seed, r.violation.as_ref()?.invariant)));
        println!("{}: {found:?}", bug.name);
        assert!(found.is_some(), "{} was not found in {SEEDS_A_BUG} seeds", bug.name);
    }
}
