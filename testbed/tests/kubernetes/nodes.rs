//! The real node: containers that run, and nothing of it that stays.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::node::Link;
use testbed::process::Record;
use testbed::{Binaries, Component, ControlPlane, Image, Images, NodeSettings, Settings, connect};

use super::world::{World, no_process_in, run_alone, until};

pub async fn pods(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = world.start(world.with_real_node(dir.path())?).await?;
    let (traces, namespace) = (Traces::of(&plane)?, network_namespace(&plane)?);
    ensure!(traces.seen()?.len() > 2, "what is looked for is there while it runs: {:?}", traces.seen()?);
    let client = plane.client();
    runs_and_is_heard(&client).await?;
    reaches_services_by_name(&client).await?;
    says_how_it_failed(&client).await?;
    runs_each_index_once(&client).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    pods.create(&PostParams::default(), &pod("stays", "sleep 1000")?).await?;
    phase(&pods, "stays", "Running").await?;
    let began = Instant::now();
    plane.end()?;
    eprintln!("    ended in {:.1} s, with a pod that ran", began.elapsed().as_secs_f64());
    no_process_in(dir.path())?;
    nobody_in(&namespace)?;
    until("nothing is left", async || Ok(traces.seen()?.is_empty().then_some(())))
        .await
        .with_context(|| format!("{:?}", traces.seen()))
}

pub async fn power_cut(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut plane = world.start(world.with_real_node(dir.path())?).await?;
    let pods: Api<Pod> = Api::namespaced(plane.client(), "default");
    let script = "echo began; sleep 1000";
    let mut stays = pod("stays", script)?;
    stays.spec.as_mut().context("a spec")?.restart_policy = Some("Always".to_owned());
    pods.create(&PostParams::default(), &stays).await?;
    phase(&pods, "stays", "Running").await?;

    // The kubelet alone: its containers run on.
    plane.kill(Component::Kubelet);
    plane.start_again(Component::Kubelet).await?;
    ensure!(restarts(&pods, "stays").await? == 0, "the pod was started again with its kubelet");

    plane.kill(Component::Node);
    let began = Instant::now();
    plane.start_node_again().await?;
    until("the container is started again", async || Ok((restarts(&pods, "stays").await? > 0).then_some(()))).await?;
    phase(&pods, "stays", "Running").await?;
    eprintln!("    the node is back with its pod after {:.1} s", began.elapsed().as_secs_f64());
    plane.end()?;
    no_process_in(dir.path())
}

async fn runs_and_is_heard(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let began = Instant::now();
    pods.create(&PostParams::default(), &pod("speaks", "echo hello from $HOSTNAME")?).await?;
    phase(&pods, "speaks", "Succeeded").await?;
    eprintln!("    a pod succeeded {:.1} s after it was made", began.elapsed().as_secs_f64());
    let said = pods.logs("speaks", &LogParams::default()).await?;
    ensure!(said == "hello from speaks\n", "{said:?}");
    Ok(())
}

async fn reaches_services_by_name(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    // The short name by the search list, and the API server behind the service's address.
    let script =
        "nslookup kubernetes.default.svc.cluster.local && echo | nc -w 10 kubernetes.default 443 && echo reached";
    pods.create(&PostParams::default(), &pod("asks", script)?).await?;
    let ended = phase(&pods, "asks", "Succeeded").await;
    let said = pods.logs("asks", &LogParams::default()).await?;
    ended.with_context(|| said.clone())?;
    ensure!(said.contains("10.96.0.1") && said.ends_with("reached\n"), "{said}");
    Ok(())
}

async fn says_how_it_failed(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    pods.create(&PostParams::default(), &pod("fails", "exit 7")?).await?;
    let failed = phase(&pods, "fails", "Failed").await?;
    let statuses = failed.status.and_then(|status| status.container_statuses).unwrap_or_default();
    let code = statuses.first().and_then(|s| s.state.as_ref()?.terminated.as_ref()).map(|end| end.exit_code);
    ensure!(code == Some(7), "{code:?}");
    pods.create(&PostParams::default(), &absent()?).await?;
    until("the missing image is told", async || {
        let statuses = pods.get("absent").await?.status.and_then(|s| s.container_statuses).unwrap_or_default();
        let reason = statuses.first().and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
        Ok(reason.is_some_and(|reason| reason.starts_with("ErrImage")).then_some(()))
    })
    .await?;
    pods.delete("absent", &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

fn absent() -> anyhow::Result<Pod> {
    let container = json!({"name": "main", "image": "localhost/no-such:1", "imagePullPolicy": "Never"});
    Ok(serde_json::from_value(json!({"metadata": {"name": "absent"}, "spec": {"containers": [container]}}))?)
}

async fn runs_each_index_once(client: &Client) -> anyhow::Result<()> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), "default");
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": "counts"},
        "spec": {
            "parallelism": 3, "completions": 3, "completionMode": "Indexed", "backoffLimit": 0,
            "template": {"spec": spec("echo index $JOB_COMPLETION_INDEX")},
        },
    }))?;
    let began = Instant::now();
    jobs.create(&PostParams::default(), &job).await?;
    until("the job is complete", async || {
        let status = jobs.get("counts").await?.status.unwrap_or_default();
        ensure!(status.failed.unwrap_or(0) == 0, "a pod of it failed");
        Ok((status.completed_indexes.as_deref() == Some("0-2") && status.completion_time.is_some()).then_some(()))
    })
    .await?;
    eprintln!("    a Job of three indexes was complete after {:.1} s", began.elapsed().as_secs_f64());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let mut said = vec![];
    for pod in pods.list(&ListParams::default().labels("job-name=counts")).await? {
        said.push(pods.logs(&pod.metadata.name.unwrap_or_default(), &LogParams::default()).await?);
    }
    said.sort();
    ensure!(said == ["index 0\n", "index 1\n", "index 2\n"], "{said:?}");
    Ok(())
}

/// A pod of the batch image that runs this script once.
fn pod(name: &str, script: &str) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec(script)}))?)
}

fn spec(script: &str) -> Value {
    let container = json!({
        "name": "main", "image": Image::Batch.reference(), "imagePullPolicy": "Never", "command": ["sh", "-c", script],
    });
    json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]})
}

async fn phase(pods: &Api<Pod>, name: &str, wanted: &str) -> anyhow::Result<Pod> {
    until(&format!("the pod {name} is {wanted}"), async || {
        let pod = pods.get(name).await?;
        let status = pod.status.clone().unwrap_or_default();
        match status.phase.as_deref() {
            Some(phase) if phase == wanted => Ok(Some(pod)),
            Some(phase @ ("Succeeded" | "Failed")) => bail!("{name} is {phase}: {status:?}"),
            _ => Ok(None),
        }
    })
    .await
}

async fn restarts(pods: &Api<Pod>, name: &str) -> anyhow::Result<i32> {
    let statuses = pods.get(name).await?.status.and_then(|status| status.container_statuses).unwrap_or_default();
    Ok(statuses.first().map_or(0, |status| status.restart_count))
}

/// What the node of this control plane could leave on the machine.
struct Traces {
    link: Link,
    branch: String,
    folder: PathBuf,
}

impl Traces {
    fn of(plane: &ControlPlane) -> anyhow::Result<Self> {
        let branch = fs::read_to_string(plane.folder().join("node/cgroup"))?;
        Ok(Self { link: plane.link().context("it has a node")?, branch, folder: plane.folder().to_owned() })
    }

    /// What of it is there.
    fn seen(&self) -> anyhow::Result<Vec<String>> {
        let mut seen = vec![];
        let interface = self.link.interface();
        if Path::new("/sys/class/net").join(&interface).exists() {
            seen.push(format!("link {interface}"));
        }
        if fs::read_to_string("/proc/net/route")?.contains(&interface) {
            seen.push(format!("routes to {interface}"));
        }
        let entries = |place: &Path| fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        let root = Path::new("/sys/fs/cgroup");
        let groups = entries(root).flat_map(|group| entries(&group)).chain(entries(root));
        seen.extend(groups.filter(|path| path.ends_with(&self.branch)).map(|path| path.display().to_string()));
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let ours = self.folder.display().to_string();
        seen.extend(mounts.lines().filter(|line| line.contains(&ours)).map(str::to_owned));
        let chains = Command::new("iptables-save").output()?.stdout;
        let pods = self.link.pods();
        let rules = String::from_utf8_lossy(&chains).into_owned();
        seen.extend(rules.lines().filter(|line| line.contains(&pods)).map(str::to_owned));
        Ok(seen)
    }
}

fn network_namespace(plane: &ControlPlane) -> anyhow::Result<PathBuf> {
    let holder = plane.process(Component::NodeNetwork).and_then(|process| process.pid()).context("it runs")?;
    Ok(fs::read_link(format!("/proc/{holder}/ns/net"))?)
}

/// Fails if a process is in this network namespace: all of the node's own programs are.
fn nobody_in(namespace: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let held = fs::read_link(entry.path().join("ns/net"));
        ensure!(held.ok().as_deref() != Some(namespace), "process {} is left", entry.file_name().to_string_lossy());
    }
    Ok(())
}

/// The variable that makes this program a starter of a cluster with a real node that is to be killed.
const HOLD: &str = "TIDEWATER_TESTBED_HOLD_NODE";

/// The starter: starts it, says where it is, and waits to be killed.
pub fn hold() -> Option<ExitCode> {
    let folder = PathBuf::from(std::env::var_os(HOLD)?);
    let started = run_alone(async {
        let settings = Settings::with_real_node(folder, NodeSettings::new(Images::provide(&[], &|_| {})?));
        let plane = ControlPlane::start(&Binaries::provide(&settings.tools(), &|_| {})?, settings).await?;
        println!("{}", network_namespace(&plane)?.display());
        std::future::pending::<anyhow::Result<()>>().await
    });
    eprintln!("{started:?}");
    Some(ExitCode::FAILURE)
}

pub async fn starter(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut starter = Command::new(std::env::current_exe()?);
    let mut starter = starter.env(HOLD, dir.path()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(starter.stdout.take().context("its output")?).read_line(&mut line)?;
    ensure!(!line.is_empty(), "it did not start");
    let namespace = PathBuf::from(line.trim());
    let client = connect(&dir.path().join("kubeconfig")).await?;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    pods.create(&PostParams::default(), &pod("stays", "sleep 1000")?).await?;
    phase(&pods, "stays", "Running").await?;
    let init = Record::read(&dir.path().join("node-init.pid")).context("the record of the node")?;
    let branch = fs::read_to_string(dir.path().join("node/cgroup"))?;
    ensure!(init.lives() && Path::new("/sys/fs/cgroup").join("memory").join(&branch).exists());

    starter.kill()?;
    starter.wait()?;
    until("the node is gone", async || Ok((!init.lives() && nobody_in(&namespace).is_ok()).then_some(()))).await?;
    no_process_in(dir.path())?;
    // What no kernel removes by itself goes with the next start in that folder, and the pod is back.
    let plane = world.start(world.with_real_node(dir.path())?).await?;
    ensure!(!Path::new("/sys/fs/cgroup").join("memory").join(&branch).exists(), "the old branch of cgroups is there");
    plane.end().map_err(anyhow::Error::from).and_then(|()| no_process_in(dir.path()))
}
