//! What the node role costs its node: memory and CPU of the real process at one reading a second, with eight GPUs, while it
//! streams every frame to its cluster's agent.
//!
//! The GPUs answer from the tests' stand-in for `libnvidia-ml.so`, in the same process: what the NVIDIA driver itself would
//! add is not in the figures, what the stand-in costs (reading its state file again each second) is. Activity changes each
//! second on every GPU, so that each second has a frame.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::federation::{CLUSTERS, free_ports};
use crate::result::{Figures, load_average, round, table};
use crate::usage::memory_kib;

const GPUS: u64 = 8;

/// Before anything is counted: the library is loaded and the first, full frame is out.
const WARM_UP: Duration = Duration::from_secs(3);

/// How long the two processes may take to be ready for each other.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Measures `tidewater node`, streaming to its agent, for 60 s.
pub fn run(quick: bool) -> Result<Figures> {
    let time = Duration::from_secs(if quick { 5 } else { 60 });
    let load_before = load_average();
    let mut json = measure(&crate::built::tidewater()?, time)?;
    let mut shown = table(&["node role, 8 GPUs at 1 Hz, streaming to its agent", "", "aim"]);
    shown.add_row(["resident memory, MiB", &json["rss_mib"].to_string(), "< 20"]);
    shown.add_row(["CPU, percent of a core", &json["cpu_percent_of_core"].to_string(), "< 0.5"]);
    json.insert("load_average_before".into(), load_before.into());
    Ok(Figures { table: shown, json })
}

/// Measures the program's node role: `rss_mib` is the largest resident set seen, `cpu_percent_of_core` the mean over the
/// time. Its agent is a process of its own, which has no coordinator and needs none to take frames.
fn measure(program: &Path, time: Duration) -> Result<Map<String, Value>> {
    let library = crate::built::fake_nvml()?;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let state = folder.join("state.json");
    write_state(&state, 0)?;
    let port = free_ports(1)?.remove(0).to_string();
    let (agent_identity, node_identity) =
        (identity(program, folder, &[])?, identity(program, folder, &["--node", "footprint"])?);
    let mut agent = Command::new(program);
    agent.args(["agent", "--cluster", CLUSTERS[0], "--coordinator", "1=127.0.0.1:1", "--listen-nodes", &port]);
    agent.arg("--identity").arg(agent_identity).arg("--data-dir").arg(folder.join("agent"));
    let _agent = Process::start(&mut agent, folder, "ready: ")?;
    let mut node = Command::new(program);
    node.args(["node", "--agent", &port, "--identity"]).arg(node_identity);
    node.arg("--nvml-lib").arg(&library).env("FAKE_NVML_STATE", &state);
    let mut node = Process::start(&mut node, folder, "streams to the agent at ")?;
    std::thread::sleep(WARM_UP);
    let (start, cpu_before) = (Instant::now(), node.cpu()?);
    let bar = ProgressBar::new(time.as_secs());
    bar.set_style(ProgressStyle::with_template("node role {bar:40} {pos}/{len} s")?);
    let mut largest_kib = 0;
    for second in 1.. {
        write_state(&state, second)?;
        std::thread::sleep((start + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        largest_kib = largest_kib.max(node.resident_kib()?);
        bar.set_position(second);
        if start.elapsed() >= time {
            break;
        }
    }
    let (cpu, wall) = (node.cpu()?.saturating_sub(cpu_before), start.elapsed());
    bar.finish_and_clear();
    let said = node.said();
    if said.matches("streams to the agent at ").count() != 1 {
        bail!("the link did not last: {said}");
    }
    let figures = json!({
        "rss_mib": round(largest_kib as f64 / 1024.0),
        "cpu_percent_of_core": round(100.0 * cpu.as_secs_f64() / wall.as_secs_f64()),
        "gpus": GPUS,
        "readings_per_s": 1,
        "seconds": wall.as_secs(),
        "program": program.file_name().map(|name| name.to_string_lossy()),
        "driver": "stand-in library in the same process",
        "streams_to": "an agent in a process of its own, QUIC on loopback",
    });
    figures.as_object().cloned().context("it is an object")
}

/// Makes an identity of the first cluster, or of a node of it.
fn identity(program: &Path, folder: &Path, more: &[&str]) -> Result<PathBuf> {
    let mut command = Command::new(program);
    command.args(["identity", "--ca"]).arg(folder.join("ca")).args(["--cluster", CLUSTERS[0]]).args(more);
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Each GPU's activity differs from second to second.
fn write_state(path: &Path, second: u64) -> Result<()> {
    let gpu = |i: u64| {
        json!({
            "uuid": format!("GPU-{i}"),
            "sm_activity": (second * 7 + i * 11) % 101,
            "memory_used": (i + second % 2) << 30,
            "processes": [{"pid": 1000 + i, "memory": i << 30}],
        })
    };
    let part = path.with_extension("part");
    std::fs::write(&part, json!({ "devices": (0..GPUS).map(gpu).collect::<Vec<_>>() }).to_string())?;
    std::fs::rename(part, path)?;
    Ok(())
}

/// A process, which ends with this value, and what it says.
struct Process {
    child: Child,
    out: PathBuf,
}

impl Process {
    /// Starts it and waits until it prints a line that begins so.
    fn start(command: &mut Command, folder: &Path, line: &str) -> Result<Self> {
        let out = folder.join(format!("{}.out", line.split(' ').next().unwrap_or_default().trim_end_matches(':')));
        let file = std::fs::File::create(&out)?;
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut process = Self { child, out };
        let until = Instant::now() + READY_WITHIN;
        while !process.said().contains(line) {
            process.lives()?;
            if Instant::now() > until {
                bail!("{command:?} did not say {line:?} within {READY_WITHIN:?}: {}", process.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// What it said so far.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    fn lives(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("a process ended while it was measured: {status}: {}", self.said()),
            None => Ok(()),
        }
    }

    fn resident_kib(&mut self) -> Result<u64> {
        self.lives()?;
        memory_kib(self.child.id(), "VmRSS")
    }

    /// CPU time of all its threads, in user and kernel mode. From the scheduler, in ns: `stat` counts in steps of 10 ms,
    /// of which the node role takes less than one in many seconds.
    fn cpu(&mut self) -> Result<Duration> {
        self.lives()?;
        let mut sum = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))
                .context("this kernel keeps no /proc/PID/task/*/schedstat")?;
            let nanoseconds = text.split(' ').next().context("an empty schedstat")?;
            sum += Duration::from_nanos(nanoseconds.parse()?);
        }
        Ok(sum)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, which was reported where it was noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
