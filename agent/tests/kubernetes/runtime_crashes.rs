//! What happens to attempts when the API server or the agent dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent::runtime::Runtime;
use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use kube::api::{ListParams, Patch, PatchParams};
use kube::client::Body;
use kube::core::DynamicObject;
use kube::{Api, Client};
use protocol::control::{AttemptState, LaunchOrder};
use serde_json::json;
use testbed::{Binaries, Component, ControlPlane, make_namespace};
use tokio::sync::Notify;

use super::runtime_operators;
use super::runtime_world::{Running, made, nothing_left, order, plane, settings, until};
use super::tokens;

pub async fn api_server(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut plane = plane(&binaries, dir.path(), 2).await?;
    let client = plane.client();
    let (runs, comes) = (order(1, "down", 2, 1)?, order(2, "down", 1, 0)?);
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "5s")]));
    running.runtime.recover().await?;
    running.start(&runs).await?;
    running.until(runs.attempt, "the gang runs", |state| *state == AttemptState::Running).await?;
    plane.kill(Component::ApiServer);
    // Ordered while nobody answers.
    running.start(&comes).await?;
    let says = |state: &AttemptState| matches!(state, AttemptState::Starting { waiting_for } if waiting_for.contains("does not answer"));
    running.until(comes.attempt, "that the API server is away is told", says).await?;
    plane.start_again(Component::ApiServer).await?;
    let both = [running.end(comes.attempt).await?, running.last(runs.attempt).await?];
    ensure!(both == [AttemptState::Succeeded, AttemptState::Succeeded], "{both:?}");
    for attempt in [runs.attempt, comes.attempt] {
        nothing_left(&client, attempt).await?;
    }
    let jobs = made(&plane, "jobs", "down")?;
    ensure!(jobs.len() == 2, "{jobs:?}");

    // It hangs for longer than a request may take while an attempt is being made: creates go without an answer, and may be carried out.
    let hangs = order(3, "hung", 2, 1)?;
    running.start(&hangs).await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    plane.stall(Component::ApiServer);
    tokio::time::sleep(Duration::from_secs(8)).await;
    plane.resume(Component::ApiServer);
    let end = running.end(hangs.attempt).await?;
    ensure!(end == AttemptState::Succeeded, "{end:?}");
    nothing_left(&client, hangs.attempt).await?;
    // A create whose time was over is audited as refused, and may have been carried out: a second Job would show by its pods.
    let (jobs, pods) = (made(&plane, "jobs", "hung")?, made(&plane, "pods", "hung")?);
    ensure!(jobs.len() <= 1 && pods.len() <= 2, "{jobs:?}, {pods:?}");
    plane.stop();
    Ok(())
}

/// When an agent dies.
#[derive(Debug, Clone, Copy)]
enum Dies {
    /// Before its request is sent.
    Before,
    /// After its request was carried out, before the answer comes.
    After,
}

/// A client that dies at its change number `at`: nothing goes through it from then on.
fn dying(client: Client, at: usize, when: Dies) -> (Client, Arc<Notify>) {
    let (count, dead) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let told = dead.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let changes = request.method() != http::Method::GET;
        let number = if changes { count.fetch_add(1, Ordering::SeqCst) } else { count.load(Ordering::SeqCst) };
        let dies = (changes && number >= at) || number > at;
        let (client, dead) = (client.clone(), dead.clone());
        async move {
            if !dies {
                return client.send(request).await;
            }
            if let Dies::After = when
                && number == at
            {
                let _ = client.send(request).await;
            }
            dead.notify_one();
            std::future::pending().await
        }
    });
    (Client::new(service, "default"), told)
}

/// What an agent is killed at, and who says how it ends.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// A batch Job: the cluster's own controller runs it.
    Batch,
    /// The same with tokens.
    Tokens,
    /// A RayJob, whose operator the test plays.
    Ray,
    /// A SparkApplication, whose operator the test plays.
    Spark,
}

impl Of {
    const ALL: [Of; 4] = [Of::Batch, Of::Tokens, Of::Ray, Of::Spark];

    /// What is made once at most.
    fn resource(self) -> &'static str {
        match self {
            Of::Batch | Of::Tokens => "jobs",
            Of::Ray => "rayjobs",
            Of::Spark => "sparkapplications",
        }
    }

    async fn order(self, client: &Client, uid: u128, namespace: &str) -> anyhow::Result<LaunchOrder> {
        match self {
            Of::Batch => order(uid, namespace, 2, 1),
            Of::Tokens => tokens::with_tokens(uid, namespace),
            Of::Ray => runtime_operators::ray(uid, namespace),
            Of::Spark => {
                make_namespace(client, namespace).await?;
                testbed::drivers_may_make_executors(client, namespace).await?;
                runtime_operators::spark(uid, namespace)
            }
        }
    }

    /// Says of each object of this kind in the namespace that it has come to its end, for as long as it is polled.
    async fn play(self, client: &Client, namespace: &str) -> anyhow::Result<()> {
        let (kind, status) = match self {
            Of::Batch | Of::Tokens => return std::future::pending().await,
            Of::Ray => ("RayJob", json!({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})),
            Of::Spark => ("SparkApplication", json!({"driverInfo": {}, "applicationState": {"state": "COMPLETED"}})),
        };
        let (kind, status) = (runtime_operators::kind(kind), json!({"status": status}));
        let all: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        loop {
            // A busy API server takes a while to make ready what it keeps of a kind that is new to it, and says so until then.
            let listed = match all.list(&ListParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 429 => vec![],
                listed => listed.context("the operator's list")?.items,
            };
            for object in listed {
                if object.data["status"].is_null() {
                    let name = object.metadata.name.unwrap_or_default();
                    // It may be gone meanwhile.
                    let _ = all.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The agent is killed at each of its changes in turn, before and after it is carried out; the next one finds what there is. The attempt ends,
/// nothing is left, and its Job, RayJob or SparkApplication was made once at most.
pub async fn agent(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 2).await?;
    plane.serve(&binaries.operators_resources()?).await?;
    let client = plane.client();
    until("the kinds are known", async || Ok(runtime_operators::are_known(&client).await.then_some(()))).await?;
    try_join_all(Of::ALL.map(|of| killed_at_each_change(&plane, of))).await?;
    plane.stop();
    Ok(())
}

async fn killed_at_each_change(plane: &ControlPlane, of: Of) -> anyhow::Result<()> {
    let mut ends = vec![];
    for at in 0.. {
        let both = [Dies::Before, Dies::After].map(|when| killed(plane, of, at, when));
        let both = try_join_all(both).await?;
        let reached = both.iter().any(|(died, _)| *died);
        ends.extend(both.into_iter().map(|(_, end)| end));
        if !reached {
            break;
        }
    }
    eprintln!("    killed at each change, a {of:?} attempt ended so:\n      {}", ends.join("\n      "));
    // Not for nothing: once its object was made, the next agent took it to its end.
    ensure!(ends.iter().any(|end| end.ends_with("Succeeded")), "{of:?}");
    ensure!(ends.iter().any(|end| end.contains("was not made yet")), "{of:?}");
    Ok(())
}

/// Whether the agent died, and how the attempt ended.
async fn killed(plane: &ControlPlane, of: Of, at: usize, when: Dies) -> anyhow::Result<(bool, String)> {
    let client = plane.client();
    let uid = 1_000 * (1 + of as u128) + 2 * at as u128 + matches!(when, Dies::After) as u128;
    let namespace = format!("agent-{uid}");
    let order = of.order(&client, uid, &namespace).await?;
    let lives = async {
        let (client_of_first, dead) = dying(client.clone(), at, when);
        let first = Running::new(client_of_first, settings(&[("runs-for", "1s")]));
        first.runtime.take_tokens_from(tokens::issuer());
        first.runtime.recover().await?;
        first.start(&order).await?;
        // It dies, or has nothing more to change.
        let died = tokio::time::timeout(Duration::from_secs(15), dead.notified()).await.is_ok();
        drop(first);
        let mut second = Running::new(client.clone(), settings(&[("runs-for", "1s")]));
        second.runtime.take_tokens_from(tokens::issuer());
        let found = second.runtime.recover().await?;
        let end = match found.into_iter().find(|(attempt, _)| *attempt == order.attempt) {
            // Without a record there is nothing of it, and the agent's journal says that it was lost.
            None => None,
            Some((_, state)) if state.is_final() => Some(state),
            Some(_) => Some(second.end(order.attempt).await?),
        };
        nothing_left(&client, order.attempt).await?;
        let objects = made(plane, of.resource(), &namespace)?;
        ensure!(objects.len() <= 1, "killed {when:?} change {at}: {objects:?}");
        if end == Some(AttemptState::Succeeded) {
            ensure!(objects.len() == 1, "killed {when:?} change {at}: it succeeded and was never made");
        }
        second.runtime.forget(order.attempt).await?;
        Ok((died, format!("{at} {when:?}: {}", end.map_or("none".to_owned(), |e| format!("{e:?}")))))
    };
    tokio::select! {
        ended = lives => ended,
        played = of.play(&client, &namespace) => Err(played.err().unwrap_or_else(|| anyhow::anyhow!("nobody plays the operator"))),
    }
}
