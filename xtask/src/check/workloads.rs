//! What is run on each cluster: two members that say their number, one with a GPU where one is free, and Ray and Spark where their images
//! are known.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::images::{RAY_ANSWER, RAY_SQUARES};

use super::cluster::Cluster;
use super::federation::{Federation, items};
use super::programs::Programs;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);

/// The most lines of a log that are shown of its end.
const SHOWN: usize = 24;

/// A workload that was handed in.
pub struct Made {
    name: &'static str,
    /// What its log has to have, beside its success.
    says: Option<&'static str>,
}

/// Submits what each cluster gets; returns that, cluster by cluster.
pub fn submit(federation: &Federation, clusters: &[Cluster]) -> anyhow::Result<Vec<Vec<Made>>> {
    let capacity = federation.json(&["capacity"])?;
    let mut all = vec![];
    for cluster in clusters {
        let programs = &cluster.programs;
        let mut made = vec![];
        let mut hand_in = |name: &'static str, says: Option<&'static str>, framework: Value| {
            let file =
                federation.file(&format!("{}-{name}.yaml", cluster.name), &workload(cluster, name, framework))?;
            made.push(Made { name, says });
            federation.ask(&["submit", "-f", &file])
        };
        // Nodes that kwok plays write no log.
        hand_in("batch", None, batch(programs, json!({"count": 2})))?;
        match free_model(&capacity, cluster) {
            Some(model) => drop(hand_in("gpu", None, batch(programs, json!({"count": 1, "gpus": 1, "gpu": [model]})))?),
            None => println!("{}: no whole GPU is free, so that none is tried", cluster.name),
        }
        match &programs.ray {
            Some(image) => drop(hand_in("ray", Some(RAY_ANSWER), ray(image))?),
            None => println!("{}: no image of Ray is known (--ray-image), so that it is not tried", cluster.name),
        }
        match &programs.spark {
            Some(spark) => drop(hand_in("spark", spark.says, spark.framework())?),
            None => println!("{}: no image of Spark is known (--spark-image), so that it is not tried", cluster.name),
        }
        all.push(made);
    }
    Ok(all)
}

/// A model of which the cluster gives out a whole device now.
fn free_model<'a>(capacity: &'a Value, cluster: &Cluster) -> Option<&'a str> {
    let rows = items(capacity, "rows").iter().filter(|row| row["cluster"] == *cluster.name);
    rows.filter(|row| row["gpus"]["free"].as_u64() > Some(0) && row["sharing"]["parts"].is_null())
        .find_map(|row| row["sku"].as_str())
}

fn batch(programs: &Programs, members: Value) -> Value {
    let mut group = json!({"name": "w", "cpu": 0.1, "memory": "64Mi"});
    if let (Some(group), Value::Object(members)) = (group.as_object_mut(), members) {
        group.extend(members);
    }
    let command = ["sh", "-c", "echo this is member $JOB_COMPLETION_INDEX"];
    json!({"batch": {"image": programs.batch, "command": command, "groups": [group]}})
}

/// A head and two workers, of which each computes a part.
fn ray(image: &str) -> Value {
    json!({"ray": {
        "image": image,
        "entrypoint": format!("python3 -c \"{RAY_SQUARES}\""),
        "head": {"cpu": "700m", "memory": "3Gi"},
        "workers": [{"name": "workers", "count": 2, "cpu": "400m", "memory": "2Gi"}],
    }})
}

fn workload(cluster: &Cluster, name: &str, mut spec: Value) -> Value {
    spec["placement"] = json!({"regions": {"require": [cluster.name]}});
    json!({
        "apiVersion": "tidewater.dev/v1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": cluster.of_workloads()},
        "spec": spec,
    })
}

/// Waits for a workload's end, and deletes it. Says what became of it; returns whether it did what it should.
pub async fn follow(federation: &Federation, cluster: &Cluster, made: &Made, within: Duration) -> anyhow::Result<bool> {
    let name = made.name;
    let namespace = cluster.of_workloads();
    let of = |command: &str| federation.ask(&[command, "-n", &namespace, name]);
    let json_of = |command: &str| federation.json(&[command, "-n", &namespace, name]);
    let (began, mut phase, mut hopeless) = (Instant::now(), String::new(), false);
    while !matches!(&*phase, "Succeeded" | "Failed" | "Unknown") && !hopeless && began.elapsed() < within {
        tokio::time::sleep(LOOK).await;
        let workload = json_of("get")?;
        let now = workload["status"]["phase"].as_str().unwrap_or_default();
        if phase != now {
            phase = now.to_owned();
            println!("{}: {name} is {phase}", cluster.name);
        }
        // No cluster can ever run it as things are.
        hopeless = phase == "Queued" && json_of("why")?["waiting"]["cause"]["kind"] == "impossible";
    }
    let did = match &*phase {
        "Succeeded" => {
            let log = of("logs");
            match &log {
                Ok(log) if !log.is_empty() => print!("{}", indented(&telling(log, made.says))),
                Ok(_) => println!("    it has no log"),
                Err(error) => {
                    println!("    it has no log: {}", error.to_string().rsplit("error: ").next().unwrap_or_default())
                }
            }
            let lacks = made.says.filter(|says| !log.is_ok_and(|log| log.contains(says)));
            if let Some(says) = lacks {
                println!("{}: {name} does not say {says:?}", cluster.name);
            }
            lacks.is_none()
        }
        _ => {
            print!("{}", indented(&[of("describe")?, of("why")?].concat()));
            false
        }
    };
    of("delete")?;
    Ok(did)
}

/// The lines of a log that have what it is to say; all of a short one where that is nothing, and the end of a long one.
fn telling(log: &str, says: Option<&str>) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let telling: Vec<&str> =
        lines.iter().copied().filter(|line| says.is_some_and(|says| line.contains(says))).collect();
    let shown = if telling.is_empty() { &lines[lines.len().saturating_sub(SHOWN)..] } else { &telling[..] };
    shown.join("\n")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
