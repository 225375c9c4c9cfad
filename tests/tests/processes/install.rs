//! `deploy/` as it is on the test bed's real node: the image that is made here, three coordinators, an agent and the node role in pods, a
//! batch job through them; and again after the leader's pod was deleted and is back under another address.
//!
//! The node has no GPUs of its own: the runtime class `nvidia` is played by the ordinary one, what it would put into a pod by this test, and NVIDIA's
//! own device plugin gives GPUs out that only the stand-in for the driver's library has. Whose each of them is the coordinators know exactly.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testbed::images::program::{ProgramImage, USER, pack};
use testbed::node::{NODE_NAME, check};
use testbed::{ControlPlane, Image, Images, NodeSettings, Settings, Tool};

use super::api::Api;
use super::deploy::{Kubectl, NAMESPACE, folder};
use super::federation::{free_port, identity};
use super::gpus::{Gpus, foreign_pod, until_states};
use super::planes::{programs, runtime};
use super::program::{Program, pod_guard, tidewater};
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

const CLUSTER: &str = "here";
/// The namespace of the node role.
const NODES: &str = "tidewater-nodes";
const GPUS: usize = 4;
/// What the manifests call it.
const IMAGE: &str = concat!("localhost/tidewater:", env!("CARGO_PKG_VERSION"));

/// The manifests make a federation whose jobs run, also after a replica has moved.
pub fn as_it_is(world: &World) -> anyhow::Result<Done> {
    check()?;
    let images = Images::provide(&[Image::Batch], &|line| eprintln!("    {line}"))?;
    let settings = Settings::with_real_node(world.path("plane"), NodeSettings::new(images));
    let binaries = programs(&[settings.tools(), vec![Tool::Kubectl, Tool::DevicePlugin]].concat())?;
    let image = image(world)?;
    let runtime = runtime()?;
    let plane = runtime.block_on(ControlPlane::start(&binaries, settings))?;
    plane.load_image(&image)?;
    let kubectl = Kubectl::of(world, &binaries, &plane)?;
    let gpus = Gpus::make(world, GPUS)?;
    let installed = install(world, &kubectl, &gpus).and_then(|()| {
        is_roots(&plane)?;
        let plugin = gpus.offer(world, &binaries, &plane, &kubectl, NODE_NAME)?;
        used(world, &kubectl, &gpus).with_context(|| plugin.err())
    });
    if installed.is_err() {
        // It ends with the test.
        tell(&kubectl);
    }
    installed?;
    plane.end()?;
    Ok(Done::Holds)
}

/// The image of this build, as the manifests call it; where its archive is.
pub fn image(world: &World) -> anyhow::Result<PathBuf> {
    let (program, guard, licence) = (tidewater(), pod_guard()?, folder().join("../LICENSE"));
    let image = ProgramImage { reference: IMAGE, program: &program, beside: &[&guard], licence: &licence };
    let packed = pack(&image, &world.path("image"))?;
    eprintln!("    the image: {} MiB, {}", packed.bytes >> 20, packed.digest);
    Ok(packed.archive)
}

/// As `deploy/README.md` has it, with disks that an administrator would have.
fn install(world: &World, kubectl: &Kubectl<'_>, gpus: &Gpus) -> anyhow::Result<()> {
    kubectl.install("namespace")?;
    give_disks(world, kubectl)?;
    let create = |what: &[&str], from: &[String]| {
        let from: Vec<&str> = from.iter().map(String::as_str).collect();
        kubectl.run(&[&["create", "--namespace", NAMESPACE], what, &from].concat()).map(drop)
    };
    for id in ["1", "2", "3"] {
        let made = identity(world, "ca", ["--replica", id])?;
        create(&["secret", "generic", &format!("coordinator-{id}")], &[format!("--from-file={made}")])?;
    }
    let made = identity(world, "ca", ["--cluster", CLUSTER])?;
    create(&["secret", "generic", "agent-identity"], &[format!("--from-file={made}")])?;
    let fleet = world.write("fleet.toml", &format!("[[cluster]]\nname = \"{CLUSTER}\"\nregion = \"eu\"\n"))?;
    let at = |id| format!("--from-literal=coordinator-{id}=coordinator-{id}.coordinators:7600");
    let cluster = format!("--from-literal=cluster={CLUSTER}");
    create(&["configmap", "agent"], &[cluster, format!("--from-file=fleet.toml={fleet}"), at(1), at(2), at(3)])?;
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "runc",
    });
    kubectl.give(&["create", "-f", "-"], &[class])?;
    let product = "nvidia.com/gpu.product=NVIDIA-H100-80GB-HBM3";
    kubectl.run(&["label", "node", NODE_NAME, "nvidia.com/gpu.present=true", product])?;
    // The last waits for a load balancer, which is not here; that it is taken is seen.
    for part in ["coordinator", "agent", "node", "outside"] {
        kubectl.install(part)?;
    }
    kubectl.run(&[
        "patch",
        "daemonset",
        "node",
        "--namespace",
        NODES,
        "--patch",
        &gpus.in_pods_of("node").to_string(),
    ])?;
    let ca = format!("--from-file={}", world.path("ca/ca.pem").display());
    let cluster = format!("--from-literal=cluster={CLUSTER}");
    kubectl.run(&["create", "--namespace", NODES, "configmap", "node", &cluster, &ca])?;
    let all = [("statefulset/coordinator", NAMESPACE), ("deployment/agent", NAMESPACE), ("daemonset/node", NODES)];
    for (what, namespace) in all {
        kubectl.run(&["rollout", "status", what, "--namespace", namespace, "--timeout=150s"])?;
    }
    Ok(())
}

/// Why the node role's pods are root, and of no use without the host path: the kubelet's socket opens to nobody else.
fn is_roots(plane: &ControlPlane) -> anyhow::Result<()> {
    let folder = plane.folder().join("node/kubelet/pod-resources");
    for (place, closed) in [(folder.clone(), 0o007), (folder.join("kubelet.sock"), 0o022)] {
        let meta = place.metadata().with_context(|| place.display().to_string())?;
        let (mode, user, group) = (meta.mode() & 0o777, meta.uid(), meta.gid());
        eprintln!("    {} has mode {mode:o} and is of {user}:{group}", place.display());
        ensure!((user, group, mode & closed) == (0, 0, 0), "it is not as deploy/node has it");
    }
    Ok(())
}

/// A disk for each coordinator, as an administrator would have them.
pub fn give_disks(world: &World, kubectl: &Kubectl<'_>) -> anyhow::Result<()> {
    let claims = ["data-coordinator-1", "data-coordinator-2", "data-coordinator-3"];
    let disks = claims.iter().map(|claim| disk(world, claim)).collect::<anyhow::Result<Vec<_>>>()?;
    kubectl.give(&["create", "-f", "-"], &disks).map(drop)
}

/// A disk that is kept for this claim.
fn disk(world: &World, claim: &str) -> anyhow::Result<Value> {
    let place = world.path(&format!("disk-{claim}"));
    std::fs::create_dir(&place)?;
    chown(&place, Some(USER), Some(USER))?;
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": claim},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": place},
            "claimRef": {"namespace": NAMESPACE, "name": claim},
        },
    }))
}

/// A way to the API, as people have it.
pub fn forward(world: &World, kubectl: &Kubectl<'_>) -> anyhow::Result<(Program, Api)> {
    let port = free_port()?;
    let ports = format!("{port}:7700");
    let command = kubectl.command(&["port-forward", "--namespace", NAMESPACE, "service/tidewater", &ports]);
    let mut forwarding = Program::start("port-forward", command, &world.path("tmp"))?;
    forwarding.line("Forwarding from 127.0.0.1")?;
    Ok((forwarding, Api::new(vec![format!("http://127.0.0.1:{port}")])?))
}

fn used(world: &World, kubectl: &Kubectl<'_>, gpus: &Gpus) -> anyhow::Result<()> {
    let (forwarding, api) = forward(world, kubectl)?;
    wait_for("the cluster as Ready", PATIENCE, || Ok((api.cluster_phase(CLUSTER)? == "Ready").then_some(())))?;
    wait_for("the node role's stream", PATIENCE, || {
        let said = kubectl.run(&["logs", "--namespace", NODES, "daemonset/node"])?;
        Ok(said.contains("streams to the agent at").then_some(()))
    })?;
    whose_gpus(kubectl, &api, gpus)?;
    submit(&api, "before")?;
    api.until("before", &["Succeeded"], PATIENCE)?;
    let leader = format!("coordinator-{}", api.leader()?);
    drop(forwarding);

    let before = address(kubectl, &leader)?;
    kubectl.run(&["delete", "pod", &leader, "--namespace", NAMESPACE])?;
    let after = address(kubectl, &leader)?;
    ensure!(before != after, "{leader} is back at {before}: that it is found where it is now can't be seen");
    // Another goes and can't come back yet: the one that moved and the third are a majority only if they find each other.
    let other = if leader == "coordinator-1" { "coordinator-2" } else { "coordinator-1" };
    kubectl.run(&["cordon", NODE_NAME])?;
    kubectl.run(&["delete", "pod", other, "--namespace", NAMESPACE])?;
    let (forwarding, api) = forward(world, kubectl)?;
    submit(&api, "after")?;
    kubectl.run(&["uncordon", NODE_NAME])?;
    api.until("after", &["Succeeded"], PATIENCE)?;
    ensure!(api.workloads()?.len() == 3, "a workload was lost");
    eprintln!("    {leader} moved from {before} to {after}");
    drop(forwarding);
    Ok(())
}

/// Whose each GPU is the coordinators know as the kubelet does: one of a pod that Tidewater knows nothing of, one of a workload, and one that
/// somebody uses past both.
fn whose_gpus(kubectl: &Kubectl<'_>, api: &Api, gpus: &Gpus) -> anyhow::Result<()> {
    let node = || {
        let list = api.get(&format!("/apis/tidewater.dev/v1/clusters/{CLUSTER}/nodes"))?;
        let nodes = list["items"].as_array().cloned().unwrap_or_default();
        Ok(nodes.into_iter().find(|node| node["name"] == NODE_NAME).unwrap_or_default())
    };
    until_states("four free GPUs", &["free"; GPUS], node)?;
    kubectl.give(&["create", "-f", "-"], &[foreign_pod("theirs", &Image::Batch.reference())])?;
    let theirs = wait_for("the other's GPU", PATIENCE, || {
        // Before it runs it has no log.
        let log = kubectl.run(&["logs", "theirs", "--namespace", "default"]).unwrap_or_default();
        Ok(log.contains("has ").then_some(log))
    })?;
    let theirs = gpus.named_in(&theirs)?;
    let group = json!({"name": "w", "count": 1, "cpu": "100m", "memory": "32Mi", "gpus": 1, "gpu": ["H100"]});
    let command = "echo \"has $NVIDIA_VISIBLE_DEVICES\"; sleep 600";
    api.submit(&job("gpu", json!(["sh", "-c", command]), group))?;
    api.until("gpu", &["Running"], PATIENCE)?;
    let pods = ["pods", "--namespace", "default", "-l", "tidewater.dev/attempt"];
    let pods = kubectl.get(&pods)?;
    let ours = pods["items"][0]["metadata"]["name"].as_str().context("the workload has no pod")?.to_owned();
    let ours = wait_for("the workload's GPU", PATIENCE, || {
        let log = kubectl.run(&["logs", &ours, "--namespace", "default"]).unwrap_or_default();
        Ok(log.contains("has ").then_some(log))
    })?;
    let ours = gpus.named_in(&ours)?;
    let somebodys = (0..GPUS).find(|at| ![theirs, ours].contains(at)).context("a GPU that nobody has")?;
    gpus.used(&[somebodys])?;
    let state = |at: usize| match at {
        at if at == theirs => "foreign",
        at if at == ours => "held",
        at if at == somebodys => "ghost",
        _ => "free",
    };
    until_states("each GPU as its own", &[0, 1, 2, 3].map(state), node)?;
    kubectl.run(&["delete", "pod", "theirs", "--namespace", "default"])?;
    let state = |at: usize| if at == theirs { "free" } else { state(at) };
    until_states("the other's GPU as free", &[0, 1, 2, 3].map(state), node)?;
    eprintln!("    GPU {theirs} was another's, {ours} the workload's, {somebodys} in use past both");
    api.cancel("gpu")?;
    api.until("gpu", &["Cancelled"], PATIENCE)?;
    gpus.used(&[])?;
    until_states("four free GPUs again", &["free"; GPUS], node)
}

/// Where a pod is, once it is ready.
fn address(kubectl: &Kubectl<'_>, pod: &str) -> anyhow::Result<String> {
    wait_for(&format!("{pod} as ready"), PATIENCE, || {
        // While it is away there is none.
        let Ok(pod) = kubectl.get(&["pod", pod, "--namespace", NAMESPACE]) else { return Ok(None) };
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        let going = !pod["metadata"]["deletionTimestamp"].is_null();
        Ok(pod["status"]["podIP"].as_str().filter(|_| ready && !going).map(str::to_owned))
    })
}

/// Hands in a batch job of two members; it is acknowledged by a majority.
fn submit(api: &Api, name: &str) -> anyhow::Result<()> {
    api.submit(&hello(name))
}

/// A batch job of two members.
pub fn hello(name: &str) -> Value {
    let group = json!({"name": "w", "count": 2, "cpu": "100m", "memory": "32Mi"});
    job(name, json!(["echo", "hello"]), group)
}

fn job(name: &str, command: Value, group: Value) -> Value {
    json!({
        "apiVersion": "tidewater.dev/v1",
        "kind": "Workload",
        "metadata": {"name": name, "namespace": "default", "uid": uuid::Uuid::new_v4().to_string()},
        "spec": {"batch": {"image": Image::Batch.reference(), "command": command, "groups": [group]}},
    })
}

/// What a person would look at.
pub fn tell(kubectl: &Kubectl<'_>) {
    let looks: [&[&str]; 7] = [
        &["get", "pods,services,pvc,pv", "--all-namespaces", "-o", "wide"],
        &["describe", "pods", "--namespace", NAMESPACE],
        &["logs", "--namespace", NAMESPACE, "-l", "app.kubernetes.io/component=coordinator", "--prefix", "--tail=20"],
        &["logs", "--namespace", NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--tail=40"],
        &["describe", "pods", "--namespace", NODES],
        &["logs", "--namespace", NODES, "daemonset/node"],
        &["get", "events", "--namespace", NAMESPACE],
    ];
    for look in looks {
        let said = kubectl.run(look).with_context(|| look.join(" "));
        eprintln!("{}", said.unwrap_or_else(|error| format!("{error:#}")));
    }
}
