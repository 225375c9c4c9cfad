//! What is run on each cluster: two members that say their number, and one with a GPU where one is free.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::federation::{Federation, items};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);

/// Submits what each cluster gets; returns the names, cluster by cluster.
pub fn submit(federation: &Federation, clusters: &[Cluster], image: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let capacity = federation.json(&["capacity"])?;
    let mut all = vec![];
    for cluster in clusters {
        let mut made = vec![];
        let mut hand_in = |name: &str, members: Value| {
            let file =
                federation.file(&format!("{}-{name}.yaml", cluster.name), &workload(cluster, name, image, members))?;
            made.push(name.to_owned());
            federation.ask(&["submit", "-f", &file])
        };
        hand_in("batch", json!({"count": 2}))?;
        match free_model(&capacity, cluster) {
            Some(model) => drop(hand_in("gpu", json!({"count": 1, "gpus": 1, "gpu": [model]}))?),
            None => println!("{}: no whole GPU is free, so that none is tried", cluster.name),
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

fn workload(cluster: &Cluster, name: &str, image: &str, members: Value) -> Value {
    let mut group = json!({"name": "w", "cpu": 0.1, "memory": "64Mi"});
    if let (Some(group), Value::Object(members)) = (group.as_object_mut(), members) {
        group.extend(members);
    }
    json!({
        "apiVersion": "tidewater.dev/v1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": cluster.of_workloads()},
        "spec": {
            "placement": {"regions": {"require": [cluster.name]}},
            "batch": {"image": image, "command": ["sh", "-c", "echo this is member $JOB_COMPLETION_INDEX"], "groups": [group]},
        },
    })
}

/// Waits for a workload's end, and deletes it. Says what became of it; returns whether it succeeded.
pub async fn follow(federation: &Federation, cluster: &Cluster, name: &str, within: Duration) -> anyhow::Result<bool> {
    let of = |arguments: &[&str]| federation.ask(&[arguments, &["-n", &cluster.of_workloads(), name]].concat());
    let (began, mut phase) = (Instant::now(), String::new());
    while !matches!(&*phase, "Succeeded" | "Failed" | "Unknown") && began.elapsed() < within {
        tokio::time::sleep(LOOK).await;
        let workload: Value = serde_json::from_str(&of(&["get", "-o", "json"])?)?;
        let now = workload["status"]["phase"].as_str().unwrap_or_default();
        if phase != now {
            phase = now.to_owned();
            println!("{}: {name} is {phase}", cluster.name);
        }
    }
    let succeeded = phase == "Succeeded";
    match succeeded {
        true => match of(&["logs"]) {
            Ok(log) if !log.is_empty() => print!("{}", indented(&log)),
            Ok(_) => println!("    it has no log"),
            // Nodes that kwok plays write none.
            Err(error) => {
                println!("    it has no log: {}", error.to_string().rsplit("error: ").next().unwrap_or_default())
            }
        },
        false => print!("{}", indented(&[of(&["describe"])?, of(&["why"])?].concat())),
    }
    of(&["delete"])?;
    Ok(succeeded)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
