//! What the agent of a large Kubernetes cluster costs: 5,000 nodes of 8 GPUs and 100,000 pods in a real API server, of which the agent learns as
//! it starts, then stands by, then sees pods end. A pod's end counts as seen once the coordinator says that its GPU is free.
//!
//! API server and etcd alone, so that nothing but the benchmark changes an object: neither nodes nor pods have anybody behind them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use testbed::{Binaries, ControlPlane, FakeNodes, Settings};

use crate::federation::{CLUSTERS, Federation};
use crate::nodes::AT_ONCE;
use crate::result::{Figures, load_average, quantile, round, table};
use crate::usage::{cpu, memory_kib};

const GPUS: u32 = 8;
/// Pods of a node with a GPU each; the others have none.
const WITH_GPU: u32 = 7;
const PODS: u32 = 20;
/// How long the agent may take to know a cluster.
const LONGEST: Duration = Duration::from_secs(300);
/// Between two looks at what the coordinator says.
const LOOK: Duration = Duration::from_millis(5);
/// Between two ends of pods.
const APART: Duration = Duration::from_millis(200);

struct Sizes {
    nodes: u32,
    steady: Duration,
    ends: u32,
}

/// Fills a cluster, starts its agent, and ends pods.
pub fn run(quick: bool) -> Result<Figures> {
    let sizes = match quick {
        true => Sizes { nodes: 50, steady: Duration::from_secs(2), ends: 10 },
        false => Sizes { nodes: 5_000, steady: Duration::from_secs(60), ends: 300 },
    };
    let program = crate::built::tidewater()?;
    let load_before = load_average();
    let folder = tempfile::tempdir_in(program.parent().context("a program lies in a folder")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut json = runtime.block_on(measure(&program, folder.path(), &sizes))?;
    json.insert("load_before".into(), json!(round(load_before)));
    let mut shown = table(&["agent of 5,000 nodes and 100,000 pods", "", "aim"]);
    for (what, key, aim) in [
        ("resident memory at its most, MiB", "rss_mib", "256"),
        ("resident memory while it stands by, MiB", "steady_rss_mib", ""),
        ("CPU while it stands by, percent of a core", "cpu_percent_of_core", "5"),
        ("from its start to the whole cluster at the coordinator, s", "start_s", ""),
        ("CPU of that, s", "start_cpu_s", ""),
        ("from a pod's end to its GPU free at the coordinator, p50, ms", "freed_p50_ms", ""),
        ("p99, ms", "freed_p99_ms", "500"),
    ] {
        shown.add_row([what, &json[key].to_string(), aim]);
    }
    Ok(Figures { table: shown, json })
}

async fn measure(program: &Path, folder: &Path, sizes: &Sizes) -> Result<Map<String, Value>> {
    let bar = ProgressBar::new(u64::from(sizes.nodes * (1 + PODS)));
    bar.set_style(ProgressStyle::with_template("{msg:28} {bar:40} {pos}/{len} {elapsed}")?);
    bar.set_message("nodes and pods are made");
    let binaries = Binaries::provide(&Settings::api_only("").tools(), &|line| bar.println(line))?;
    let plane = ControlPlane::start(&binaries, Settings::api_only(folder.join("plane"))).await?;
    let client = plane.client();
    testbed::make_namespace(&client, "tidewater").await?;
    fill(&client, sizes.nodes, &bar).await?;

    bar.set_message("the agent starts");
    let mut federation = Federation::start_replicas(program, folder, 1).await?;
    let began = Instant::now();
    federation.start_kubernetes_agents(&[plane.kubeconfig()]).await?;
    let agent = federation.agents()[0];
    let all_free = u64::from(sizes.nodes * (GPUS - WITH_GPU));
    until_free(&federation, all_free, began).await?;
    let (start, start_cpu, start_most) = (began.elapsed(), cpu(agent), memory_mib(agent, "VmHWM")?);

    bar.set_message("it stands by");
    let before = cpu(agent);
    tokio::time::sleep(sizes.steady).await;
    let steady_cpu = cpu(agent).saturating_sub(before);
    let steady_rss = memory_mib(agent, "VmRSS")?;

    bar.set_message("pods end");
    bar.set_length(u64::from(sizes.ends));
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    let (mut waits, before, ends) = (vec![], cpu(agent), Instant::now());
    for number in 0..sizes.ends {
        bar.set_position(u64::from(number));
        // All over the cluster.
        let node = number * (sizes.nodes / sizes.ends).max(1) % sizes.nodes;
        let name = pod_name(node, number / sizes.nodes % WITH_GPU);
        let began = Instant::now();
        pods.patch_status(&name, &PatchParams::default(), &ended).await?;
        until_free(&federation, all_free + u64::from(number) + 1, began).await?;
        waits.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(APART).await;
    }
    let ending_cpu = 100.0 * cpu(agent).saturating_sub(before).as_secs_f64() / ends.elapsed().as_secs_f64();
    bar.finish_and_clear();
    waits.sort_by(f64::total_cmp);
    let quantile = |of: f64| round(quantile(&waits, of));
    let figures = json!({
        "rss_mib": round(memory_mib(agent, "VmHWM")?),
        "start_rss_mib": round(start_most),
        "steady_rss_mib": round(steady_rss),
        "cpu_percent_of_core": round(100.0 * steady_cpu.as_secs_f64() / sizes.steady.as_secs_f64()),
        "ending_cpu_percent_of_core": round(ending_cpu),
        "start_s": round(start.as_secs_f64()),
        "start_cpu_s": round(start_cpu.as_secs_f64()),
        "freed_p50_ms": quantile(0.5),
        "freed_p99_ms": quantile(0.99),
        "freed_max_ms": quantile(1.0),
        "ends": sizes.ends,
        "nodes": sizes.nodes,
        "pods": sizes.nodes * PODS,
    });
    drop(federation);
    plane.stop();
    figures.as_object().cloned().context("it is an object")
}

/// Ready nodes with their pods, as the scheduler leaves them.
async fn fill(client: &Client, count: u32, bar: &ProgressBar) -> Result<()> {
    crate::nodes::make(client, &FakeNodes::h100("gpu", count), || bar.inc(1)).await?;
    let pods: &Api<Pod> = &Api::namespaced(client.clone(), "default");
    stream::iter((0..count).flat_map(|node| (0..PODS).map(move |number| (node, number))))
        .map(|(node, number)| async move {
            pods.create(&PostParams::default(), &pod(node, number)?).await?;
            bar.inc(1);
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn pod_name(node: u32, number: u32) -> String {
    format!("pod-{node}-{number}")
}

/// With what pods carry about: labels, annotations, a volume, variables.
fn pod(node: u32, number: u32) -> Result<Pod> {
    let mut amounts = json!({"cpu": "2", "memory": "8Gi"});
    if number < WITH_GPU {
        amounts["nvidia.com/gpu"] = json!("1");
    }
    let variables: Vec<Value> = (0..10)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value {n} of {node}-{number}")}))
        .collect();
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": pod_name(node, number),
            "labels": {"app": "work", "team": "vision", "job-name": format!("job-{node}"), "index": number.to_string()},
            "annotations": {"example.com/config-hash": format!("{:064x}", u64::from(node) << 8 | u64::from(number))},
        },
        "spec": {
            "nodeName": format!("gpu-{node}"),
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
            "containers": [{
                "name": "main", "image": "registry.example.com/team/work:1.2.3", "command": ["python", "-m", "work"],
                "env": variables,
                "resources": {"requests": amounts, "limits": amounts},
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            }],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }))?)
}

async fn until_free(federation: &Federation, gpus: u64, began: Instant) -> Result<()> {
    loop {
        let capacity: Value = serde_json::from_str(&federation.get(federation.replicas[0].http, "/capacity").await?)?;
        let rows = capacity["rows"].as_array().cloned().unwrap_or_default();
        let free: u64 = rows.iter().filter_map(|row| row["gpus"]["free"].as_u64()).sum();
        if free == gpus {
            return Ok(());
        }
        ensure!(began.elapsed() < LONGEST, "{free} GPUs of {} are free after {LONGEST:?}, not {gpus}", CLUSTERS[0]);
        tokio::time::sleep(LOOK).await;
    }
}

fn memory_mib(process: u32, what: &str) -> Result<f64> {
    Ok(memory_kib(process, what)? as f64 / 1024.0)
}
