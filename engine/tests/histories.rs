//! What must hold in any history, over random ones; and that the checks find bugs that are planted on purpose.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
#[cfg(not(feature = "planted"))]
use support::cures::{start, waiting};
#[cfg(not(feature = "planted"))]
use support::histories::History;
use support::histories::run;
#[cfg(not(feature = "planted"))]
use support::operations::Op;
use support::operations::{draining, lending, op, stretching};

/// The random histories are not all of a kind: in those of lending, room is taken back.
#[cfg(not(feature = "planted"))]
#[test]
fn where_room_is_lent_it_is_taken_back() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = lending();
    let victims: usize =
        (0..100).map(|_| run(&histories.new_tree(&mut runner).unwrap().current()).unwrap().victims).sum();
    assert!(victims >= 10, "{victims} attempts had to give room");
}

/// In those of elastic workloads members come, and go for others.
#[cfg(not(feature = "planted"))]
#[test]
fn where_there_is_room_it_is_grown_into_and_given_back() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = stretching();
    let (mut came, mut went) = (0, 0);
    for _ in 0..100 {
        let seen = run(&histories.new_tree(&mut runner).unwrap().current()).unwrap();
        (came, went) = (came + seen.resized.0, went + seen.resized.1);
    }
    assert!(came >= 50 && went >= 10, "{came} members came and {went} went for others");
}

/// Clusters are drained, and attempts end for it.
#[cfg(not(feature = "planted"))]
#[test]
fn where_clusters_are_drained_attempts_end_for_it() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = draining();
    let drained: usize =
        (0..100).map(|_| run(&histories.new_tree(&mut runner).unwrap().current()).unwrap().drained).sum();
    assert!(drained >= 10, "{drained} attempts ended for a drain");
}

/// What everybody who waits at the end of a history had to be cured of until it started.
#[cfg(not(feature = "planted"))]
fn cures(ops: &[Op]) -> Result<Vec<&'static str>, String> {
    let mut history = History::new();
    ops.iter().try_for_each(|op| history.step(op))?;
    let cured = waiting(&history).into_iter().map(|uid| start(history.clone(), uid));
    Ok(cured.collect::<Result<Vec<_>, _>>()?.concat())
}

/// Whatever is told of a workload that waits is true, and all of it: where it is made false, what is told next is another thing, until
/// the workload starts.
#[cfg(not(feature = "planted"))]
#[test]
fn who_is_cured_of_what_it_is_told_starts() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let histories = prop_oneof![prop::collection::vec(op(), 1..80), lending(), stretching(), draining()];
    let mut cured = std::collections::BTreeMap::<&str, usize>::new();
    for n in 0..800 {
        let cures = cures(&histories.new_tree(&mut runner).unwrap().current());
        let cures = cures.unwrap_or_else(|e| panic!("history {n}: {e}"));
        cures.into_iter().for_each(|cure| *cured.entry(cure).or_default() += 1);
    }
    let all =
        ["room", "backoff", "dependency", "data", "limit", "reservation", "part", "cluster", "behind", "impossible"];
    all.iter().for_each(|cure| assert!(cured.contains_key(cure), "{cure} was never the reason: {cured:?}"));
}

#[cfg(not(feature = "planted"))]
proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_invariant_holds_in_every_history(ops in prop::collection::vec(op(), 1..80)) {
        run(&ops).map_err(TestCaseError::fail).map(drop)?;
    }

    #[test]
    fn who_is_cured_of_what_it_is_told_starts_in_any_history(ops in prop::collection::vec(op(), 1..80)) {
        cures(&ops).map_err(TestCaseError::fail).map(drop)?;
    }

    #[test]
    fn every_invariant_holds_where_workloads_grow_and_shrink(ops in stretching()) {
        run(&ops).map_err(TestCaseError::fail).map(drop)?;
    }

    #[test]
    fn every_invariant_holds_where_clusters_are_drained(ops in draining()) {
        run(&ops).map_err(TestCaseError::fail).map(drop)?;
    }

    #[test]
    fn every_invariant_holds_where_room_is_lent_and_taken_back(ops in lending()) {
        run(&ops).map_err(TestCaseError::fail).map(drop)?;
    }
}

/// With `--features planted`: how many random histories each planted bug survives.
#[cfg(feature = "planted")]
#[test]
fn every_planted_bug_is_found() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    const HISTORIES: u32 = 3000;
    let histories = prop_oneof![prop::collection::vec(op(), 1..80), lending(), stretching(), draining()];
    let tried = |bug| {
        engine::planted::select(bug);
        let mut runner = TestRunner::deterministic();
        let found = (1..=HISTORIES).find_map(|n| {
            let ops = histories.new_tree(&mut runner).unwrap().current();
            run(&ops).err().map(|e| (n, e))
        });
        engine::planted::select(None);
        found
    };
    assert_eq!(tried(None), None, "without a planted bug nothing is found");
    for (bug, _) in engine::planted::BUGS {
        let (histories, found) = tried(Some(bug)).unwrap_or_else(|| panic!("{bug} was not found"));
        println!("{bug}: found after {histories} histories: {}", found.lines().next().unwrap());
    }
}
