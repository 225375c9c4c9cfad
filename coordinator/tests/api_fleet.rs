//! Clusters, capacity, logs, health and metrics over HTTP.

#![allow(clippy::unwrap_used)]

mod api_core;

use std::time::Duration;

use api_core::http::serve;
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use engine::commands::Command;
use protocol::control::AttemptState;
use protocol::ids::ClusterName;

const CLUSTERS: &str = "/apis/tidewater.dev/v1/clusters";

async fn two_clusters() -> Core {
    let core = Core::start();
    let mut ill = node("n-2", Some("H100"), 8);
    (ill.ghosts, ill.sick, ill.free.gpu_milli) = (1, 2, 5000);
    let nodes = vec![node("n-1", Some("H100"), 8), ill, node("c-1", None, 0)];
    core.join(info("eu-1", "eu-west", &["H100"]), nodes).await;
    core.join(info("us-1", "us-east", &["L4"]), vec![node("l-1", Some("L4"), 4)]).await;
    core
}

#[tokio::test]
async fn clusters_count_their_gpus_and_bindings_in_flight() {
    let core = two_clusters().await;
    let api = serve(&core, Settings::default()).await;
    let h100 = |object: serde_json::Value| object["status"]["gpus"]["H100"].clone();
    let before = h100(api.get(&format!("{CLUSTERS}/eu-1")).await.json());
    assert_eq!(before, serde_json::json!({"total": 16, "free": 13, "held": 0, "ghosts": 1, "sick": 2, "foreign": 0}));
    api.post_yaml(&batch("a", 1, 8)).await;
    core.place().await;
    let after = h100(api.get(&format!("{CLUSTERS}/eu-1")).await.json());
    assert_eq!(after, serde_json::json!({"total": 16, "free": 5, "held": 8, "ghosts": 1, "sick": 2, "foreign": 0}));
    let list = api.get(CLUSTERS).await.json();
    assert_eq!(list["kind"], "ClusterList");
    assert_eq!(list["items"][0]["status"]["running"], 1);
    assert_eq!(list["items"][1]["status"]["phase"], "Ready");
    let nodes = api.get(&format!("{CLUSTERS}/eu-1/nodes")).await.json();
    assert_eq!(nodes["items"][1]["devices"].as_array().unwrap().len(), 8);
    assert_eq!(nodes["items"][1]["devices"][7]["state"], "sick");
    assert!(nodes["items"][0]["devices"][0]["activityPercent"].is_null(), "unknown is not 0");
}

#[tokio::test]
async fn a_lost_cluster_has_nothing_to_give() {
    let core = two_clusters().await;
    let api = serve(&core, Settings::default()).await;
    core.handle.propose(Command::LoseCluster { cluster: ClusterName::new("eu-1").unwrap() }).await.unwrap();
    let status = api.get(&format!("{CLUSTERS}/eu-1")).await.json()["status"].clone();
    assert_eq!((&status["phase"], &status["gpus"]["H100"]["free"]), (&"Lost".into(), &0.into()));
    core.set(|s| s.capacity.clusters.values_mut().for_each(|c| c.fresh = false));
    let status = api.get(&format!("{CLUSTERS}/us-1")).await.json()["status"].clone();
    assert_eq!((&status["phase"], &status["gpus"]["L4"]["free"]), (&"Stale".into(), &0.into()));
}

#[tokio::test]
async fn capacity_filters_and_fits_gangs() {
    let core = two_clusters().await;
    let api = serve(&core, Settings::default()).await;
    let all = api.get("/capacity").await.json();
    assert_eq!(all["rows"].as_array().unwrap().len(), 3, "{all}");
    let h100 = api.get("/capacity?sku=NVIDIA%20H100%2080GB%20HBM3&gang=1").await.json();
    assert_eq!(h100["rows"].as_array().unwrap().len(), 1);
    assert_eq!(h100["rows"][0]["gpus"]["free"], 13);
    assert_eq!(h100["rows"][0]["source"], "declared");
    assert_eq!(h100["gang"]["gpusPerNode"], 8);
    assert_eq!(h100["gang"]["fits"]["eu-1"], 1);
    assert_eq!(h100["gang"]["largest"], 1);
    let smaller = api.get("/capacity?gang=2&gpus-per-node=4&region=eu-west").await.json();
    assert_eq!(smaller["gang"]["largest"], 2, "{smaller}");
    assert!(smaller["rows"].as_array().unwrap().iter().all(|r| r["region"] == "eu-west"));
    let message = api.get("/capacity?sku=H10O").await.failure(400, "BadRequest");
    assert!(message.contains("did you mean H100?"), "{message}");
    api.get("/capacity?gang=0").await.failure(400, "BadRequest");
    api.get("/capacity?gpus-per-node=2").await.failure(400, "BadRequest");
    api.get("/capacity?gang=many").await.failure(400, "BadRequest");
}

#[tokio::test]
async fn logs_are_streamed_and_errors_are_told() {
    let core = two_clusters().await;
    let api = serve(&core, Settings::default()).await;
    api.post_yaml(&batch("a", 1, 0)).await;
    let message = api.get("/logs/default/a").await.failure(404, "NotFound");
    assert!(message.contains("follow=true"), "{message}");
    core.set(|s| s.log = vec![Ok(b"one\n".to_vec()), Ok(b"two\n".to_vec())]);
    // A follower that comes before the first attempt hears all of it.
    let mut early = api.stream("/logs/default/a?follow=true").await;
    core.place().await;
    core.report("default/a", AttemptState::Running).await;
    assert_eq!(early.line().await.as_deref(), Some("one"));
    assert_eq!(early.line().await.as_deref(), Some("two"));
    assert_eq!(early.line().await, None);
    let log = api.get("/logs/default/a?attempt=1").await;
    assert_eq!((log.code, log.body.as_str()), (200, "one\ntwo\n"));
    let message = api.get("/logs/default/a?attempt=2").await.failure(404, "NotFound");
    assert!(message.contains("attempts 1 only"), "{message}");
    assert_eq!(api.get("/logs/default/a?worker=0").await.code, 200);
    let message = api.get("/logs/default/a?worker=1").await.failure(404, "NotFound");
    assert!(message.contains("attempt 1 of workload default/a has one worker: 0"), "{message}");
    api.get("/logs/default/a?worker=first").await.failure(400, "BadRequest");
    core.set(|s| s.log = vec![Err("the agent is gone".into())]);
    let message = api.get("/logs/default/a").await.failure(503, "ServiceUnavailable");
    assert!(message.contains("the agent is gone"), "{message}");
    api.post_yaml(&batch("b", 1, 0)).await;
    api.ask("POST", "/apis/tidewater.dev/v1/namespaces/default/workloads/b/cancel", &[], "").await;
    let message = api.get("/logs/default/b?follow=true").await.failure(404, "NotFound");
    assert!(message.contains("before it was placed"), "{message}");
}

#[tokio::test]
async fn readiness_says_which_condition_fails() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    let empty = api.get("/readyz").await;
    assert_eq!(empty.code, 503);
    assert!(empty.body.contains("[+] leader") && empty.body.contains("[-] log"), "{}", empty.body);
    api.post_yaml(&batch("a", 1, 0)).await;
    assert_eq!(api.get("/readyz").await.code, 200);
    core.set(|s| s.leaderless = true);
    let leaderless = api.get("/readyz").await;
    assert_eq!(leaderless.code, 503);
    assert!(leaderless.body.contains("[-] leader"), "{}", leaderless.body);
    assert_eq!(api.get("/healthz").await.body, "ok\n");
}

#[tokio::test]
async fn metrics_show_state_and_requests() {
    let core = two_clusters().await;
    let api = serve(&core, Settings { timeout: Duration::from_secs(1), ..Settings::default() }).await;
    api.post_yaml(&batch("a", 1, 0)).await;
    api.get("/explain/default/none").await;
    let shown = api.get("/metrics").await.body;
    for line in [
        "tidewater_raft_is_leader 1",
        "tidewater_raft_term 3",
        "tidewater_raft_applied_index 3",
        "tidewater_queue_length 1",
        "tidewater_workloads{phase=\"Queued\"} 1",
        "tidewater_clusters{phase=\"Ready\"} 2",
        "tidewater_gpus{cluster=\"eu-1\",sku=\"H100\",state=\"sick\"} 2",
        "tidewater_capacity_age_seconds{cluster=\"us-1\"} 0.12",
        "tidewater_proposals_total{result=\"committed\"} 1",
        "tidewater_http_requests_total{method=\"GET\",route=\"/explain/{namespace}/{name}\",code=\"404\"} 1",
        "# TYPE tidewater_http_request_duration_seconds histogram",
        "# UNIT tidewater_http_request_duration_seconds seconds",
        "# EOF",
    ] {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
}
