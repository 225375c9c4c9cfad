//! The leader is killed (`kill -9` of its process): time until the next workload, submitted right after to a surviving
//! replica, is seen to be placed there. Three coordinators and three agents as processes, on the declared fleet. The killed
//! replica is started again before the next try.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::clients::tidewater::Submitter;
use crate::federation::Federation;
use crate::result::{Figures, load_average, round, table};

/// Between two looks at whether it is placed. A look is a read of what the replica has applied, and costs it little.
const LOOK: Duration = Duration::from_millis(2);
/// A try that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(30);

/// One try, in ms since the leader was killed.
struct Try {
    /// Another replica knows itself to lead: detection and election.
    elected: f64,
    /// The submission was acknowledged.
    acknowledged: f64,
    /// It was placed.
    placed: f64,
}

/// A row of the table: its name, its meaning, and its figure in one try.
type Step = (&'static str, &'static str, fn(&Try) -> f64);

/// Kills the leader again and again.
pub fn run(quick: bool) -> Result<Figures> {
    let tries = if quick { 3 } else { 20 };
    let program = crate::built::tidewater()?;
    let load_before = load_average();
    let folder = tempfile::tempdir_in(program.parent().context("a program lies in a folder")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bar = ProgressBar::new(tries);
    bar.set_style(ProgressStyle::with_template("leader killed {bar:40} {pos}/{len} {elapsed}")?);
    let all = runtime.block_on(async {
        let mut federation = Federation::start(&program, folder.path()).await?;
        federation.start_agents().await?;
        let mut all = Vec::new();
        for number in 0..tries {
            all.push(one(&mut federation, number).await?);
            bar.inc(1);
        }
        anyhow::Ok(all)
    })?;
    bar.finish_and_clear();
    Ok(figures(&all, load_before))
}

async fn one(federation: &mut Federation, number: u64) -> Result<Try> {
    let leader = federation.leader().await?;
    let others: Vec<SocketAddr> =
        federation.replicas.iter().enumerate().filter(|(i, _)| *i != leader).map(|(_, r)| r.http).collect();
    // Either may win the election: the client can't know.
    let http = others[(number % 2) as usize];
    let mut client = Submitter::connect(http, String::new()).await?;
    let name = format!("after-{number}");
    let killed = Instant::now();
    federation.kill_replica(leader)?;
    let since = || killed.elapsed().as_secs_f64() * 1000.0;
    let submit = async {
        client.submit(&name).await?;
        anyhow::Ok(since())
    };
    let (acknowledged, elected, placed) = tokio::join!(
        submit,
        async {
            elected(federation, &others).await?;
            anyhow::Ok(since())
        },
        async {
            placed(federation, http, &name).await?;
            anyhow::Ok(since())
        }
    );
    let result = Try { elected: elected?, acknowledged: acknowledged?, placed: placed? };
    federation.start_replica(leader)?;
    federation.leader().await?;
    federation.clusters_ready().await?;
    Ok(result)
}

async fn elected(federation: &Federation, others: &[SocketAddr]) -> Result<()> {
    wait(LOOK * 5, || async {
        for replica in federation.replicas.iter().filter(|replica| others.contains(&replica.http)) {
            if federation.leads(replica).await {
                return true;
            }
        }
        false
    })
    .await
    .context("no new leader")
}

async fn placed(federation: &Federation, http: SocketAddr, name: &str) -> Result<()> {
    let path = format!("/apis/tidewater.dev/v1/namespaces/bench/workloads/{name}?consistency=stale");
    wait(LOOK, || async {
        // It is not there until it is committed.
        let Ok(text) = federation.get(http, &path).await else { return false };
        let Ok(object) = serde_json::from_str::<Value>(&text) else { return false };
        object["status"]["attempts"].as_array().is_some_and(|attempts| !attempts.is_empty())
    })
    .await
    .with_context(|| format!("{name} was not placed"))
}

async fn wait<F: Future<Output = bool>>(between: Duration, holds: impl Fn() -> F) -> Result<()> {
    let until = Instant::now() + LONGEST;
    while !holds().await {
        if Instant::now() > until {
            bail!("not within {LONGEST:?}");
        }
        tokio::time::sleep(between).await;
    }
    Ok(())
}

fn figures(all: &[Try], load_before: f64) -> Figures {
    let mut shown = table(&["ms after the kill", "p50", "max"]);
    let mut json = Map::new();
    let steps: [Step; 3] = [
        ("another replica leads", "elected_", |t| t.elected),
        ("the submission is acknowledged", "acknowledged_", |t| t.acknowledged),
        ("the workload is placed", "", |t| t.placed),
    ];
    for (what, key, of) in steps {
        let mut times: Vec<f64> = all.iter().map(of).map(round).collect();
        times.sort_by(f64::total_cmp);
        let (p50, max) = (times[(times.len() - 1) / 2], times[times.len() - 1]);
        shown.add_row([what.to_owned(), format!("{p50:.0}"), format!("{max:.0}")]);
        json.insert(format!("{key}p50_ms"), p50.into());
        json.insert(format!("{key}max_ms"), max.into());
        json.insert(format!("{key}each_ms"), json!(times));
    }
    json.insert("tries".into(), all.len().into());
    json.insert("load_average_before".into(), load_before.into());
    Figures { table: shown, json }
}
