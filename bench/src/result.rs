//! How a result is told and written down: with the machine, its load, the commit, the command and the date, because a
//! figure without them says nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use comfy_table::Table;
use serde_json::{Map, Value, json};

/// What a benchmark found.
pub struct Figures {
    /// For people.
    pub table: Table,
    /// The keys and their values.
    pub json: Map<String, Value>,
}

/// An empty table with these columns.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.set_header(columns);
    table
}

/// To a thousandth.
pub fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// That of these waits, sorted, below which this part of them lies.
pub fn quantile(sorted: &[f64], of: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * of).round() as usize]
}

/// The load average over the last minute: figures taken on a busy machine say so.
pub fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Prints the table and the last line; writes the result where that was asked for.
pub fn tell(name: &str, figures: Figures, save: bool) -> Result<()> {
    println!("{}", figures.table);
    if save {
        let mut whole = figures.json.clone();
        whole.insert("about".into(), about()?);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(format!("{name}.json"));
        std::fs::create_dir_all(path.parent().context("it has a folder")?)?;
        std::fs::write(&path, serde_json::to_string_pretty(&whole)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("saved: bench/results/{name}.json");
    }
    println!("{}", Value::Object(figures.json));
    Ok(())
}

/// Where, when and how the figures were taken.
fn about() -> Result<Value> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Ok(json!({
        "machine": machine()?,
        "commit": commit()?,
        "command": format!("cargo run --release -p bench -- {}", arguments.join(" ")),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "date": said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?,
        "rustc": said("rustc", &["--version"])?,
    }))
}

/// The commit, marked where anything but results is another than in it: those are what is being written.
fn commit() -> Result<String> {
    let commit = said("git", &["describe", "--always", "--abbrev=12"])?;
    let changed = said("git", &["status", "--porcelain", "--", ":/", ":(top,exclude)bench/results"])?;
    Ok(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

fn machine() -> Result<Value> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let meminfo = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("0 kB");
    let memory_kib: u64 = memory.trim().trim_end_matches(" kB").parse()?;
    Ok(json!({
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "cores": std::thread::available_parallelism()?.get(),
        "memory_gib": round(memory_kib as f64 / 1024.0 / 1024.0),
        "kernel": said("uname", &["-sr"])?,
    }))
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
