//! What pools are entitled to: the design's worked examples, and the division against a slow model that shares no code with it.

#![allow(clippy::unwrap_used)]

mod support;

use engine::pools::entitlement::{Claim, divide};
use proptest::prelude::*;
use protocol::pool::{Lending, Quota};
use support::slow_pools::slow_divide;

fn claim(reservation: u64, limit: Option<u64>, share: u32, demand: u64) -> Claim {
    Claim { quota: Quota { reservation, limit, share, lending: Lending::Elastic }, demand, raised: 0 }
}

fn three(demands: [u64; 3]) -> Vec<u64> {
    divide(100, &demands.map(|demand| claim(20, None, 1, demand)), 1)
}

#[test]
fn the_designs_worked_examples() {
    assert_eq!(three([10, 80, 80]), [10, 45, 45]);
    assert_eq!(three([50, 80, 80]), [34, 33, 33], "what can't be divided goes in pool order");
}

#[test]
fn a_reservation_that_is_static_is_kept_and_an_elastic_one_is_lent() {
    let mut claims = [claim(60, None, 1, 0), claim(0, None, 1, 100)];
    assert_eq!(divide(100, &claims, 1), [0, 100]);
    claims[0].quota.lending = Lending::Static;
    assert_eq!(divide(100, &claims, 1), [60, 40]);
}

#[test]
fn what_nobody_asks_for_is_lent_by_share_up_to_the_limits() {
    assert_eq!(divide(100, &[claim(0, None, 1, 0), claim(0, None, 3, 0)], 1), [25, 75]);
    assert_eq!(divide(100, &[claim(0, Some(10), 1, 0), claim(0, None, 1, 0)], 1), [10, 90]);
    assert_eq!(
        divide(100, &[claim(0, Some(10), 1, 50), claim(0, Some(20), 1, 50)], 1),
        [10, 20],
        "the rest is nobody's"
    );
}

#[test]
fn shares_are_weights_of_what_is_left_after_the_reservations() {
    assert_eq!(divide(100, &[claim(40, None, 1, 100), claim(0, None, 2, 100)], 1), [60, 40]);
}

#[test]
fn reservations_of_more_than_there_is_are_filled_by_share() {
    assert_eq!(divide(30, &[claim(20, None, 1, 20), claim(40, None, 1, 40)], 1), [15, 15]);
    assert_eq!(divide(0, &[claim(20, None, 1, 20)], 1), [0]);
}

#[test]
fn devices_are_handed_out_whole() {
    let claims = [claim(0, None, 1, 99_000), claim(0, None, 1, 99_000), claim(0, None, 1, 99_000)];
    assert_eq!(divide(100_000, &claims, 1000), [34_000, 33_000, 33_000]);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let all = u64::MAX;
    let claims = [claim(all, None, 1_000_000, all), claim(all, Some(all), 1_000_000, all), claim(0, None, 1, all)];
    let given = divide(all, &claims, 1000);
    assert_eq!(given.iter().map(|g| u128::from(*g)).sum::<u128>(), u128::from(all));
}

#[test]
fn a_raised_part_comes_after_reservations_and_before_shares() {
    let raised = |to: u64, demand: u64| Claim { raised: to, ..claim(10, None, 1, demand) };
    assert_eq!(divide(100, &[raised(60, 80), claim(10, None, 1, 80)], 1), [60, 40]);
    assert_eq!(divide(100, &[raised(60, 30), claim(10, None, 1, 80)], 1), [30, 70], "no more than it asks for");
    assert_eq!(divide(100, &[raised(95, 95), claim(40, None, 1, 80)], 1), [60, 40], "the other's reservation stays");
    assert_eq!(
        divide(100, &[raised(60, 80), claim(10, None, 1, 15)], 1),
        [83, 17],
        "what others leave is lent as ever"
    );
}

fn any_claim() -> impl Strategy<Value = Claim> {
    let limit = prop_oneof![Just(None), (0..200u64).prop_map(Some)];
    let raised = prop_oneof![Just(0u64), 0..150u64];
    (0..60u64, limit, 1..5u32, 0..150u64, any::<bool>(), raised).prop_map(
        |(reservation, limit, share, demand, fixed, raised)| {
            let lending = if fixed { Lending::Static } else { Lending::Elastic };
            // The tree's rules keep a reservation within the limit.
            let reservation = reservation.min(limit.unwrap_or(u64::MAX));
            Claim { quota: Quota { reservation, limit, share, lending }, demand, raised }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_division_is_that_of_the_slow_model(
        claims in prop::collection::vec(any_claim(), 1..7),
        amount in 0..400u64,
        piece in prop_oneof![Just(1u64), Just(4u64)],
    ) {
        let given = divide(amount, &claims, piece);
        prop_assert_eq!(&given, &slow_divide(amount, &claims, piece));
        prop_assert!(given.iter().sum::<u64>() <= amount);
        for (claim, given) in claims.iter().zip(&given) {
            prop_assert!(*given <= claim.quota.limit.unwrap_or(u64::MAX));
        }
    }

    /// Whoever has less than it demands has at least what it reserved of that, where the reservations fit.
    #[test]
    fn a_reservation_that_is_asked_for_is_had(claims in prop::collection::vec(any_claim(), 1..7)) {
        let reserved: u64 = claims.iter().map(|c| c.quota.reservation).sum();
        let given = divide(reserved + 10, &claims, 1);
        for (claim, given) in claims.iter().zip(&given) {
            prop_assert!(*given >= claim.quota.reservation.min(claim.demand));
        }
    }
}

#[test]
fn the_slow_model_itself_knows_the_worked_examples() {
    let model = |demands: [u64; 3]| slow_divide(100, &demands.map(|d| claim(20, None, 1, d)), 1);
    assert_eq!(model([10, 80, 80]), [10, 45, 45]);
    assert_eq!(model([50, 80, 80]), [34, 33, 33]);
}
