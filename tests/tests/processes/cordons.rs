//! Clusters are taken out of service and back into it, by a person at the command line.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::api::clusters_of;
use super::federation::{CLUSTERS, Federation};
use super::ledger::Ledger;
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

/// A job of a drained cluster ends there, and starts in the other as its second attempt, though the leader is killed meanwhile; its
/// retries are untouched. The other cluster's job notices nothing. Then the cluster is removed, and let in again.
pub fn drained_and_removed(world: &World) -> anyhow::Result<Done> {
    let [north, south] = CLUSTERS;
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    let servers = federation.api.places().join(",");
    let ask = |arguments: &[&str]| world.run(&[&["--server", &servers], arguments].concat());
    let mut moves = ledger.workload("moves", 2, 300);
    moves["spec"]["placement"] = json!({"regions": {"prefer": ["eu"]}});
    let mut stays = ledger.workload("stays", 1, 600);
    stays["spec"]["placement"] = json!({"regions": {"require": ["us"]}});
    for workload in [&moves, &stays] {
        federation.api.submit(workload)?;
    }
    let began = federation.api.until("moves", &["Running"], PATIENCE)?;
    ensure!(clusters_of(&began) == [north], "{}", began["status"]);
    federation.api.until("stays", &["Running"], PATIENCE)?;
    wait_for("its members", PATIENCE, || Ok((ledger.count("start", "moves") == 2).then_some(())))?;

    // Cordoned: what runs goes on, and who waits for it is told.
    ask(&["cluster", "cordon", north, "--reason", "ann: new switches"])?
        .with_code(0)?
        .prints("cluster/north cordoned")?;
    let line = "tidewater cluster uncordon north";
    let list = ask(&["clusters"])?.with_code(0)?;
    ["Cordoned", "ann: new switches", line].iter().try_for_each(|word| list.prints(word))?;
    ask(&["capacity"])?.with_code(0)?.prints(line)?;
    let mut waits = ledger.workload("waits", 1, 5);
    waits["spec"]["placement"] = json!({"regions": {"require": ["eu"]}});
    federation.api.submit(&waits)?;
    let why = wait_for("a reason", PATIENCE, || {
        let why = ask(&["why", "waits"])?.with_code(0)?;
        Ok(why.out.contains("ann: new switches").then_some(why))
    })?;
    why.prints(line)?;
    ask(&["cluster", "cordon", "noth"])?.with_code(3)?.says("there are north, south")?;
    ask(&["cluster", "remove", north])?.with_code(1)?.says("tidewater cluster drain north")?;

    // Drained, while the leader dies.
    ask(&["cluster", "drain", north, "--dry-run"])?.with_code(0)?.prints("ends in north, starts now in south")?;
    ask(&["cluster", "drain", north, "--no-wait"])?.with_code(0)?.prints("cluster/north is being drained")?;
    let leader = federation.api.leader()? as usize;
    federation.kill_coordinator(leader);
    ask(&["cluster", "drain", north])?.with_code(0)?.prints("cluster/north drained")?;
    ensure!(ledger.count("end", "moves") == 0, "the drained attempt went on to its end");
    let moved = federation.api.until("moves", &["Running", "Succeeded"], PATIENCE)?;
    ensure!(clusters_of(&moved) == [north, south], "{}", moved["status"]);
    ask(&["describe", "moves"])?.with_code(0)?.prints("north is drained (ann: new switches)")?;

    // It outlives the agent and the coordinators.
    federation.kill_agent(0);
    federation.start_agent(0)?;
    federation.start_coordinator(leader)?;
    federation.until_cluster(north, "Drained")?;
    for name in ["moves", "stays"] {
        federation.api.until(name, &["Succeeded"], PATIENCE)?;
    }
    let stayed = federation.api.workload("stays")?;
    ensure!(clusters_of(&stayed) == [south], "{}", stayed["status"]);

    // Removed, and let in again.
    ask(&["cluster", "remove", north, "--reason", "its lease ended"])?.with_code(0)?.prints("cluster/north removed")?;
    federation.agent(0)?.says("cluster north was removed (its lease ended)", PATIENCE)?;
    ensure!(federation.api.cluster_phase(north)?.is_empty(), "it is still a member");
    ask(&["cluster", "uncordon", north])?.with_code(0)?.prints("cluster/north uncordoned")?;
    federation.until_cluster(north, "Ready")?;
    federation.api.until("waits", &["Succeeded"], PATIENCE)?;
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}
