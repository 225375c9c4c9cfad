//! Objects as a coordinator would send them.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use engine::lifecycle::Phase;
use engine::reasons::{Candidate, Decision, Explanation, Obstacle, ScoreTerm, WaitCause, Waiting};
use protocol::ids::GroupName;
use protocol::resources::Resources;
use protocol::workload::{Framework, Spread};
use serde_json::{Value, json};

/// When every workload here was made: an hour and a half ago, whenever that is.
pub fn created() -> &'static str {
    static CREATED: OnceLock<String> = OnceLock::new();
    CREATED.get_or_init(|| {
        let then = SystemTime::now() - Duration::from_secs(90 * 60 + 20);
        humantime::format_rfc3339_seconds(then).to_string()
    })
}

/// A batch of two members in a phase.
pub fn workload(name: &str, phase: &str) -> Value {
    workload_with(name, phase, 0)
}

/// The same after some attempts.
pub fn workload_with(name: &str, phase: &str, attempts: u32) -> Value {
    let uid = "0190a0b0-0000-7000-8000-000000000001";
    let attempts: Vec<Value> = (1..=attempts)
        .map(|number| {
            json!({"id": {"workload": uid, "number": number}, "cluster": "eu-1",
            "placement": ["workers: 2 x H100 on gpu-1, gpu-2"], "state": phase, "boundAt": "2026-01-01T00:00:05Z",
            "runningAt": "2026-01-01T00:00:08.500Z", "endedAt": "2026-01-01T00:01:00Z", "exitCode": 0})
        })
        .collect();
    let placed = !attempts.is_empty();
    let mut status = json!({"phase": phase, "message": format!("it is {phase}"), "framework": "batch",
        "resources": {"cpuMilli": 2000, "memoryMib": 2048, "gpuMilli": 2000}, "attempts": attempts,
        "timeline": [{"at": "2026-01-01T00:00:00.000Z", "phase": "Queued", "message": "accepted"}]});
    if placed {
        status["cluster"] = json!("eu-1");
        status["region"] = json!("eu");
    }
    if phase == "Queued" {
        status["placeInQueue"] = json!(3);
    }
    json!({"apiVersion": "tidewater.dev/v1", "kind": "Workload",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "resourceVersion": "7", "creationTimestamp": created()},
        "spec": {"batch": {"command": ["true"], "groups": [{"count": 2, "cpu": 1, "memory": "1Gi", "gpus": 1, "gpu": ["H100"]}]}},
        "status": status})
}

/// A list of workloads as of a version.
pub fn list(version: u32, items: &[Value]) -> Value {
    json!({"apiVersion": "tidewater.dev/v1", "kind": "WorkloadList", "metadata": {"resourceVersion": version.to_string()}, "items": items})
}

/// A line of a watch.
pub fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// An explanation as the coordinator sends it: the engine's own, and its text.
fn explained(explanation: &Explanation) -> Value {
    let mut object = serde_json::to_value(explanation).unwrap();
    object["text"] = json!("server text");
    object
}

fn candidate(cluster: &str, obstacle: Option<Obstacle>, score: &[(&str, i64, &str)]) -> Candidate {
    let term = |(name, value, unit): &(&str, i64, &str)| ScoreTerm {
        name: (*name).into(),
        value: *value,
        unit: (*unit).into(),
    };
    Candidate { cluster: cluster.parse().unwrap(), obstacle, score: score.iter().map(term).collect() }
}

/// The explanation of a workload that waits.
pub fn waiting() -> Value {
    let group: GroupName = "workers".parse().unwrap();
    let no_room = Obstacle::NoRoom {
        group: group.clone(),
        each: Resources { cpu_milli: 4000, memory_mib: 65_536, gpu_milli: 8000 },
        sku: Some("H100".parse().unwrap()),
        spread: Spread::None,
        needs: 8,
        fits: 2,
        held_by_ghosts: 1,
        held_by_sick: 0,
        held_by_foreign: 0,
        held_by_attempts: 5,
        on_avoided: 0,
        avoided: None,
    };
    let wrong_region = Obstacle::WrongRegion { region: "us".parse().unwrap(), required: vec!["eu".parse().unwrap()] };
    let candidates = vec![
        candidate("eu-1", Some(no_room), &[]),
        candidate("us-1", Some(wrong_region), &[]),
        candidate("us-2", Some(Obstacle::TooSmall { group, needs: 8, holds: 4, spread: Spread::None }), &[]),
        candidate("us-3", Some(Obstacle::StaleCapacity { age_ms: 12_300, bound_ms: 5_000 }), &[]),
    ];
    explained(&Explanation {
        phase: Phase::Queued,
        summary: "no cluster has room for 8 workers on H100".into(),
        waiting: Some(Waiting {
            place: 2,
            of: 5,
            pool: "ads".parse().unwrap(),
            cause: WaitCause::BehindOthers { ahead: 1, first: "default/big".into() },
            candidates,
            lent: vec![],
            reserved: None,
        }),
        decision: None,
        cures: vec!["wait for default/big to end".into(), "allow region us".into()],
    })
}

/// The explanation of a workload that was placed.
pub fn placed() -> Value {
    let candidates = vec![
        candidate("eu-1", None, &[("region", 0, ""), ("cost", 2400, "milli/h")]),
        candidate("eu-2", None, &[("region", 1, ""), ("cost", i64::MAX, "milli/h")]),
        candidate("us-1", Some(Obstacle::NoRuntime { framework: Framework::Ray }), &[]),
    ];
    explained(&Explanation {
        phase: Phase::Running,
        summary: "it runs in eu-1".into(),
        waiting: None,
        decision: Some(Decision {
            candidates,
            sequence: 41,
            age_ms: 800,
            engine: "0.1.0".into(),
            passed: vec![],
            despite: None,
        }),
        cures: vec![],
    })
}

/// Clusters.
pub fn clusters() -> Value {
    let cluster = |name: &str, phase: &str, age: Value| {
        json!({"apiVersion": "tidewater.dev/v1", "kind": "Cluster", "metadata": {"name": name, "resourceVersion": "9"},
        "status": {"phase": phase, "region": "eu", "frameworks": ["ray", "batch"], "nodes": 2,
            "gpus": {"H100": {"total": 16, "free": 7, "held": 8, "ghosts": 1, "sick": 0}},
            "total": {"cpuMilli": 128000, "memoryMib": 1048576, "gpuMilli": 16000},
            "free": {"cpuMilli": 64000, "memoryMib": 524288, "gpuMilli": 7000}, "ageMs": age, "running": 1}})
    };
    json!({"apiVersion": "tidewater.dev/v1", "kind": "ClusterList", "metadata": {"resourceVersion": "9"},
        "items": [cluster("eu-1", "Ready", json!(900)), cluster("eu-2", "Lost", Value::Null)]})
}

/// Nodes of a cluster.
pub fn nodes() -> Value {
    let node = json!({"name": "gpu-1", "sku": "H100", "state": "ready", "source": "measured",
        "devices": [{"state": "held", "activityPercent": 93, "memoryUsedMib": 70000}, {"state": "ghost", "activityPercent": null, "memoryUsedMib": 4000}],
        "free": {"cpuMilli": 32000, "memoryMib": 262144, "gpuMilli": 0}, "total": {"cpuMilli": 64000, "memoryMib": 524288, "gpuMilli": 2000}});
    json!({"apiVersion": "tidewater.dev/v1", "kind": "NodeStatusList", "metadata": {"resourceVersion": "9"}, "items": [node]})
}

/// Capacity with a gang's fit.
pub fn capacity() -> Value {
    json!({"rows": [{"cluster": "eu-1", "region": "eu", "sku": "H100", "source": "measured", "nodes": 2,
            "gpus": {"total": 16, "free": 7, "held": 8, "ghosts": 1, "sick": 0}, "freeCpuMilli": 64000, "freeMemoryMib": 524288,
            "activityPercent": 41, "ageMs": 900, "priceMilli": 2400},
        {"cluster": "eu-2", "region": "eu", "sku": null, "source": "declared", "nodes": 4,
            "gpus": {"total": 0, "free": 0, "held": 0, "ghosts": 0, "sick": 0}, "freeCpuMilli": 500, "freeMemoryMib": 512,
            "activityPercent": null, "ageMs": 65000, "priceMilli": null}],
        "gang": {"nodes": 2, "gpusPerNode": 8, "fits": {"eu-1": 1, "eu-2": 0}, "largest": 3}})
}

/// When a workload starts. The times are long past, so that what is shown does not change.
pub fn forecast() -> Value {
    let ended = |name: &str, basis: Value| json!({"workload": name, "at": 1000, "basis": basis});
    let after = [ended("default/b", json!({"kind": "declared"})), ended("ads/a", json!({"kind": "learnt", "runs": 5}))];
    let text = "it starts in about 2h, in eu-1, if 7 attempts end as expected and nobody submits what goes before it";
    json!({"at": 1000, "cluster": "eu-1", "ends": 7, "after": after, "endless": 2, "text": text})
}

/// What edits change.
pub fn changes() -> Value {
    let waits = |from: Value| json!({"kind": "waits", "why": "waits, 1 of 2 in line", "from": from});
    let starts = |from: Value| json!({"kind": "starts", "cluster": "eu-1", "at": 1000, "from": from});
    let runs = json!({"kind": "runs", "cluster": "us-1"});
    let changes = [
        json!({"workload": "default/a", "before": runs, "after": starts(json!("us-1"))}),
        json!({"workload": "default/b", "before": runs, "after": waits(json!("us-1"))}),
        json!({"workload": "default/c", "before": waits(Value::Null), "after": starts(Value::Null)}),
        json!({"workload": "default/d", "before": {"kind": "absent"}, "after": waits(Value::Null)}),
    ];
    json!({"now": 1000, "changes": changes, "changed": 5, "same": 40})
}
