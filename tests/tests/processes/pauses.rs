//! Processes that stand still for a while, as on a machine that swaps or a virtual machine that is moved, and then go on as
//! if nothing had been.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::Signal;

use super::api::{phase, text};
use super::federation::{CLUSTERS, Federation};
use super::ledger::Ledger;
use super::world::{PATIENCE, World, signal, wait_for};
use crate::Done;

/// The leader stands still for 5 s: the others elect another, and the old one learns of it before it acts.
pub fn leader(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    for n in 0..3 {
        federation.api.submit(&ledger.workload(&format!("before{n}"), 2, 40))?;
    }
    federation.api.until("before2", &["Running"], PATIENCE)?;
    let old = federation.api.leader()? as usize;
    federation.coordinator(old)?.signal(Signal::STOP);
    let began = Instant::now();
    // Half of these are handed in while it stands still, the others after it went on.
    for n in 0..3 {
        federation.api.submit(&ledger.workload(&format!("during{n}"), 1, 5))?;
    }
    let acknowledged = began.elapsed();
    std::thread::sleep(Duration::from_secs(5).saturating_sub(began.elapsed()));
    federation.coordinator(old)?.signal(Signal::CONT);
    for n in 0..3 {
        federation.api.submit(&ledger.workload(&format!("after{n}"), 1, 5))?;
    }
    for name in ["before", "during", "after"] {
        for n in 0..3 {
            let ended = federation.api.until(&format!("{name}{n}"), &["Succeeded"], PATIENCE)?;
            let attempts = ended["status"]["attempts"].as_array().map_or(0, Vec::len);
            ensure!(attempts == 1, "{name}{n} needed {attempts} attempts: {}", ended["status"]);
        }
    }
    eprintln!("    3 submissions were acknowledged {:.1} s after the leader stood still", acknowledged.as_secs_f64());
    wait_for("the old leader to follow", PATIENCE, || Ok(federation.api.readiness(old - 1).0.then_some(())))?;
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// An agent stands still for longer than its lease of 30 s: its cluster is lost, its workload unknown and not replaced. It
/// goes on, and all is as before.
pub fn agent(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    federation.api.submit(&ledger.workload("w", 2, 3000))?;
    let running = federation.api.until("w", &["Running"], PATIENCE)?;
    let cluster = text(&running["status"]["cluster"]);
    let place = usize::from(cluster != CLUSTERS[0]);
    federation.agent(place)?.signal(Signal::STOP);
    let began = Instant::now();
    federation.until_cluster(&cluster, "Lost")?;
    let lost_after = began.elapsed();
    ensure!(lost_after >= Duration::from_secs(25), "it was called lost after {:.1} s", lost_after.as_secs_f64());
    let unknown = federation.api.until("w", &["Unknown"], PATIENCE)?;
    // Longer than any retry waits at first: were it to be replaced, it would be by now.
    let written = ledger.len();
    std::thread::sleep(Duration::from_secs(4));
    let still = federation.api.workload("w")?;
    for seen in [&unknown, &still] {
        let attempts = seen["status"]["attempts"].as_array().map_or(0, Vec::len);
        ensure!(attempts == 1 && phase(seen) == "Unknown", "{}", seen["status"]);
    }
    ensure!(ledger.len() > written, "what runs there goes on");

    federation.agent(place)?.signal(Signal::CONT);
    let began = Instant::now();
    federation.until_cluster(&cluster, "Ready")?;
    federation.api.until("w", &["Running"], PATIENCE)?;
    eprintln!(
        "    lost after {:.1} s, back {:.1} s after it went on",
        lost_after.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    ensure!(ledger.count("start", "w") == 2, "it was started again");
    federation.api.cancel("w")?;
    federation.api.until("w", &["Cancelled"], PATIENCE)?;
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// The whole machine stands still for a while, as one that was suspended: everything goes on from where it was.
pub fn everything(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    for n in 0..3 {
        federation.api.submit(&ledger.workload(&format!("w{n}"), 2, 30))?;
    }
    federation.api.until("w2", &["Running"], PATIENCE)?;
    for stop in [Signal::STOP, Signal::CONT] {
        world.processes().iter().for_each(|found| signal(found.pid, stop));
        // Longer than a connection may be silent.
        let still = if stop == Signal::STOP { 12 } else { 0 };
        std::thread::sleep(Duration::from_secs(still));
    }
    federation.api.submit(&ledger.workload("after", 1, 1))?;
    for name in ["w0", "w1", "w2", "after"] {
        let ended = federation.api.until(name, &["Succeeded"], PATIENCE)?;
        let attempts = ended["status"]["attempts"].as_array().map_or(0, Vec::len);
        ensure!(attempts == 1, "{name} needed {attempts} attempts: {}", ended["status"]);
    }
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}
