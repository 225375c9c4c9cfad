//! The README's first command: it runs real Ray and Spark jobs, ends with 0, and leaves nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::world::World;
use crate::Done;

/// The demo's own limit is 280 s after its federation is ready.
const LIMIT: Duration = Duration::from_secs(420);

/// As it is.
pub fn plain(world: &World) -> anyhow::Result<Done> {
    demo(
        world,
        &[],
        &[
            "must wait. `tidewater why claim-gang` says",
            "gives its room to default/claim-gang of pool serving",
            "lent-hold runs again",
        ],
    )
}

/// With the leader killed while the workloads run.
pub fn chaos(world: &World) -> anyhow::Result<Done> {
    demo(world, &["--chaos"], &["chaos: killed coordinator", "is back, from its disk"])
}

fn demo(world: &World, options: &[&str], lines: &[&str]) -> anyhow::Result<Done> {
    let python = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if !python.is_ok_and(|ran| ran.status.success()) {
        return Ok(Done::CannotRunHere("there is no python3 with venv: Ray and Spark need it".into()));
    }
    let java = Command::new("java").arg("-version").output().is_ok_and(|ran| ran.status.success());
    let mut program = world.start("demo", &[&["demo"], options].concat())?;
    let began = Instant::now();
    let status = program.until_ended(LIMIT)?;
    let (out, err) = (program.out(), program.err());
    ensure!(status.success(), "it ended with {status}\n{out}\n{err}");
    let last = out.lines().last().unwrap_or_default();
    let words: Vec<&str> = last.split(' ').collect();
    let ["demo:", count, "workloads", "succeeded", "in", seconds, "s"] = words[..] else {
        anyhow::bail!("its last line is {last:?}")
    };
    let (count, _): (usize, u64) = (count.parse().context("a count")?, seconds.parse().context("a time")?);
    // Without Java there is no Spark, and it says so.
    ensure!(count == 3 + usize::from(java), "{last}\n{out}");
    ensure!(java || out.contains("without spark"), "it does not say that Spark is missing: {out}");
    for line in lines {
        ensure!(out.contains(line), "it does not say {line:?}: {out}");
    }
    eprintln!("    {last} ({:.0} s by the clock)", began.elapsed().as_secs_f64());
    Ok(Done::Holds)
}
