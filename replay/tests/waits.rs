//! Replays in virtual time: waits that were worked out by hand, what a preemption costs, and what holds of every run.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use protocol::pool::LineOrder;
use replay::fleet::NodeRow;
use replay::generate::three_clusters;
use replay::method::waits::{CHECKPOINT_MS, Failed, GRACE_MS, Outcome, Summary, Terms, Trace};
use replay::policy::Name;
use replay::trace::Job;

const S: u64 = 1000;

fn nodes(clusters: &[(&str, usize)], devices: u16) -> Vec<NodeRow> {
    let node = |cluster: &str, number: usize| NodeRow {
        name: format!("{cluster}-{number}"),
        model: Some("T4".into()),
        cpu_milli: 64_000,
        memory_mib: 64_000,
        devices,
        cluster: Some(cluster.to_owned()),
    };
    clusters.iter().flat_map(|(c, n)| (0..*n).map(move |i| node(c, i))).collect()
}

/// Arrival in s, pool, GPUs, run time in s.
fn jobs(all: &[(u64, &str, u32, u64)]) -> Vec<Job> {
    let job = |(i, (arrival, pool, gpus, duration)): (usize, &(u64, &str, u32, u64))| Job {
        name: format!("job-{i}"),
        pool: (*pool).to_owned(),
        arrival_ms: arrival * S,
        gpus: *gpus,
        duration_ms: duration * S,
    };
    all.iter().enumerate().map(job).collect()
}

/// Each job's wait and end, in ms.
fn waits_and_ends(trace: &Trace, policy: Name, declared: bool) -> Vec<(u64, u64)> {
    let mut done = trace.run(policy, Terms { declared, ..Terms::default() }, 0, |_| {}).unwrap().done;
    done.sort_by_key(|d| d.job);
    done.iter().map(|d| (d.wait_ms, d.ended_ms)).collect()
}

/// The second needs both GPUs, of which the first has one; the third needs one for a short time.
fn one_may_pass() -> Trace {
    Trace::new(nodes(&[("a", 1)], 2), jobs(&[(0, "p", 1, 100), (10, "p", 2, 50), (20, "p", 1, 30)])).unwrap()
}

#[test]
fn a_greedy_line_lets_those_behind_start_and_a_strict_one_does_not() {
    let greedy = [(0, 100 * S), (90 * S, 150 * S), (0, 50 * S)];
    for policy in Name::ALL.into_iter().filter(|p| *p != Name::Tidewater) {
        assert_eq!(waits_and_ends(&one_may_pass(), policy, false), greedy, "{policy}");
    }
    let strict = [(0, 100 * S), (90 * S, 150 * S), (130 * S, 180 * S)];
    assert_eq!(waits_and_ends(&one_may_pass(), Name::StrictFifo, false), strict);
}

#[test]
fn the_planner_lets_one_pass_that_may_be_ended_and_ends_it_once_the_first_can_start() {
    // Whether it is known to end before that or not.
    let short = [(0, 100 * S), (90 * S, 150 * S), (0, 50 * S)];
    assert_eq!(waits_and_ends(&one_may_pass(), Name::Tidewater, false), short);
    assert_eq!(waits_and_ends(&one_may_pass(), Name::Tidewater, true), short);
    // One that runs for longer gives its room when the other GPU is free, and is gone after its grace; then it begins anew.
    let all = [(0, "p", 1, 100), (10, "p", 2, 50), (20, "p", 1, 300)];
    let long = Trace::new(nodes(&[("a", 1)], 2), jobs(&all)).unwrap();
    for declared in [false, true] {
        let done = waits_and_ends(&long, Name::Tidewater, declared);
        assert_eq!(done[..2], [(0, 100 * S), (100 * S, 160 * S)]);
        assert_eq!(done[2].1, 460 * S);
    }
}

#[test]
fn a_run_in_figures_is_as_worked_out_by_hand() {
    let trace = one_may_pass();
    let outcome = trace.run(Name::FirstFit, Terms::default(), 0, |_| {}).unwrap();
    let s = Summary::of(&trace, &outcome);
    // Waits 0, 90, 0; ends 100, 140 and 30 s after arrival; nobody runs for the 600 s that a slowdown counts at least.
    assert_eq!((s.mean_wait_s, s.median_wait_s, s.p99_wait_s), (30.0, 0.0, 90.0));
    assert_eq!((s.mean_completion_s, s.mean_slowdown), (90.0, 1.0));
    // Until the last arrival at 20 s one of two GPUs was in use.
    assert_eq!((s.used_percent, s.preemptions, s.lost_gpu_hours), (50.0, 0, 0.0));
    // Entitled to the one that it asked for until 10 s, then to both: the pool had 30 of 50 GPU-seconds by 20 s, 90 of 110 by 50 s,
    // 140 of 210 by 100 s, and both of both from then on to 150 s.
    let pool = outcome.pools["p"];
    let near = |hours: f64, seconds: f64| (hours * 3600.0 - seconds).abs() < 1e-6;
    assert!(near(pool.entitled, 10.0 + 2.0 * 140.0), "{pool:?}");
    assert!(near(pool.held, 20.0 + 60.0 + 50.0 + 100.0), "{pool:?}");
    assert!((s.least_pool.unwrap().1 - 230.0 / 290.0).abs() < 1e-9);
}

/// `lender` has all four GPUs when `owner`, who is promised two, comes for two.
fn one_is_preempted(arrival: u64) -> Trace {
    let all = [(0, "lender", 4, 3600), (arrival, "owner", 2, 7200)];
    Trace::new(nodes(&[("a", 1)], 4), jobs(&all)).unwrap()
}

#[test]
fn what_is_preempted_goes_on_from_its_last_checkpoint_and_the_time_since_is_lost() {
    // Taken back once it was lent for 30 s, by the look a millisecond later; gone after the grace.
    for (arrival, saved) in [(2000, CHECKPOINT_MS), (1000, 0), (3590, CHECKPOINT_MS)] {
        let trace = one_is_preempted(arrival);
        let reservations: Vec<u64> = trace.pools.values().map(|p| p.reservation).collect();
        assert_eq!(reservations, [2, 2]);
        let outcome = trace.run(Name::Tidewater, Terms::default(), 0, |_| {}).unwrap();
        if arrival == 3590 {
            // It ends by itself before that.
            assert_eq!(outcome.preemptions, 0);
            assert_eq!(waits_and_ends(&trace, Name::Tidewater, false), [(0, 3600 * S), (10 * S, 10_800 * S)]);
            continue;
        }
        let stopped = arrival * S + 30_001;
        let lost = stopped - saved;
        assert_eq!(outcome.preemptions, 1);
        assert!((outcome.lost_gpu_hours * 3_600_000.0 - 4.0 * lost as f64).abs() < 1e-3, "{outcome:?}");
        let owner_starts = stopped + GRACE_MS;
        let owner_ends = owner_starts + 7200 * S;
        let lender_ends = owner_ends + 3600 * S - saved;
        let waits = waits_and_ends(&trace, Name::Tidewater, false);
        assert_eq!(waits, [(7200 * S, lender_ends), (owner_starts - arrival * S, owner_ends)]);
    }
}

#[test]
fn where_the_least_served_goes_first_the_long_give_way_to_the_short_by_steps() {
    // One pool, two GPUs. The first has had a GPU-hour of both after half an hour; who comes then and has had nothing gets its room.
    let all = [(0, "p", 2, 7200), (1900, "p", 2, 600), (4400, "p", 2, 600)];
    let trace = Trace::new(nodes(&[("a", 1)], 2), jobs(&all)).unwrap();
    let by = |order| {
        let mut done = trace.run(Name::Tidewater, Terms { declared: false, order }, 0, |_| {}).unwrap().done;
        done.sort_by_key(|d| d.job);
        done.iter().map(|d| (d.wait_ms, d.ended_ms)).collect::<Vec<_>>()
    };
    let submitted = [(0, 7200 * S), (5300 * S, 7800 * S), (3400 * S, 8400 * S)];
    assert_eq!(by(LineOrder::Submitted), submitted);
    // Each time: 30 s and a millisecond until it is sure, 10 s of grace, 600 s of run. What the first ran since its last checkpoint is
    // done again: its 30 s since half an hour, and all of the 1860 s between the two.
    let (first, second) = (1900 * S + 40_001, 4400 * S + 40_001);
    let resumed = [(first + 600 * S), (second + 600 * S)];
    let kept_1 = CHECKPOINT_MS;
    let kept_2 = (kept_1 + 4430 * S + 1 - resumed[0]) / CHECKPOINT_MS * CHECKPOINT_MS;
    let end = resumed[1] + 7200 * S - kept_2;
    let least = [(1200 * S, end), (40_001, first + 600 * S), (40_001, second + 600 * S)];
    assert_eq!(by(LineOrder::LeastServed), least);
}

#[test]
fn nodes_are_not_kept_for_a_gang_whose_pool_has_no_part_for_it() {
    // The second job is promised both nodes of `a` while its pool may have the whole fleet. Then `owner` comes, who is entitled to 8 of the
    // 12 GPUs: the promise stands in nobody's way, or neither of the two would ever start.
    let all = [(0, "lender", 8, 40), (10, "lender", 8, 100), (20, "owner", 8, 280)];
    let trace = Trace::new(nodes(&[("a", 2), ("b", 1)], 4), jobs(&all)).unwrap();
    let reservations: Vec<u64> = trace.pools.values().map(|p| p.reservation).collect();
    assert_eq!(reservations, [4, 8]);
    let waits = waits_and_ends(&trace, Name::Tidewater, false);
    assert_eq!(waits, [(0, 40 * S), (310 * S, 420 * S), (20 * S, 320 * S)]);
}

#[test]
fn a_gang_larger_than_a_node_gets_whole_nodes_of_one_cluster() {
    // Two clusters with 2 and 1 nodes: 8 GPUs fit only in the first, 12 nowhere.
    let fleet = nodes(&[("a", 2), ("b", 1)], 4);
    let trace = Trace::new(fleet.clone(), jobs(&[(0, "p", 4, 100), (0, "p", 8, 50)])).unwrap();
    for policy in Name::waits() {
        trace.run(policy, Terms::default(), 3, |_| {}).unwrap();
    }
    let failed = Trace::new(fleet, jobs(&[(0, "p", 12, 100)])).unwrap_err();
    assert_eq!(failed, Failed::TooLarge { job: "job-0".into(), gpus: 12 });
}

#[test]
fn reservations_are_whole_gpus_in_proportion_and_sum_up_to_the_fleet() {
    let trace = Trace::new(three_clusters(), jobs(&[(0, "a", 1, 100), (0, "b", 1, 200), (0, "c", 1, 400)])).unwrap();
    let reservations: Vec<u64> = trace.pools.values().map(|p| p.reservation).collect();
    assert_eq!(reservations, [42, 85, 169]);
    assert_eq!(reservations.iter().sum::<u64>(), 296);
    let trace = trace.reserving(50);
    let rights: Vec<(u64, u32)> = trace.pools.values().map(|p| (p.reservation, p.share)).collect();
    assert_eq!(rights, [(21, 42), (42, 85), (85, 169)]);
}

fn lists() -> impl Strategy<Value = Vec<Job>> {
    let job = (0..20_000u64, 0..3usize, prop::sample::select(vec![1u32, 1, 1, 2, 3, 4, 4, 8]), 1..9_000u64);
    prop::collection::vec(job, 1..60).prop_map(|mut all| {
        all.sort_by_key(|(arrival, ..)| *arrival);
        let all: Vec<_> = all.iter().map(|(at, pool, gpus, ran)| (*at, ["x", "y", "z"][*pool], *gpus, *ran)).collect();
        jobs(&all)
    })
}

fn every_job_ended_once(trace: &Trace, outcome: &Outcome) -> Result<(), TestCaseError> {
    let mut ended: Vec<usize> = outcome.done.iter().map(|d| d.job).collect();
    ended.sort_unstable();
    prop_assert_eq!(ended, (0..trace.jobs.len()).collect::<Vec<_>>());
    let mut ran_too_long = 0u128;
    for done in &outcome.done {
        let job = &trace.jobs[done.job];
        let ran = (done.ended_ms - job.arrival_ms - done.wait_ms) as u128;
        prop_assert!(ran >= u128::from(job.duration_ms));
        ran_too_long += (ran - u128::from(job.duration_ms)) * u128::from(job.gpus);
    }
    // What ran beyond a job's time is what preemption lost, and each victim's grace.
    let lost = outcome.lost_gpu_hours * 3_600_000.0;
    prop_assert!(ran_too_long as f64 >= lost - 1.0, "{ran_too_long} {lost}");
    prop_assert!(ran_too_long as f64 <= lost + (outcome.preemptions * GRACE_MS * 8) as f64 + 1.0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The books refuse a device that is given twice, and a job that starts twice or ends without having started.
    #[test]
    fn every_job_ends_once_under_every_policy(jobs in lists(), seed in 0..100u64) {
        let trace = Trace::new(nodes(&[("a", 2), ("b", 1)], 4), jobs).unwrap();
        let orders = [LineOrder::Submitted, LineOrder::LeastServed];
        let all = orders.map(|order| [false, true].map(|declared| (Name::Tidewater, Terms { declared, order })));
        let baselines = Name::waits().filter(|p| *p != Name::Tidewater).map(|p| (p, Terms::default()));
        for (policy, terms) in baselines.chain(all.into_iter().flatten()) {
            let outcome = trace.run(policy, terms, seed, |_| {}).unwrap();
            every_job_ended_once(&trace, &outcome)?;
            prop_assert!(policy == Name::Tidewater || outcome.preemptions == 0);
        }
    }
}

#[test]
fn the_keys_of_a_run_are_as_documented() {
    let trace = one_may_pass();
    let outcome = trace.run(Name::FirstFit, Terms::default(), 0, |_| {}).unwrap();
    let figures = replay::report::figures(Name::FirstFit, Terms::default(), &Summary::of(&trace, &outcome));
    insta::assert_snapshot!(serde_json::to_string_pretty(&figures).unwrap());
}
