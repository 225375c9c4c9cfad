//! Certificates decide who is who: a wrong one is refused, and whoever reads the process's stderr learns why.

use std::time::Duration;

use anyhow::ensure;

use super::api::batch;
use super::federation::{CLUSTERS, Federation, identity};
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

/// An agent with the certificate of `north` says that it is `south`.
pub fn other_cluster(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::prepare(world, 1)?;
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    let wrong = identity(world, "ca", ["--cluster", CLUSTERS[0]])?;
    federation.start_agent_as(1, &wrong)?;
    federation.agent(1)?.says("its certificate is for cluster north", PATIENCE)?;
    ensure!(federation.api.cluster_phase(CLUSTERS[1])?.is_empty(), "it became a member");
    let said = federation.agent(1)?.err();
    ensure!(!said.contains('\u{1b}'), "colour where no terminal is: {said:?}");
    federation.kill_agent(1);
    // The real one is not worse off for it.
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A replica whose certificate another authority made: the others do not talk to it, nor it to them.
pub fn other_authority(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::prepare(world, 3)?;
    federation.start_coordinator(1)?;
    federation.start_coordinator(2)?;
    federation.api.leader()?;
    let foreign = identity(world, "another-ca", ["--replica", "3"])?;
    federation.begin_coordinator_as(3, &foreign)?;
    federation.coordinator(3)?.says("certificate", PATIENCE)?;
    // The two that trust each other serve; what they acknowledge does not reach the third.
    federation.api.submit(&batch("w", &["true"], 1, &[]))?;
    std::thread::sleep(Duration::from_secs(2));
    let (ready, text) = federation.api.readiness(2);
    ensure!(!ready, "it takes part: {text}");
    // With a certificate of the right one it is let in: nothing else kept it out.
    federation.kill_coordinator(3);
    federation.start_coordinator(3)?;
    wait_for("the third replica", PATIENCE, || Ok(federation.api.readiness(2).0.then_some(())))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A replica that is given another replica's certificate.
pub fn other_replica(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::prepare(world, 3)?;
    let wrong = identity(world, "ca", ["--replica", "2"])?;
    federation.begin_coordinator_as(1, &wrong)?;
    let coordinator = federation.coordinator(1)?;
    let status = coordinator.until_ended(PATIENCE)?;
    let said = coordinator.err();
    ensure!(status.code() == Some(1), "it ended with {status}: {said}");
    ensure!(said.contains("replica/2") && said.contains("replica 1"), "it does not say why: {said}");
    Ok(Done::Holds)
}
