//! From a submission to the first word of its container on a real node, beside the very same Job made by a plain client: what Tidewater adds.
//! One at a time, in turn, so that both meet the same machine. Each container says its name over TCP as the first thing it does: what a kubelet
//! says of a container's start is in whole seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, json};
use testbed::{Binaries, ControlPlane, Image, Images, NodeSettings, Settings};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::clients::tidewater::Submitter;
use crate::federation::Federation;
use crate::jobs::nobodys;
use crate::result::{Figures, load_average, quantile, round, table};

const NAMESPACE: &str = "bench";
/// How long a container may take to say its name.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two, so that what the last one left to be cleaned up is done.
const APART: Duration = Duration::from_millis(1_500);
/// Not counted: the first ones meet cold caches.
const WARM_UP: usize = 3;

/// Submits and creates in turn.
pub fn run(quick: bool) -> Result<Figures> {
    let pairs = if quick { 2 } else { 30 };
    let program = crate::built::tidewater()?;
    testbed::node::check()?;
    let load_before = load_average();
    let folder = tempfile::tempdir_in(program.parent().context("a program lies in a folder")?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut ours, mut plain) = runtime.block_on(measure(&program, folder.path(), pairs))?;
    let mut shown = table(&["from submission to the container's first word", "p50, ms", "p90, ms"]);
    let mut figures = Map::new();
    let mut of = |name: &str, key: &str, waits: &mut Vec<f64>| {
        waits.sort_by(f64::total_cmp);
        let (half, most) = (quantile(waits, 0.5), quantile(waits, 0.9));
        shown.add_row([name.to_owned(), format!("{half:.0}"), format!("{most:.0}")]);
        figures.insert(format!("{key}_p50_ms"), json!(round(half)));
        figures.insert(format!("{key}_p90_ms"), json!(round(most)));
        half
    };
    let through = of("through Tidewater", "ours", &mut ours);
    let alone = of("the same Job, plainly created", "plain", &mut plain);
    shown.add_row(["added (aim: 50)".to_owned(), format!("{:.0}", through - alone), String::new()]);
    figures.insert("added_p50_ms".into(), json!(round(through - alone)));
    figures.insert("pairs".into(), json!(pairs));
    figures.insert("load_before".into(), json!(round(load_before)));
    Ok(Figures { table: shown, json: figures })
}

async fn measure(program: &Path, folder: &Path, pairs: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let bar = ProgressBar::new((pairs + WARM_UP) as u64);
    bar.set_style(ProgressStyle::with_template("{msg:28} {bar:40} {pos}/{len} {elapsed}")?);
    bar.set_message("the real node starts");
    let images = Images::provide(&[Image::Batch], &|line| bar.println(line))?;
    let settings = Settings::with_real_node(folder.join("plane"), NodeSettings::new(images));
    let binaries = Binaries::provide(&settings.tools(), &|line| bar.println(line))?;
    let plane = ControlPlane::start(&binaries, settings).await?;
    let client = plane.client();
    testbed::make_namespace(&client, NAMESPACE).await?;
    let mut federation = Federation::start_replicas(program, folder, 1).await?;
    federation.start_kubernetes_agents(&[plane.kubeconfig()]).await?;
    let host = plane.link().context("a real node has a link")?.host();
    let mut door = Door::open(SocketAddr::from((host, 0))).await?;

    bar.set_message("submitted and created in turn");
    let mut submitter = Submitter::connect(federation.replicas[0].http, String::new()).await?;
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let (mut ours, mut plain, mut manifest) = (vec![], vec![], None);
    for number in 0..pairs + WARM_UP {
        let name = format!("ours-{number}");
        let began = Instant::now();
        submitter.post(&workload(&name, door.address)).await?;
        if number == 0 {
            manifest = Some(a_job(&client).await?);
        }
        let took = door.hear(&name, began).await?;
        tokio::time::sleep(APART).await;
        let name = format!("plain-{number}");
        let job = renamed(manifest.clone().context("the first was submitted")?, &name, door.address)?;
        let plainly = Instant::now();
        jobs.create(&PostParams::default(), &job).await?;
        let alone = door.hear(&name, plainly).await?;
        jobs.delete(&name, &DeleteParams::background()).await?;
        if number >= WARM_UP {
            ours.push(took);
            plain.push(alone);
        }
        tokio::time::sleep(APART).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    drop(federation);
    plane.end()?;
    Ok((ours, plain))
}

/// Where containers say their names.
struct Door {
    address: SocketAddr,
    heard: mpsc::Receiver<(String, Instant)>,
    early: BTreeMap<String, Instant>,
}

impl Door {
    async fn open(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (say, heard) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let at = Instant::now();
                let mut name = String::new();
                // One that breaks off is not one that is waited for.
                let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut name)).await;
                if say.send((name.trim().to_owned(), at)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { address, heard, early: BTreeMap::new() })
    }

    /// How long this one took to say its name, in ms.
    async fn hear(&mut self, name: &str, since: Instant) -> Result<f64> {
        while !self.early.contains_key(name) {
            let heard = tokio::time::timeout(LONGEST, self.heard.recv()).await;
            let (who, at) = heard.with_context(|| format!("{name} has not started"))?.context("the door is closed")?;
            self.early.insert(who, at);
        }
        let at = self.early.remove(name).context("just heard")?;
        Ok(at.duration_since(since).as_secs_f64() * 1000.0)
    }
}

fn command(name: &str, door: SocketAddr) -> Vec<String> {
    let say = format!("echo {name} | nc -w 2 {} {}", door.ip(), door.port());
    ["sh", "-c", &say].map(str::to_owned).into()
}

fn workload(name: &str, door: SocketAddr) -> String {
    let group = json!({"name": "main", "count": 1, "cpu": "10m", "memory": "16Mi"});
    json!({
        "apiVersion": "tidewater.dev/v1", "kind": "Workload", "metadata": {"name": name},
        "spec": {"batch": {"image": Image::Batch.reference(), "command": command(name, door), "groups": [group]}},
    })
    .to_string()
}

/// The Job that the agent made of the first, as it is before a controller adds to it.
async fn a_job(client: &Client) -> Result<Job> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=tidewater");
    let began = Instant::now();
    loop {
        if let Some(job) = jobs.list(&ours).await?.items.pop() {
            return Ok(job);
        }
        ensure!(began.elapsed() < LONGEST, "no agent has made a Job");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same Job under this name, and nobody's: here controllers make pods of it, which no agent may take for an attempt's either.
fn renamed(job: Job, name: &str, door: SocketAddr) -> Result<Job> {
    let mut job = nobodys(job);
    job.metadata.name = Some(name.to_owned());
    let spec = job.spec.get_or_insert_default();
    let pods = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    pods.insert("app.kubernetes.io/managed-by".to_owned(), "benchmark".to_owned());
    for labels in [pods, job.metadata.labels.get_or_insert_default()] {
        labels.retain(|label, _| !label.starts_with("tidewater.dev/"));
    }
    let pod = spec.template.spec.get_or_insert_default();
    let [container] = &mut pod.containers[..] else { bail!("a Job of one container") };
    container.command = Some(command(name, door));
    Ok(job)
}
