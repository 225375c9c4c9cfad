//! Jobs a second through one coordinator and three agents into three API servers, beside what the same API servers take of the very same
//! Jobs from a plain client with 64 connections. API servers and their etcd alone, as MultiKueue measures itself: no controller runs, no pod
//! comes of a Job. Rounds of both alternate, so that both meet the same machine. Each cluster has data of its own that every third workload
//! requires, so that all three API servers have their part of either side's Jobs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use testbed::{Binaries, Component, ControlPlane, FakeNodes, Settings};

use crate::clients::tidewater::Submitter;
use crate::federation::{CLUSTERS, Federation};
use crate::jobs::nobodys;
use crate::result::{Figures, load_average, round, table};
use crate::usage::cpu;

/// Connections of the plain client, to all API servers together.
const CONNECTIONS: usize = 64;
/// Connections by which workloads are submitted.
const SUBMITTERS: usize = 8;
/// Nodes of 192 cores in each cluster.
const NODES: u32 = 20;
/// The shortest time between two looks at how many there are. While many are missing looks are rarer: for each the API server's store counts
/// them all, which would be charged to one side alone.
const LOOK: Duration = Duration::from_millis(50);
/// A round of ours that takes longer than this has failed.
const LONGEST: Duration = Duration::from_secs(300);
const NAMESPACE: &str = "bench";

/// What a round takes.
struct Sizes {
    workloads: usize,
    raw: Duration,
    rounds: usize,
}

/// What one side did.
#[derive(Default)]
struct Side {
    jobs: usize,
    time: Duration,
    /// CPU time of API servers and etcd, agents, coordinator.
    cpu: [Duration; 3],
}

impl Side {
    fn add(&mut self, other: Side) {
        self.jobs += other.jobs;
        self.time += other.time;
        (0..3).for_each(|i| self.cpu[i] += other.cpu[i]);
    }

    fn per_s(&self) -> f64 {
        self.jobs as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn cpu_ms(&self, of: usize) -> f64 {
        self.cpu[of].as_secs_f64() * 1000.0 / self.jobs.max(1) as f64
    }
}

/// Dispatches to three API servers.
pub fn run(quick: bool) -> Result<Figures> {
    let sizes = match quick {
        true => Sizes { workloads: 60, raw: Duration::from_secs(1), rounds: 1 },
        false => Sizes { workloads: 2_000, raw: Duration::from_secs(10), rounds: 3 },
    };
    let program = crate::built::tidewater()?;
    let load_before = load_average();
    let folder = tempfile::tempdir_in(program.parent().context("a program lies in a folder")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let bar = ProgressBar::new(2 * sizes.rounds as u64 + 2);
    bar.set_style(ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len} {elapsed}")?);
    let (ours, raw, made) = runtime.block_on(measure(&program, folder.path(), &sizes, &bar))?;
    bar.finish_and_clear();
    Ok(figures(&ours, &raw, made, load_before))
}

async fn measure(program: &Path, folder: &Path, sizes: &Sizes, bar: &ProgressBar) -> Result<(Side, Side, [usize; 3])> {
    let step = |what: &str| {
        bar.set_message(what.to_owned());
        bar.inc(1);
    };
    step("API servers start");
    let binaries = Binaries::provide(&Settings::api_only("").tools(), &|line| bar.println(line))?;
    let starts = CLUSTERS.map(|name| start(&binaries, folder.join(name)));
    let planes = try_join_all(starts).await?;
    let clients: Vec<Client> = planes.iter().map(ControlPlane::client).collect();
    let mut federation = Federation::start_replicas(program, folder, 1).await?;
    let kubeconfigs: Vec<_> = planes.iter().map(ControlPlane::kubeconfig).collect();
    federation.start_kubernetes_agents(&kubeconfigs).await?;
    let servers: Vec<u32> = planes.iter().flat_map(servers).collect();
    let (agents, coordinator) = (federation.agents(), federation.processes());
    let spent = || [&servers, &agents, &coordinator].map(|pids| pids.iter().map(|pid| cpu(*pid)).sum::<Duration>());
    let http = federation.replicas[0].http;

    make_data(http).await?;
    step("warm-up");
    ours(&clients, http, "warm", sizes.workloads.div_ceil(20)).await?;
    let manifest = a_job(&clients).await?;
    let (mut all_ours, mut all_raw) = (Side::default(), Side::default());
    for number in 0..sizes.rounds {
        for (side, is_ours) in [(&mut all_ours, true), (&mut all_raw, false)] {
            step(if is_ours { "through Tidewater" } else { "raw" });
            let (before, name) = (spent(), format!("r{number}"));
            let (jobs, time) = match is_ours {
                true => ours(&clients, http, &name, sizes.workloads).await?,
                false => raw(&clients, &manifest, &name, sizes.raw).await?,
            };
            let after = spent();
            let cpu = std::array::from_fn(|i| after[i].saturating_sub(before[i]));
            side.add(Side { jobs, time, cpu });
        }
    }
    let mut made = [0; 3];
    for client in &clients {
        made[0] += Api::<Job>::namespaced(client.clone(), NAMESPACE).list_metadata(&all()).await?.items.len();
        made[1] += Api::<Service>::namespaced(client.clone(), NAMESPACE).list_metadata(&all()).await?.items.len();
        made[2] += Api::<ConfigMap>::namespaced(client.clone(), "tidewater").list_metadata(&all()).await?.items.len();
    }
    drop(federation);
    planes.into_iter().for_each(ControlPlane::stop);
    Ok((all_ours, all_raw, made))
}

fn all() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/managed-by=tidewater")
}

fn servers(plane: &ControlPlane) -> Vec<u32> {
    let of = |component| Some(plane.process(component)?.pid()? as u32);
    [Component::Etcd, Component::ApiServer].into_iter().filter_map(of).collect()
}

/// An API server with ready nodes, though nobody is behind them.
async fn start(binaries: &Binaries, folder: std::path::PathBuf) -> Result<ControlPlane> {
    let plane = ControlPlane::start(binaries, Settings::api_only(folder)).await?;
    let client = plane.client();
    crate::nodes::make(&client, &FakeNodes { gpus: 0, ..FakeNodes::h100("cpu", NODES) }, || ()).await?;
    for name in ["tidewater", NAMESPACE] {
        testbed::make_namespace(&client, name).await?;
    }
    Ok(plane)
}

/// Submits so many at once, and waits until there is a Job of each.
async fn ours(
    clients: &[Client],
    http: std::net::SocketAddr,
    name: &str,
    workloads: usize,
) -> Result<(usize, Duration)> {
    let before = counted(clients).await?;
    let began = Instant::now();
    let submit = try_join_all((0..SUBMITTERS).map(|part| async move {
        let mut submitter = Submitter::connect(http, String::new()).await?;
        for number in (part..workloads).step_by(SUBMITTERS) {
            let cluster = CLUSTERS[number / SUBMITTERS % CLUSTERS.len()];
            submitter.post(&workload(&format!("w-{name}-{number}"), cluster)).await?;
        }
        anyhow::Ok(())
    }));
    let watch = async {
        let mut there = 0;
        while there < workloads {
            if began.elapsed() > LONGEST {
                bail!("{there} of {workloads} Jobs after {LONGEST:?}");
            }
            tokio::time::sleep(pause(there, workloads, began.elapsed())).await;
            there = counted(clients).await?.saturating_sub(before);
        }
        Ok(began.elapsed())
    };
    let (_, time) = tokio::try_join!(submit, watch)?;
    Ok((workloads, time))
}

/// Until the next look: a quarter of the time that the rest will take at the rate so far.
fn pause(there: usize, of: usize, since: Duration) -> Duration {
    let left = of.saturating_sub(there) as f64 / there.max(1) as f64;
    since.mul_f64(left / 4.0).clamp(LOOK, 20 * LOOK)
}

/// Data of which each cluster has what no other has.
async fn make_data(http: std::net::SocketAddr) -> Result<()> {
    let client = reqwest::Client::new();
    for cluster in CLUSTERS {
        let data = json!({
            "apiVersion": "tidewater.dev/v1", "kind": "DataLocation",
            "metadata": {"name": data_of(cluster)}, "spec": {"size": "1Ti", "clusters": [cluster]},
        });
        let url = format!("http://{http}/apis/tidewater.dev/v1/datalocations");
        let answer = client.post(url).json(&data).send().await?;
        if !answer.status().is_success() {
            bail!("data for {cluster} is refused: {}", answer.text().await?);
        }
    }
    Ok(())
}

fn data_of(cluster: &str) -> String {
    format!("in-{cluster}")
}

fn workload(name: &str, cluster: &str) -> String {
    let group = json!({"name": "main", "count": 1, "cpu": "10m", "memory": "16Mi"});
    let data = json!([{"name": data_of(cluster), "require": true}]);
    json!({
        "apiVersion": "tidewater.dev/v1", "kind": "Workload", "metadata": {"name": name},
        "spec": {
            "batch": {"image": "none", "command": ["true"], "groups": [group]},
            "placement": {"data": data},
        },
    })
    .to_string()
}

/// The plain client: each connection makes one Job after another, the API servers in turn.
async fn raw(clients: &[Client], manifest: &Job, name: &str, time: Duration) -> Result<(usize, Duration)> {
    let began = Instant::now();
    let tasks = (0..CONNECTIONS).map(|connection| {
        let jobs: Api<Job> = Api::namespaced(clients[connection % clients.len()].clone(), NAMESPACE);
        let (mut job, name) = (manifest.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut made = 0;
            while began.elapsed() < time {
                job.metadata.name = Some(format!("raw-{name}-{connection}-{made}"));
                jobs.create(&PostParams::default(), &job).await?;
                made += 1;
            }
            anyhow::Ok(made)
        })
    });
    let mut made = 0;
    for task in tasks.collect::<Vec<_>>() {
        made += task.await??;
    }
    Ok((made, began.elapsed()))
}

/// A Job as an agent makes it, to be made again under other names, by nobody's order.
async fn a_job(clients: &[Client]) -> Result<Job> {
    for client in clients {
        let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
        let Some(job) = jobs.list(&all().limit(1)).await?.items.pop() else { continue };
        return Ok(nobodys(job));
    }
    bail!("no agent has made a Job")
}

async fn counted(clients: &[Client]) -> Result<usize> {
    let counts = try_join_all(clients.iter().map(count)).await?;
    Ok(counts.into_iter().sum())
}

/// How many Jobs there are: the API server counts, and sends one.
async fn count(client: &Client) -> Result<usize> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let page = jobs.list_metadata(&ListParams::default().limit(1)).await?;
    Ok(page.items.len() + page.metadata.remaining_item_count.unwrap_or(0) as usize)
}

fn figures(ours: &Side, raw: &Side, made: [usize; 3], load_before: f64) -> Figures {
    // An attempt has a record beside its Job.
    let objects = made.iter().sum::<usize>() as f64 / made[0].max(1) as f64;
    let columns =
        ["", "Jobs a second", "objects a second", "CPU ms a Job: API servers and etcd", "agents", "coordinator"];
    let mut table = table(&columns);
    for (name, side, objects) in [("through Tidewater", ours, objects), ("raw, 64 connections", raw, 1.0)] {
        let rates = [side.per_s(), side.per_s() * objects].map(|rate| format!("{rate:.0}"));
        let cpu = (0..3).map(|of| format!("{:.2}", side.cpu_ms(of)));
        table.add_row([name.to_owned()].into_iter().chain(rates).chain(cpu));
    }
    let mut figures = Map::new();
    let mut put = |key: &str, value: Value| figures.insert(key.to_owned(), value);
    put("ours_per_s", json!(round(ours.per_s())));
    put("raw_per_s", json!(round(raw.per_s())));
    put("ours_of_raw", json!(round(ours.per_s() / raw.per_s())));
    put("jobs", json!(ours.jobs));
    put("objects_for_a_job", json!(round(objects)));
    put("ours_objects_per_s", json!(round(ours.per_s() * objects)));
    put("objects_of_raw", json!(round(ours.per_s() * objects / raw.per_s())));
    put("load_before", json!(round(load_before)));
    for (key, of) in [("servers", 0), ("agents", 1), ("coordinator", 2)] {
        put(&format!("ours_{key}_cpu_ms"), json!(round(ours.cpu_ms(of))));
        put(&format!("raw_{key}_cpu_ms"), json!(round(raw.cpu_ms(of))));
    }
    Figures { table, json: figures }
}
