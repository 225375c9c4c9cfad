//! Ray and Spark under their real operators on the real node.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use http::{Method, Request};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::images::{RAY_ANSWER, RAY_SQUARES, RAY_VERSION, SPARK_VERSION};
use testbed::{ControlPlane, Image};

use super::world::{World, no_process_in, until, until_within};

/// How long a framework with three processes of Java or Python may take on a busy machine.
const START: Duration = Duration::from_secs(400);

const RAY: &str = "/apis/ray.io/v1/namespaces/default/rayjobs";
const SPARK: &str = "/apis/sparkoperator.k8s.io/v1beta2/namespaces/default/sparkapplications";

pub async fn ray(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = world.start(world.with_real_node(dir.path())?).await?;
    let client = plane.client();
    let began = Instant::now();
    post(&client, RAY, &ray_job()).await?;
    let status = until_within(START, "the RayJob has ended", async || {
        let status = get(&client, RAY, "squares").await?["status"].clone();
        Ok(matches!(status["jobStatus"].as_str(), Some("SUCCEEDED" | "FAILED" | "STOPPED")).then_some(status))
    })
    .await?;
    ensure!(status["jobStatus"] == "SUCCEEDED", "{status}");
    eprintln!("    a RayJob with two workers SUCCEEDED {:.1} s after it was made", began.elapsed().as_secs_f64());
    // The submitter follows the job's own output.
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let submitter = pods.list(&ListParams::default().labels("job-name=squares")).await?.items;
    ensure!(submitter.len() == 1, "{} submitters", submitter.len());
    let name = submitter[0].metadata.name.clone().unwrap_or_default();
    until("the answer is told", async || {
        Ok(pods.logs(&name, &LogParams::default()).await?.contains(RAY_ANSWER).then_some(()))
    })
    .await?;
    ends(plane, dir)
}

fn ray_job() -> Value {
    let pod = |memory: &str| {
        let resources = json!({"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"memory": memory}});
        json!({"spec": {"containers": [{
            "name": "ray", "image": Image::Ray.reference(), "imagePullPolicy": "Never", "resources": resources,
        }]}})
    };
    let submitter = json!({"spec": {"restartPolicy": "Never", "containers": [{
        "name": "submitter", "image": Image::Ray.reference(), "imagePullPolicy": "Never",
    }]}});
    json!({
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "squares"},
        "spec": {
            "entrypoint": format!("python3 -c \"{RAY_SQUARES}\""),
            "submitterPodTemplate": submitter,
            "rayClusterSpec": {
                "rayVersion": RAY_VERSION,
                "headGroupSpec": {
                    "rayStartParams": {"num-cpus": "1", "dashboard-host": "0.0.0.0"}, "template": pod("3Gi"),
                },
                "workerGroupSpecs": [{
                    "groupName": "workers", "replicas": 2, "minReplicas": 2, "maxReplicas": 2,
                    "rayStartParams": {"num-cpus": "1"}, "template": pod("2Gi"),
                }],
            },
        },
    })
}

pub async fn spark(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = world.start(world.with_real_node(dir.path())?).await?;
    let client = plane.client();
    driver_may_make_executors(&client).await?;
    let began = Instant::now();
    post(&client, SPARK, &spark_application()).await?;
    until_within(START, "the SparkApplication has ended", async || {
        let status = get(&client, SPARK, "squares").await?["status"].clone();
        match status["applicationState"]["state"].as_str() {
            Some("COMPLETED") => Ok(Some(())),
            Some("FAILED" | "SUBMISSION_FAILED") => bail!("{status}"),
            _ => Ok(None),
        }
    })
    .await?;
    eprintln!("    a SparkApplication COMPLETED {:.1} s after it was made", began.elapsed().as_secs_f64());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let said = pods.logs("squares-driver", &LogParams::default()).await?;
    ensure!(said.contains("SUM 332833500 EXECUTORS 2"), "{said}");
    ends(plane, dir)
}

/// With all that runs in it.
fn ends(plane: ControlPlane, dir: TempDir) -> anyhow::Result<()> {
    let began = Instant::now();
    plane.end()?;
    no_process_in(dir.path())?;
    let ended = began.elapsed().as_secs_f64();
    dir.close()?;
    eprintln!("    ended in {ended:.1} s, its folder gone after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn driver_may_make_executors(client: &Client) -> anyhow::Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "drivers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    });
    post(client, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await
}

fn spark_application() -> Value {
    json!({
        "apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "metadata": {"name": "squares"},
        "spec": {
            "type": "Python", "mode": "cluster", "sparkVersion": SPARK_VERSION,
            "image": Image::Spark.reference(), "imagePullPolicy": "Never",
            "mainApplicationFile": "local:///opt/tidewater/squares.py", "arguments": ["1000", "2"],
            "driver": {"cores": 1, "memory": "512m", "coreRequest": "200m", "serviceAccount": "default"},
            "executor": {"instances": 2, "cores": 1, "memory": "512m", "coreRequest": "200m"},
        },
    })
}

async fn post(client: &Client, path: &str, object: &Value) -> anyhow::Result<()> {
    let mut request = Request::new(object.to_string().into_bytes());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse()?;
    request.headers_mut().insert("content-type", "application/json".parse()?);
    client.request::<Value>(request).await?;
    Ok(())
}

async fn get(client: &Client, path: &str, name: &str) -> anyhow::Result<Value> {
    Ok(client.request(Request::get(format!("{path}/{name}")).body(vec![])?).await?)
}
