//! `tidewater dev`, as a new user meets it: it gets ready, runs real work, answers, ends in order, and comes back.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::api::{Api, phase};
use super::ledger::Ledger;
use super::program::{Program, Ran};
use super::world::{MARK, PATIENCE, World, signal, wait_for};
use crate::Done;

/// What may pass between SIGTERM and the end while workloads ignore SIGTERM: their grace of 5 s, and as much again.
const STUBBORN: Duration = Duration::from_secs(25);

/// A development federation and the way to it.
pub struct Dev {
    /// Its process.
    pub program: Program,
    /// Its address.
    pub url: String,
    /// The way to it.
    pub api: Api,
}

impl Dev {
    /// Starts one in the test's folder `dev`, on any free port, and waits until it is ready.
    pub fn start(world: &World) -> anyhow::Result<Self> {
        let dir = world.path("dev").display().to_string();
        let mut program = world.start("dev", &["dev", "--data-dir", &dir, "--port", "0"])?;
        let url = program.line("ready: ")?;
        let api = Api::new(vec![url.clone()])?;
        Ok(Self { program, url, api })
    }

    /// Runs a command of the CLI on it.
    pub fn run(&self, world: &World, arguments: &[&str]) -> anyhow::Result<Ran> {
        let mut all = vec!["--server", &self.url];
        all.extend(arguments);
        world.run(&all)
    }
}

/// It gets ready, and every command works on it.
pub fn answers(world: &World) -> anyhow::Result<Done> {
    let mut dev = Dev::start(world)?;
    let kubeconfig = std::fs::read_to_string(world.path("dev/kubeconfig"))?;
    ensure!(kubeconfig.contains(&format!("server: {}", dev.url)), "the kubeconfig leads elsewhere: {kubeconfig}");

    let mark = format!("{MARK}={}", world.mark());
    let hello = ["submit", "--name", "hello", "--count", "2", "--env", &mark, "--wait", "--", "sh", "-c"];
    let ran = dev.run(world, &[&hello[..], &["echo hello from $RANK of $WORLD_SIZE"]].concat())?.with_code(0)?;
    ran.says("hello: Succeeded")?;
    let logs = dev.run(world, &["logs", "hello"])?.with_code(0)?;
    logs.prints("hello from 0 of 2")?;
    logs.prints("hello from 1 of 2")?;
    // By the kubeconfig alone, too.
    let mut by_file = world.command(&["get", "hello", "-o", "json"]);
    by_file.env("TIDEWATER_KUBECONFIG", world.path("dev/kubeconfig"));
    let got = Program::run(by_file, &world.path("tmp"))?.with_code(0)?;
    let object: Value = serde_json::from_str(&got.out)?;
    ensure!(phase(&object) == "Succeeded", "{object}");
    dev.run(world, &["why", "hello"])?.with_code(0)?.prints("capacity frame")?;
    dev.run(world, &["describe", "hello"])?.with_code(0)?.prints("Succeeded")?;
    dev.run(world, &["capacity", "--sku", "H100"])?.with_code(0)?.prints("eu-west-1")?;
    dev.run(world, &["clusters"])?.with_code(0)?.prints("us-east-1")?;

    let wrong = ["submit", "--name", "wrong", "--env", &mark, "--wait", "--", "sh", "-c", "echo oh no; exit 7"];
    let failed = dev.run(world, &wrong)?.with_code(1)?;
    failed.says("exit code 7")?;
    failed.says("oh no")?;

    let long = ["submit", "--name", "long", "--env", &mark, "--", "sleep", "600"];
    dev.run(world, &long)?.with_code(0)?;
    dev.api.until("long", &["Running"], PATIENCE)?;
    dev.run(world, &["cancel", "long"])?.with_code(0)?;
    dev.api.until("long", &["Cancelled"], PATIENCE)?;
    world.until_only(&[dev.program.pid()], Duration::from_secs(30))?;
    dev.program.terminate()?;
    Ok(Done::Holds)
}

/// SIGTERM ends it and everything that it runs; at the next start what had not ended is tried again, what had is not.
pub fn ends_and_comes_back(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut dev = Dev::start(world)?;
    dev.api.submit(&ledger.workload("done", 1, 1))?;
    dev.api.until("done", &["Succeeded"], PATIENCE)?;
    dev.api.submit(&ledger.workload("long", 2, 80))?;
    let mut stubborn = ledger.workload("stubborn", 1, 10);
    // It ignores SIGTERM and forks a process that does so too and has left its group.
    stubborn["spec"]["batch"]["command"] = serde_json::json!([
        "sh",
        "-c",
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo begun; while :; do sleep 1; done"
    ]);
    dev.api.submit(&stubborn)?;
    dev.api.until("long", &["Running"], PATIENCE)?;
    dev.api.until("stubborn", &["Running"], PATIENCE)?;
    wait_for("both members of long", PATIENCE, || Ok((ledger.count("start", "long") == 2).then_some(())))?;

    let took = dev.program.terminate()?;
    ensure!(took < STUBBORN, "it took {:.1} s to end", took.as_secs_f64());
    world.until_only(&[], Duration::from_secs(2))?;
    eprintln!("    dev with a workload that ignores SIGTERM ended after {:.1} s", took.as_secs_f64());

    drop(dev);
    let mut dev = Dev::start(world)?;
    let known = dev.api.workloads()?;
    ensure!(known.keys().eq(["done", "long", "stubborn"]), "records: {:?}", known.keys());
    dev.api.cancel("stubborn")?;
    dev.api.until("long", &["Succeeded"], PATIENCE)?;
    dev.api.until("stubborn", &["Cancelled"], PATIENCE)?;
    let workloads = dev.api.workloads()?;
    ledger.check(&workloads)?;
    ensure!(ledger.count("start", "done") == 1, "a workload that had succeeded ran again");
    ensure!(ledger.count("start", "long") == 4, "long should have run twice with 2 members");

    // Nothing runs any more: it ends at once.
    let took = dev.program.terminate()?;
    eprintln!("    dev without work ended after {:.1} s", took.as_secs_f64());
    Ok(Done::Holds)
}

/// A signal that comes during the start ends it in order, at whichever moment it comes.
pub fn ends_while_starting(world: &World) -> anyhow::Result<Done> {
    let dir = world.path("dev").display().to_string();
    for wait_ms in [30, 150, 400, 900] {
        let mut program = world.start("early", &["dev", "--data-dir", &dir, "--port", "0"])?;
        // Before it has asked for the signal, SIGTERM ends it as it ends any process.
        wait_for("the lock", PATIENCE, || Ok(world.path("dev/lock").exists().then_some(())))?;
        std::thread::sleep(Duration::from_millis(wait_ms));
        program.signal(Signal::INT);
        let status = program.until_ended(PATIENCE)?;
        ensure!(status.success(), "after {wait_ms} ms it ended with {status}: {}", program.err());
    }
    let mut dev = Dev::start(world)?;
    dev.program.terminate()?;
    Ok(Done::Holds)
}

/// Killed with all that it is, and started again: what ran goes on and is found, and what had ended stays so.
pub fn killed_and_comes_back(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut dev = Dev::start(world)?;
    dev.api.submit(&ledger.workload("done", 1, 1))?;
    dev.api.until("done", &["Succeeded"], PATIENCE)?;
    for n in 0..4 {
        dev.api.submit(&ledger.workload(&format!("long{n}"), 2, 60))?;
    }
    dev.api.until("long0", &["Running"], PATIENCE)?;
    dev.program.kill();
    let written = ledger.len();
    wait_for("attempts that go on", PATIENCE, || Ok((ledger.len() > written + 5).then_some(())))?;
    drop(dev);
    let mut dev = Dev::start(world)?;
    for n in 0..4 {
        dev.api.until(&format!("long{n}"), &["Succeeded"], PATIENCE)?;
    }
    let known = dev.api.workloads()?;
    ledger.check(&known)?;
    let first = known["long0"]["status"]["attempts"].as_array().map_or(0, Vec::len);
    ensure!(first == 1, "what ran was not found again: {}", known["long0"]["status"]);
    ensure!(ledger.count("start", "done") == 1, "a workload that had succeeded ran again");
    world.until_only(&[dev.program.pid()], Duration::from_secs(30))?;
    dev.program.terminate()?;
    Ok(Done::Holds)
}

/// Nobody reads what it prints: it runs, and ends in order with what it runs.
pub fn unread(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let dir = world.path("dev").display().to_string();
    let mut command = world.command(&["dev", "--data-dir", &dir, "--port", "0"]);
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    drop((child.stdout.take(), child.stderr.take()));
    let kubeconfig =
        wait_for("the kubeconfig", PATIENCE, || Ok(std::fs::read_to_string(world.path("dev/kubeconfig")).ok()))?;
    let url = kubeconfig.split("server: ").nth(1).and_then(|rest| rest.lines().next()).context("an address")?;
    let api = Api::new(vec![url.to_owned()])?;
    api.submit(&ledger.workload("w", 1, 3000))?;
    api.until("w", &["Running"], PATIENCE)?;
    signal(child.id() as i32, Signal::TERM);
    let status = wait_for("its end", PATIENCE, || Ok(child.try_wait()?))?;
    ensure!(status.success(), "it ended with {status}");
    world.until_only(&[], Duration::from_secs(2))?;
    Ok(Done::Holds)
}
