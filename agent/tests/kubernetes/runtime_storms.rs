//! An API server that answers now this and now that instead of what it was asked, also where it did it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use agent::runtime::Runtime;
use anyhow::ensure;
use kube::Client;
use kube::client::Body;
use protocol::control::AttemptState;
use serde_json::json;
use testbed::Binaries;

use super::runtime_world::{Running, made, nothing_left, order, plane, settings};

const ATTEMPTS: u128 = 12;
/// Of how many requests one is refused.
const OF: u64 = 3;
/// What is answered, and whether the change may have been made all the same.
const REFUSALS: [(u16, &str, bool); 6] = [
    (429, "TooManyRequests", false),
    (500, "InternalError", false),
    (500, "InternalError", true),
    (503, "ServiceUnavailable", false),
    (504, "Timeout", true),
    (504, "Timeout", false),
];
/// Of a list or a watch from a version that is too old.
const GONE: (u16, &str, bool) = (410, "Expired", false);

/// The same numbers in each run.
fn number(of: u64) -> u64 {
    let mut x = of.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 27)) >> 11
}

/// A client whose requests are refused every now and then; and how many were.
fn stormy(client: Client) -> (Client, Arc<AtomicU64>) {
    let (count, refused) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let total = refused.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let number = number(count.fetch_add(1, Ordering::SeqCst));
        let query = request.uri().query().unwrap_or_default();
        let may_be_gone = query.contains("resourceVersion=") || query.contains("continue=");
        let (code, reason, done) = match number / OF % (REFUSALS.len() as u64 + 1) {
            0 if may_be_gone => GONE,
            0 => REFUSALS[0],
            n => REFUSALS[n as usize - 1],
        };
        let (client, refuses) = (client.clone(), number.is_multiple_of(OF));
        refused.fetch_add(u64::from(refuses), Ordering::SeqCst);
        async move {
            if !refuses {
                return client.send(request).await;
            }
            if done && request.method() != http::Method::GET {
                client.send(request).await?;
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "as the test has it",
                "reason": reason, "code": code,
            });
            let answer = http::Response::builder().status(code).header("content-type", "application/json");
            let answer = if code == 429 { answer.header("retry-after", "1") } else { answer };
            Ok::<_, kube::Error>(answer.body(Body::from(status.to_string().into_bytes())).expect("it is an answer"))
        }
    });
    (Client::new(service, "default"), total)
}

/// Gangs run to their end, once each.
pub async fn refusals(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 4).await?;
    let client = plane.client();
    let (weather, refused) = stormy(client.clone());
    let mut running = Running::new(weather, settings(&[("runs-for", "1s")]));
    running.runtime.recover().await?;
    let orders = (0..ATTEMPTS).map(|n| order(200 + n, "storm", 1 + n as u32 % 2, 1));
    let orders: Vec<_> = orders.collect::<anyhow::Result<_>>()?;
    for order in &orders {
        running.start(order).await?;
    }
    for order in &orders {
        let end = running.last(order.attempt).await?;
        ensure!(end == AttemptState::Succeeded, "{}: {end:?}: {:?}", order.attempt, running.said.get(&order.attempt));
        nothing_left(&client, order.attempt).await?;
        while running.runtime.forget(order.attempt).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
    let (jobs, pods) = (made(&plane, "jobs", "storm")?, made(&plane, "pods", "storm")?);
    let members: u32 = (0..ATTEMPTS as u32).map(|n| 1 + n % 2).sum();
    ensure!(jobs.len() == ATTEMPTS as usize && pods.len() == members as usize, "{jobs:?}, {pods:?}");
    let refused = refused.load(Ordering::SeqCst);
    eprintln!("    {ATTEMPTS} attempts through {refused} refusals");
    ensure!(refused > 50, "{refused}");
    plane.stop();
    Ok(())
}
