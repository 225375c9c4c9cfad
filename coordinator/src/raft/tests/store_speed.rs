//! How many steps a second a real disk takes. Not a check: run with
//! `cargo test -p coordinator store_speed -- --ignored --nocapture`.

use std::time::Instant;

use super::*;
use crate::raft::driver::{Driver, DriverConfig};

const PAYLOAD_BYTES: usize = 300;

/// A replica without peers on a real file: each round is one step with this many proposals.
fn rounds(per_step: usize, rounds: usize) {
    // Beside the build, which is on a disk; the system's temporary directory may be memory.
    let dir = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    let store = Store::open_dir(dir.path(), ME).unwrap();
    let mut driver = Driver::open(DriverConfig::new(ME, vec![ME]), store).unwrap();
    while driver.ready().unwrap().is_some() {}
    let mut times_us = Vec::new();
    let start = Instant::now();
    for round in 0..rounds {
        let began = Instant::now();
        for number in 0..per_step {
            driver.propose(number as u64, vec![b'x'; PAYLOAD_BYTES]).unwrap();
        }
        let mut committed = 0;
        while let Some(ready) = driver.ready().unwrap() {
            committed += ready.committed.len();
        }
        assert_eq!(committed, per_step);
        times_us.push(began.elapsed().as_micros());
        if round % 100 == 99 {
            driver.compact(driver.given_out(), vec![b's'; 10_000], 0).unwrap();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    times_us.sort_unstable();
    let (p50, p99) = (times_us[rounds / 2], times_us[rounds * 99 / 100]);
    println!(
        "{per_step} entries a step: {:.0} steps/s, {:.0} entries/s, p50 {p50} us, p99 {p99} us",
        rounds as f64 / seconds,
        (rounds * per_step) as f64 / seconds,
    );
}

#[test]
#[ignore = "a measurement, not a check"]
fn steps_a_second_on_a_real_disk() {
    rounds(1, 2000);
    rounds(100, 1000);
    rounds(1000, 200);
}
