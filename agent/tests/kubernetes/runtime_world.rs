//! What a test of the Kubernetes runtime has: a control plane with fake nodes, a runtime on it, and what it said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::runtime::kubernetes::{KubernetesRuntime, KubernetesSettings};
use agent::runtime::{Devices, Runtime, RuntimeEvent};
use anyhow::{Context, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::{AttemptId, AttemptNumber, ClusterName, CommandNumber, Uid};
use serde_json::{Value, json};
use testbed::{Binaries, ControlPlane, FakeNodes, Settings, fake, make_namespace};
use tokio::sync::mpsc;

/// How long anything may take on a busy machine that is not about time.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
/// The agent's own namespace.
const OWN: &str = "tidewater";

/// A control plane with so many nodes of 8 GPUs, and the agent's namespace.
pub async fn plane(binaries: &Arc<Binaries>, dir: &std::path::Path, nodes: u32) -> anyhow::Result<ControlPlane> {
    plane_with(binaries, Settings::with_fake_nodes(dir), nodes).await
}

/// The same with these settings.
pub async fn plane_with(binaries: &Arc<Binaries>, settings: Settings, nodes: u32) -> anyhow::Result<ControlPlane> {
    let plane = ControlPlane::start(binaries, settings).await?;
    eprintln!("    a control plane is ready in {:.1} s", plane.ready_in().as_secs_f64());
    let client = plane.client();
    FakeNodes::h100("gpu", nodes).make(&client).await?;
    if let Err(ready) = fake::until_ready(&client, nodes as usize, PATIENCE).await? {
        bail!("only {ready} of {nodes} nodes are ready");
    }
    make_namespace(&client, OWN).await?;
    Ok(plane)
}

/// Settings of the tests' one cluster, whose pods do as these annotations tell kwok.
pub fn settings(annotations: &[(&str, &str)]) -> KubernetesSettings {
    let annotations =
        annotations.iter().map(|(name, value)| (format!("testbed.tidewater.dev/{name}"), value.to_string()));
    KubernetesSettings {
        own_namespace: OWN.to_owned(),
        pod_annotations: annotations.collect(),
        start_patience: PATIENCE,
        request_timeout: Duration::from_secs(5),
        late_create: Duration::from_secs(2),
        look_every: Duration::from_secs(1),
        sweep_every: Duration::from_secs(2),
        ..KubernetesSettings::new(ClusterName::new("eu-1").expect("a constant name is valid"))
    }
}

/// The first attempt of workload number `uid`: a batch gang of `members` with `gpus` each.
pub fn order(uid: u128, namespace: &str, members: u32, gpus: u32) -> anyhow::Result<LaunchOrder> {
    let attempt = AttemptId { workload: Uid(uid), number: AttemptNumber(1) };
    let group = json!({"name": "workers", "count": members, "cpu": "1", "memory": "1Gi", "gpus": gpus});
    let each = json!({"cpuMilli": 1000, "memoryMib": 1024, "gpuMilli": gpus * 1000});
    let nodes = json!([{"node": "gpu-0", "members": members}]);
    let sku = if gpus > 0 { json!("H100") } else { Value::Null };
    Ok(serde_json::from_value(json!({
        "attempt": attempt,
        "key": {"namespace": namespace, "name": format!("w{uid}")},
        "spec": {"batch": {"image": "registry/none:1", "command": ["train"], "groups": [group]}},
        "placement": [{"group": "workers", "each": each, "sku": sku, "nodes": nodes}],
    }))?)
}

/// A runtime, and all that it said.
pub struct Running {
    pub runtime: KubernetesRuntime,
    events: mpsc::Receiver<RuntimeEvent>,
    pub said: BTreeMap<AttemptId, Vec<AttemptState>>,
}

impl Running {
    /// A new one, as after a restart of the agent.
    pub fn new(client: Client, settings: KubernetesSettings) -> Self {
        let (sender, events) = mpsc::channel(1024);
        Self { runtime: KubernetesRuntime::new(client, settings, sender), events, said: BTreeMap::new() }
    }

    pub async fn start(&self, order: &LaunchOrder) -> anyhow::Result<()> {
        // As the agent's books might have it; nothing in the cluster depends on it.
        let groups = order.placement.iter().map(|g| (g.group.clone(), vec![vec![0, 1], vec![2, 3]]));
        let devices = Devices { by_group: groups.collect() };
        Ok(self.runtime.start(CommandNumber(1), order, &devices).await?)
    }

    /// The first state of an attempt that is wanted, among those that it has not been asked for before.
    pub async fn until(
        &mut self,
        attempt: AttemptId,
        what: &str,
        wanted: impl Fn(&AttemptState) -> bool,
    ) -> anyhow::Result<AttemptState> {
        let all = async {
            while let Some(event) = self.events.recv().await {
                self.said.entry(event.attempt).or_default().push(event.state.clone());
                if event.attempt == attempt && wanted(&event.state) {
                    return Some(event.state);
                }
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, all).await;
        match found {
            Ok(Some(state)) => Ok(state),
            _ => bail!("{what}: not within {} s; it said {:?}", PATIENCE.as_secs(), self.said.get(&attempt)),
        }
    }

    /// The final state of an attempt.
    pub async fn end(&mut self, attempt: AttemptId) -> anyhow::Result<AttemptState> {
        self.until(attempt, "the attempt has ended", AttemptState::is_final).await
    }

    /// The same, where it may have been said already.
    pub async fn last(&mut self, attempt: AttemptId) -> anyhow::Result<AttemptState> {
        let before = self.said.get(&attempt).and_then(|all| all.iter().find(|s| s.is_final()).cloned());
        match before {
            Some(state) => Ok(state),
            None => self.end(attempt).await,
        }
    }

    /// Whether its end was said up to now.
    pub fn has_ended(&mut self, attempt: AttemptId) -> bool {
        while let Ok(event) = self.events.try_recv() {
            self.said.entry(event.attempt).or_default().push(event.state);
        }
        self.said.get(&attempt).is_some_and(|all| all.iter().any(AttemptState::is_final))
    }
}

/// Fails if an object of an attempt is left.
pub async fn nothing_left(client: &Client, attempt: AttemptId) -> anyhow::Result<()> {
    let labels = ListParams::default().labels(&format!("tidewater.dev/attempt={attempt}"));
    let pods = Api::<Pod>::all(client.clone()).list(&labels).await?.items.len();
    let jobs = Api::<Job>::all(client.clone()).list(&labels).await?.items.len();
    let services = Api::<Service>::all(client.clone()).list(&labels).await?.items.len();
    let secrets = Api::<Secret>::all(client.clone()).list(&labels).await?.items.len();
    let left = (pods, jobs, services, secrets);
    ensure!(left == (0, 0, 0, 0), "{pods} pods, {jobs} jobs, {services} services, {secrets} Secrets are left");
    Ok(())
}

/// How many records there are.
pub async fn records(client: &Client) -> anyhow::Result<usize> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), OWN);
    Ok(maps.list(&ListParams::default().labels("tidewater.dev/record")).await?.items.len())
}

/// The names of the objects of a kind that were made in a namespace, by the API server's audit log. What was only tried was not made.
pub fn made(plane: &ControlPlane, resource: &str, namespace: &str) -> anyhow::Result<Vec<String>> {
    let entries = plane.audited()?.into_iter().filter(|e| e.verb == "create" && e.code == 201 && !e.dry_run);
    Ok(entries.filter(|e| e.resource == resource && e.namespace == namespace).map(|e| e.name).collect())
}

/// Looks until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The one Job of a namespace.
pub async fn job(client: &Client, namespace: &str) -> anyhow::Result<Job> {
    let jobs = Api::<Job>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
    jobs.into_iter().next().context("no job")
}
