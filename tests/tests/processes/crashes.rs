//! `kill -9` of anything at any moment, while workloads stream in: nothing that was acknowledged is lost, nothing runs
//! twice at a time, and in the end all of it is done and nothing runs that no one owns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use super::api::{Api, is_terminal, phase};
use super::federation::{CLUSTERS, Federation};
use super::ledger::Ledger;
use super::world::{World, signal, wait_for};
use crate::Done;

/// How long everything may take to be done once the kills are over.
const CONVERGES: Duration = Duration::from_secs(200);

/// At least this many workloads are handed in, however slow the machine is.
const FEW: usize = 5;

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Leader,
    Follower,
    Agent,
    AllCoordinators,
    /// An agent and every guard of every cluster.
    AgentAndGuards,
    /// All coordinators and agents; guards and workloads go on.
    AllRoles,
    /// Every process, guards and workloads too.
    Machine,
}

/// Coordinators, one and all.
pub fn coordinators(world: &World) -> anyhow::Result<Done> {
    use Victim::{AllCoordinators, Follower, Leader};
    rounds(world, 1, &[Leader, Follower, Leader, AllCoordinators, Leader])
}

/// Agents, alone and together with the leader.
pub fn agents(world: &World) -> anyhow::Result<Done> {
    use Victim::{Agent, AgentAndGuards, Leader};
    rounds(world, 2, &[Agent, AgentAndGuards, Leader, Agent, AgentAndGuards])
}

/// All at once.
pub fn everything(world: &World) -> anyhow::Result<Done> {
    use Victim::{AllRoles, Machine};
    rounds(world, 3, &[AllRoles, Machine, AllRoles, Machine])
}

/// A replica that is back after a kill is spoken to at once: the others do not wait until its old connections fall silent.
pub fn back_at_once(world: &World) -> anyhow::Result<Done> {
    // A connection without a word ends after 10 s: what takes less was noticed by other means.
    const AT_ONCE: Duration = Duration::from_secs(7);
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    let leader = federation.api.leader()? as usize;
    let follower = (1..=3).find(|id| *id != leader).context("a follower")?;
    federation.kill_coordinator(follower);
    federation.start_coordinator(follower)?;
    let began = Instant::now();
    wait_for("the follower", CONVERGES, || Ok(federation.api.readiness(follower - 1).0.then_some(())))?;
    let follows = began.elapsed();

    (1..=3).for_each(|id| federation.kill_coordinator(id));
    (1..=3).try_for_each(|id| federation.start_coordinator(id))?;
    let began = Instant::now();
    federation.api.submit(&ledger.workload("w", 1, 0))?;
    federation.api.until("w", &["Succeeded"], CONVERGES)?;
    let serves = began.elapsed();
    eprintln!(
        "    a follower followed {:.1} s after its start; a workload was done {:.1} s after the start of all",
        follows.as_secs_f64(),
        serves.as_secs_f64()
    );
    ensure!(follows < AT_ONCE, "the follower took {:.1} s", follows.as_secs_f64());
    ensure!(serves < AT_ONCE * 2, "all three took {:.1} s", serves.as_secs_f64());
    federation.stop()?;
    Ok(Done::Holds)
}

fn rounds(world: &World, offset: u64, victims: &[Victim]) -> anyhow::Result<Done> {
    let seed = match std::env::var("TIDEWATER_SEED") {
        Ok(seed) => seed.parse().context("TIDEWATER_SEED is a number")?,
        Err(_) => 1,
    };
    let done = one_run(world, seed, ChaCha8Rng::seed_from_u64(seed * 1000 + offset), victims);
    done.with_context(|| format!("with TIDEWATER_SEED={seed}"))
}

fn one_run(world: &World, seed: u64, mut random: ChaCha8Rng, victims: &[Victim]) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let (acknowledged, killed) = std::thread::scope(|scope| {
        let api = federation.another_api()?;
        let (ledger, stop) = (&ledger, &stop);
        let submitting = scope.spawn(move || submit(&api, ledger, stop, seed));
        let killed = kill(world, &mut federation, &mut random, victims);
        stop.store(true, Ordering::Relaxed);
        let acknowledged = submitting.join().map_err(|_| anyhow::anyhow!("the submitting thread panicked"))?;
        anyhow::Ok((acknowledged?, killed))
    })?;
    killed?;
    let over = Instant::now();
    all_done(world, &federation, &ledger, &acknowledged)?;
    eprintln!(
        "    {} workloads through {} kills in {:.1} s, all done {:.1} s after the last",
        acknowledged.len(),
        victims.len(),
        began.elapsed().as_secs_f64(),
        over.elapsed().as_secs_f64()
    );
    federation.stop()?;
    Ok(Done::Holds)
}

/// Hands in short gangs, one after the other, until it is told to stop and has handed in a few; returns the names of those acknowledged.
fn submit(api: &Api, ledger: &Ledger, stop: &AtomicBool, seed: u64) -> anyhow::Result<Vec<String>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) || acknowledged.len() < FEW {
        let name = format!("w{}", acknowledged.len());
        let (members, beats) = (random.random_range(1..=2), random.random_range(2..15));
        api.submit(&ledger.workload(&name, members, beats))?;
        acknowledged.push(name);
        std::thread::sleep(Duration::from_millis(random.random_range(0..700)));
    }
    Ok(acknowledged)
}

fn kill(
    world: &World,
    federation: &mut Federation<'_>,
    random: &mut ChaCha8Rng,
    victims: &[Victim],
) -> anyhow::Result<()> {
    let pause = |random: &mut ChaCha8Rng, most| std::thread::sleep(Duration::from_millis(random.random_range(0..most)));
    for victim in victims {
        pause(random, 3000);
        let (mut coordinators, mut agents): (Vec<usize>, Vec<usize>) = (vec![], vec![]);
        match victim {
            Victim::Leader => coordinators.push(federation.api.leader()? as usize),
            Victim::Follower => {
                let leader = federation.api.leader()? as usize;
                coordinators.extend((1..=3).find(|id| *id != leader));
            }
            Victim::Agent | Victim::AgentAndGuards => agents.push(random.random_range(0..CLUSTERS.len())),
            Victim::AllCoordinators => coordinators.extend(1..=3),
            Victim::AllRoles | Victim::Machine => {
                coordinators.extend(1..=3);
                agents.extend(0..CLUSTERS.len());
            }
        }
        if matches!(victim, Victim::Machine) {
            world.processes().iter().for_each(|found| signal(found.pid, Signal::KILL));
        }
        if matches!(victim, Victim::AgentAndGuards) {
            let guards = world.processes().into_iter().filter(|found| found.command.contains("tidewater guard "));
            guards.for_each(|found| signal(found.pid, Signal::KILL));
        }
        coordinators.iter().for_each(|id| federation.kill_coordinator(*id));
        agents.iter().for_each(|place| federation.kill_agent(*place));
        pause(random, 800);
        coordinators.iter().try_for_each(|id| federation.begin_coordinator(*id))?;
        agents.iter().try_for_each(|place| federation.start_agent(*place))?;
    }
    Ok(())
}

fn all_done(
    world: &World,
    federation: &Federation<'_>,
    ledger: &Ledger,
    acknowledged: &[String],
) -> anyhow::Result<()> {
    let mut open = Vec::new();
    let done = wait_for("the end of every workload", CONVERGES, || {
        let known = federation.api.workloads()?;
        if let Some(lost) = acknowledged.iter().find(|name| !known.contains_key(*name)) {
            bail!("{lost} was acknowledged and is lost");
        }
        open = known.values().filter(|w| !is_terminal(&phase(w))).map(|w| w["status"].to_string()).collect();
        Ok(open.is_empty().then_some(known))
    });
    let known = done.with_context(|| open.join("\n"))?;
    for (name, workload) in &known {
        ensure!(phase(workload) == "Succeeded", "{name} ended as {}", workload["status"]);
    }
    ledger.check(&known)?;
    world.until_only(&federation.pids(), Duration::from_secs(30)).context("what runs is owned")
}
