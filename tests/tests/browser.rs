//! The pages in a real browser: headless Chromium opens them from a served router and shows what a person would see. Behind
//! the router is the API tests' stand-in for a core, with a fleet that says `declared`, and one that says `measured` made up
//! for this test: no device stands behind its figures.
//!
//! `TIDEWATER_PICTURE=path` keeps the dashboard's picture, which the README shows.

#![allow(clippy::unwrap_used)]

#[path = "../../coordinator/tests/api_core/mod.rs"]
mod api_core;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use api_core::http::{Served, serve, serve_through};
use api_core::{Core, info, key, node};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use coordinator::api::Settings;
use coordinator::handle::NodeSource;
use engine::capacity::NodeCapacity;
use futures_util::{StreamExt, stream};
use libtest_mimic::{Arguments, Failed, Trial};
use protocol::api::{DeviceStatus, NodeStatus};
use protocol::capacity::{DeviceState, NodeState, Sharing, Source};
use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::{ClusterName, CommandNumber, NodeName, Uid};
use protocol::resources::Resources;
use protocol::sku::Sku;
use tokio::sync::watch;

const CHROMIUM: &str = "/usr/bin/chromium";

fn main() {
    let arguments = Arguments::from_args();
    let missing = !Path::new(CHROMIUM).exists();
    let trial = |name: &'static str, test: fn() -> Result<(), Failed>| {
        let name = if missing {
            format!("{name} (ignored: no {CHROMIUM}; install the package chromium)")
        } else {
            name.into()
        };
        Trial::test(name, test).with_ignored_flag(missing)
    };
    let trials = vec![
        trial("the_dashboard_shows_cells_queue_reasons_and_runs", dashboard),
        trial("the_dashboard_goes_live_and_takes_updates", live),
        trial("a_workloads_page_shows_why_and_when", workload),
        trial("a_big_fleets_page_stays_small", big_fleet),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A browser with an empty profile that goes away with it.
struct Browser {
    profile: tempfile::TempDir,
}

impl Browser {
    fn new() -> Self {
        Self { profile: tempfile::tempdir().unwrap() }
    }

    fn run(&self, more: &[String]) -> Output {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let output = Command::new(CHROMIUM)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", &profile])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The page's elements once it is loaded.
    fn dom(&self, url: &str) -> String {
        String::from_utf8(self.run(&["--dump-dom".into(), url.into()]).stdout).unwrap()
    }

    fn picture(&self, url: &str, path: &Path, size: (u32, u32)) {
        let size = format!("--window-size={},{}", size.0, size.1);
        self.run(&[size, format!("--screenshot={}", path.display()), url.into()]);
        assert!(path.metadata().unwrap().len() > 10_000, "a picture of something is larger");
    }
}

/// Holds back the end of every page, so that the browser, which looks once a page is loaded, sees what events made of it.
#[derive(Clone)]
struct Hold(watch::Sender<bool>);

impl Hold {
    fn around(&self, router: Router) -> Router {
        let gate = self.clone();
        router.layer(axum::middleware::map_response(move |response: Response| {
            let mut open = gate.0.subscribe();
            async move {
                let page = response.headers().get("content-type").is_some_and(|t| t == "text/html; charset=utf-8");
                if !page {
                    return response;
                }
                let (mut head, body) = response.into_parts();
                head.headers.remove("content-length");
                let end = stream::once(async move {
                    let _ = tokio::time::timeout(Duration::from_secs(30), open.wait_for(|o| *o)).await;
                    Ok(Bytes::from_static(b"\n"))
                });
                Response::from_parts(head, Body::from_stream(body.into_data_stream().chain(end)))
            }
        }))
    }

    /// Lets pages end once one has asked for events and had the time to show the first.
    async fn open_once_live(&self, served: &Served) {
        live_page(served).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        self.0.send_replace(true);
    }
}

/// Waits until a page has asked for events.
async fn live_page(served: &Served) {
    let limit = Instant::now() + Duration::from_secs(25);
    while !served.get("/metrics").await.body.contains("route=\"/events\"") {
        assert!(Instant::now() < limit, "no page asked for events");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn with_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// Calls the browser without holding up the server.
async fn off<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn has(dom: &str, what: &str) -> Result<(), Failed> {
    if dom.contains(what) { Ok(()) } else { Err(format!("{what:?} is not in the page:\n{dom}").into()) }
}

fn dashboard() -> Result<(), Failed> {
    with_runtime(async {
        let (_core, served, hold) = story().await;
        let url = format!("http://{}/", served.address);
        let opened = url.clone();
        let (dom, ()) = tokio::join!(off(move || Browser::new().dom(&opened)), hold.open_once_live(&served));
        for what in [
            "GPU 0: held, 93%, 71 GiB",
            "GPU 3: held, activity unknown",
            "GPU 6: ghost",
            "GPU 7: sick",
            "eu-west",
            "declared",
            "/workloads/vision/llama-70b",
            "no cluster has room for the whole gang",
            "group train needs 6 x 8 free H100",
            "no cluster could hold it, even empty",
            "Succeeded",
            "exit code 1",
        ] {
            has(&dom, what)?;
        }
        let picture = std::env::var_os("TIDEWATER_PICTURE").map(PathBuf::from);
        off(move || {
            let scratch = tempfile::tempdir().unwrap();
            let path = picture.unwrap_or_else(|| scratch.path().join("dashboard.png"));
            Browser::new().picture(&url, &path, (1280, 1100));
        })
        .await;
        Ok(())
    })
}

fn live() -> Result<(), Failed> {
    with_runtime(async {
        let (core, served, hold) = story().await;
        let url = format!("http://{}/", served.address);
        let (dom, ()) = tokio::join!(off(move || Browser::new().dom(&url)), async {
            live_page(&served).await;
            submit(&core, "vision/came-later", 900, batch_spec(1, 0)).await;
            tokio::time::sleep(Duration::from_millis(2500)).await;
            hold.0.send_replace(true);
        });
        has(&dom, "class=\"live on\"")?;
        has(&dom, "data-updates=")?;
        // It was submitted after the page was opened: the page had asked for events by then, so only one of them can have brought it.
        has(&dom, "/workloads/vision/came-later")
    })
}

fn workload() -> Result<(), Failed> {
    with_runtime(async {
        let (_core, served, hold) = story().await;
        let at = served.address;
        let page = |path: &str| {
            let url = format!("http://{at}/workloads/{path}");
            off(move || Browser::new().dom(&url))
        };
        let (placed, ()) = tokio::join!(page("vision/llama-ft"), hold.open_once_live(&served));
        has(&placed, "class=\"live on\"")?;
        for what in ["✓ chosen", "Timeline", "submitted", "bound to", "/logs/vision/llama-ft?attempt=1", "4 x 8 H100"]
        {
            has(&placed, what)?;
        }
        let waiting = page("vision/llama-70b").await;
        for what in ["✕ could not", "in the queue", "None yet."] {
            has(&waiting, what)?;
        }
        if let Some(path) = std::env::var_os("TIDEWATER_PICTURE") {
            let path = PathBuf::from(path).with_extension("workload.png");
            off(move || Browser::new().picture(&format!("http://{at}/workloads/vision/llama-ft"), &path, (1280, 900)))
                .await;
        }
        Ok(())
    })
}

fn big_fleet() -> Result<(), Failed> {
    with_runtime(async {
        let core = Core::start();
        for c in 0..12 {
            let nodes = (0..1000).map(|i| node(&format!("node-{i:04}"), Some("H100"), 8)).collect();
            core.join(info(&format!("cluster-{c}"), "eu-west", &["H100"]), nodes).await;
        }
        for i in 0..500u128 {
            submit(&core, &format!("load/w-{i}"), 5000 + i, batch_spec(2000, 8)).await;
        }
        let served = serve(&core, Settings::default()).await;
        let page = served.get("/").await;
        assert_eq!(page.code, 200);
        has(&page.body, "more nodes, counted above")?;
        has(&page.body, ">96000<")?;
        match page.body.len() {
            size if size < 200_000 => Ok(()),
            size => Err(format!("the page has {size} bytes").into()),
        }
    })
}

// -- the story that the pages show

fn spec(json: serde_json::Value) -> Box<protocol::workload::WorkloadSpec> {
    Box::new(serde_json::from_value(json).unwrap())
}

fn batch_spec(count: u32, gpus: u32) -> Box<protocol::workload::WorkloadSpec> {
    spec(serde_json::json!({
        "batch": {"command": ["python", "step.py"], "groups": [{"count": count, "cpu": 4, "memory": "16Gi", "gpus": gpus}]}
    }))
}

fn ray(workers: u32, gpus: u32, models: &[&str], prefer: &[&str]) -> Box<protocol::workload::WorkloadSpec> {
    spec(serde_json::json!({
        "ray": {
            "entrypoint": "python train.py",
            "head": {"cpu": 4, "memory": "16Gi"},
            "workers": [{"name": "train", "count": workers, "cpu": 16, "memory": "128Gi", "gpus": gpus, "gpu": models}],
        },
        "placement": {"regions": {"prefer": prefer}},
    }))
}

fn spark(executors: u32) -> Box<protocol::workload::WorkloadSpec> {
    spec(serde_json::json!({
        "spark": {
            "main": "etl.py",
            "driver": {"cpu": 2, "memory": "8Gi"},
            "executors": {"count": executors, "cpu": 8, "memory": "64Gi"},
        }
    }))
}

async fn submit(core: &Core, name: &str, uid: u128, spec: Box<protocol::workload::WorkloadSpec>) {
    let command = engine::commands::Command::Submit { key: key(name), uid: Uid(uid), spec };
    core.handle.propose(command).await.unwrap();
}

/// Three clusters in two regions; one trains, one ran things, the gang of the third must wait.
async fn story() -> (Core, Served, Hold) {
    let core = Core::start();
    let nodes = |prefix: &str, count: u32, sku: &str, gpus: u64| {
        (1..=count).map(|i| node(&format!("{prefix}-{i}"), Some(sku), gpus)).collect::<Vec<_>>()
    };
    core.join(info("eu-west-1", "eu-west", &["H100"]), nodes("h100", 8, "H100", 8)).await;
    core.join(info("eu-west-2", "eu-west", &["A100-80GB"]), nodes("a100", 6, "A100-80GB", 8)).await;
    core.join(info("us-east-1", "us-east", &["L4"]), nodes("l4", 10, "L4", 4)).await;

    submit(&core, "vision/llama-ft", 1, ray(4, 8, &["H100"], &["eu-west"])).await;
    submit(&core, "search/embed-catalogue", 2, ray(3, 8, &["A100-80GB"], &[])).await;
    submit(&core, "search/rerank-eval", 3, batch_spec(1, 4)).await;
    submit(&core, "ads/clicks-daily", 4, spark(6)).await;
    submit(&core, "ads/features-backfill", 5, spark(4)).await;
    core.place().await;
    let starting = || AttemptState::Starting { waiting_for: "1 of 3 workers".into() };
    for name in ["vision/llama-ft", "search/rerank-eval", "ads/clicks-daily", "ads/features-backfill"] {
        core.report(name, AttemptState::Accepted).await;
        core.report(name, AttemptState::Running).await;
    }
    core.report("search/embed-catalogue", starting()).await;
    core.report("ads/clicks-daily", AttemptState::Succeeded).await;
    let failure = AttemptState::Failed {
        class: FailureClass::User,
        message: "AnalysisException: column user_id does not exist".into(),
        exit_code: Some(1),
    };
    core.report("ads/features-backfill", failure).await;

    submit(&core, "vision/llama-70b", 6, ray(6, 8, &["H100"], &["eu-west"])).await;
    submit(&core, "vision/sweep-lr", 7, ray(2, 8, &["H100"], &[])).await;
    submit(&core, "science/fold-whole-proteome", 8, ray(40, 8, &["H100", "A100-80GB"], &[])).await;
    core.set(|s| {
        for (name, capacity) in &mut s.capacity.clusters {
            capacity.nodes = Fleet.nodes(name).iter().map(summed).collect();
            // These frames include every launch.
            capacity.watermark = CommandNumber(1_000);
        }
        s.fleet = Some(Box::new(Fleet));
    });
    let hold = Hold(watch::Sender::new(false));
    let served = serve_through(&core, Settings::default(), |router| hold.around(router)).await;
    (core, served, hold)
}

/// What the held devices of a node do, added up, where there are such and all of that is known.
fn held(node: &NodeStatus) -> Option<u32> {
    let held = node.devices.iter().filter(|d| d.state == DeviceState::Held);
    held.map(|d| d.activity_percent.map(u32::from)).reduce(|sum, more| Some(sum? + more?)).flatten()
}

/// A node as the planner reads it.
fn summed(node: &NodeStatus) -> NodeCapacity {
    let count = |state| node.devices.iter().filter(|d| d.state == state).count();
    let known: Vec<u32> = node.devices.iter().filter_map(|d| d.activity_percent).map(u32::from).collect();
    NodeCapacity {
        name: node.name.clone(),
        sku: node.sku.clone(),
        state: node.state,
        source: node.source,
        sharing: node.sharing,
        total: node.total,
        free: Resources { gpu_milli: count(DeviceState::Free) as u64 * 1000, ..node.free },
        shares: vec![],
        ghosts: count(DeviceState::Ghost) as u16,
        sick: count(DeviceState::Sick) as u16,
        foreign: count(DeviceState::Foreign) as u16,
        activity_percent: known.iter().sum::<u32>().checked_div(known.len() as u32).map(|mean| mean as u8),
        held_activity: held(node),
    }
}

/// Devices of the story's clusters: the figures are made up here.
struct Fleet;

impl NodeSource for Fleet {
    fn nodes(&self, cluster: &ClusterName) -> Vec<NodeStatus> {
        let (prefix, count, sku, gpus) = match cluster.as_str() {
            "eu-west-1" => ("h100", 8, "H100", 8),
            "eu-west-2" => ("a100", 6, "A100-80GB", 8),
            _ => ("l4", 10, "L4", 4),
        };
        let total = Resources { cpu_milli: 64_000, memory_mib: 512 * 1024, gpu_milli: gpus * 1000 };
        (1..=count)
            .map(|i| NodeStatus {
                name: NodeName::new(format!("{prefix}-{i}")).unwrap(),
                sku: Some(Sku::parse(sku).unwrap()),
                state: if (prefix, i) == ("l4", 10) { NodeState::Cordoned } else { NodeState::Ready },
                source: if prefix == "l4" { Source::Declared } else { Source::Measured },
                sharing: Sharing::Any,
                devices: (0..gpus as u32).map(|d| device(prefix, i, d)).collect(),
                free: total,
                total,
            })
            .collect()
    }
}

fn device(prefix: &str, node: u32, index: u32) -> DeviceStatus {
    let held = |percent: u32, gib: u32| DeviceStatus {
        state: DeviceState::Held,
        activity_percent: u8::try_from(percent).ok(),
        memory_used_mib: Some(gib * 1024),
    };
    let plain = |state| DeviceStatus { state, activity_percent: None, memory_used_mib: None };
    match (prefix, node, index) {
        ("h100", 1..=4, _) => held(93 - (node * 7 + index * 5 - 7) % 23, 71 - index % 3),
        ("a100", 1, 3) => plain(DeviceState::Held),
        ("a100", 1..=3, _) => held((node * 31 + index * 11) % 60 + 15, 34 + index),
        ("a100", 6, 6) => DeviceStatus { memory_used_mib: Some(22 * 1024), ..plain(DeviceState::Ghost) },
        ("a100", 6, 7) => plain(DeviceState::Sick),
        ("l4", 1, _) => held(index * 8, 9),
        _ => DeviceStatus { state: DeviceState::Free, activity_percent: Some(0), memory_used_mib: Some(0) },
    }
}
