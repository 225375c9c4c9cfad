//! What the demo shows, in order: two pools; one lends its idle room to the other; workloads go in; one of the lender's must wait,
//! and says why; the room is taken back; all end well; for each, where it ran and why there, the end of its log, and its time from
//! submit to start. What gave its room runs again once there is some.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use protocol::api::WorkloadObject;
use protocol::ids::{Namespace, WorkloadKey};
use protocol::pool::Resource;
use protocol::sku::Sku;
use protocol::workload::Framework;

use super::chaos::Chaos;
use super::examples::Manifests;
use crate::client::Client;
use crate::dev::Federation;
use crate::manifest;
use crate::render::{Out, pools};

/// The demo gives up after this.
const LIMIT: Duration = Duration::from_secs(280);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(150);
/// Lines of a log's end that are shown.
const TAIL: usize = 4;

/// One workload of the demo.
struct Actor {
    key: WorkloadKey,
    submitted: Instant,
    phase: String,
    started: Option<Duration>,
    ended: Option<WorkloadObject>,
}

/// Runs it; returns how many workloads succeeded.
pub async fn tell(
    federation: &mut Federation,
    client: &Client,
    manifests: &Manifests,
    frameworks: &[Framework],
    chaos: bool,
) -> anyhow::Result<usize> {
    let began = Instant::now();
    set_pools(client, &manifests.path("pools.yaml")).await?;
    let holder = submit(client, &manifests.path("lent-hold.yaml")).await?;
    wait_for_phase(client, &holder.key, &["Running"]).await.context("the holder of the GPUs")?;
    say!(
        "{} is Running: the pool research holds 48 H100, of which it has 16 by right; the rest is lent",
        holder.key.name
    );
    show_pools(client).await?;

    let mut files = vec!["claim-gang.yaml", "batch-allreduce.yaml"];
    if frameworks.contains(&Framework::Ray) {
        files.push("ray-train.yaml");
    }
    if frameworks.contains(&Framework::Spark) {
        files.push("spark-sum.yaml");
    }
    let mut actors = Vec::new();
    for file in files {
        actors.push(submit(client, &manifests.path(file)).await?);
    }
    let gang = actors[0].key.clone();
    let why = wait_for_reason(client, &gang).await?;
    say!("\n{} must wait. `tidewater why {}` says:\n{}\n", gang.name, gang.name, indent(&why));

    let mut chaos = if chaos { Chaos::Armed } else { Chaos::Off };
    let mut held = String::new();
    while actors.iter().any(|a| a.ended.is_none()) {
        if began.elapsed() > LIMIT {
            let open: Vec<String> =
                actors.iter().filter(|a| a.ended.is_none()).map(|a| format!("{} ({})", a.key.name, a.phase)).collect();
            bail!("not done within {} s: {}", LIMIT.as_secs(), open.join(", "));
        }
        for actor in &mut actors {
            look(client, actor).await?;
        }
        let others_run = actors.iter().skip(1).all(|a| a.started.is_some() || a.ended.is_some());
        if others_run {
            chaos.strike(federation).await?;
        }
        watch_holder(client, &holder.key, &mut held).await?;
        chaos.mend(federation, false).await?;
        tokio::time::sleep(LOOK).await;
    }
    chaos.mend(federation, true).await?;
    wait_for_phase(client, &holder.key, &["Running"]).await.context("what gave its room, once there is room again")?;
    say!("\n{} runs again, in room that nobody asks for; the demo is over, so it is cancelled", holder.key.name);
    client.cancel(&holder.key).await?;
    wait_for_phase(client, &holder.key, &["Cancelled"]).await.context("the holder of the GPUs")?;

    let mut failed = Vec::new();
    for actor in &actors {
        report(client, actor).await?;
        if actor.phase != "Succeeded" {
            failed.push(format!("{} ended as {}", actor.key.name, actor.phase));
        }
    }
    if failed.is_empty() { Ok(actors.len()) } else { bail!(failed.join("; ")) }
}

async fn submit(client: &Client, file: &str) -> anyhow::Result<Actor> {
    let objects = manifest::read(&[file.to_owned()], None)?;
    let [object] = &objects[..] else { bail!("{file} has {} workloads; the demo needs one", objects.len()) };
    let submitted = Instant::now();
    let (made, warnings) = client.submit(object).await?;
    for warning in warnings {
        say!("warning: {warning}");
    }
    let namespace = match made.metadata.namespace {
        Some(namespace) => namespace,
        None => Namespace::new("default")?,
    };
    let key = WorkloadKey { namespace, name: made.metadata.name };
    Ok(Actor { key, submitted, phase: String::new(), started: None, ended: None })
}

/// Looks at one workload and tells what is new.
async fn look(client: &Client, actor: &mut Actor) -> anyhow::Result<()> {
    if actor.ended.is_some() {
        return Ok(());
    }
    let object = client.get(&actor.key).await?;
    let Some(status) = object.status.clone() else { bail!("workload {} has no status", actor.key) };
    if status.phase != actor.phase {
        let place = status.cluster.as_ref().map(|c| format!(" in {c}")).unwrap_or_default();
        say!("{:7.1} s  {}  {}{place}", actor.submitted.elapsed().as_secs_f64(), actor.key.name, status.phase);
        actor.phase.clone_from(&status.phase);
    }
    let running = status.attempts.last().is_some_and(|a| a.running_at.is_some());
    if running && actor.started.is_none() {
        actor.started = Some(actor.submitted.elapsed());
    }
    if matches!(status.phase.as_str(), "Succeeded" | "Failed" | "Cancelled") {
        actor.ended = Some(object);
    }
    Ok(())
}

async fn wait_for_phase(client: &Client, key: &WorkloadKey, phases: &[&str]) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let object = client.get(key).await?;
        let status = object.status.context("it has no status")?;
        if phases.contains(&status.phase.as_str()) {
            return Ok(());
        }
        let over = matches!(status.phase.as_str(), "Succeeded" | "Failed" | "Cancelled");
        if over || began.elapsed() > Duration::from_secs(60) {
            bail!("{key} is {} instead of {}: {}", status.phase, phases.join(" or "), status.message);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells what becomes of the holder, and why it gives its room. It must not have ended by itself: then there would be nothing
/// to take back.
async fn watch_holder(client: &Client, key: &WorkloadKey, before: &mut String) -> anyhow::Result<()> {
    let status = client.get(key).await?.status.context("it has no status")?;
    let over = matches!(status.phase.as_str(), "Succeeded" | "Failed" | "Cancelled");
    anyhow::ensure!(!over, "{key} should give its room back and wait, but is {}: {}", status.phase, status.message);
    if status.phase != *before {
        let first = before.is_empty();
        before.clone_from(&status.phase);
        if !first && matches!(status.phase.as_str(), "Draining" | "Queued") {
            let why = client.why(key).await?;
            say!("\n{} is {}. `tidewater why {}` says:\n{}\n", key.name, status.phase, key.name, indent(&why.text));
        }
    }
    Ok(())
}

async fn set_pools(client: &Client, file: &str) -> anyhow::Result<()> {
    for rule in manifest::pools::read(&[file.to_owned()])? {
        if let manifest::pools::Rule::Pool(pool) = rule {
            client.set_pool(&pool).await.with_context(|| format!("pool {}", pool.metadata.name))?;
        }
    }
    Ok(())
}

/// The tree of pools, as `tidewater pools` shows it.
async fn show_pools(client: &Client) -> anyhow::Result<()> {
    let list = client.pools().await?;
    let h100 = Resource::Model(Sku::parse("H100")?);
    say!(
        "\n`tidewater pools --resource gpu/H100` says:\n{}",
        indent(&pools::tree(&list.items, Some(&h100), &Out::plain()))
    );
    Ok(())
}

/// The reason of one that waits, once the planner has looked at it.
async fn wait_for_reason(client: &Client, key: &WorkloadKey) -> anyhow::Result<String> {
    let began = Instant::now();
    loop {
        let why = client.why(key).await?;
        let waits =
            why.explanation.as_ref().is_some_and(|e| e.waiting.as_ref().is_some_and(|w| !w.candidates.is_empty()));
        if waits {
            return Ok(why.text);
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "{key} should wait for room, but: {}", why.text);
        tokio::time::sleep(LOOK).await;
    }
}

async fn report(client: &Client, actor: &Actor) -> anyhow::Result<()> {
    let why = client.why(&actor.key).await?;
    let start = actor
        .started
        .map_or_else(|| "never ran".to_owned(), |s| format!("{:.1} s from submit to start", s.as_secs_f64()));
    say!("\n== {}: {}, {start}", actor.key.name, actor.phase);
    say!("{}", indent(&why.text));
    say!("  the end of its log:");
    for line in tail(client, &actor.key).await? {
        say!("    | {line}");
    }
    Ok(())
}

async fn tail(client: &Client, key: &WorkloadKey) -> anyhow::Result<Vec<String>> {
    let mut stream = client.logs(key, None, None, false).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    Ok(lines.iter().skip(lines.len().saturating_sub(TAIL)).map(|l| l.chars().take(140).collect()).collect())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
