//! The agent's rights in its cluster: what `deploy/agent/access` grants on a real API server, held to all that an agent with that
//! service account's token asks for there while it runs workloads of each kind. None is missing and none is spare.
//!
//! kwok plays the nodes, and this test the operators of Ray and Spark. What an attempt that ends by itself in no time does not need
//! (`get`) is needed after a restart, so that the agent is killed while all of them are under way.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use testbed::control_plane::Audit;
use testbed::{ControlPlane, FakeNodes, Settings, Tool};

use super::api::{Api, phase, text};
use super::deploy::{AGENT, Kubectl, NAMESPACE};
use super::federation::{CLUSTERS, Federation, free_port};
use super::planes::{programs, runtime, with_h100_nodes};
use super::program::Program;
use super::world::{PATIENCE, World};
use crate::Done;

const LOOK: Duration = Duration::from_millis(500);
const NODES: u32 = 2;
/// The node whose devices claims give out, without its number. The node role is that of the first by name.
const CLAIMABLE: &str = "with-claims";

/// A verb on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    resource: String,
    group: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{} {}{dot}{}", self.verb, self.resource, self.group)
    }
}

/// What may be done.
#[derive(Debug, Clone, Default)]
struct Granted {
    everywhere: BTreeSet<Right>,
    /// In the agent's own namespace, beside the others.
    at_home: BTreeSet<Right>,
}

/// What was done, and whether in the agent's own namespace.
type Used = BTreeSet<(Right, bool)>;

/// Says what is missing and what is spare.
fn compare(granted: &Granted, used: &Used) -> Result<(), String> {
    let (mut missing, mut spare) = (BTreeSet::new(), granted.clone());
    for (right, at_home) in used {
        if granted.everywhere.contains(right) {
            spare.everywhere.remove(right);
        } else if *at_home && granted.at_home.contains(right) {
            spare.at_home.remove(right);
        } else {
            missing.insert(right.to_string());
        }
    }
    let spare: Vec<String> = spare.everywhere.iter().chain(&spare.at_home).map(Right::to_string).collect();
    match (missing.is_empty(), spare.is_empty()) {
        (true, true) => Ok(()),
        _ => Err(format!("missing: {missing:?}; granted and not used: {spare:?}")),
    }
}

/// The rights of a role, each by itself.
fn rights(role: &Value) -> anyhow::Result<BTreeSet<Right>> {
    let mut found = BTreeSet::new();
    for rule in role["rules"].as_array().context("a role has rules")? {
        let all = |field: &str| {
            let texts = rule[field].as_array().map(Vec::as_slice).unwrap_or_default().iter();
            texts.map(|text| text.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let narrowed = ["resourceNames", "nonResourceURLs"].iter().any(|field| !rule[*field].is_null());
        ensure!(
            !narrowed && !rule.to_string().contains('*'),
            "this test does not know what this rule comes to: {rule}"
        );
        for (group, resource) in all("apiGroups").iter().flat_map(|g| all("resources").into_iter().map(move |r| (g, r)))
        {
            found.extend(all("verbs").into_iter().map(|verb| Right {
                verb,
                resource: resource.clone(),
                group: group.clone(),
            }));
        }
    }
    Ok(found)
}

/// The check itself: one right more or less is named.
pub fn finds_faults(_: &World) -> anyhow::Result<Done> {
    let rules = json!({"rules": [{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list", "get"]}]});
    let own = json!({"rules": [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["update"]}]});
    let whole = Granted { everywhere: rights(&rules)?, at_home: rights(&own)? };
    let used: Used = whole.everywhere.iter().map(|r| (r.clone(), false)).collect();
    let used: Used = used.into_iter().chain(whole.at_home.iter().map(|r| (r.clone(), true))).collect();
    ensure!(used.len() == 5 && compare(&whole, &used).is_ok());
    for (right, at_home) in &used {
        let (mut less, mut unused) = (whole.clone(), used.clone());
        less.everywhere.remove(right);
        less.at_home.remove(right);
        let said = compare(&less, &used).err().with_context(|| format!("{right} is not missed"))?;
        ensure!(said.starts_with(&format!("missing: {{\"{right}\"}}")), "{said}");
        unused.remove(&(right.clone(), *at_home));
        let said = compare(&whole, &unused).err().with_context(|| format!("{right} is not spare"))?;
        ensure!(said.ends_with(&format!("not used: [\"{right}\"]")), "{said}");
    }
    // What may be done at home only is missing elsewhere.
    let elsewhere: Used = used.iter().map(|(right, _)| (right.clone(), false)).collect();
    ensure!(compare(&whole, &elsewhere).is_err_and(|said| said.contains("missing: {\"update jobs.batch\"}")));
    ensure!(rights(&json!({"rules": [{"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}]})).is_err());
    Ok(Done::Holds)
}

/// An agent with the rights that `deploy/agent/access` grants needs all of them and no more.
pub fn all_and_no_more(world: &World) -> anyhow::Result<Done> {
    let binaries = programs(&[Settings::with_fake_nodes("").tools(), vec![Tool::Kubectl]].concat())?;
    let definitions = binaries.operators_resources()?;
    let runtime = runtime()?;
    let settings = Settings { audit: Audit::Everything, ..Settings::with_fake_nodes(world.path("plane")) };
    let plane = runtime.block_on(async {
        let plane = with_h100_nodes(&binaries, settings, NODES).await?;
        FakeNodes { gpus: 0, ..FakeNodes::h100(CLAIMABLE, 1) }.make(&plane.client()).await?;
        plane.serve(&definitions).await?;
        anyhow::Ok(plane)
    })?;
    let kubectl = Kubectl::of(world, &binaries, &plane)?;
    kubectl.install("namespace")?;
    kubectl.install("agent/access")?;
    let mut granted = Granted {
        everywhere: rights(&kubectl.get(&["clusterrole", "tidewater-agent"])?)?,
        at_home: rights(&kubectl.get(&["role", "agent", "--namespace", NAMESPACE])?)?,
    };

    // API servers of 1.35 and later ask for it beside `get`, where a pod's port is reached by a WebSocket; the test bed's is older.
    let later = Right { verb: "create".into(), resource: "pods/portforward".into(), group: String::new() };
    ensure!(granted.everywhere.remove(&later), "{later} is not granted");

    kubectl.install("node")?;
    let mut federation = Federation::prepare(world, 1)?;
    federation.kubeconfigs = vec![kubectl.kubeconfig_of(NAMESPACE, "agent")?];
    let port = free_port()?;
    federation.listen_nodes = Some(port);
    federation.agent_arguments = ["--node-account", "tidewater-nodes/node"].map(str::to_owned).into();
    federation.coordinator_arguments = ["--workload-issuer", "https://tidewater.example"].map(str::to_owned).into();
    federation.start_coordinator(1)?;
    federation.start_agent(0)?;
    let scene = Scene { world, plane: &plane, kubectl, api: federation.another_api()? };
    scene.until("the agent's cluster as Ready", || {
        Ok((scene.api.cluster_phase(CLUSTERS[0])? == "Ready").then_some(()))
    })?;
    let mut node = scene.node(port)?;
    scene.begin()?;
    federation.kill_agent(0);
    federation.start_agent(0)?;
    scene.until("what was under way to be found again", || {
        let used = scene.used()?;
        let found = |resource: &str| used.iter().any(|(right, _)| right.verb == "get" && right.resource == resource);
        // Tokens are refreshed at once, without a look.
        let refreshed = used.iter().any(|(right, _)| right.verb == "update" && right.resource == "secrets");
        let kinds = ["jobs", "services", "rayjobs", "configmaps", "sparkapplications", "resourceclaimtemplates"];
        Ok((refreshed && kinds.into_iter().all(found)).then_some(()))
    })?;
    scene.end()?;
    node.terminate()?;
    let used = scene.used()?;
    compare(&granted, &used).map_err(anyhow::Error::msg)?;
    eprintln!(
        "    {} rights everywhere and {} in its own namespace, each of them used",
        granted.everywhere.len(),
        granted.at_home.len()
    );
    federation.stop()?;
    plane.stop();
    Ok(Done::Holds)
}

/// Where workloads run and their operators are played.
struct Scene<'w> {
    world: &'w World,
    plane: &'w ControlPlane,
    kubectl: Kubectl<'w>,
    api: Api,
}

/// What is handed in: the namespace, the name and the specification of each. The namespace of Ray's is the agent's to make.
fn workloads() -> [(&'static str, &'static str, Value); 4] {
    let each = json!({"cpu": 1, "memory": "1Gi"});
    let group = |name: &str, count: u32| json!({"name": name, "count": count, "cpu": 1, "memory": "1Gi"});
    let mut with_gpu = group("w", 1);
    (with_gpu["gpus"], with_gpu["gpu"]) = (json!(1), json!(["L4"]));
    [
        (
            "crowded",
            "batch",
            json!({
                "batch": {"image": "none", "command": ["work"], "groups": [group("w", 3)]},
                "tokens": [{"audience": "vault", "mountPath": "/run/vault"}],
            }),
        ),
        (
            "fresh",
            "ray",
            json!({"ray": {"image": "none", "entrypoint": "python t.py", "head": each, "workers": [group("w", 1)]}}),
        ),
        (
            "sparks",
            "spark",
            json!({"spark": {"image": "none", "main": "local:///pi.py", "driver": each, "executors": group("e", 1)}}),
        ),
        ("claims", "claimed", json!({"batch": {"image": "none", "command": ["work"], "groups": [with_gpu]}})),
    ]
}

impl Scene<'_> {
    /// What the agent asked the API server for. What it was not allowed to is an error.
    fn used(&self) -> anyhow::Result<Used> {
        let asked = self.plane.audited()?.into_iter().filter(|e| e.user == AGENT && !e.resource.is_empty());
        let asked: Vec<_> = asked.collect();
        if let Some(refused) = asked.iter().find(|e| e.forbidden) {
            let right =
                Right { verb: refused.verb.clone(), resource: refused.resource.clone(), group: refused.group.clone() };
            bail!("missing: the agent may not {right} (namespace {:?})", refused.namespace);
        }
        Ok(asked
            .into_iter()
            .map(|e| (Right { verb: e.verb, resource: e.resource, group: e.group }, e.namespace == NAMESPACE))
            .collect())
    }

    /// A node role with a token of its own, as its kubelet would have it, once the agent has let it in. One whose token is of no node is not.
    fn node(&self, port: u16) -> anyhow::Result<Program> {
        let nodes = self.kubectl.get(&["nodes"])?;
        let node = &nodes["items"][0]["metadata"];
        let (name, uid) = (text(&node["name"]), text(&node["uid"]));
        let create = ["create", "token", "node", "--namespace", "tidewater-nodes", "--audience", "tidewater-agent"];
        let bound = ["--bound-object-kind", "Node", "--bound-object-name", &name, "--bound-object-uid", &uid];
        let start = |token: String| {
            let file = self.world.write("token", token.trim())?;
            let (agent, ca) = (format!("127.0.0.1:{port}"), self.world.path("ca/ca.pem").display().to_string());
            let who = ["--cluster", CLUSTERS[0], "--node-name", &name, "--ca", &ca, "--token", &file];
            self.world.start("node", &[&["node", "--agent", &agent][..], &who].concat())
        };
        let nobody = start(self.kubectl.run(&create)?)?;
        nobody.says("its token names no node", PATIENCE)?;
        let mut node = start(self.kubectl.run(&[&create[..], &bound].concat())?)?;
        node.line("streams to the agent at ")?;
        Ok(node)
    }

    /// Looks until `look` finds something, or until the agent asks for what it may not have.
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            self.used()?;
            if let Some(found) = look().with_context(|| format!("waiting for {what}"))? {
                return Ok(found);
            }
            ensure!(began.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
            std::thread::sleep(LOOK);
        }
    }

    /// Hands everything in, and returns once all of it is under way: the batch job waits for its quota, the one with a claim for its class of
    /// devices, the others for their operators.
    fn begin(&self) -> anyhow::Result<()> {
        let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "crowded"},
            "spec": {"hard": {"count/pods": "2"}},
        });
        // Spark's drivers run as this account, which is the namespace's owner's to make.
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "spark", "namespace": "sparks"},
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "spark", "namespace": "sparks"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "spark", "namespace": "sparks"}],
        });
        // As NVIDIA's driver would.
        let attributes = json!({"type": {"string": "gpu"}, "productName": {"string": "NVIDIA L4"}});
        let node = format!("{CLAIMABLE}-0");
        let slice = json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": node},
            "spec": {
                "driver": "gpu.nvidia.com", "nodeName": node, "devices": [{"name": "gpu-0", "attributes": attributes}],
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            },
        });
        let given = [namespace("crowded"), quota, namespace("sparks"), account, binding, slice];
        self.kubectl.give(&["create", "-f", "-"], &given)?;
        self.until("the quota to be counted", || {
            let quota = self.kubectl.get(&["resourcequota", "few", "--namespace", "crowded"])?;
            Ok(quota["status"]["used"].is_object().then_some(()))
        })?;
        for (namespace, name, spec) in workloads() {
            let manifest = json!({
                "apiVersion": "tidewater.dev/v1", "kind": "Workload",
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            });
            // JSON is YAML.
            let file = self.world.write(&format!("{name}.yaml"), &manifest.to_string())?;
            self.tidewater(&["submit", "-f", &file])?;
        }
        self.until("the quota to be told", || {
            let told = self.tidewater(&["why", "batch", "--namespace", "crowded"])?;
            Ok(told.contains("exceeded quota").then_some(()))
        })?;
        self.one("pods", "crowded")?;
        // kwok's nodes have no kubelet to read it from: that it is asked for is enough here.
        let _ = self.api.growing_log("crowded", "batch");
        let ray = self.one("rayjobs.ray.io", "fresh")?;
        // As KubeRay would.
        let cluster = json!({
            "apiVersion": "ray.io/v1", "kind": "RayCluster",
            "metadata": {"name": "c", "namespace": "fresh", "labels": ray["metadata"]["labels"]},
            "spec": ray["spec"]["rayClusterSpec"],
        });
        let head = &ray["spec"]["rayClusterSpec"]["headGroupSpec"]["template"];
        let head = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "c-head", "namespace": "fresh", "labels": head["metadata"]["labels"]},
            "spec": head["spec"],
        });
        self.kubectl.give(&["create", "-f", "-"], &[cluster, head])?;
        self.say("rayjobs.ray.io", "fresh", json!({"jobDeploymentStatus": "Running"}))?;
        // Nobody answers behind it: that it is asked for is enough here too.
        self.until("the way to Ray's dashboard to be asked for", || {
            let servers = self.api.places().join(",");
            self.world.run(&["--server", &servers, "dashboard", "fresh/ray"])?;
            Ok(self.used()?.iter().any(|(right, _)| right.resource == "pods/portforward").then_some(()))
        })?;
        let spark = self.one("sparkapplications.sparkoperator.k8s.io", "sparks")?;
        // As its operator would: the driver runs, and nobody makes its executors.
        let driver = &spark["spec"]["driver"]["template"];
        let driver = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "s-driver", "namespace": "sparks", "labels": driver["metadata"]["labels"]},
            "spec": driver["spec"],
        });
        self.kubectl.give(&["create", "-f", "-"], &[driver])?;
        self.until("quotas to be looked at", || {
            Ok(self.used()?.iter().any(|(right, _)| right.resource == "resourcequotas").then_some(()))
        })?;
        self.one("resourceclaims.resource.k8s.io", "claims").map(drop)
    }

    /// Ends everything, and returns once nothing of it is left.
    fn end(&self) -> anyhow::Result<()> {
        self.tidewater(&["cancel", "batch", "--namespace", "crowded"])?;
        self.tidewater(&["cancel", "claimed", "--namespace", "claims"])?;
        let ray = json!({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"});
        self.say("rayjobs.ray.io", "fresh", ray)?;
        let spark = json!({"driverInfo": {}, "applicationState": {"state": "COMPLETED"}});
        self.say("sparkapplications.sparkoperator.k8s.io", "sparks", spark)?;
        let ends = ["Cancelled", "Succeeded", "Succeeded", "Cancelled"];
        for ((namespace, name, _), wanted) in workloads().into_iter().zip(ends) {
            let path = format!("/apis/tidewater.dev/v1/namespaces/{namespace}/workloads/{name}");
            let mut last = Value::Null;
            self.until(&format!("{name} as {wanted}"), || {
                last = self.api.get(&path)?;
                Ok((phase(&last) == wanted).then_some(()))
            })
            .with_context(|| last["status"].to_string())?;
        }
        self.until("the end of all records", || {
            let records = self.kubectl.get(&["configmaps", "--namespace", NAMESPACE, "-l", "tidewater.dev/record"])?;
            Ok(records["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })
    }

    fn tidewater(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(self.world.run(&[&["--server", &self.api.places().join(",")], arguments].concat())?.with_code(0)?.out)
    }

    /// The one object of a kind in a namespace, once it is there.
    fn one(&self, kind: &str, namespace: &str) -> anyhow::Result<Value> {
        self.until(&format!("one of {kind}"), || {
            let all = self.kubectl.get(&[kind, "--namespace", namespace])?;
            Ok(all["items"].as_array().and_then(|items| items.first()).cloned())
        })
    }

    /// Its operator's word on the one object of a kind in a namespace.
    fn say(&self, kind: &str, namespace: &str, status: Value) -> anyhow::Result<()> {
        let object = self.one(kind, namespace)?;
        let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
        let said = json!({"status": status}).to_string();
        let patch =
            ["patch", kind, &name, "--namespace", namespace, "--subresource=status", "--type=merge", "-p", &said];
        self.kubectl.run(&patch).map(drop)
    }
}
