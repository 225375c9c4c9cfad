//! Replays of generated fleets: every policy keeps the method's rules, ours packs no worse than FGD, and a seed gives one run.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use replay::fleet::{Fleet, Split};
use replay::generate::make;
use replay::method::saturation::{Clusters, Failed, arrivals, run};
use replay::policy::Name;

const FOUR: Clusters = Clusters { count: 4, split: Split::Model };

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// The books refuse a device given twice and a share over two devices, and the method refuses a pod that fits and waits.
    #[test]
    fn every_policy_places_what_fits_and_nothing_else(seed in 0..10_000u64, split in prop::bool::ANY) {
        let made = make(24, seed);
        let clusters = if split { FOUR } else { Clusters::ONE };
        let clusters = Clusters { count: clusters.count.min(made.nodes.len()), ..clusters };
        for name in Name::ALL {
            let outcome = run(&made.nodes, &made.pods, clusters, name, seed, |_| {}).unwrap();
            prop_assert!(outcome.at_100 <= outcome.at_130 && outcome.at_130 <= 100.0, "{name}: {outcome:?}");
            prop_assert_eq!(outcome.curve.len(), 130);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    let made = make(40, 7);
    for name in Name::ALL {
        let once = run(&made.nodes, &made.pods, FOUR, name, 3, |_| {}).unwrap();
        assert_eq!(once, run(&made.nodes, &made.pods, FOUR, name, 3, |_| {}).unwrap(), "{name}");
        assert_ne!(once.curve, run(&made.nodes, &made.pods, FOUR, name, 4, |_| {}).unwrap().curve, "{name}");
    }
}

#[test]
fn ours_gives_out_more_than_fgd_over_generated_fleets_and_one_cluster_or_four_make_no_difference() {
    let (mut ours, mut split, mut fgd) = (0.0, 0.0, 0.0);
    for seed in 0..8 {
        let made = make(60, seed);
        let at = |name, clusters| run(&made.nodes, &made.pods, clusters, name, seed, |_| {}).unwrap().at_130;
        ours += at(Name::Tidewater, Clusters::ONE) / 8.0;
        split += at(Name::Tidewater, FOUR) / 8.0;
        fgd += at(Name::Fgd, Clusters::ONE) / 8.0;
    }
    assert!(ours > fgd, "tidewater {ours:.2}, fgd {fgd:.2}");
    assert!((ours - split).abs() < 0.3, "one cluster {ours:.2}, four {split:.2}");
}

#[test]
fn arrivals_hold_every_pod_once_and_then_enough_more() {
    let made = make(30, 1);
    let all = Fleet::new(&made.nodes, 1, Split::Random, 0).gpu_milli();
    let order = arrivals(&made.pods, all, 9).unwrap();
    let mut first = order[..made.pods.len()].to_vec();
    first.sort_unstable();
    assert_eq!(first, (0..made.pods.len()).collect::<Vec<_>>());
    let asked = |order: &[usize]| order.iter().map(|p| made.pods[*p].gpu_milli()).sum::<u64>();
    assert!(asked(&order) * 10 >= all * 13 && asked(&order[..order.len() - 1]) * 10 < all * 13);
}

#[test]
fn nothing_to_saturate_is_said() {
    let mut made = make(10, 1);
    made.pods.iter_mut().for_each(|p| (p.devices, p.milli) = (0, 0));
    let failed = run(&made.nodes, &made.pods, Clusters::ONE, Name::Tidewater, 0, |_| {}).unwrap_err();
    assert_eq!(failed, Failed::NoGpus("pods ask for"));
    assert_eq!(failed.to_string(), "the pods ask for no GPU: there is nothing to saturate");
}
