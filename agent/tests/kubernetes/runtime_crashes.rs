//! What happens to attempts when the API server or the agent dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent::runtime::Runtime;
use anyhow::ensure;
use kube::Client;
use kube::client::Body;
use protocol::control::AttemptState;
use testbed::{Binaries, Component};
use tokio::sync::Notify;

use super::runtime_world::{Running, made, nothing_left, order, plane, settings};

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

/// The agent is killed at each of its changes in turn, before and after it is carried out; the next one finds what there is. The attempt ends,
/// nothing is left, and its Job was made once at most.
pub async fn agent(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 2).await?;
    let client = plane.client();
    let mut ends = vec![];
    for at in 0.. {
        let mut reached = false;
        for when in [Dies::Before, Dies::After] {
            let uid = 100 + 2 * at as u128 + matches!(when, Dies::After) as u128;
            let namespace = format!("agent-{uid}");
            let order = order(uid, &namespace, 2, 1)?;
            let (client_of_first, dead) = dying(client.clone(), at, when);
            let first = Running::new(client_of_first, settings(&[("runs-for", "1s")]));
            first.runtime.recover().await?;
            first.start(&order).await?;
            // It dies, or has nothing more to change.
            let died = tokio::time::timeout(Duration::from_secs(15), dead.notified()).await.is_ok();
            drop(first);
            reached |= died;
            let mut second = Running::new(client.clone(), settings(&[("runs-for", "1s")]));
            let found = second.runtime.recover().await?;
            let end = match found.into_iter().find(|(attempt, _)| *attempt == order.attempt) {
                // Without a record there is nothing of it, and the agent's journal says that it was lost.
                None => None,
                Some((_, state)) if state.is_final() => Some(state),
                Some(_) => Some(second.end(order.attempt).await?),
            };
            nothing_left(&client, order.attempt).await?;
            let jobs = made(&plane, "jobs", &namespace)?;
            ensure!(jobs.len() <= 1, "killed {when:?} change {at}: {jobs:?}");
            if end == Some(AttemptState::Succeeded) {
                ensure!(jobs.len() == 1, "killed {when:?} change {at}: it succeeded and was never made");
            }
            second.runtime.forget(order.attempt).await?;
            ends.push(format!("{at} {when:?}: {}", end.map_or("none".to_owned(), |e| format!("{e:?}"))));
        }
        if !reached {
            break;
        }
    }
    eprintln!("    killed at each change, it ended so:\n      {}", ends.join("\n      "));
    // Not for nothing: once the Job was made, the next agent took it to its end.
    ensure!(ends.iter().any(|end| end.ends_with("Succeeded")));
    ensure!(ends.iter().any(|end| end.contains("was not made yet")));
    plane.stop();
    Ok(())
}
