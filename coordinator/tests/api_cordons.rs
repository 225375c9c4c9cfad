//! What a person does with a cluster over HTTP: cordon, drain, open, remove.

#![allow(clippy::unwrap_used)]

mod api_core;

use api_core::http::{Served, serve};
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use engine::commands::{Command, DrainEnd};
use protocol::control::AttemptState;
use protocol::ids::{AttemptNumber, ClusterName, Epoch};
use serde_json::{Value, json};

const EU: &str = "/apis/tidewater.dev/v1/clusters/eu-1";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn one_cluster() -> (Core, Served) {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, Settings::default()).await;
    (core, api)
}

async fn post(api: &Served, path: &str, body: Value) -> Value {
    api.ask("POST", path, &[JSON], &body.to_string()).await.json()
}

#[tokio::test]
async fn a_cordoned_cluster_says_why_and_has_nothing_to_give() {
    let (core, api) = one_cluster().await;
    let seen = post(&api, &format!("{EU}/cordon"), json!({"reason": " ann: a new switch "})).await;
    assert_eq!((&seen["status"]["phase"], &seen["status"]["gpus"]["H100"]["free"]), (&"Cordoned".into(), &0.into()));
    let cordon = &seen["status"]["cordon"];
    assert_eq!(cordon["reason"], "ann: a new switch");
    let message = cordon["message"].as_str().unwrap();
    assert!(message.starts_with("cluster eu-1 is cordoned (since 20"), "{message}");
    assert!(message.ends_with("ann: a new switch): tidewater cluster uncordon eu-1"), "{message}");
    let capacity = api.get("/capacity?gang=1").await.json();
    assert_eq!((&capacity["cordoned"], &capacity["gang"]["largest"]), (&json!([message]), &0.into()));
    api.post_yaml(&batch("a", 1, 8)).await;
    assert_eq!(core.place().await, 0);
    // A body that is left out leaves the reason as it was.
    let again = api.ask("POST", &format!("{EU}/cordon"), &[], "").await.json();
    assert_eq!(again["status"]["cordon"], *cordon);
    let seen = api.ask("POST", &format!("{EU}/uncordon"), &[], "").await.json();
    assert_eq!((&seen["status"]["phase"], &seen["status"]["cordon"]), (&"Ready".into(), &Value::Null));
    assert_eq!(core.place().await, 1);
}

#[tokio::test]
async fn a_drain_tells_how_far_it_is() {
    let (core, api) = one_cluster().await;
    api.post_yaml(&batch("a", 1, 8)).await;
    core.place().await;
    core.report("default/a", AttemptState::Running).await;
    let seen = post(&api, &format!("{EU}/drain"), json!({"reason": "bob", "maxAtOnce": 2})).await;
    let drain = |seen: &Value| {
        let drain = seen["status"]["cordon"]["drain"].clone();
        (drain["toEnd"].clone(), drain["ending"].clone(), drain["maxAtOnce"].clone())
    };
    assert_eq!(seen["status"]["phase"], "Draining");
    assert_eq!(drain(&seen), (1.into(), 0.into(), 2.into()));
    let workload = api.get("/apis/tidewater.dev/v1/namespaces/default/workloads/a").await.json();
    let uid = workload["metadata"]["uid"].as_str().unwrap().parse().unwrap();
    let end = DrainEnd {
        epoch: Epoch(core.handle.read(coordinator::handle::Consistency::Stale, |v| v.state.epoch.0).await.unwrap()),
        key: api_core::key("default/a"),
        uid,
        attempt: AttemptNumber(1),
        cluster: ClusterName::new("eu-1").unwrap(),
    };
    core.handle.propose(Command::EndDrained(Box::new(end))).await.unwrap();
    assert_eq!(drain(&api.get(EU).await.json()), (0.into(), 1.into(), 2.into()));
    let workload = api.get("/apis/tidewater.dev/v1/namespaces/default/workloads/a").await.json();
    let state = workload["status"]["attempts"][0]["state"].as_str().unwrap();
    assert!(state.contains("being stopped (its cluster is drained)"), "{state}");
    core.report("default/a", AttemptState::Stopped).await;
    let seen = api.get(EU).await.json();
    assert_eq!((drain(&seen), &seen["status"]["running"]), ((0.into(), 0.into(), 2.into()), &0.into()));
    assert_eq!(seen["status"]["phase"], "Drained");
}

#[tokio::test]
async fn a_cluster_is_removed_once_nothing_is_there_and_let_in_again() {
    let (core, api) = one_cluster().await;
    api.post_yaml(&batch("a", 1, 8)).await;
    core.place().await;
    let message = api.ask("DELETE", EU, &[], "").await.failure(409, "Conflict");
    assert!(message.contains("default/a is there: `tidewater cluster drain eu-1` first"), "{message}");
    let message = api.ask("DELETE", &format!("{EU}?lostForGood=true"), &[], "").await.failure(409, "Conflict");
    assert!(message.contains("is heard from"), "{message}");
    core.report("default/a", AttemptState::Succeeded).await;
    let gone = api.ask("DELETE", &format!("{EU}?reason=its%20lease%20ended"), &[], "").await.json();
    assert_eq!(gone["status"], "Success");
    api.get(EU).await.failure(404, "NotFound");
    let message = api.ask("POST", &format!("{EU}/cordon"), &[], "").await.failure(409, "Conflict");
    assert!(message.contains("was removed (its lease ended): `tidewater cluster uncordon eu-1`"), "{message}");
    let open = api.ask("POST", &format!("{EU}/uncordon"), &[], "").await.json();
    assert_eq!(open["message"], "cluster eu-1 may join again");
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    assert_eq!(api.get(EU).await.json()["status"]["phase"], "Ready");
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_what_to_write() {
    let (_core, api) = one_cluster().await;
    let other = "/apis/tidewater.dev/v1/clusters/eu-2";
    let message = api.ask("POST", &format!("{other}/cordon"), &[], "").await.failure(404, "NotFound");
    assert_eq!(message, "there is no cluster eu-2; there are eu-1");
    api.ask("DELETE", other, &[], "").await.failure(404, "NotFound");
    let ask = async |verb: &str, body: Value| {
        api.ask("POST", &format!("{EU}/{verb}"), &[JSON], &body.to_string()).await.failure(400, "BadRequest")
    };
    assert!(ask("drain", json!({"maxAtOnce": 0})).await.contains("maxAtOnce: 0"));
    assert!(ask("drain", json!({"forced": true})).await.contains("forced"));
    assert!(ask("cordon", json!({"reason": "x".repeat(301)})).await.contains("at most 300"));
    assert!(ask("cordon", json!({"reason": "two\nlines"})).await.contains("one line"));
}
