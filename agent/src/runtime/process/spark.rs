//! Spark: a driver and its executors on `local-cluster`, Spark's own way to run executors as processes of one machine.
//!
//! Executors keep their logs under `SPARK_HOME/work`, so each attempt has a `SPARK_HOME` of its own: links to the
//! installed one, and a `work` among the attempt's logs.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::durable;
use super::environment::of_devices;
use super::frameworks::{java_program, java_version};
use super::page::Place;
use super::ports::free_ports;
use super::prepare::Layout;
use super::private_dir;
use super::python::{Progress, PythonEnv};
use crate::guard::plan::{Plan, Process, Ready, Role};
use crate::guard::record::Record;
use crate::runtime::members::{Member, visible_devices};

/// Between SIGTERM and SIGKILL once the application ended.
const END_GRACE_MS: u64 = 3_000;
/// The least that Spark accepts for a driver or executor is 450 MiB of heap; below this it refuses to start.
const LEAST_HEAP_MIB: u64 = 512;

const DRIVER_OPTIONS: &str = "spark.driver.extraJavaOptions";
/// Whether whoever sees Spark's page may end jobs and stages there. It asks nobody who they are, and everybody on this machine sees it: so not,
/// unless the specification says otherwise.
const MAY_KILL: &str = "spark.ui.killEnabled";

/// In the attempt's folder: where the application serves its page.
const APPLICATION: &str = "spark.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Application {
    ui: u16,
}

/// Where its page is, once it was laid out. Blocks.
pub(super) fn page(record: &Record) -> std::io::Result<Option<Place>> {
    let application = durable::read_json::<Application>(&record.path(APPLICATION))?;
    Ok(application.map(|application| Place { port: application.ui, token: None }))
}

/// What an attempt needs: the environment's Python and the Spark in it.
pub(super) struct Installed {
    python: PathBuf,
    spark: PathBuf,
}

/// Installs PySpark where it is absent, and checks Java. The error is what a person reads.
pub(super) async fn install(cache: &Path, progress: Progress) -> Result<Installed, String> {
    java_version(&java_program(std::env::var_os("JAVA_HOME"))).await?;
    let python = PythonEnv::spark().ready(cache, progress).await.map_err(|e| e.to_string())?;
    let lib = python.parent().and_then(Path::parent).map(|env| env.join("lib")).unwrap_or_default();
    let found = std::fs::read_dir(&lib).into_iter().flatten().flatten();
    let mut sparks = found.map(|python| python.path().join("site-packages/pyspark")).filter(|path| path.is_dir());
    let spark = sparks.next().ok_or_else(|| format!("no pyspark below {}; remove that environment", lib.display()))?;
    Ok(Installed { python, spark })
}

/// Lays out the driver, which starts the executors. The error is what a person reads.
pub(super) fn plan(layout: &Layout<'_>, installed: &Installed) -> Result<Plan, String> {
    let spec = layout.order.launch.spec.spark.as_ref().ok_or("the specification has no spark")?;
    let role = |name: &str| layout.members.iter().filter(|m| m.group.as_str() == name).collect::<Vec<_>>();
    let driver = *role("driver").first().ok_or("the placement has no driver")?;
    let executors = role(spec.executors.name.as_str());
    let executor = *executors.first().ok_or("the placement has no executors")?;
    let io = |e: std::io::Error| format!("cannot prepare Spark's folders: {e}");
    let logs = layout.record.path("logs/executors");
    let home = spark_home(layout, &installed.spark, &logs).map_err(io)?;
    let program = layout.record.path("spark_driver.py");
    durable::write(&program, include_bytes!("spark_driver.py")).map_err(io)?;
    let ready = layout.record.path("ready");
    let [ui] = free_ports().map_err(|e| format!("no free port on 127.0.0.1: {e}"))?;
    durable::write_json(&layout.record.path(APPLICATION), &Application { ui }).map_err(io)?;

    let [(_, devices), (_, containers)] = of_devices(devices_of(&executors));
    let cores = executor.each.cpu_milli.div_ceil(1000);
    let heap = heap_mib(executor, executors.len() as u64 + 1);
    let mut argv = vec![
        shown(&installed.python),
        shown(&program),
        shown(&ready),
        shown(&logs),
        executors.len().to_string(),
        shown(&home.join("bin/spark-submit")),
        "--master".to_owned(),
        format!("local-cluster[{},{cores},{heap}]", executors.len()),
        "--driver-memory".to_owned(),
        format!("{}m", heap_mib(driver, executors.len() as u64 + 1)),
        "--name".to_owned(),
        layout.order.launch.key.to_string(),
    ];
    if let Some(class) = &spec.class {
        argv.extend(["--class".to_owned(), class.clone()]);
    }
    let set = [
        ("spark.executor.memory", format!("{heap}m")),
        ("spark.executor.cores", cores.to_string()),
        ("spark.driver.host", "127.0.0.1".to_owned()),
        ("spark.driver.bindAddress", "127.0.0.1".to_owned()),
        ("spark.ui.port", ui.to_string()),
        ("spark.executorEnv.CUDA_VISIBLE_DEVICES", devices),
        ("spark.executorEnv.NVIDIA_VISIBLE_DEVICES", containers),
    ];
    // The driver's log is the program's; Spark's own chatter, hundreds of lines a run, starts at warnings.
    let quiet = layout.record.path("log4j2.properties");
    durable::write(&quiet, include_bytes!("spark_log4j2.properties")).map_err(io)?;
    if !spec.conf.contains_key(DRIVER_OPTIONS) && !shown(&quiet).contains(char::is_whitespace) {
        let option = format!("{DRIVER_OPTIONS}=-Dlog4j2.configurationFile=file:{}", shown(&quiet));
        argv.extend(["--conf".to_owned(), option]);
    }
    if !spec.conf.contains_key(MAY_KILL) {
        argv.extend(["--conf".to_owned(), format!("{MAY_KILL}=false")]);
    }
    // Where the processes are is the runtime's to say; the rest is the user's.
    let users = spec.conf.iter().filter(|(name, _)| set.iter().all(|(own, _)| own != name));
    for (name, value) in users.map(|(n, v)| (n.as_str(), v.clone())).chain(set.iter().cloned()) {
        argv.extend(["--conf".to_owned(), format!("{name}={value}")]);
    }
    argv.push(spec.main.clone());
    argv.extend(spec.arguments.iter().cloned());

    let bin = installed.python.parent().map(shown).unwrap_or_default();
    let env = layout.base.of_member(
        driver,
        [
            ("PATH", format!("{bin}:{}", layout.base.path())),
            ("SPARK_HOME", shown(&home)),
            ("SPARK_LOCAL_IP", "127.0.0.1".to_owned()),
            ("SPARK_LOCAL_DIRS", shown(&layout.record.path("work/local"))),
            ("PYSPARK_PYTHON", shown(&installed.python)),
            ("PYSPARK_DRIVER_PYTHON", shown(&installed.python)),
        ],
    );
    Ok(Plan {
        fence_ms: layout.fence_ms(),
        attempt: layout.order.launch.attempt.to_string(),
        processes: vec![Process {
            name: "driver".to_owned(),
            argv,
            env,
            cwd: layout.working_dir.clone(),
            log: layout.log("driver"),
            role: Role::Decides,
        }],
        ready: Ready::File(ready),
        end_grace_ms: END_GRACE_MS,
        verdict: None,
        scratch: vec![layout.record.path("work/local"), home],
    })
}

/// The devices of all executors, as `CUDA_VISIBLE_DEVICES` has them. Spark starts executors itself, all with one environment, which would
/// be the driver's, and that sees none: each sees the devices of all of them, then. Which of these it uses is for the program, or Spark's
/// own resource scheduling, to say.
fn devices_of(executors: &[&Member]) -> String {
    let all: BTreeSet<u32> = executors.iter().flat_map(|member| member.devices.iter().copied()).collect();
    visible_devices(&all)
}

/// Links to the installed Spark, with a `work` folder of this attempt's own.
fn spark_home(layout: &Layout<'_>, installed: &Path, logs: &Path) -> std::io::Result<PathBuf> {
    let home = layout.record.path("spark");
    private_dir(&home)?;
    private_dir(logs)?;
    private_dir(&layout.record.path("work/local"))?;
    for entry in std::fs::read_dir(installed)? {
        let entry = entry?;
        symlink(entry.path(), home.join(entry.file_name()))?;
    }
    symlink(logs, home.join("work"))?;
    Ok(home)
}

/// The heap of a member in MiB: what it declares, but no more than its part of this machine's memory, which may be far
/// smaller than the declared node's.
fn heap_mib(member: &Member, sharers: u64) -> u64 {
    let info = rustix::system::sysinfo();
    let machine_mib = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / (1024 * 1024);
    member.each.memory_mib.min(machine_mib / 2 / sharers).max(LEAST_HEAP_MIB)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
