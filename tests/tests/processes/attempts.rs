//! What becomes of running attempts when their agent, or their guard, is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::api::{phase, text};
use super::federation::{CLUSTERS, Federation};
use super::ledger::Ledger;
use super::world::{PATIENCE, SmallDisk, World, lives, signal, wait_for};
use crate::Done;

fn attempts(workload: &Value) -> Vec<Value> {
    workload["status"]["attempts"].as_array().cloned().unwrap_or_default()
}

/// Where its last attempt runs.
fn place_of(workload: &Value) -> anyhow::Result<usize> {
    let cluster = text(&workload["status"]["cluster"]);
    CLUSTERS.iter().position(|name| *name == cluster).with_context(|| workload["status"].to_string())
}

/// An attempt goes on under its guard; the agent that comes back finds it, and tells its end once.
pub fn outlive_their_agent(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    federation.api.submit(&ledger.workload("ends-later", 2, 100))?;
    let running = federation.api.until("ends-later", &["Running"], PATIENCE)?;
    let place = place_of(&running)?;
    // A second one, in the same cluster, ends while the agent is dead.
    let mut short = ledger.workload("ends-unseen", 1, 20);
    short["spec"]["placement"] = serde_json::json!({"regions": {"require": [running["status"]["region"]]}});
    federation.api.submit(&short)?;
    wait_for("the second one to run", PATIENCE, || Ok((ledger.count("start", "ends-unseen") == 1).then_some(())))?;

    federation.kill_agent(place);
    let written = ledger.count("beat", "ends-later");
    wait_for("attempts that go on", PATIENCE, || {
        let on = ledger.count("beat", "ends-later") > written + 4 && ledger.count("end", "ends-unseen") == 1;
        Ok(on.then_some(()))
    })?;
    federation.start_agent(place)?;
    for name in ["ends-later", "ends-unseen"] {
        let ended = federation.api.until(name, &["Succeeded"], PATIENCE)?;
        ensure!(attempts(&ended).len() == 1, "{name}: {}", ended["status"]);
        let told = ended["status"]["timeline"].as_array().cloned().unwrap_or_default();
        let ends = told.iter().filter(|moment| moment["phase"] == "Succeeded").count();
        ensure!(ends == 1, "its end is told {ends} times: {}", ended["status"]);
    }
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// An agent loses its disk and comes back empty: what its attempts do is not known, and a person's word settles it.
pub fn forgotten(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    federation.api.submit(&ledger.workload("w", 1, 3000))?;
    let place = place_of(&federation.api.until("w", &["Running"], PATIENCE)?)?;
    wait_for("its member", PATIENCE, || Ok((ledger.count("start", "w") == 1).then_some(())))?;
    let servers = federation.api.places().join(",");
    let ask = |arguments: &[&str]| world.run(&[&["--server", &servers], arguments].concat());
    let forget = ["forget", "w", "--reason", "its machine was replaced"];
    ask(&forget)?.with_code(1)?.says("tidewater cancel w")?;

    federation.kill_agent(place);
    std::fs::rename(federation.agent_dir(place), world.path("lost-disk"))?;
    federation.start_agent(place)?;
    federation.api.until("w", &["Unknown"], PATIENCE)?;
    ask(&["why", "w"])?.with_code(0)?.prints("tidewater forget w --reason TEXT")?;
    ensure!(attempts(&federation.api.workload("w")?).len() == 1, "it was replaced though it runs");
    // The machine with all that ran on it is gone; only the person knows.
    let known = federation.pids();
    wait_for("what it left", PATIENCE, || {
        let left: Vec<i32> = world.processes().iter().map(|f| f.pid).filter(|pid| !known.contains(pid)).collect();
        left.iter().for_each(|pid| signal(*pid, Signal::KILL));
        Ok(left.is_empty().then_some(()))
    })?;
    let ran = ask(&forget)?.with_code(0)?;
    ran.says("counts as gone on your word")?;
    ran.prints("workload/w: its attempt is forgotten")?;
    let again = federation.api.until("w", &["Running"], PATIENCE)?;
    ensure!(attempts(&again).len() == 2, "{}", again["status"]);
    ask(&["describe", "w"])?.with_code(0)?.prints("its machine was replaced")?;
    federation.api.cancel("w")?;
    federation.api.until("w", &["Cancelled"], PATIENCE)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// The agent is killed as soon as it has made an attempt's folder, at several moments after that.
pub fn killed_in_mid_launch(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    let folders = |federation: &Federation<'_>| count_folders(&federation.agent_dir(0).join("attempts"));
    for (round, wait_ms) in [0, 3, 10, 30, 80].into_iter().enumerate() {
        let before = folders(&federation);
        let mut workload = ledger.workload(&format!("w{round}"), 2, 5);
        workload["spec"]["placement"] = serde_json::json!({"regions": {"require": ["eu"]}});
        federation.api.submit(&workload)?;
        let began = Instant::now();
        while folders(&federation) == before {
            ensure!(began.elapsed() < PATIENCE, "no launch: {}", federation.api.workload(&format!("w{round}"))?);
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(wait_ms));
        federation.kill_agent(0);
        federation.start_agent(0)?;
        federation.until_cluster(CLUSTERS[0], "Ready")?;
    }
    for round in 0..5 {
        federation.api.until(&format!("w{round}"), &["Succeeded"], PATIENCE)?;
    }
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

fn count_folders(place: &Path) -> usize {
    std::fs::read_dir(place).map_or(0, |entries| entries.flatten().count())
}

/// A guard that is killed takes its attempt with it, and the workload is tried again: it was not its fault.
pub fn guard_killed(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    federation.api.submit(&ledger.workload("w", 2, 60))?;
    let running = federation.api.until("w", &["Running"], PATIENCE)?;
    wait_for("both members", PATIENCE, || Ok((ledger.count("start", "w") == 2).then_some(())))?;
    let place = place_of(&running)?;
    let id = &attempts(&running)[0]["id"];
    let folder = format!("{}-{}", text(&id["workload"]), id["number"]);
    let record = federation.agent_dir(place).join("attempts").join(folder).join("started.json");
    let started: Value = serde_json::from_str(&std::fs::read_to_string(&record)?)?;
    let guard = started["guard_pid"].as_i64().context("a guard's pid")? as i32;
    let mut known = federation.pids();
    known.push(guard);
    let members: Vec<i32> = world.processes().iter().map(|f| f.pid).filter(|pid| !known.contains(pid)).collect();
    ensure!(members.len() >= 2, "its members are not found: {members:?}");

    signal(guard, Signal::KILL);
    let began = Instant::now();
    wait_for("the end of its members", PATIENCE, || Ok(members.iter().all(|pid| !lives(*pid)).then_some(())))?;
    eprintln!("    a killed guard's processes were gone after {} ms", began.elapsed().as_millis());
    let ended = federation.api.until("w", &["Succeeded"], PATIENCE)?;
    let attempts = attempts(&ended);
    ensure!(attempts.len() == 2, "{}", ended["status"]);
    ensure!(text(&attempts[0]["state"]).contains("guard was killed"), "{}", attempts[0]);
    ensure!(phase(&ended) == "Succeeded" && ledger.count("start", "w") == 4, "{}", ended["status"]);
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A cancel that is acknowledged while the agent is dead is carried out as soon as it is back: also of a workload that
/// ignores SIGTERM, and of one that waits in the queue.
pub fn cancelled_without_agent(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    let in_place = |mut workload: Value| {
        workload["spec"]["placement"] = serde_json::json!({"regions": {"require": ["eu"]}});
        workload
    };
    let mut stubborn = in_place(ledger.workload("stubborn", 1, 3000));
    stubborn["spec"]["batch"]["command"] = serde_json::json!(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    federation.api.submit(&stubborn)?;
    federation.api.submit(&in_place(ledger.workload("long", 2, 3000)))?;
    for name in ["stubborn", "long"] {
        federation.api.until(name, &["Running"], PATIENCE)?;
    }
    federation.kill_agent(0);
    federation.api.submit(&in_place(ledger.workload("bound-or-queued", 1, 3000)))?;
    for name in ["stubborn", "long", "bound-or-queued"] {
        federation.api.cancel(name)?;
    }
    let still = federation.api.workload("long")?;
    ensure!(phase(&still) != "Cancelled", "it is called cancelled while it runs: {}", still["status"]);
    federation.start_agent(0)?;
    for name in ["stubborn", "long", "bound-or-queued"] {
        federation.api.until(name, &["Cancelled"], PATIENCE)?;
    }
    ensure!(ledger.count("start", "bound-or-queued") == 0, "a cancelled workload was started");
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    ledger.check(&federation.api.workloads()?)?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// `--end-attempts`: an agent that is asked to end takes its attempts with it; they are tried again, and count for nothing.
pub fn ended_with_their_agent(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    federation.end_attempts = true;
    federation.kill_agent(0);
    federation.kill_agent(1);
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    let mut workload = ledger.workload("w", 2, 20);
    workload["spec"]["placement"] = serde_json::json!({"regions": {"require": ["eu"]}});
    federation.api.submit(&workload)?;
    wait_for("both members", PATIENCE, || Ok((ledger.count("start", "w") == 2).then_some(())))?;
    let took = federation.agent(0)?.terminate()?;
    federation.kill_agent(0);
    let coordinators = federation.pids();
    world.until_only(&coordinators, Duration::from_secs(2)).context("the attempt ends with its agent")?;
    eprintln!("    an agent ended with its attempts after {:.1} s", took.as_secs_f64());
    federation.start_agent(0)?;
    let ended = federation.api.until("w", &["Succeeded"], PATIENCE)?;
    ensure!(attempts(&ended).len() == 2, "{}", ended["status"]);
    ledger.check(&federation.api.workloads()?)?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A second agent with the same certificate and another folder: the two throw each other out, and yet nothing runs twice.
pub fn two_agents_of_one_cluster(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::start(world)?;
    federation.kill_agent(1);
    let mut second = federation.twin_of_agent(0)?;
    let began = Instant::now();
    let mut handed_in = 0;
    while began.elapsed() < Duration::from_secs(12) {
        let mut workload = ledger.workload(&format!("w{handed_in}"), 1, 5);
        workload["spec"]["placement"] = serde_json::json!({"regions": {"require": ["eu"]}});
        federation.api.submit(&workload)?;
        handed_in += 1;
        std::thread::sleep(Duration::from_millis(300));
    }
    // Both are asked to end: what either holds runs on under its guard, and is found again by the one that comes back.
    federation.agent(0)?.terminate()?;
    second.terminate()?;
    ledger.check(&federation.api.workloads()?)?;
    drop(second);
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    // What only the other's records know stays Unknown: it is never run again by guessing.
    wait_for("all but what the twin holds", PATIENCE, || {
        let known = federation.api.workloads()?;
        let open = known.values().filter(|w| !matches!(phase(w).as_str(), "Succeeded" | "Unknown")).count();
        Ok((known.len() == handed_in && open == 0).then_some(()))
    })?;
    let known = federation.api.workloads()?;
    ledger.check(&known)?;
    let unknown = known.values().filter(|w| phase(w) == "Unknown").count();
    eprintln!("    of {handed_in} workloads {unknown} stay unknown: only the twin's folder knows of them");
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A workload fills its agent's disk: what ends meanwhile is told once there is room again, what could not begin is tried
/// again, and nothing was lost or run twice.
pub fn full_disk(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut federation = Federation::prepare(world, 1)?;
    let Some(disk) = SmallDisk::mount(federation.agent_dir(0), 4096)? else {
        return Ok(Done::CannotRunHere("a small file system can't be mounted here".into()));
    };
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    federation.api.submit(&ledger.workload("before", 1, 60))?;
    wait_for("the first", PATIENCE, || Ok((ledger.count("start", "before") == 1).then_some(())))?;
    let mut filler = ledger.workload("filler", 1, 0);
    filler["spec"]["batch"]["command"] = serde_json::json!(["sh", "-c", "head -c 20000000 /dev/zero; exec sleep 600"]);
    federation.api.submit(&filler)?;
    wait_for("a full disk", PATIENCE, || Ok((disk.free_bytes()? == 0).then_some(())))?;
    federation.api.submit(&ledger.workload("after", 1, 1))?;
    wait_for("the end of the first", PATIENCE, || Ok((ledger.count("end", "before") == 1).then_some(())))?;
    // Time enough for whatever gives up at once.
    std::thread::sleep(Duration::from_secs(3));

    let logs = std::fs::read_dir(disk.place().join("attempts"))?.flatten();
    let logs: Vec<_> = logs.map(|entry| entry.path().join("logs/ranks-0.log")).filter(|log| log.exists()).collect();
    ensure!(!logs.is_empty(), "no log to empty");
    logs.iter().try_for_each(|log| std::fs::File::create(log).map(drop))?;
    let before = federation.api.until("before", &["Succeeded"], PATIENCE)?;
    ensure!(attempts(&before).len() == 1, "its guard waits for room to say how it ended: {}", before["status"]);
    federation.api.until("after", &["Succeeded"], PATIENCE)?;
    federation.api.cancel("filler")?;
    federation.api.until("filler", &["Cancelled"], PATIENCE)?;
    ledger.check(&federation.api.workloads()?)?;
    world.until_only(&federation.pids(), Duration::from_secs(30))?;
    federation.stop()?;
    Ok(Done::Holds)
}
