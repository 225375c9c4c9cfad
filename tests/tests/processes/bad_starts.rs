//! Starts that can't succeed: one clear line on stderr that names the cure, a code that is not 0, and nothing left.

use std::net::TcpListener;

use anyhow::{Context, ensure};

use super::dev::Dev;
use super::federation::{CLUSTERS, Federation, free_port, identity};
use super::program::Ran;
use super::world::{SmallDisk, World};
use crate::Done;

fn refused(ran: Ran, words: &[&str]) -> anyhow::Result<()> {
    let ran = ran.with_code(1)?;
    let lines: Vec<&str> = ran.err.lines().collect();
    ensure!(lines.len() == 1, "{} lines on stderr instead of one: {}", lines.len(), ran.err);
    words.iter().try_for_each(|word| ran.says(word))?;
    ensure!(!ran.out.contains("ready"), "it said that it was ready: {}", ran.out);
    Ok(())
}

/// Each of them.
pub fn one_line_each(world: &World) -> anyhow::Result<Done> {
    let own = |name: &str| world.path(name).display().to_string();
    let start = |dir: &str, more: &[&str]| world.run(&[&["dev", "--data-dir", dir, "--port", "0"], more].concat());

    let mut dev = Dev::start(world)?;
    let pid = dev.program.pid().to_string();
    let second = start(&own("dev"), &[])?;
    eprintln!("    a second dev was refused after {:.1} s", second.took.as_secs_f64());
    refused(second, &["is in use by process", &pid, "--data-dir"])?;
    let port = dev.url.rsplit(':').next().context("a port")?.to_owned();
    refused(
        world.run(&["dev", "--data-dir", &own("other"), "--port", &port])?,
        &[&format!("port {port} of 127.0.0.1"), "--port"],
    )?;
    dev.program.terminate()?;
    drop(dev);

    let held = TcpListener::bind("127.0.0.1:0")?;
    let port = held.local_addr()?.port().to_string();
    refused(world.run(&["dev", "--data-dir", &own("other"), "--port", &port])?, &[&port, "choose another"])?;

    world.write("a-file", "")?;
    refused(start(&own("a-file"), &[])?, &["a-file", "--data-dir"])?;
    refused(start(&own("a-file/below"), &[])?, &["a-file/below", "--data-dir"])?;
    refused(start("/proc/tidewater", &[])?, &["/proc/tidewater", "--data-dir"])?;

    let fleets = [
        ("[[cluster]]\nname = \"a\"\nregoin = \"eu\"\nnodes = []\n", vec!["regoin", "line 3"]),
        ("[[cluster]\n", vec!["line 1"]),
        ("cluster = []\n", vec!["at least one"]),
        (
            "[[cluster]]\nname = \"a\"\nregion = \"eu\"\nnodes = [{ name = \"n\", count = 0, cpu = 1, memory = \"1Gi\" }]\n",
            vec!["cluster a", "count is 0"],
        ),
        (
            "[[cluster]]\nname = \"a\"\nregion = \"eu\"\nnodes = [{ name = \"n\", count = 1, cpu = 1, memory = \"1Gi\", gpus = 8 }]\n",
            vec!["sku and gpus go together"],
        ),
    ];
    for (text, words) in fleets {
        let file = world.write("fleet-wrong.toml", text)?;
        let ran = start(&own("other"), &["--fleet", &file])?.with_code(1)?;
        ran.says("fleet-wrong.toml")?;
        words.iter().try_for_each(|word| ran.says(word))?;
    }
    refused(start(&own("other"), &["--fleet", "/nowhere.toml"])?, &["/nowhere.toml", "cannot be read"])?;
    refused(start(&own("other"), &["--nvml-lib", "/nowhere.so"])?, &["--nvml-lib /nowhere.so"])?;

    // None of these left anything that a good start stumbles over.
    let mut dev = Dev::start(world)?;
    dev.program.terminate()?;
    Ok(Done::Holds)
}

/// Roles on a folder, a port or an identity that they can't have.
pub fn roles(world: &World) -> anyhow::Result<Done> {
    let mut federation = Federation::prepare(world, 1)?;
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    let dir = |path: std::path::PathBuf| path.display().to_string();
    let (of_replica, of_agent) =
        (identity(world, "ca", ["--replica", "1"])?, identity(world, "ca", ["--cluster", CLUSTERS[0]])?);
    let port = free_port()?.to_string();
    let (free, taken) = (format!("127.0.0.1:{port}"), federation.api.places()[0].replace("http://", ""));
    let coordinator = |dir: &str, http: &str, identity: &str| {
        let given = ["--data-dir", dir, "--identity", identity, "--listen", "127.0.0.1:0", "--http", http];
        world.run(&[&["coordinator", "--id", "1"], &given[..]].concat())
    };
    let used = dir(federation.data_dir(1));
    refused(coordinator(&used, &free, &of_replica)?, &["log store", "another process has it open"])?;
    refused(coordinator(&dir(world.path("new")), &taken, &of_replica)?, &["--http", &taken])?;
    refused(coordinator(&dir(world.path("new")), &free, "/nowhere")?, &["/nowhere", "tidewater identity"])?;
    let agent = |cluster: &str, dir: &str| {
        let given = ["--data-dir", dir, "--identity", &of_agent, "--coordinator", "1=127.0.0.1:1"];
        world.run(&[&["agent", "--cluster", cluster], &given[..]].concat())
    };
    refused(agent("eu-west-1", &dir(federation.agent_dir(0)))?, &["agent.redb", "another process"])?;
    refused(agent("nowhere", &dir(world.path("new")))?, &["cluster nowhere is not in the fleet", "eu-west-1"])?;
    federation.until_cluster(CLUSTERS[0], "Ready")?;
    federation.stop()?;
    Ok(Done::Holds)
}

/// A data folder on a disk without room.
pub fn full_disk(world: &World) -> anyhow::Result<Done> {
    let Some(disk) = SmallDisk::mount(world.path("small"), 256)? else {
        return Ok(Done::CannotRunHere("a small file system can't be mounted here".into()));
    };
    let ran = world.run(&["dev", "--data-dir", &disk.place().join("dev").display().to_string(), "--port", "0"]);
    let ran = ran?.with_code(1)?;
    // Three replicas share that disk: each of them may have come to its end.
    ensure!((1..=3).contains(&ran.err.lines().count()), "not a line each: {}", ran.err);
    ensure!(ran.err.lines().all(|line| line.contains("No space left") && line.contains("space on")), "{}", ran.err);
    Ok(Done::Holds)
}
