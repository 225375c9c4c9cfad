//! What people type, right and wrong, at a real federation.

use anyhow::ensure;
use serde_json::Value;

use super::dev::Dev;
use super::federation::Federation;
use super::ledger::Ledger;
use super::world::{MARK, PATIENCE, World, wait_for};
use crate::Done;

/// Bad input is refused before anything is sent, with file, line, field and what was expected; what could be meant is
/// suggested; what can't run now or ever is taken, and says so.
pub fn bad_input(world: &World) -> anyhow::Result<Done> {
    let mut dev = Dev::start(world)?;
    let unknown = ["submit", "--name", "typo", "--gpus", "1", "--gpu", "H10O", "--", "true"];
    let ran = dev.run(world, &unknown)?;
    ensure!(ran.code.is_some_and(|code| code > 0), "{ran:?}");
    ran.says("H10O")?;
    ran.says("H100")?;
    let ran = dev.run(world, &["capacity", "--sku", "A10O-80GB"])?;
    ensure!(ran.code.is_some_and(|code| code > 0), "{ran:?}");
    ran.says("A100-80GB")?;

    let manifest = "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata:\n  name: bad\nspec:\n  batch:\n    \
                    command: [sleep, \"1\"]\n    groups:\n    - {name: g, count: 1, cpu: 1, memory: 1Gi}\n";
    let cases = [
        ("command: [sleep, \"1\"]", "comand: [sleep, \"1\"]", vec!["bad.yaml:7", "comand", "command"]),
        ("cpu: 1,", "cpu: lots,", vec!["bad.yaml:9", "cpu", "lots"]),
        ("memory: 1Gi", "memory: 1Gb", vec!["bad.yaml:9", "memory", "1Gb"]),
        ("kind: Workload", "kind: Wrokload", vec!["bad.yaml", "Wrokload", "Workload"]),
        ("count: 1", "count: -1", vec!["bad.yaml:9", "count"]),
    ];
    for (right, wrong, words) in cases {
        let file = world.write("bad.yaml", &manifest.replace(right, wrong))?;
        let ran = dev.run(world, &["submit", "-f", &file])?.with_code(2)?;
        words.iter().try_for_each(|word| ran.says(word))?;
    }
    ensure!(dev.api.workloads()?.is_empty(), "bad input was taken");
    dev.run(world, &["get", "nobody"])?.with_code(3)?.says("nobody")?;
    dev.run(world, &["logs", "nobody"])?.with_code(3)?.says("nobody")?;

    // A gang that no cluster could ever hold: taken, with a warning and a reason.
    let huge = ["submit", "--name", "huge", "--count", "100", "--gpus", "8", "--gpu", "H100", "--", "true"];
    let ran = dev.run(world, &huge)?.with_code(0)?;
    ran.says("warning")?;
    let why = dev.run(world, &["why", "huge"])?.with_code(0)?;
    ["eu-west-1", "us-east-1"].iter().try_for_each(|cluster| why.prints(cluster))?;
    let seen = dev.api.workload("huge")?;
    ensure!(seen["status"]["phase"] == "Queued", "{}", seen["status"]);

    let nobody = ["--server", "http://127.0.0.1:1", "--retry-for", "200ms", "get"];
    world.run(&nobody)?.with_code(4)?.says("127.0.0.1:1")?;
    dev.program.terminate()?;
    Ok(Done::Holds)
}

/// A gang that finds no room names what is in its way; when its holder is cancelled, all of it starts together.
pub fn waiting_gang(world: &World) -> anyhow::Result<Done> {
    let ledger = Ledger::new(world);
    let mut dev = Dev::start(world)?;
    let mark = format!("{MARK}={}", world.mark());
    let everything = ["--count", "6", "--gpus", "8", "--gpu", "H100", "--region", "us-east"];
    let hold = [&["submit", "--name", "hold", "--env", &mark][..], &everything, &["--", "sleep", "600"]].concat();
    dev.run(world, &hold)?.with_code(0)?;
    dev.api.until("hold", &["Running"], PATIENCE)?;
    let mut gang = ledger.workload("gang", 6, 5);
    let group = &mut gang["spec"]["batch"]["groups"][0];
    group["gpus"] = Value::from(8);
    group["gpu"] = serde_json::json!(["H100"]);
    dev.api.submit(&gang)?;

    let why = wait_for("a reason", PATIENCE, || {
        let why = dev.run(world, &["why", "gang"])?.with_code(0)?;
        Ok(why.out.contains("us-east-1").then_some(why))
    })?;
    why.prints("hold")?;
    why.prints("eu-west-1")?;
    ensure!(ledger.len() == 0, "a part of the gang started");
    let fits = dev.run(world, &["capacity", "--sku", "H100", "--gang", "6", "--gpus-per-node", "8"])?.with_code(0)?;
    eprintln!("    {}", fits.out.lines().last().unwrap_or_default());

    dev.run(world, &["cancel", "hold"])?.with_code(0)?;
    dev.api.until("gang", &["Succeeded"], PATIENCE)?;
    dev.api.until("hold", &["Cancelled"], PATIENCE)?;
    ensure!(ledger.count("start", "gang") == 6 && ledger.count("end", "gang") == 6, "the gang was not whole");
    ledger.check(&dev.api.workloads()?)?;
    dev.program.terminate()?;
    Ok(Done::Holds)
}

/// `submit --follow` that was started before its leader is killed shows the whole log once, and ends as the workload does.
pub fn followed_through_a_kill(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::start(world)?;
    let servers = federation.api.places().join(",");
    let mark = format!("{MARK}={}", world.mark());
    let counts = "n=0; while [ $n -lt 60 ]; do echo line $n; n=$((n + 1)); sleep 0.1; done";
    let given = ["--server", &servers, "submit", "--name", "w", "--env", &mark, "--follow", "--", "sh", "-c", counts];
    let mut follower = world.start("follower", &given)?;
    follower.line("line 5")?;
    let leader = federation.api.leader()? as usize;
    federation.kill_coordinator(leader);
    let status = follower.until_ended(PATIENCE)?;
    ensure!(status.success(), "it ended with {status}: {}", follower.err());
    let out = follower.out();
    let expected: Vec<String> = (0..60).map(|n| format!("line {n}")).collect();
    let shown: Vec<&str> = out.lines().filter(|line| line.starts_with("line ")).collect();
    ensure!(shown == expected, "the log came out as {shown:?}\n{}", follower.err());
    federation.start_coordinator(leader)?;
    federation.stop()?;
    Ok(Done::Holds)
}
