//! Ray, Spark and batch through a coordinator and an agent on a node that really runs containers, under the real operators, Ray once more
//! from an object as it is, and Spark once more without its operator; beside it a cluster that kwok plays. Each computes something whose answer is
//! known, and says it in its log, also once its pods are gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use testbed::images::{RAY_ANSWER, RAY_SQUARES};
use testbed::{Component, ControlPlane, Image, Images, NodeSettings, Settings, drivers_may_make_executors, node};

use super::api::{phase, text};
use super::dashboard;
use super::federation::{CLUSTERS, Federation};
use super::fenced;
use super::native_ray;
use super::planes::{made, programs, runtime, with_h100_nodes};
use super::program::{Program, Ran};
use super::world::{PATIENCE, World, wait_for};
use crate::Done;

/// How long three programs of Java and Python may take one after another on a busy machine.
const WHOLE: Duration = Duration::from_secs(600);
const OPERATORS: [Component; 2] = [Component::KubeRay, Component::SparkOperator];
const FAKE_NODES: u32 = 2;

/// All three run in the cluster with the real node, once, and leave nothing but what they said.
pub fn frameworks(world: &World) -> anyhow::Result<Done> {
    node::check_with(&OPERATORS)?;
    let images = Images::provide(&[Image::Ray, Image::Spark], &|line| eprintln!("    {line}"))?;
    let real = Settings::with_real_node(world.path("plane-north"), NodeSettings::new(images)).and(&OPERATORS);
    let played = Settings::with_fake_nodes(world.path("plane-south"));
    let binaries = programs(&[real.tools(), played.tools()].concat())?;
    let runtime = runtime()?;
    let planes = runtime.block_on(async {
        let north = ControlPlane::start(&binaries, real).await?;
        eprintln!("    the cluster with the real node is ready after {:.1} s", north.ready_in().as_secs_f64());
        let south = with_h100_nodes(&binaries, played, FAKE_NODES).await?;
        drivers_may_make_executors(&north.client(), "default").await?;
        anyhow::Ok([north, south])
    })?;
    let mut federation = Federation::prepare(world, 1)?;
    federation.kubeconfigs = planes.iter().map(ControlPlane::kubeconfig).collect();
    federation.start_coordinator(1)?;
    fenced::load_guard(world, &planes[0])?;
    let arguments = |place: usize| {
        // What kwok plays runs on until it is ended.
        let usual = ["--image-pull-policy", "never", "--pod-annotation", "testbed.tidewater.dev/runs-for=1h"];
        anyhow::Ok([usual.map(str::to_owned).to_vec(), fenced::arguments(&planes[place])?].concat())
    };
    let of_north = arguments(0)?;
    for (place, arguments) in [of_north.clone(), arguments(1)?].into_iter().enumerate() {
        federation.agent_arguments = arguments;
        federation.start_agent(place)?;
    }
    CLUSTERS.iter().try_for_each(|name| federation.until_cluster(name, "Ready"))?;

    let servers = federation.api.places().join(",");
    let ask = |arguments: &[&str]| world.run(&[&["--server", &servers], arguments].concat());
    let began = Instant::now();
    let mut followers = vec![];
    for (name, spec, _) in workloads() {
        federation.api.submit(&workload(name, spec))?;
        followers.push(world.start(name, &["--server", &servers, "logs", "--follow", name])?);
    }
    // Its pods are on their node, and can't begin.
    wait_for("the missing Secret to be named", PATIENCE, || {
        Ok(ask(&["why", "batch"])?.with_code(0)?.out.contains("\"answer\" not found").then_some(()))
    })?;
    runtime.block_on(make_answer(&planes[0].client()))?;
    let scene = Scene { federation: &federation, ask: &ask, began };
    std::thread::scope(|threads| {
        // It is up while the rest of Ray is still to come, and gone with its job.
        let page = threads.spawn(|| dashboard::visit(world, &servers, "ray", "/api/version", WHOLE));
        // While they run: what kept logs have not.
        let worker = |name: &str, number: &str| ask(&["logs", "--follow", "--attempt", "1", "--worker", number, name]);
        let second = worker("batch", "1")?.with_code(0)?.out;
        ensure!(second.contains("w-1 is done") && !second.contains("w-0"), "the log of worker 1 is {second}");
        worker("batch", "2")?.with_code(3)?.says("has workers 0 to 1")?;
        for ((name, _, says), follower) in workloads().into_iter().zip(followers) {
            scene.succeeds(name, &says, follower)?;
        }
        let said = page.join().map_err(|_| anyhow::anyhow!("the visit of Ray's dashboard panicked"))??;
        ensure!(said.contains("ray_version"), "Ray's dashboard says {said}");
        anyhow::Ok(())
    })?;
    // Ray once more, by an object as it is: once the first has made room.
    runtime.block_on(native_ray::make_program(&planes[0].client()))?;
    ask(&["submit", "-f", &native_ray::file(world)?])?.with_code(0)?;
    let follower = world.start("cubes", &["--server", &servers, "logs", "--follow", native_ray::NAME])?;
    scene.succeeds(native_ray::NAME, &[native_ray::ANSWER], follower)?;
    // Spark once more where no operator submits it.
    runtime.block_on(forget_spark_applications(&planes[0].client()))?;
    let (_, _, says) = workloads().into_iter().next_back().context("the last is Spark's")?;
    federation.api.submit(&workload("alone", spark()))?;
    let follower = world.start("alone", &["--server", &servers, "logs", "--follow", "alone"])?;
    scene.succeeds("alone", &says, follower)?;
    let pods = made(&planes[0], "create", "pods")?.into_iter().map(|entry| entry.name);
    let drivers: Vec<String> = pods.filter(|name| name.ends_with("-driver")).collect();
    ensure!(drivers.len() == 2 && drivers[1].starts_with("alone-1-"), "drivers: {drivers:?}");
    fenced::moves_once(&mut federation, &runtime, &planes, of_north)?;
    for plane in &planes {
        runtime.block_on(nothing_left(&plane.client()))?;
        for resource in ["jobs", "rayjobs", "sparkapplications"] {
            let names: Vec<String> = made(plane, "create", resource)?.into_iter().map(|entry| entry.name).collect();
            let distinct: BTreeSet<&String> = names.iter().collect();
            ensure!(distinct.len() == names.len(), "some {resource} were made twice: {names:?}");
        }
    }
    federation.stop()?;
    for plane in planes {
        plane.end()?;
    }
    Ok(Done::Holds)
}

struct Scene<'a, F> {
    federation: &'a Federation<'a>,
    ask: &'a F,
    began: Instant,
}

impl<F: Fn(&[&str]) -> anyhow::Result<Ran>> Scene<'_, F> {
    /// In the first cluster at its first attempt, with these lines in its log: as it was followed, and as it is kept.
    fn succeeds(&self, name: &str, says: &[&str], mut follower: Program) -> anyhow::Result<()> {
        let waits = WHOLE.saturating_sub(self.began.elapsed());
        let ended = wait_for(&format!("the end of {name}"), waits, || {
            let workload = self.federation.api.workloads()?.remove(name).context("it is not there")?;
            match &*phase(&workload) {
                "Succeeded" => Ok(Some(workload)),
                "Failed" | "Unknown" => bail!("{workload:#}"),
                _ => Ok(None),
            }
        });
        let ended = ended.with_context(|| (self.ask)(&["describe", name]).map(|ran| ran.out).unwrap_or_default())?;
        let attempts = ended["status"]["attempts"].as_array().cloned().unwrap_or_default();
        ensure!(attempts.len() == 1 && text(&attempts[0]["cluster"]) == CLUSTERS[0], "{ended:#}");
        eprintln!("    {name} has succeeded {:.1} s after the first was submitted", self.began.elapsed().as_secs_f64());
        let status = follower.until_ended(PATIENCE)?;
        ensure!(status.success(), "the follower of {name} ended with {status}: {}", follower.err());
        let followed = follower.out();
        // Its pods are gone.
        let kept = (self.ask)(&["logs", name])?.with_code(0)?.out;
        for line in says {
            for (what, log) in [("followed", &followed), ("kept", &kept)] {
                ensure!(log.contains(line), "the {what} log of {name} has no {line:?}: {log}");
            }
        }
        Ok(())
    }
}

/// From here on the cluster is one without the Spark operator, as far as anybody who asks it can see.
async fn forget_spark_applications(client: &Client) -> anyhow::Result<()> {
    let definition = resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &definition);
    definitions.delete("sparkapplications.sparkoperator.k8s.io", &Default::default()).await?;
    let began = Instant::now();
    while knows_spark_applications(client).await? {
        ensure!(began.elapsed() < PATIENCE, "the kind SparkApplication is still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn knows_spark_applications(client: &Client) -> anyhow::Result<bool> {
    match client.list_api_group_resources("sparkoperator.k8s.io/v1beta2").await {
        Ok(known) => Ok(known.resources.iter().any(|resource| resource.name == "sparkapplications")),
        Err(kube::Error::Api(error)) if error.code == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Each with what its log must say. Ray's and Spark's have guards before what their images start. Ray can run in the one cluster only whose operator is there, the others are told to; Ray and Spark
/// together are more than its node has room for.
fn workloads() -> [(&'static str, Value, Vec<&'static str>); 3] {
    let ray = json!({"onClusterLoss": "failover", "ray": {
        "image": Image::Ray.reference(),
        "entrypoint": format!("python3 -c \"{RAY_SQUARES}\""),
        "head": {"cpu": "700m", "memory": "3Gi"},
        "workers": [{"name": "workers", "count": 2, "cpu": "400m", "memory": "2Gi"}],
    }});
    let command = "echo rank $RANK of $WORLD_SIZE on $TIDEWATER_NODE; sleep 5; \
                   echo \"$TIDEWATER_MEMBER is done with $(cat /run/answer/number) and $NUMBER\"";
    let batch = json!({
        "placement": {"regions": {"require": ["eu"]}},
        "secrets": [
            {"name": "answer", "mountPath": "/run/answer"}, {"name": "answer", "env": "NUMBER", "key": "number"},
        ],
        "batch": {
            "image": Image::Batch.reference(),
            "command": ["sh", "-c", command],
            "groups": [{"name": "w", "count": 2, "cpu": "100m", "memory": "64Mi"}],
        },
    });
    [
        ("batch", batch, vec!["w-0 | rank 0 of 2 on ", "w-1 | rank 1 of 2 on ", "w-1 | w-1 is done with 42 and 42"]),
        ("ray", ray, vec![RAY_ANSWER]),
        ("spark", spark_as_it_is(), vec!["SUM 332833500 EXECUTORS 2"]),
    ]
}

/// Where no operator submits it.
fn spark() -> Value {
    json!({
        "onClusterLoss": "failover",
        "placement": {"regions": {"require": ["eu"]}},
        "spark": {
            "image": Image::Spark.reference(),
            "main": "local:///opt/tidewater/squares.py",
            "arguments": ["1000", "2"],
            "driver": {"cpu": "700m", "memory": "1Gi"},
            "executors": {"name": "executors", "count": 2, "cpu": "400m", "memory": "1Gi"},
        },
    })
}

/// The same as an object for the operator, as somebody wrote it who did not know of Tidewater: to be tried again and deleted by it.
fn spark_as_it_is() -> Value {
    // With what Spark adds to each heap, 384 MiB, it is 1 GiB.
    let part = |cpu: &str| json!({"cores": 1, "coreRequest": cpu, "coreLimit": cpu, "memory": "640m", "labels": {"team": "etl"}});
    let mut executor = part("400m");
    executor["instances"] = json!(2);
    json!({
        "onClusterLoss": "failover",
        "placement": {"regions": {"require": ["eu"]}},
        "manifest": {
            "apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "metadata": {"name": "squares"},
            "spec": {
                "type": "Python", "mode": "cluster", "sparkVersion": "4.0.1", "image": Image::Spark.reference(),
                "mainApplicationFile": "local:///opt/tidewater/squares.py", "arguments": ["1000", "2"],
                "restartPolicy": {"type": "OnFailure", "onFailureRetries": 3}, "timeToLiveSeconds": 1,
                "driver": part("700m"), "executor": executor,
            },
        },
    })
}

fn workload(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "tidewater.dev/v1", "kind": "Workload",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The Secret that the batch workload names.
async fn make_answer(client: &Client) -> anyhow::Result<()> {
    let secret = json!({"metadata": {"name": "answer"}, "stringData": {"number": "42"}});
    let secrets: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource("", "v1", "Secret"));
    secrets.create(&Default::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

/// None of what a workload is made of.
async fn nothing_left(client: &Client) -> anyhow::Result<()> {
    let kinds = [
        ("", "v1", "Pod"),
        ("", "v1", "Service"),
        ("", "v1", "ConfigMap"),
        ("batch", "v1", "Job"),
        ("ray.io", "v1", "RayJob"),
        ("ray.io", "v1", "RayCluster"),
        ("sparkoperator.k8s.io", "v1beta2", "SparkApplication"),
    ];
    // A record goes once its end is acknowledged.
    let began = Instant::now();
    loop {
        let mut left = vec![];
        for (group, version, kind) in kinds {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(group, version, kind));
            let listed = match api.list(&ListParams::default().labels("tidewater.dev/attempt")).await {
                // The cluster that kwok plays has no operators.
                Err(kube::Error::Api(error)) if error.code == 404 => continue,
                listed => listed?,
            };
            left.extend(listed.items.into_iter().map(|o| format!("{kind} {}", o.metadata.name.unwrap_or_default())));
        }
        if left.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < PATIENCE, "left: {left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
