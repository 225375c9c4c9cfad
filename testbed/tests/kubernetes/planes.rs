//! Control planes that run, and what they take.

use std::time::Instant;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use testbed::{Settings, connect, make_namespace};

use super::world::{World, delete_namespace, has_namespace, no_process_in, until};

pub async fn side_by_side(world: &World) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (one, two) = (Settings::api_only(dir.path().join("one")), Settings::api_only(dir.path().join("two")));
    let (one, two) = tokio::try_join!(world.start(one), world.start(two))?;
    let (first, second) = (connect(&one.kubeconfig()).await?, connect(&two.kubeconfig()).await?);
    make_namespace(&first, "only-here").await?;
    ensure!(has_namespace(&first, "only-here").await?);
    ensure!(!has_namespace(&second, "only-here").await?, "the other one knows it too");
    let audited = |plane: &testbed::ControlPlane| {
        let all = plane.audited()?;
        anyhow::Ok(all.iter().filter(|a| a.verb == "create" && a.name == "only-here" && a.code == 201).count())
    };
    ensure!(audited(&one)? == 1, "the create is audited once");
    ensure!(audited(&two)? == 0);
    // The token of one is nothing to the other.
    let foreign = std::fs::read_to_string(one.kubeconfig())?.replace(&server(&one)?, &server(&two)?);
    let file = dir.path().join("foreign");
    std::fs::write(&file, foreign)?;
    ensure!(connect(&file).await?.apiserver_version().await.is_err(), "certificate and token of another one");
    let began = Instant::now();
    one.stop();
    drop(two);
    eprintln!("    both ended in {:.1} s", began.elapsed().as_secs_f64());
    no_process_in(dir.path())
}

fn server(plane: &testbed::ControlPlane) -> anyhow::Result<String> {
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(plane.kubeconfig())?)?;
    Ok(config["clusters"][0]["cluster"]["server"].as_str().unwrap_or_default().to_owned())
}

/// What can be asked of anybody's cluster.
pub async fn namespaces_and_pods(world: &World) -> anyhow::Result<()> {
    let namespace = format!("tidewater-test-{}", std::process::id());
    if let Some(given) = &world.given {
        let client = connect(given).await?;
        let outcome = pods_in(&client, &namespace).await;
        delete_namespace(&client, &namespace).await?;
        return outcome;
    }
    let dir = tempfile::tempdir()?;
    let plane = world.start(Settings::whole(dir.path())).await?;
    pods_in(&plane.client(), &namespace).await?;
    delete_namespace(&plane.client(), &namespace).await?;
    // Its controllers work: the namespace goes with what is in it.
    until("the namespace is gone", async || Ok((!has_namespace(&plane.client(), &namespace).await?).then_some(())))
        .await?;
    plane.stop();
    no_process_in(dir.path())
}

async fn pods_in(client: &Client, namespace: &str) -> anyhow::Result<()> {
    make_namespace(client, namespace).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "waits", "labels": {"app": "waits"}},
        // No node has it, so that it waits.
        "spec": {"nodeSelector": {"tidewater.dev/no-such-node": "true"}, "containers": [{"name": "main", "image": "none"}]},
    }))?;
    let made = until("the namespace takes pods", async || match pods.create(&PostParams::default(), &pod).await {
        Ok(made) => Ok(Some(made)),
        // Its service account comes a moment later.
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("serviceaccount") => Ok(None),
        Err(error) => Err(error.into()),
    });
    let made = made.await?;
    let said = until("the scheduler says that no node fits", async || {
        let pod = pods.get("waits").await?;
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.type_ == "PodScheduled").and_then(|c| c.reason))
    });
    ensure!(said.await? == "Unschedulable");
    let again = pods.create(&PostParams::default(), &pod).await;
    ensure!(matches!(&again, Err(kube::Error::Api(status)) if status.code == 409), "made twice: {again:?}");
    ensure!(pods.get("waits").await?.metadata.uid == made.metadata.uid);
    pods.delete("waits", &DeleteParams::default().grace_period(0)).await?;
    until("the pod is gone", async || Ok(pods.get_opt("waits").await?.is_none().then_some(()))).await
}
