//! A hundred nodes of eight GPUs, and what happens to them and to the API server.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use protocol::control::{GroupPlacement, LaunchOrder, NodeShare};
use protocol::ids::{AttemptId, AttemptNumber, GroupName, Namespace, NodeName, Uid, WorkloadKey, WorkloadName};
use protocol::resources::Resources;
use protocol::workload::WorkloadSpec;
use serde_json::{Value, json};
use testbed::{Binaries, Component, ControlPlane, FakeNodes, Settings, fake};

use super::recount::Own;
use super::rig::Rig;

const NODES: u32 = 100;
const PODS: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(150);

pub async fn follows_the_api_server(binaries: &Binaries) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut plane = ControlPlane::start(binaries, Settings::with_fake_nodes(dir.path())).await?;
    eprintln!("    ready in {:.1} s", plane.ready_in().as_secs_f64());
    let client = plane.client();
    let mut rig = Rig::start(&plane.kubeconfig()).await?;
    FakeNodes::h100("gpu", NODES).make(&client).await?;
    if let Err(ready) = fake::until_ready(&client, NODES as usize, PATIENCE).await? {
        bail!("only {ready} of {NODES} nodes are ready");
    }
    rig.equals("nodes are made", &client, &[]).await?;
    ensure!(rig.columns().device_state.len() == 8 * NODES as usize);

    for number in 0..PODS {
        make(&client, &format!("p{number}"), &pod(number)).await?;
    }
    until_bound(&client, PODS as usize).await?;
    rig.equals("pods are made", &client, &[]).await?;
    own_attempt(&mut rig, &client).await?;
    pods_go(&rig, &client).await?;
    nodes_go(&rig, &client).await?;
    server_goes(&rig, &mut plane).await?;
    plane.stop();
    Ok(())
}

/// Pods that ask in every way for what they take.
fn pod(number: u32) -> Value {
    let container = |name: &str, cpu: &str, memory: &str, gpus: u32| {
        json!({"name": name, "image": "none", "resources": {
            "requests": {"cpu": cpu, "memory": memory},
            "limits": {"nvidia.com/gpu": gpus},
        }})
    };
    let mut sidecar = container("s", "1", "1Gi", 0);
    sidecar["restartPolicy"] = "Always".into();
    let runs_for = if number % 10 == 9 { json!({"testbed.tidewater.dev/runs-for": "5s"}) } else { json!({}) };
    let init = match number % 3 {
        0 => json!([]),
        1 => json!([sidecar]),
        _ => json!([sidecar, container("i", "20", "100000001", 0)]),
    };
    json!({
        "metadata": {"annotations": runs_for},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "initContainers": init,
            "containers": [container("a", "1500m", "16Gi", number % 5), container("b", "1", "1000", 0)],
        },
    })
}

async fn make(client: &Client, name: &str, pod: &Value) -> anyhow::Result<()> {
    let mut pod: Pod = serde_json::from_value(pod.clone())?;
    pod.metadata.name = Some(name.to_owned());
    // The account that pods need is made a moment after the namespace.
    Api::<Pod>::namespaced(client.clone(), "default").create(&PostParams::default(), &pod).await?;
    Ok(())
}

async fn until_bound(client: &Client, wanted: usize) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    let began = Instant::now();
    loop {
        let all = pods.list(&ListParams::default()).await?.items;
        let bound = all.iter().filter(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some())).count();
        if bound >= wanted {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "only {bound} of {wanted} pods are bound");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Pods of an attempt are counted by what the journal holds for it, and as somebody else's once it holds nothing.
async fn own_attempt(rig: &mut Rig, client: &Client) -> anyhow::Result<()> {
    let node = rows_with_room(rig, 4).context("a node with four free GPUs")?;
    let attempt = AttemptId { workload: Uid(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057), number: AttemptNumber(1) };
    let each = Resources { cpu_milli: 2_000, memory_mib: 4_096, gpu_milli: 2_000 };
    let order = LaunchOrder {
        attempt,
        key: WorkloadKey { namespace: Namespace::new("default")?, name: WorkloadName::new("w")? },
        spec: WorkloadSpec::default(),
        placement: vec![GroupPlacement {
            group: GroupName::new("workers")?,
            each,
            sku: None,
            nodes: vec![NodeShare { node: NodeName::new(&node)?, members: 2 }],
        }],
    };
    rig.launch(order)?;
    let own = [Own { label: attempt.to_string(), node: node.clone(), takes: [4_000, 8_192, 4] }];
    rig.equals("an attempt is launched", client, &own).await?;
    for member in 0..2 {
        let pod = json!({
            "metadata": {"labels": {"tidewater.dev/attempt": attempt.to_string()}},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "nodeName": node,
                "containers": [{"name": "m", "image": "none", "resources": {
                    "requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"nvidia.com/gpu": 2},
                }}],
            },
        });
        make(client, &format!("own-{member}"), &pod).await?;
    }
    // A change behind which the pods are seen too.
    make(client, "after", &pod(1)).await?;
    until_bound(client, PODS as usize + 3).await?;
    rig.equals("its pods are there", client, &own).await?;
    rig.ended(attempt)?;
    rig.equals("it ended, and its pods are not gone", client, &[]).await?;
    Ok(())
}

fn rows_with_room(rig: &Rig, gpus: usize) -> Option<String> {
    let rows = super::recount::rows(&rig.columns());
    rows.into_iter().find(|(_, row)| row.free >= gpus).map(|(name, _)| name)
}

async fn pods_go(rig: &Rig, client: &Client) -> anyhow::Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), "default");
    for name in ["own-0", "own-1", "after", "p1", "p2", "p3", "p4"] {
        pods.delete(name, &DeleteParams::default()).await?;
    }
    let began = Instant::now();
    loop {
        let all = pods.list(&ListParams::default()).await?.items;
        let ended = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Succeeded");
        if all.iter().filter(|pod| ended(pod)).count() == PODS as usize / 10 && all.len() == PODS as usize - 4 {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "pods do not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    rig.equals("pods ended and were deleted", client, &[]).await
}

async fn nodes_go(rig: &Rig, client: &Client) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let cordon = |yes: bool| Patch::Merge(json!({"spec": {"unschedulable": yes}}));
    nodes.patch("gpu-1", &PatchParams::default(), &cordon(true)).await?;
    let taint = json!({"spec": {"taints": [{"key": "team", "value": "a", "effect": "NoSchedule"}]}});
    nodes.patch("gpu-2", &PatchParams::default(), &Patch::Merge(taint)).await?;
    let fewer = json!({"status": {"allocatable": {"nvidia.com/gpu": "7", "memory": "2097151999Ki"}}});
    nodes.patch_status("gpu-3", &PatchParams::default(), &Patch::Merge(fewer)).await?;
    rig.equals("a node is cordoned, one tainted, one has a GPU less", client, &[]).await?;
    nodes.patch("gpu-1", &PatchParams::default(), &cordon(false)).await?;
    nodes.delete("gpu-4", &DeleteParams::default()).await?;
    rig.equals("a node is back, one deleted", client, &[]).await?;
    ensure!(rig.columns().name.len() == NODES as usize - 1);
    Ok(())
}

async fn server_goes(rig: &Rig, plane: &mut ControlPlane) -> anyhow::Result<()> {
    let client = plane.client();
    plane.kill(Component::ApiServer);
    let stale = rig.until_stale().await?;
    eprintln!("    the API server is killed: every node is stale after {:.1} s", stale.as_secs_f64());
    ensure!((10..45).contains(&stale.as_secs()), "that is not after 30 s without a word");
    plane.start_again(Component::ApiServer).await?;
    rig.equals("it is back", &client, &[]).await?;
    make(&client, "later", &pod(4)).await?;
    until_bound(&client, 1).await?;
    rig.equals("and goes on", &client, &[]).await?;

    // Nothing breaks a connection here: only that nothing is heard tells.
    plane.stall(Component::ApiServer);
    let stale = rig.until_stale().await?;
    eprintln!("    the API server is stalled: every node is stale after {:.1} s", stale.as_secs_f64());
    plane.resume(Component::ApiServer);
    rig.equals("it goes on", &client, &[]).await
}
