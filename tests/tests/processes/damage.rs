//! A stopped coordinator's log, damaged on its disk: what starts from it serves all that was acknowledged, or it does not
//! start, and says what is damaged and what to do.

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::api::batch;
use super::federation::{CLUSTERS, Federation};
use super::ledger::Ledger;
use super::program::Program;
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

const WORKLOADS: usize = 30;
const LOG: &str = "raft.redb";

/// How a start from a damaged log came out.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Served,
    Refused,
}

/// One coordinator without peers, with acknowledged workloads that wait for a cluster; then closed in order, or killed.
fn used(world: &World, closed: bool) -> anyhow::Result<(Federation<'_>, Vec<u8>)> {
    let mut federation = Federation::prepare(world, 1)?;
    federation.start_coordinator(1)?;
    for n in 0..WORKLOADS {
        federation.api.submit(&batch(&format!("w{n}"), &["true"], 1, &[]))?;
    }
    match closed {
        true => federation.coordinator(1)?.terminate().map(drop)?,
        false => federation.kill_coordinator(1),
    }
    let bytes = std::fs::read(federation.data_dir(1).join(LOG))?;
    Ok((federation, bytes))
}

/// Starts from these bytes.
fn start(federation: &mut Federation<'_>, bytes: &[u8]) -> anyhow::Result<Start> {
    let place = federation.data_dir(1).join(LOG);
    std::fs::write(&place, bytes)?;
    federation.begin_coordinator(1)?;
    let coordinator = federation.coordinator(1)?;
    if let Some(said) = until_decided(coordinator)? {
        ensure!(!said.contains("panicked"), "it panicked: {said}");
        ensure!(said.lines().count() == 1, "more than one line: {said}");
        let clear = said.contains("log store") && (said.contains("damaged") || said.contains("can't be read"));
        ensure!(clear, "it does not say what is wrong and what to do: {said}");
        return Ok(Start::Refused);
    }
    let known = federation.api.workloads()?;
    let lost: Vec<String> = (0..WORKLOADS).map(|n| format!("w{n}")).filter(|n| !known.contains_key(n)).collect();
    ensure!(lost.is_empty(), "it serves without {lost:?}");
    federation.kill_coordinator(1);
    Ok(Start::Served)
}

/// What it said as it refused to start with code 1; nothing where it serves.
fn until_decided(coordinator: &mut Program) -> anyhow::Result<Option<String>> {
    wait_for("a decision", PATIENCE, || {
        if coordinator.out().contains("ready: ") {
            return Ok(Some(None));
        }
        match coordinator.until_ended(std::time::Duration::ZERO) {
            Err(_) => Ok(None),
            Ok(status) => {
                let said = coordinator.err();
                ensure!(status.code() == Some(1), "it ended with {status}: {said}");
                Ok(Some(Some(said.trim_end().to_owned())))
            }
        }
    })
}

/// A bit of an agent's journal is another one: it goes on as if nothing were, or it does not start and says why; no
/// attempt is started a second time.
pub fn journal(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::prepare(world, 1)?;
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    for n in 0..6 {
        federation.api.submit(&ledger.workload(&format!("w{n}"), 1, 3000))?;
    }
    for n in 0..6 {
        federation.api.until(&format!("w{n}"), &["Running"], PATIENCE)?;
    }
    federation.agent(0)?.terminate()?;
    // Nobody hears what an agent with a damaged journal would say: the whole one goes on from where it was.
    federation.kill_coordinator(1);
    let place = federation.agent_dir(0).join("agent.redb");
    let whole = std::fs::read(&place)?;
    let written: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let tries = 16;
    let mut damaged: Vec<(String, Vec<u8>)> = vec![(
        "in every order".into(), // A variable's name that every order has.
        with_flipped(&whole, b"BEATS", 6)?,
    )];
    for _ in 0..tries {
        let (at, bit) = (written[random.random_range(0..written.len())], random.random_range(0..8u8));
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        damaged.push((format!("bit {bit} of byte {at}"), bytes));
    }
    let mut refused = Vec::new();
    for (where_, bytes) in damaged {
        std::fs::write(&place, &bytes)?;
        federation.start_agent(0)?;
        let said = until_decided(federation.agent(0)?).with_context(|| format!("flipped: {where_}"))?;
        if let Some(said) = said {
            let clear = said.contains("agent.redb") && said.contains("damaged") && said.contains("move the data");
            ensure!(clear && said.lines().count() == 1, "flipped: {where_}: it says {said}");
            refused.push(where_);
        }
        federation.kill_agent(0);
    }
    std::fs::write(&place, &whole)?;
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    federation.api.submit(&ledger.workload("after", 1, 1))?;
    federation.api.until("after", &["Succeeded"], PATIENCE)?;
    for n in 0..6 {
        federation.api.cancel(&format!("w{n}"))?;
        federation.api.until(&format!("w{n}"), &["Cancelled"], PATIENCE)?;
        ensure!(ledger.count("start", &format!("w{n}")) == 1, "w{n} was started again");
    }
    ledger.check(&federation.api.workloads()?)?;
    ensure!(refused.first().is_some_and(|r| r == "in every order"), "a flipped bit in every order was not found");
    let found = refused.len() - 1;
    eprintln!("    of {tries} flipped bits of a journal {found} were found, the others meant nothing");
    federation.stop()?;
    Ok(Done::Holds)
}

/// A bit flipped wherever the file holds this text: in records that count, and in old copies that nothing points to.
fn with_flipped(whole: &[u8], text: &[u8], at_least: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = whole.to_vec();
    let found: Vec<usize> = (0..whole.len() - text.len()).filter(|at| whole[*at..].starts_with(text)).collect();
    ensure!(found.len() >= at_least, "{} places of {at_least} are in the file", found.len());
    found.into_iter().for_each(|at| bytes[at] ^= 1);
    Ok(bytes)
}

/// Bytes are missing at its end.
pub fn shortened(world: &World) -> anyhow::Result<Done> {
    let (mut federation, whole) = used(world, false)?;
    ensure!(start(&mut federation, &whole)? == Start::Served, "a log that was only killed is served");
    let mut refused = 0;
    for missing in [1, 100, 4096, 70_000, whole.len() / 2, whole.len() - 1] {
        let outcome = start(&mut federation, &whole[..whole.len() - missing]);
        let outcome = outcome.with_context(|| format!("without its last {missing} of {} bytes", whole.len()))?;
        refused += usize::from(outcome == Start::Refused);
    }
    ensure!(refused > 0, "half a log was served");
    eprintln!("    of 6 shortened logs {refused} were refused, the others served whole");
    Ok(Done::Holds)
}

/// A bit is another one, somewhere in what was written.
pub fn flipped(world: &World) -> anyhow::Result<Done> {
    let (mut federation, whole) = used(world, true)?;
    let written: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut refused = 0;
    const FLIPS: usize = 14;
    for _ in 0..FLIPS {
        let (at, bit) = (written[random.random_range(0..written.len())], random.random_range(0..8u8));
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        let outcome = start(&mut federation, &bytes).with_context(|| format!("with bit {bit} of byte {at} flipped"))?;
        refused += usize::from(outcome == Start::Refused);
    }
    // Chance may miss what counts; this does not: the command in every entry that the file holds.
    let everywhere = start(&mut federation, &with_flipped(&whole, b"true", WORKLOADS)?)?;
    ensure!(everywhere == Start::Refused, "a flipped bit in every entry was not found");
    eprintln!("    of {FLIPS} flipped bits {refused} were found, the others meant nothing");
    Ok(Done::Holds)
}
