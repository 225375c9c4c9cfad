//! What must hold in any history, over random ones; and that the checks find bugs that are planted on purpose.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::histories::run;
use support::operations::{lending, op, stretching};

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

#[cfg(not(feature = "planted"))]
proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_invariant_holds_in_every_history(ops in prop::collection::vec(op(), 1..80)) {
        run(&ops).map_err(TestCaseError::fail).map(drop)?;
    }

    #[test]
    fn every_invariant_holds_where_workloads_grow_and_shrink(ops in stretching()) {
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
    let histories = prop_oneof![prop::collection::vec(op(), 1..80), lending(), stretching()];
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
