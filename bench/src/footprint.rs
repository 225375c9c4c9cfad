//! What the node role costs its node: memory and CPU of the real process at one reading a second, with eight GPUs.
//!
//! The GPUs answer from the tests' stand-in for `libnvidia-ml.so`, in the same process: what the NVIDIA driver itself would
//! add is not in the figures, what the stand-in costs (reading its state file again each second) is. Activity changes each
//! second on every GPU, so that each second has a frame.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::result::{Figures, load_average, round, table};

const GPUS: u64 = 8;

/// Before anything is counted: the library is loaded and the first, full frame is out.
const WARM_UP: Duration = Duration::from_secs(3);

/// What is measured.
pub struct Plan {
    /// The process that has the node role.
    pub program: PathBuf,
    /// Its arguments; `--nvml-lib` and `--node-name` with their values come after them.
    pub arguments: Vec<OsString>,
    /// For how long.
    pub time: Duration,
}

/// Measures `tidewater node` for 60 s.
pub fn run(quick: bool) -> Result<Figures> {
    let time = Duration::from_secs(if quick { 5 } else { 60 });
    let load_before = load_average();
    let mut json = measure(&Plan { program: crate::built::tidewater()?, arguments: vec!["node".into()], time })?;
    let mut shown = table(&["node role, 8 GPUs at 1 Hz", "", "aim"]);
    shown.add_row(["resident memory, MiB", &json["rss_mib"].to_string(), "< 20"]);
    shown.add_row(["CPU, percent of a core", &json["cpu_percent_of_core"].to_string(), "< 0.5"]);
    json.insert("load_average_before".into(), load_before.into());
    Ok(Figures { table: shown, json })
}

/// Measures `plan`: `rss_mib` is the largest resident set seen, `cpu_percent_of_core` the mean over the time.
pub fn measure(plan: &Plan) -> Result<Map<String, Value>> {
    let library = crate::built::fake_nvml()?;
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state.json");
    write_state(&state, 0)?;
    let mut node = Node(
        Command::new(&plan.program)
            .args(&plan.arguments)
            .arg("--nvml-lib")
            .arg(&library)
            .args(["--node-name", "footprint"])
            .env("FAKE_NVML_STATE", &state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", plan.program.display()))?,
    );
    std::thread::sleep(WARM_UP);
    let (start, cpu_before) = (Instant::now(), node.cpu()?);
    let bar = ProgressBar::new(plan.time.as_secs());
    bar.set_style(ProgressStyle::with_template("node role {bar:40} {pos}/{len} s")?);
    let mut largest_kib = 0;
    for second in 1.. {
        write_state(&state, second)?;
        std::thread::sleep((start + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        largest_kib = largest_kib.max(node.resident_kib()?);
        bar.set_position(second);
        if start.elapsed() >= plan.time {
            break;
        }
    }
    let (cpu, wall) = (node.cpu()?.saturating_sub(cpu_before), start.elapsed());
    bar.finish_and_clear();
    let figures = json!({
        "rss_mib": round(largest_kib as f64 / 1024.0),
        "cpu_percent_of_core": round(100.0 * cpu.as_secs_f64() / wall.as_secs_f64()),
        "gpus": GPUS,
        "readings_per_s": 1,
        "seconds": wall.as_secs(),
        "program": plan.program.file_name().map(|name| name.to_string_lossy()),
        "driver": "stand-in library in the same process",
    });
    figures.as_object().cloned().context("it is an object")
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

/// The process that is measured; it ends with this value.
struct Node(Child);

impl Node {
    fn read(&mut self, file: &str) -> Result<String> {
        if let Some(status) = self.0.try_wait()? {
            bail!("the node role ended while it was measured: {status}");
        }
        Ok(std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))?)
    }

    fn resident_kib(&mut self) -> Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// CPU time of all its threads, in user and kernel mode. From the scheduler, in ns: `stat` counts in steps of 10 ms,
    /// of which the node role takes less than one in many seconds.
    fn cpu(&mut self) -> Result<Duration> {
        self.read("stat")?;
        let mut sum = Duration::ZERO;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))
                .context("this kernel keeps no /proc/PID/task/*/schedstat")?;
            let nanoseconds = text.split(' ').next().context("an empty schedstat")?;
            sum += Duration::from_nanos(nanoseconds.parse()?);
        }
        Ok(sum)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, which was reported where it was noticed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
