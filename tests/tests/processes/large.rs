//! A thousand nodes of eight GPUs in three real control planes, and two thousand workloads: each runs once, none is lost, and what the
//! coordinator then says of every node is what a fresh count from the API servers gives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use testbed::{ControlPlane, Settings};
use tokio::runtime::Runtime;

use super::api::{clusters_of, phase, phases};
use super::federation::Federation;
use super::planes::{gang, made, nothing_left, programs, runtime, with_h100_nodes};
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

const CLUSTERS: [&str; 3] = ["north", "south", "west"];
const NODES: [u32; 3] = [334, 333, 333];
const GPUS: u32 = 8;
const WORKLOADS: usize = 2_000;
/// Nodes of each cluster on which others run.
const TAKEN: u32 = 50;
/// How long all of them may take on a machine that does other things too.
const LONGEST: Duration = Duration::from_secs(600);
const FLEET: &str = r#"
[[cluster]]
name = "north"
region = "eu"
[[cluster]]
name = "south"
region = "us"
[[cluster]]
name = "west"
region = "us"
"#;

/// See above.
pub fn of_a_thousand_nodes(world: &World) -> anyhow::Result<Done> {
    let binaries = programs(&Settings::with_fake_nodes("").tools())?;
    let runtime = runtime()?;
    let began = Instant::now();
    let planes = CLUSTERS.iter().zip(NODES).map(|(name, nodes)| {
        let settings = Settings::with_fake_nodes(world.path(&format!("plane-{name}")));
        runtime.block_on(async {
            let plane = with_h100_nodes(&binaries, settings, nodes).await?;
            others_run(&plane.client()).await?;
            anyhow::Ok(plane)
        })
    });
    let planes: Vec<ControlPlane> = planes.collect::<anyhow::Result<_>>()?;
    eprintln!("    1,000 nodes after {:.1} s", began.elapsed().as_secs_f64());
    let mut federation = Federation::prepare_of(world, 1, &CLUSTERS, FLEET)?;
    federation.kubeconfigs = planes.iter().map(ControlPlane::kubeconfig).collect();
    federation.start_coordinator(1)?;
    (0..CLUSTERS.len()).try_for_each(|place| federation.start_agent(place))?;
    CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;
    counts_are_right(&federation, &runtime, &planes)?;

    let began = Instant::now();
    (0..WORKLOADS).try_for_each(|n| federation.api.submit(&workload(n)))?;
    eprintln!("    {WORKLOADS} workloads submitted after {:.1} s", began.elapsed().as_secs_f64());
    wait_for("the end of every workload", LONGEST, || {
        // A list of two thousand is no small thing to ask for.
        std::thread::sleep(Duration::from_secs(1));
        let all = federation.api.workloads()?;
        let failed = all.values().find(|w| matches!(&*phase(w), "Failed" | "Unknown"));
        ensure!(failed.is_none(), "{failed:?}");
        Ok((all.values().filter(|w| phase(w) == "Succeeded").count() == WORKLOADS).then_some(()))
    })
    .with_context(|| format!("{:?}", federation.api.workloads().map(|all| phases(&all))))?;
    eprintln!("    all have succeeded after {:.1} s", began.elapsed().as_secs_f64());

    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (name, workload) in federation.api.workloads()? {
        let clusters = clusters_of(&workload);
        let [cluster] = &clusters[..] else { anyhow::bail!("{name} was tried {} times: {workload:#}", clusters.len()) };
        *places.entry(cluster.clone()).or_default() += 1;
    }
    ensure!(places.len() == 3, "not all clusters were used: {places:?}");
    eprintln!("    {places:?}");
    let mut jobs = vec![];
    for plane in &planes {
        nothing_left(&runtime, plane)?;
        jobs.extend(made(plane, "create", "jobs")?.into_iter().map(|entry| entry.name));
    }
    let distinct: BTreeSet<&String> = jobs.iter().collect();
    ensure!((jobs.len(), distinct.len()) == (WORKLOADS, WORKLOADS), "{} jobs were made", jobs.len());
    counts_are_right(&federation, &runtime, &planes)?;
    federation.stop()?;
    planes.into_iter().for_each(ControlPlane::stop);
    Ok(Done::Holds)
}

/// Some need a GPU, some a part of a node, some a whole one.
fn workload(n: usize) -> Value {
    gang(&format!("w{n}"), [(1, 1), (1, 2), (1, 4), (1, 1), (1, 8)][n % 5])
}

/// Pods that are nobody's here: each takes one to four GPUs of a node of its own, and runs on.
async fn others_run(client: &Client) -> anyhow::Result<()> {
    let pods: &Api<Pod> = &Api::namespaced(client.clone(), "default");
    stream::iter(0..TAKEN)
        .map(|number| async move {
            let gpus = (1 + number % 4).to_string();
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": format!("other-{number}")},
                "spec": {
                    "nodeName": format!("gpu-{}", number * 6),
                    "automountServiceAccountToken": false,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{
                        "name": "c", "image": "none",
                        "resources": {"requests": {"cpu": "3"}, "limits": {"nvidia.com/gpu": gpus}},
                    }],
                },
            }))?;
            pods.create(&PostParams::default(), &pod).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(16)
        .try_collect()
        .await
}

/// Free GPUs and cores of each node: as the coordinator says and as the API servers' objects add up.
fn counts_are_right(federation: &Federation<'_>, runtime: &Runtime, planes: &[ControlPlane]) -> anyhow::Result<()> {
    for (name, plane) in CLUSTERS.iter().zip(planes) {
        let (mut said, mut counted) = (BTreeMap::new(), BTreeMap::new());
        let equal = wait_for(&format!("the table of {name} as it is"), PATIENCE, || {
            counted = runtime.block_on(count(&plane.client()))?;
            said = table(&federation.api.get(&format!("/apis/tidewater.dev/v1/clusters/{name}/nodes"))?);
            Ok((said == counted).then_some(()))
        });
        equal.with_context(|| {
            let different = counted.iter().find(|(node, free)| said.get(*node) != Some(free));
            format!("{} of {} nodes; counted {different:?}", said.len(), counted.len())
        })?;
        let free: u64 = counted.values().map(|(gpus, _)| gpus).sum();
        ensure!(free < u64::from(counted.len() as u32 * GPUS), "others have GPUs of {name}");
    }
    Ok(())
}

/// By node: free GPUs and cores, in thousandths.
type Free = BTreeMap<String, (u64, u64)>;

fn table(answer: &Value) -> Free {
    let nodes = answer["items"].as_array().cloned().unwrap_or_default();
    let free = |node: &Value, what: &str| node["free"][what].as_u64().unwrap_or(u64::MAX);
    nodes
        .iter()
        .filter_map(|n| Some((n["name"].as_str()?.to_owned(), (free(n, "gpuMilli") / 1000, free(n, "cpuMilli")))))
        .collect()
}

async fn count(client: &Client) -> anyhow::Result<Free> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let amount = |text: &str| match text.strip_suffix('m') {
        Some(milli) => milli.parse().unwrap_or(0),
        None => 1000 * text.parse::<u64>().unwrap_or(0),
    };
    let mut free: Free = nodes
        .items
        .into_iter()
        .filter_map(|node| {
            let has = node.status?.allocatable?;
            let of = |what: &str| has.get(what).map_or(0, |quantity| amount(&quantity.0));
            Some((node.metadata.name?, (of("nvidia.com/gpu") / 1000, of("cpu"))))
        })
        .collect();
    for pod in Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?.items {
        let ended = pod.status.and_then(|status| status.phase).is_some_and(|p| matches!(&*p, "Succeeded" | "Failed"));
        let Some(spec) = pod.spec.filter(|_| !ended) else { continue };
        let Some(node) = spec.node_name.and_then(|name| free.get_mut(&name)) else { continue };
        for container in spec.containers {
            let requests = container.resources.and_then(|r| r.requests).unwrap_or_default();
            let of = |what: &str| requests.get(what).map_or(0, |quantity| amount(&quantity.0));
            *node = (node.0 - of("nvidia.com/gpu") / 1000, node.1 - of("cpu"));
        }
    }
    Ok(free)
}
