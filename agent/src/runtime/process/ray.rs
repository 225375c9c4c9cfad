//! Ray: a cluster of its own for each attempt, a raylet for each member, and a driver that takes one job through it.
//!
//! Every node is `ray start --block`, so that all of Ray stays below the guard, which ends it; `ray stop` would end every
//! Ray on the machine. The job is followed by a program under the guard, not by the agent: see `ray_driver.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::control::LaunchOrder;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::environment::Base;
use super::page::Place;
use super::ports::free_ports;
use super::prepare::Layout;
use super::python::{Progress, PythonEnv};
use super::{durable, private_dir};
use crate::cluster::MemberAssignment;
use crate::guard::plan::{Plan, Process, Ready, Resize, Role};
use crate::guard::record::Record;
use crate::runtime::DASHBOARD_TIME;
use crate::runtime::members::Member;

/// Nothing of Ray listens anywhere else.
const ADDRESS: &str = "127.0.0.1";
/// Ray's shared memory for objects, for each node, in bytes: many nodes share one machine here.
const OBJECT_STORE: u64 = 100_000_000;
/// Ray's daemons end well within this on SIGTERM; what they keep is worth no more.
const END_GRACE_MS: u64 = 3_000;

/// The environment's Python with Ray in it.
pub(super) async fn install(cache: &Path, progress: Progress) -> Result<PathBuf, String> {
    PythonEnv::ray().ready(cache, progress).await.map_err(|e| e.to_string())
}

/// In the attempt's folder: what a node needs to join its Ray cluster.
const CLUSTER: &str = "ray.json";
/// The variable that has the secret of an attempt's Ray cluster.
const TOKEN: &str = "RAY_AUTH_TOKEN";

/// The Ray cluster of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cluster {
    python: PathBuf,
    node_program: PathBuf,
    gcs: u16,
    dashboard: u16,
    temp: PathBuf,
    scratch: PathBuf,
    /// The environment of every node, with the cluster's secret.
    env: BTreeMap<String, String>,
}

impl Cluster {
    /// One node of it. `place` names its sockets: short, and no other node's.
    fn node(
        &self,
        record: &Record,
        member: &Member,
        place: &str,
        mut env: BTreeMap<String, String>,
    ) -> std::io::Result<Process> {
        let Self { gcs, dashboard, .. } = self;
        let head = member.group.as_str() == "head";
        let [agent] = free_ports()?;
        let sockets = self.scratch.join(place);
        let address = if head { "-".to_owned() } else { format!("{ADDRESS}:{gcs}") };
        let mut argv = vec![shown(&self.python), shown(&self.node_program), shown(&sockets), address];
        if head {
            argv.extend([
                "--head".to_owned(),
                format!("--port={gcs}"),
                "--include-dashboard=true".to_owned(),
                format!("--dashboard-host={ADDRESS}"),
                format!("--dashboard-port={dashboard}"),
                format!("--temp-dir={}", shown(&self.temp)),
                "--disable-usage-stats".to_owned(),
            ]);
        } else {
            argv.push(format!("--address={ADDRESS}:{gcs}"));
        }
        argv.extend(node_arguments(member, agent));
        env.extend(self.env.clone());
        Ok(Process {
            name: member.name(),
            argv,
            env,
            cwd: record.path("work"),
            log: record.path("logs").join(format!("{}.log", member.name())),
            role: Role::Extra,
        })
    }
}

/// Where its dashboard is, once it was laid out. Blocks.
pub(super) fn page(record: &Record) -> std::io::Result<Option<Place>> {
    let cluster = durable::read_json::<Cluster>(&record.path(CLUSTER))?;
    Ok(cluster.map(|cluster| Place { port: cluster.dashboard, token: cluster.env.get(TOKEN).cloned() }))
}

/// Which nodes are to come beside those that the plan has, and which are to go. Blocks.
pub(super) fn resize(
    record: &Record,
    order: &LaunchOrder,
    base: &Base,
    (members, leaving): (&[MemberAssignment], &[MemberAssignment]),
    grace_ms: u64,
) -> std::io::Result<Resize> {
    let plan = durable::read_json::<Plan>(&record.path("plan.json"))?;
    let cluster = durable::read_json::<Cluster>(&record.path(CLUSTER))?;
    let (Some(plan), Some(cluster)) = (plan, cluster) else {
        return Err(std::io::Error::other("only a Ray cluster that was laid out gets more or fewer members"));
    };
    // What was laid out for a member stays so, also its ports: the guard has it running.
    let before = record.resize()?.unwrap_or_default();
    let mut start = vec![];
    for assigned in members {
        let member = member_of(order, assigned);
        let name = member.name();
        if plan.processes.iter().any(|p| p.name == name) {
            continue;
        }
        match before.start.iter().find(|p| p.name == name) {
            Some(known) => start.push(known.clone()),
            None => {
                let group = order.placement.iter().position(|g| g.group == assigned.group).unwrap_or_default();
                let place = format!("{group}x{}", assigned.rank);
                start.push(cluster.node(record, &member, &place, base.of_member(&member, []))?);
            }
        }
    }
    let end = leaving.iter().map(|assigned| member_of(order, assigned).name()).collect();
    Ok(Resize { start, end, grace_ms })
}

fn member_of(order: &LaunchOrder, assigned: &MemberAssignment) -> Member {
    let group = order.placement.iter().find(|g| g.group == assigned.group);
    Member {
        group: assigned.group.clone(),
        index: assigned.rank,
        rank: assigned.rank,
        local_rank: 0,
        node: assigned.node.clone(),
        each: group.map_or(protocol::resources::Resources::ZERO, |group| group.each),
        devices: assigned.devices.iter().map(|d| u32::from(*d)).collect(),
    }
}

/// Lays out head, workers and driver. `scratch` is short and this attempt's own. The error is what a person reads.
pub(super) fn plan(layout: &Layout<'_>, python: &Path, scratch: &Path) -> Result<Plan, String> {
    let spec = layout.order.launch.spec.ray.as_ref().ok_or("the specification has no ray")?;
    let attempt = layout.order.launch.attempt.to_string();
    let no_port = |e| format!("no free port on {ADDRESS}: {e}");
    let [gcs, dashboard] = free_ports().map_err(no_port)?;
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf, String> {
        let path = layout.record.path(name);
        durable::write(&path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(path)
    };
    let node_program = write("ray_node.py", include_bytes!("ray_node.py"))?;
    let driver_program = write("ray_driver.py", include_bytes!("ray_driver.py"))?;
    let temp = scratch.join("t");
    private_dir(&temp).map_err(|e| format!("cannot make {}: {e}", temp.display()))?;

    let cluster = Cluster {
        python: python.to_owned(),
        node_program,
        gcs,
        dashboard,
        temp: temp.clone(),
        scratch: scratch.to_owned(),
        env: shared_environment(layout, python),
    };
    // Members that come later join the same cluster.
    let kept = durable::write_json(&layout.record.path(CLUSTER), &cluster);
    kept.map_err(|e| format!("cannot write the attempt's {CLUSTER}: {e}"))?;
    let mut processes = Vec::new();
    for (n, member) in layout.members.iter().enumerate() {
        let env = layout.base.of_member(member, []);
        let node = cluster.node(layout.record, member, &n.to_string(), env).map_err(no_port)?;
        processes.push(Process { role: Role::Supports, ..node });
    }
    let shared = cluster.env;

    let (ready, verdict) = (layout.record.path("ready"), layout.record.path("verdict.json"));
    let job = json!({
        "id": attempt,
        "dashboard": format!("http://{ADDRESS}:{dashboard}"),
        "nodes": layout.members.len(),
        "entrypoint": format!("cd {} && {}", quoted(&shown(&layout.working_dir)), spec.entrypoint),
        "log": temp.join("session_latest/logs").join(format!("job-driver-{attempt}.log")),
        "ready": ready,
        "verdict": verdict,
    });
    let job_file = write("job.json", job.to_string().as_bytes())?;
    let mut env = layout.base.with([]);
    env.extend(shared);
    processes.push(Process {
        name: "driver".to_owned(),
        argv: vec![shown(python), shown(&driver_program), shown(&job_file)],
        env,
        // Looked at here, so that a wrong folder is told as such and not as a failed `cd`.
        cwd: layout.working_dir.clone(),
        log: layout.log("driver"),
        role: Role::Decides,
    });
    Ok(Plan {
        fence_ms: layout.fence_ms(),
        attempt,
        processes,
        ready: Ready::File(ready),
        end_grace_ms: END_GRACE_MS,
        verdict: Some(verdict),
        scratch: vec![scratch.to_owned()],
    })
}

fn shared_environment(layout: &Layout<'_>, python: &Path) -> BTreeMap<String, String> {
    // Two v4 uuids: 244 random bits that only this attempt's processes know.
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let bin = python.parent().map(shown).unwrap_or_default();
    [
        // `python` in an entrypoint is the one with Ray in it.
        ("PATH", format!("{bin}:{}", layout.base.path())),
        ("RAY_AUTH_MODE", "token".to_owned()),
        (TOKEN, token),
        ("RAY_USAGE_STATS_ENABLED", "0".to_owned()),
        // Idle workers ahead of need would be one a declared core, on a machine that has few.
        ("RAY_enable_worker_prestart", "0".to_owned()),
        ("RAY_prestart_worker_first_driver", "0".to_owned()),
        // Many nodes share few cores here: what is slow to start is not dead.
        ("RAY_agent_register_timeout_ms", "150000".to_owned()),
        ("RAY_worker_register_timeout_seconds", "150".to_owned()),
        ("NO_COLOR", "1".to_owned()),
    ]
    .into_iter()
    .chain(DASHBOARD_TIME.map(|(name, seconds)| (name, seconds.to_owned())))
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn node_arguments(member: &Member, agent_port: u16) -> [String; 11] {
    [
        "--block".to_owned(),
        format!("--node-ip-address={ADDRESS}"),
        format!("--dashboard-agent-listen-port={agent_port}"),
        // Each worker takes a port that the system gives it.
        "--min-worker-port=0".to_owned(),
        "--max-worker-port=0".to_owned(),
        // Ray knows whole cores only.
        format!("--num-cpus={}", member.each.cpu_milli.div_ceil(1000)),
        // And whole GPUs only (`ray start` takes an integer): of a share Ray knows one device, parts of which its tasks may ask
        // for. That the device is not all its own the members are told by their environment.
        format!("--num-gpus={}", member.devices.len()),
        // A task can ask for a member of a group: resources={"GROUP": 0.01}.
        format!("--resources={}", json!({ member.group.as_str(): 1 })),
        format!("--memory={}", member.each.memory_mib.saturating_mul(1024 * 1024)),
        format!("--object-store-memory={OBJECT_STORE}"),
        "--log-color=false".to_owned(),
    ]
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// One word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_quote_stays_one_word() {
        assert_eq!(quoted("/it's here"), r"'/it'\''s here'");
    }
}
