//! Durable submissions a second: three replicas of ours on loopback beside a 3-member etcd, on the same disk, one after the
//! other in alternating order, several rounds, each on empty data.
//!
//! A put of ours is a whole submission: `POST` of a small batch workload over HTTP, parsed, checked, committed by a quorum,
//! applied, answered with the object. A put of etcd's is one `Put` of the same bytes over gRPC, etcd's own way in. Both sides'
//! clients talk to the leader and share one thread of this process; etcd's share connections by ten, as its own benchmark
//! does (`benchmark --conns=100 --clients=1000`), ours have one each.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::clients::etcd::{Link, Putter};
use crate::clients::tidewater::Submitter;
use crate::etcd::Etcd;
use crate::federation::Federation;
use crate::load::{self, Round};
use crate::result::{Figures, load_average, round, table};

/// How many clients at once.
const CLIENTS: [usize; 3] = [1, 64, 1000];
/// etcd's clients that share a connection.
const SHARING: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Etcd,
}

/// All rounds of one side: for each number of clients, one round after the other.
#[derive(Default)]
struct Rounds([Vec<Round>; CLIENTS.len()]);

/// Measures both sides.
pub fn run(quick: bool) -> Result<Figures> {
    let (rounds, time) = if quick { (1, Duration::from_secs(1)) } else { (3, Duration::from_secs(8)) };
    let program = crate::built::tidewater()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load_before = load_average();
    let bar = ProgressBar::new((rounds * 2 * CLIENTS.len() + 1) as u64);
    bar.set_style(ProgressStyle::with_template("{msg:30} {bar:40} {pos}/{len} {elapsed}")?);
    let (mut ours, mut etcd) = (Rounds::default(), Rounds::default());
    for n in 0..rounds {
        let order = if n % 2 == 0 { [Side::Ours, Side::Etcd] } else { [Side::Etcd, Side::Ours] };
        for side in order {
            // Beside this program's own build folder: a real disk, the same for both. /tmp may be memory.
            let folder = tempfile::tempdir_in(program.parent().context("a program lies in a folder")?)?;
            match side {
                Side::Ours => runtime.block_on(round_of_ours(&program, folder.path(), time, &mut ours, &bar))?,
                Side::Etcd => runtime.block_on(round_of_etcd(folder.path(), time, &mut etcd, &bar))?,
            }
        }
    }
    bar.set_message("etcdctl check perf --load=l");
    // On a busy machine etcd may not get through it at all; the rounds above are the comparison.
    let check_perf =
        if quick { Value::Null } else { check_perf(&program).map_or_else(|e| format!("{e:#}").into(), Value::from) };
    bar.finish_and_clear();
    Ok(figures(&ours, &etcd, check_perf, time, load_before))
}

async fn round_of_ours(
    program: &Path,
    folder: &Path,
    time: Duration,
    into: &mut Rounds,
    bar: &ProgressBar,
) -> Result<()> {
    let federation = Federation::start(program, folder).await?;
    for (i, clients) in CLIENTS.into_iter().enumerate() {
        bar.set_message(format!("ours, {clients} clients"));
        let address = federation.replicas[federation.leader().await?].http;
        let mut all = Vec::new();
        for client in 0..clients {
            all.push(Submitter::connect(address, format!("c{clients}-{client}")).await?);
        }
        into.0[i].push(
            load::run(all, &federation.processes(), time).await.with_context(|| format!("ours, {clients} clients"))?,
        );
        bar.inc(1);
    }
    Ok(())
}

async fn round_of_etcd(folder: &Path, time: Duration, into: &mut Rounds, bar: &ProgressBar) -> Result<()> {
    let etcd = Etcd::start(folder)?;
    for (i, clients) in CLIENTS.into_iter().enumerate() {
        bar.set_message(format!("etcd, {clients} clients"));
        let address = etcd.leader()?;
        let mut links = Vec::new();
        for _ in 0..clients.div_ceil(SHARING) {
            links.push(Link::connect(address).await?);
        }
        let putter = |client: usize| Putter::new(links[client % links.len()].clone(), format!("c{clients}-{client}"));
        let all = (0..clients).map(putter).collect();
        into.0[i]
            .push(load::run(all, &etcd.processes(), time).await.with_context(|| format!("etcd, {clients} clients"))?);
        bar.inc(1);
    }
    Ok(())
}

fn check_perf(program: &Path) -> Result<f64> {
    let folder = tempfile::tempdir_in(program.parent().context("a program lies in a folder")?)?;
    Etcd::start(folder.path())?.check_perf()
}

fn sum(rounds: &[Round]) -> Round {
    let mut all = Round::none();
    rounds.iter().for_each(|round| all.add(round));
    all
}

fn figures(ours: &Rounds, etcd: &Rounds, check_perf: Value, time: Duration, load_before: f64) -> Figures {
    let mut shown = table(&[
        "clients",
        "",
        "per s",
        "p50 ms",
        "p99 ms",
        "rate of each round",
        "CPU of 3 servers, µs a put",
        "of the client",
        "ours / etcd",
    ]);
    let mut json = Map::new();
    for (i, clients) in CLIENTS.into_iter().enumerate() {
        let (a, b) = (sum(&ours.0[i]), sum(&etcd.0[i]));
        let times = round(a.per_s() / b.per_s().max(f64::MIN_POSITIVE));
        for (name, all, rounds) in [("ours", &a, &ours.0[i]), ("etcd", &b, &etcd.0[i])] {
            let each: Vec<f64> = rounds.iter().map(|r| r.per_s().round()).collect();
            shown.add_row([
                clients.to_string(),
                name.to_owned(),
                format!("{:.0}", all.per_s()),
                format!("{:.2}", all.ms(0.5)),
                format!("{:.2}", all.ms(0.99)),
                format!("{each:?}"),
                format!("{:.1}", all.servers_us()),
                format!("{:.1}", all.clients_us()),
                if name == "ours" { format!("{times:.2}") } else { String::new() },
            ]);
            let suffix = if clients == 1000 { String::new() } else { format!("_{clients}") };
            json.insert(format!("{name}{suffix}_per_s"), round(all.per_s()).into());
            json.insert(format!("{name}{suffix}_p50_ms"), round(all.ms(0.5)).into());
            json.insert(format!("{name}{suffix}_p99_ms"), round(all.ms(0.99)).into());
            json.insert(format!("{name}{suffix}_per_s_each_round"), json!(each));
            json.insert(format!("{name}{suffix}_servers_cpu_us_a_put"), round(all.servers_us()).into());
            json.insert(format!("{name}{suffix}_client_cpu_us_a_put"), round(all.clients_us()).into());
        }
        json.insert(format!("times_etcd_{clients}"), times.into());
    }
    json.insert("etcdctl_check_perf_l_per_s".into(), check_perf);
    json.insert("seconds_each_round".into(), time.as_secs().into());
    json.insert("load_average_before".into(), load_before.into());
    json.insert("load_average_after".into(), load_average().into());
    json.insert("body_bytes".into(), crate::clients::tidewater::workload("c1000-100-1000").len().into());
    Figures { table: shown, json }
}
