//! A cluster is cut off: what is to go on elsewhere ends itself there and starts in the other cluster, never beside itself; what is to wait
//! waits.

use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::Signal;
use serde_json::json;

use super::api::{clusters_of, phase};
use super::federation::{CLUSTERS, Federation};
use super::ledger::Ledger;
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

/// An agent stands still for longer than its workload's `failoverAfter`. While all coordinators are down for less than that nothing ends.
pub fn of_a_cluster_that_is_cut_off(world: &World) -> anyhow::Result<Done> {
    let [north, south] = CLUSTERS;
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    let servers = federation.api.places().join(",");
    let ask = |arguments: &[&str]| world.run(&[&["--server", &servers], arguments].concat());
    let mut moves = ledger.workload("moves", 2, 3000);
    moves["spec"]["placement"] = json!({"regions": {"prefer": ["eu"]}});
    moves["spec"]["onClusterLoss"] = json!("failover");
    moves["spec"]["failoverAfter"] = json!("1m");
    let mut waits = ledger.workload("waits", 1, 3000);
    waits["spec"]["placement"] = json!({"regions": {"require": ["eu"]}});
    for workload in [&moves, &waits] {
        federation.api.submit(workload)?;
    }
    for name in ["moves", "waits"] {
        let runs = federation.api.until(name, &["Running"], PATIENCE)?;
        ensure!(clusters_of(&runs) == [north], "{name}: {}", runs["status"]);
    }
    wait_for("its members", PATIENCE, || Ok((ledger.count("start", "moves") == 2).then_some(())))?;

    federation.agent(0)?.signal(Signal::STOP);
    let began = Instant::now();
    federation.api.until("moves", &["Unknown"], PATIENCE)?;
    ask(&["why", "moves"])?.with_code(0)?.prints("spec.failoverAfter")?;
    let moved = federation.api.until("moves", &["Running"], PATIENCE)?;
    let after = began.elapsed();
    ensure!(clusters_of(&moved) == [north, south], "{}", moved["status"]);
    // A minute, and what its end may take, counted from a lease that was at most five seconds old.
    ensure!(after >= Duration::from_secs(75), "it was started elsewhere after {:.1} s", after.as_secs_f64());
    wait_for("its members there", PATIENCE, || Ok((ledger.count("start", "moves") == 4).then_some(())))?;
    ask(&["describe", "moves"])?.with_code(0)?.prints("ended itself: north was not heard from")?;
    let written = ledger.count("beat", "waits");
    let unknown = federation.api.workload("waits")?;
    ensure!(phase(&unknown) == "Unknown" && clusters_of(&unknown) == [north], "{}", unknown["status"]);

    // The old cluster is back: one of them is as before, the other is where it is now.
    federation.agent(0)?.signal(Signal::CONT);
    federation.until_cluster(north, "Ready")?;
    federation.api.until("waits", &["Running"], PATIENCE)?;
    ensure!(ledger.count("beat", "waits") > written, "what waits did not go on");
    ledger.check(&federation.api.workloads()?)?;

    // Nobody lets anything go on for a while, which is shorter than a minute.
    (1..=3).for_each(|id| federation.kill_coordinator(id));
    std::thread::sleep(Duration::from_secs(12));
    (1..=3).try_for_each(|id| federation.start_coordinator(id))?;
    CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;
    let still = federation.api.until("moves", &["Running"], PATIENCE)?;
    ensure!(clusters_of(&still) == [north, south], "{}", still["status"]);
    ensure!(ledger.count("start", "moves") == 4 && ledger.count("start", "waits") == 1, "something was started again");
    eprintln!("    it ran in the other cluster {:.1} s after its own was cut off", after.as_secs_f64());
    for name in ["moves", "waits"] {
        federation.api.cancel(name)?;
        federation.api.until(name, &["Cancelled"], PATIENCE)?;
    }
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}
