//! Workload tokens on a real API server: in a Secret before the pods, replaced in place, and gone with the attempt. The test is the coordinators, and the
//! agent is a service account that may make, replace and delete Secrets, and nothing else with them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent::runtime::Runtime;
use agent::runtime::tokens::{Issued, TokenAsk, TokenSource};
use anyhow::{Context, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::AttemptId;
use protocol::token::TokenText;
use serde_json::{Value, json};
use testbed::control_plane::Audit;
use testbed::{Binaries, ControlPlane, Settings};

use super::runtime_world::{Running, job, made, nothing_left, order, plane_with, records, settings, until};

/// The agent, as the API server names it.
const AGENT: &str = "system:serviceaccount:tidewater:agent";
/// A life after which no token is refreshed in a test.
const LONG: Duration = Duration::from_secs(3600);

pub async fn tokens(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let settings = Settings { audit: Audit::Everything, ..Settings::with_fake_nodes(dir.path()) };
    let plane = plane_with(&binaries, settings, 1).await?;
    let agent = account(&plane, dir.path()).await?;
    come_before_the_pods_stay_fresh_and_go(&plane, &agent).await?;
    go_with_an_attempt_that_never_got_all_of_them(&plane.client(), &agent).await?;
    are_made_once_where_no_answer_comes(&plane, &agent).await?;
    of_nobody_are_ended(&plane.client(), &agent).await?;
    are_the_only_secrets_that_were_touched(&plane)?;
    plane.stop();
    Ok(())
}

/// A client of the agent's service account, whose rights on Secrets are those of `deploy/agent/access`.
async fn account(plane: &ControlPlane, dir: &Path) -> anyhow::Result<Client> {
    let (admin, parameters) = (plane.client(), PostParams::default());
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "tidewater");
    accounts.create(&parameters, &serde_json::from_value(json!({"metadata": {"name": "agent"}}))?).await?;
    let core = ["nodes", "pods", "pods/log", "services", "configmaps", "events", "namespaces", "resourcequotas"];
    let groups = ["batch", "ray.io", "sparkoperator.k8s.io", "resource.k8s.io", "authorization.k8s.io"];
    let role = json!({"metadata": {"name": "agent"}, "rules": [
        {"apiGroups": [""], "resources": core, "verbs": ["*"]},
        {"apiGroups": groups, "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "delete", "update"]},
    ]});
    let binding = json!({
        "metadata": {"name": "agent"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
        "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "tidewater"}],
    });
    Api::<ClusterRole>::all(admin.clone()).create(&parameters, &serde_json::from_value(role)?).await?;
    Api::<ClusterRoleBinding>::all(admin.clone()).create(&parameters, &serde_json::from_value(binding)?).await?;
    let asked: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 7200}}))?;
    let given = accounts.create_token_request("agent", &parameters, &asked).await?;
    // JSON is YAML.
    let mut config: Value = serde_json::from_slice(&std::fs::read(plane.kubeconfig())?)?;
    config["users"][0]["user"] = json!({"token": given.status.context("a token")?.token});
    let file = dir.join("agent.kubeconfig");
    std::fs::write(&file, config.to_string())?;
    let agent = testbed::connect(&file).await?;
    until("its rights are known", async || {
        let maps: Api<ConfigMap> = Api::all(agent.clone());
        Ok(maps.list(&ListParams::default()).await.ok())
    })
    .await?;
    Ok(agent)
}

/// Of all that the agent asked for, nothing shows it what a Secret has, and no Secret is any but an attempt's token.
fn are_the_only_secrets_that_were_touched(plane: &ControlPlane) -> anyhow::Result<()> {
    let asked = plane.audited()?.into_iter().filter(|e| e.user == AGENT && e.resource == "secrets");
    let asked: Vec<_> = asked.collect();
    let verbs: BTreeSet<&str> = asked.iter().map(|e| e.verb.as_str()).collect();
    ensure!(verbs == BTreeSet::from(["create", "delete", "update"]), "{verbs:?}");
    let strange: Vec<_> = asked.iter().filter(|e| e.forbidden || !e.name.contains("-token-")).collect();
    ensure!(strange.is_empty(), "{strange:?}");
    let seen = plane.audited()?.into_iter().any(|e| e.user == AGENT && e.verb == "list");
    ensure!(seen, "lists are not audited, so that this shows nothing");
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

/// Whoever gives every token at once.
pub fn issuer() -> TokenSource {
    coordinators(LONG, Arc::new(AtomicU64::new(1)))
}

fn running(client: &Client, annotations: &[(&str, &str)], life: Duration, vault: &Arc<AtomicU64>) -> Running {
    let running = Running::new(client.clone(), settings(annotations));
    running.runtime.take_tokens_from(coordinators(life, vault.clone()));
    running
}

/// A gang of two with two tokens.
pub fn with_tokens(uid: u128, namespace: &str) -> anyhow::Result<LaunchOrder> {
    let mut order = order(uid, namespace, 2, 0)?;
    order.spec.tokens = serde_json::from_value(json!([
        {"audience": "sts.amazonaws.com", "mountPath": "/var/run/secrets/aws"},
        {"audience": "vault", "mountPath": "/run/vault/"},
    ]))?;
    Ok(order)
}

fn text(secret: &Secret) -> String {
    let data = secret.data.as_ref().and_then(|data| data.get("token"));
    data.map(|token| String::from_utf8_lossy(&token.0).into_owned()).unwrap_or_default()
}

/// The attempt's Secrets by name, with what is in each.
async fn secrets(client: &Client, attempt: AttemptId) -> anyhow::Result<Vec<(String, String)>> {
    let labels = ListParams::default().labels(&format!("tidewater.dev/attempt={attempt}"));
    let all = Api::<Secret>::all(client.clone()).list(&labels).await?.items;
    Ok(all.iter().map(|secret| (secret.metadata.name.clone().unwrap_or_default(), text(secret))).collect())
}

async fn come_before_the_pods_stay_fresh_and_go(plane: &ControlPlane, agent: &Client) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), with_tokens(31, "proofs")?);
    let attempt = order.attempt;
    let vault = Arc::new(AtomicU64::new(0));
    let mut running = running(agent, &[("runs-for", "600s")], Duration::from_secs(3), &vault);
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
    come_back_where_somebody_took_them_away(&client, attempt, &all[0].0).await?;

    // Another agent goes on with them, and the record knows none.
    drop(running);
    let mut running = self::running(agent, &[], LONG, &vault);
    let last = secrets(&client, attempt).await?;
    running.runtime.recover().await?;
    until("the next agent refreshes them", async || {
        let now = secrets(&client, attempt).await?;
        Ok(now.iter().zip(&last).all(|(now, then)| now.1 != then.1).then_some(()))
    })
    .await?;
    let maps = Api::<ConfigMap>::all(client.clone()).list(&ListParams::default()).await?;
    ensure!(!serde_json::to_string(&maps)?.contains("proof-"), "a token is on record");

    // Nothing is said to be gone while somebody holds a Secret of it.
    let held: Api<Secret> = Api::namespaced(client.clone(), "proofs");
    let finalizers = |all: Value| Patch::Merge(json!({"metadata": {"finalizers": all}}));
    held.patch(&all[1].0, &PatchParams::default(), &finalizers(json!(["test.tidewater.dev/held"]))).await?;
    running.runtime.stop(attempt, 1000).await?;
    until("the rest is gone", async || Ok((job(&client, "proofs").await.is_err()).then_some(()))).await?;
    let going = held.get(&all[1].0).await?;
    ensure!(going.metadata.deletion_timestamp.is_some(), "it was not ordered to go");
    ensure!(!running.has_ended(attempt), "it is said to be gone, and a token is left");
    held.patch(&all[1].0, &PatchParams::default(), &finalizers(Value::Null)).await?;
    ensure!(running.last(attempt).await? == AttemptState::Stopped);
    nothing_left(&client, attempt).await?;
    running.runtime.forget(attempt).await?;
    Ok(())
}

/// A Secret that somebody deleted is made anew, and one that somebody put in its place gives way.
async fn come_back_where_somebody_took_them_away(
    client: &Client,
    attempt: AttemptId,
    name: &str,
) -> anyhow::Result<()> {
    let all: Api<Secret> = Api::namespaced(client.clone(), "proofs");
    let taken = all.get(name).await?;
    all.delete(name, &DeleteParams::default()).await?;
    until("it is made anew", async || {
        let found = all.get_opt(name).await?;
        Ok(found.filter(|secret| text(secret).starts_with("proof-") && secret.metadata.uid != taken.metadata.uid))
    })
    .await?;
    ensure!(secrets(client, attempt).await?.len() == 2, "one has no labels");
    let others: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"other": "1"}}))?;
    until("another stands in its place", async || {
        all.delete(name, &DeleteParams::default()).await?;
        Ok(all.create(&PostParams::default(), &others).await.ok())
    })
    .await?;
    until("it gives way", async || {
        let found = all.get(name).await?;
        let others = found.data.as_ref().is_some_and(|data| data.contains_key("other"));
        Ok((text(&found).starts_with("proof-") && !others).then_some(()))
    })
    .await?;
    ensure!(secrets(client, attempt).await?.len() == 2, "one has no labels");
    Ok(())
}

async fn go_with_an_attempt_that_never_got_all_of_them(client: &Client, agent: &Client) -> anyhow::Result<()> {
    let order = with_tokens(32, "halves")?;
    let none = Arc::new(AtomicU64::new(0));
    let mut running = running(agent, &[], LONG, &none);
    running.runtime.recover().await?;
    running.start(&order).await?;
    until("its first token", async || Ok((secrets(client, order.attempt).await?.len() == 1).then_some(()))).await?;
    running.runtime.stop(order.attempt, 1000).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

/// A create that was carried out and had no answer: the next one finds the name taken, and what has it is replaced.
async fn are_made_once_where_no_answer_comes(plane: &ControlPlane, agent: &Client) -> anyhow::Result<()> {
    let (client, order) = (plane.client(), with_tokens(34, "silent")?);
    let silent = Arc::new(AtomicBool::new(true));
    let through = agent.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let is_create = request.method() == http::Method::POST && request.uri().path().ends_with("/secrets");
        let (agent, is_silent) = (through.clone(), is_create && silent.swap(false, Ordering::SeqCst));
        async move {
            let answer = agent.send(request).await;
            if is_silent { std::future::pending().await } else { answer }
        }
    });
    let mut running = Running::new(Client::new(service, "default"), settings(&[("runs-for", "1s")]));
    running.runtime.take_tokens_from(issuer());
    running.runtime.recover().await?;
    running.start(&order).await?;
    ensure!(running.end(order.attempt).await? == AttemptState::Succeeded);
    nothing_left(&client, order.attempt).await?;
    let of_secrets = plane.audited()?.into_iter().filter(|e| e.resource == "secrets" && e.namespace == "silent");
    let codes: Vec<(String, u64)> =
        of_secrets.filter(|e| e.verb != "delete").map(|e| (e.verb, e.code)).take(3).collect();
    let wanted = [("create", 201), ("create", 409), ("update", 200)].map(|(verb, code)| (verb.to_owned(), code));
    ensure!(codes == wanted, "{codes:?}");
    running.runtime.forget(order.attempt).await?;
    Ok(())
}

/// Somebody deleted the record of an attempt, so that its objects are nobody's: those that are found say which Secrets it may have.
async fn of_nobody_are_ended(client: &Client, agent: &Client) -> anyhow::Result<()> {
    let order = with_tokens(33, "orphans")?;
    let vault = Arc::new(AtomicU64::new(1));
    let mut running = running(agent, &[("runs-for", "600s")], LONG, &vault);
    running.runtime.recover().await?;
    running.start(&order).await?;
    running.until(order.attempt, "the gang runs", |s| *s == AttemptState::Running).await?;
    ensure!(secrets(client, order.attempt).await?.len() == 2);
    drop(running);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "tidewater");
    maps.delete(&format!("attempt-{}", order.attempt), &DeleteParams::default()).await?;
    let mut running = self::running(agent, &[], LONG, &vault);
    running.runtime.recover().await?;
    running.last(order.attempt).await?;
    nothing_left(client, order.attempt).await?;
    running.runtime.forget(order.attempt).await?;
    ensure!(records(client).await? == 0);
    Ok(())
}
