//! Workload tokens on a real API server: in a Secret before the pods, changed in place, and gone with the attempt. The test is the coordinators.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent::runtime::Runtime;
use agent::runtime::tokens::{Issued, TokenAsk, TokenSource};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::AttemptId;
use protocol::token::TokenText;
use serde_json::json;
use testbed::{Binaries, ControlPlane};

use super::runtime_world::{Running, made, nothing_left, order, plane, records, settings, until};

pub async fn tokens(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 1).await?;
    come_before_the_pods_stay_fresh_and_go(&plane).await?;
    go_with_an_attempt_that_never_got_all_of_them(&plane.client()).await?;
    of_nobody_are_ended(&plane.client()).await?;
    plane.stop();
    Ok(())
}

/// Answers with a token that has its number and lives so long; those for `vault` are refused until told otherwise.
fn coordinators(life: Duration, vault: Arc<AtomicU64>) -> TokenSource {
    let (source, mut asked) = TokenSource::new();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(TokenAsk { request, answer }) = asked.recv().await {
            number += 1;
            let text = TokenText::new(format!("proof-{}-{number}", request.audience));
            let refused = request.audience == "vault" && vault.load(Ordering::SeqCst) == 0;
            let _ = answer.send(if refused { Err("no quorum".into()) } else { Ok(Issued { text, life }) });
        }
    });
    source
}

fn running(client: &Client, annotations: &[(&str, &str)], life: Duration, vault: &Arc<AtomicU64>) -> Running {
    let running = Running::new(client.clone(), settings(annotations));
    running.runtime.take_tokens_from(coordinators(life, vault.clone()));
    running
}

fn with_tokens(uid: u128, namespace: &str) -> anyhow::Result<LaunchOrder> {
    let mut order = order(uid, namespace, 2, 0)?;
    order.spec.tokens = serde_json::from_value(json!([
        {"audience": "sts.amazonaws.com", "mountPath": "/var/run/secrets/aws"},
        {"audience": "vault", "mountPath": "/run/vault/"},
    ]))?;
    Ok(order)
}

/// The attempt's Secrets by name, with what is in each.
async fn secrets(client: &Client, attempt: AttemptId) -> anyhow::Result<Vec<(String, String)>> {
    let labels = ListParams::default().labels(&format!("tidewater.dev/attempt={attempt}"));
    let all = Api::<Secret>::all(client.clone()).list(&labels).await?.items;
    let text = |secret: &Secret| secret.data.as_ref()?.get("token").map(|t| String::from_utf8_lossy(&t.0).into_owned());
    Ok(all.iter().map(|s| (s.metadata.name.clone().unwrap_or_default(), text(s).unwrap_or_default())).collect())
}

async fn come_before_the_pods_stay_fresh_and_go(plane: &ControlPlane) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), with_tokens(31, "proofs")?);
    let attempt = order.attempt;
    let vault = Arc::new(AtomicU64::new(0));
    let mut running = running(&client, &[("runs-for", "600s")], Duration::from_secs(3), &vault);
    running.runtime.recover().await?;
    running.start(&order).await?;
    let says = |state: &AttemptState| matches!(state, AttemptState::Starting { waiting_for } if waiting_for == "a token for vault: no quorum");
    running.until(attempt, "what is missing is told", says).await?;
    ensure!(made(plane, "jobs", "proofs")?.is_empty(), "a job was made before its tokens");
    let first = secrets(&client, attempt).await?;
    ensure!(first.len() == 1 && first[0].1.starts_with("proof-sts.amazonaws.com-"), "{first:?}");
    vault.store(1, Ordering::SeqCst);
    running.until(attempt, "the gang runs", |s| *s == AttemptState::Running).await?;

    let all = secrets(&client, attempt).await?;
    ensure!(all.len() == 2, "{all:?}");
    let pods = Api::<Pod>::namespaced(client.clone(), "proofs").list(&ListParams::default()).await?.items;
    for pod in &pods {
        let pod = serde_json::to_value(pod)?;
        let volumes = pod["spec"]["volumes"].as_array().context("volumes")?;
        let named: Vec<&str> =
            volumes.iter().filter_map(|v| v["projected"]["sources"][0]["secret"]["name"].as_str()).collect();
        ensure!(all.iter().all(|(name, _)| named.contains(&name.as_str())), "{named:?} and {all:?}");
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].to_string();
        ensure!(mounts.contains("\"/var/run/secrets/aws\"") && mounts.contains("\"readOnly\":true"), "{mounts}");
        let env = pod["spec"]["containers"][0]["env"].to_string();
        ensure!(env.contains("\"/var/run/secrets/aws/token\"") && env.contains("\"/run/vault/token\""), "{env}");
    }
    // Refreshed in place: the same objects.
    let uids = async || -> anyhow::Result<Vec<Option<String>>> {
        let all = Api::<Secret>::namespaced(client.clone(), "proofs").list(&ListParams::default()).await?.items;
        Ok(all.into_iter().map(|secret| secret.metadata.uid).collect())
    };
    let before = uids().await?;
    until("each token is refreshed", async || {
        let now = secrets(&client, attempt).await?;
        Ok(now.iter().zip(&all).all(|(now, then)| now.0 == then.0 && now.1 != then.1).then_some(()))
    })
    .await?;
    ensure!(uids().await? == before, "they were made anew");
    ensure!(made(plane, "secrets", "proofs")?.len() == 2);

    // Another agent goes on with them, and the record knows none.
    drop(running);
    let mut running = self::running(&client, &[], Duration::from_secs(3600), &vault);
    let last = secrets(&client, attempt).await?;
    running.runtime.recover().await?;
    until("the next agent refreshes them", async || {
        let now = secrets(&client, attempt).await?;
        Ok(now.iter().zip(&last).all(|(now, then)| now.1 != then.1).then_some(()))
    })
    .await?;
    let maps = Api::<ConfigMap>::all(client.clone()).list(&ListParams::default()).await?;
    ensure!(!serde_json::to_string(&maps)?.contains("proof-"), "a token is on record");
    running.runtime.stop(attempt, 1000).await?;
    ensure!(running.end(attempt).await? == AttemptState::Stopped);
    nothing_left(&client, attempt).await?;
    ensure!(secrets(&client, attempt).await?.is_empty(), "tokens are left");
    running.runtime.forget(attempt).await?;
    Ok(())
}

async fn go_with_an_attempt_that_never_got_all_of_them(client: &Client) -> anyhow::Result<()> {
    let order = with_tokens(32, "halves")?;
    let none = Arc::new(AtomicU64::new(0));
    let mut running = running(client, &[], Duration::from_secs(3600), &none);
    running.runtime.recover().await?;
    running.start(&order).await?;
    until("its first token", async || Ok((secrets(client, order.attempt).await?.len() == 1).then_some(()))).await?;
    running.runtime.stop(order.attempt, 1000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    ensure!(secrets(client, order.attempt).await?.is_empty(), "a token is left");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

/// Somebody deleted the record of an attempt, so that its objects are nobody's.
async fn of_nobody_are_ended(client: &Client) -> anyhow::Result<()> {
    let order = with_tokens(33, "orphans")?;
    let vault = Arc::new(AtomicU64::new(0));
    let running = running(client, &[], Duration::from_secs(3600), &vault);
    running.runtime.recover().await?;
    running.start(&order).await?;
    until("its first token", async || Ok((secrets(client, order.attempt).await?.len() == 1).then_some(()))).await?;
    drop(running);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "tidewater");
    maps.delete(&format!("attempt-{}", order.attempt), &DeleteParams::default()).await?;
    let mut running = self::running(client, &[], Duration::from_secs(3600), &vault);
    running.runtime.recover().await?;
    running.last(order.attempt).await?;
    ensure!(secrets(client, order.attempt).await?.is_empty(), "a token is left");
    running.runtime.forget(order.attempt).await?;
    ensure!(records(client).await? == 0);
    Ok(())
}
