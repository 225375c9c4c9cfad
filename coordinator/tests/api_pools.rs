//! Pools and ownership rules over HTTP: as Kubernetes would have them, with how they stand.

#![allow(clippy::unwrap_used)]

mod api_core;

use api_core::http::{JSON, YAML, serve};
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use serde_json::{Value, json};

const POOLS: &str = "/apis/tidewater.dev/v1/resourcepools";
const RULES: &str = "/apis/tidewater.dev/v1/ownershiprules";

fn pool(name: &str, spec: Value) -> String {
    json!({"apiVersion": "tidewater.dev/v1", "kind": "ResourcePool", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn gpu(reservation: u32, limit: u32) -> Value {
    json!({"resources": {"gpu": {"reservation": reservation, "limit": limit}}})
}

#[tokio::test]
async fn a_pool_is_made_shown_replaced_and_deleted() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, Settings::default()).await;
    let made = api.ask("POST", POOLS, &[JSON], &pool("ads", gpu(4, 6))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let part = made.json()["status"]["resources"]["gpu"].clone();
    assert_eq!((part["reservation"].as_str(), part["limit"].as_str()), (Some("4"), Some("6")));
    assert_eq!((part["entitlement"].as_str(), part["allocated"].as_str()), (Some("4"), Some("0")), "{part}");

    // The same once more is the same; another under the name is refused.
    assert_eq!(api.ask("POST", POOLS, &[JSON], &pool("ads", gpu(4, 6))).await.code, 201);
    api.ask("POST", POOLS, &[JSON], &pool("ads", gpu(1, 6))).await.failure(409, "AlreadyExists");

    let version = made.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut changed: Value = serde_json::from_str(&pool("ads", gpu(2, 6))).unwrap();
    changed["metadata"]["resourceVersion"] = json!(version);
    let path = format!("{POOLS}/ads");
    assert_eq!(api.ask("PUT", &path, &[JSON], &changed.to_string()).await.code, 200);
    changed["spec"] = gpu(3, 6);
    let message = api.ask("PUT", &path, &[JSON], &changed.to_string()).await.failure(409, "Conflict");
    assert!(message.contains("changed meanwhile"), "{message}");
    assert_eq!(api.get(&path).await.json()["spec"]["resources"]["gpu"]["reservation"], "2");

    let names = |list: Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(api.get(POOLS).await.json()), ["ads", "default"]);
    assert_eq!(api.ask("DELETE", &path, &[], "").await.code, 200);
    let message = api.get(&path).await.failure(404, "NotFound");
    assert!(message.contains("there is no pool ads"), "{message}");
    api.ask("DELETE", &format!("{POOLS}/default"), &[], "").await.failure(409, "Conflict");
}

#[tokio::test]
async fn faults_name_the_field_and_the_cure() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    let post = async |spec: Value| api.ask("POST", POOLS, &[JSON], &pool("ads", spec)).await;
    let answer = post(gpu(8, 6)).await;
    answer.failure(422, "Invalid");
    assert_eq!(answer.json()["details"]["causes"][0]["field"], "spec.resources[\"gpu\"].reservation");
    let message = post(json!({"parent": "defualt"})).await.failure(409, "Conflict");
    assert!(message.contains("spec.parent: there is no pool defualt: did you mean default?"), "{message}");
    let message = post(json!({"resources": {"gpu": {"reservation": -3}}})).await.failure(400, "BadRequest");
    assert!(message.contains("spec.resources") && message.contains("\"-3\" is no amount of gpus"), "{message}");
    let message =
        api.ask("PUT", &format!("{POOLS}/maps"), &[JSON], &pool("ads", json!({}))).await.failure(400, "BadRequest");
    assert!(message.contains("make them the same"), "{message}");
    let to_ads = batch("a", 1, 0).replace("spec:\n", "spec:\n  pool: adz\n");
    let message = api.ask("POST", api_core::http::WORKLOADS, &[YAML], &to_ads).await.failure(422, "Invalid");
    assert!(message.contains("spec.pool: there is no pool adz"), "{message}");
}

#[tokio::test]
async fn an_owners_rule_leads_its_workloads_to_its_pool() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    api.ask("POST", POOLS, &[JSON], &pool("ads", json!({}))).await;
    let rule = |spec: Value| {
        json!({"apiVersion": "tidewater.dev/v1", "kind": "OwnershipRule", "metadata": {"name": "default"}, "spec": spec}).to_string()
    };
    let made = api.ask("POST", RULES, &[JSON], &rule(json!({"pool": "ads"}))).await;
    assert_eq!((made.code, made.json()["status"]["pool"].as_str()), (201, Some("ads")), "{}", made.body);
    api.post_yaml(&batch("a", 1, 0)).await;
    let standing = api.get(&format!("{POOLS}/ads")).await.json();
    assert_eq!(standing["status"]["queued"], 1, "{standing}");
    let message = api.ask("DELETE", &format!("{POOLS}/ads"), &[], "").await.failure(409, "Conflict");
    assert!(message.contains("ownership rule of default"), "{message}");
    assert_eq!(api.ask("DELETE", &format!("{RULES}/default"), &[], "").await.code, 200);
    assert_eq!(api.get(RULES).await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_watch_tells_of_pools_that_come_change_and_go() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    let mut watch = api.stream(&format!("{POOLS}?watch=true")).await;
    let mut next = async || {
        let event = watch.event().await.unwrap();
        format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
    };
    assert_eq!(next().await, "ADDED default");
    assert_eq!(next().await, "BOOKMARK -");
    api.ask("POST", POOLS, &[JSON], &pool("ads", gpu(4, 6))).await;
    assert_eq!(next().await, "ADDED ads");
    api.ask("PUT", &format!("{POOLS}/ads"), &[JSON], &pool("ads", gpu(2, 6))).await;
    assert_eq!(next().await, "MODIFIED ads");
    api.ask("DELETE", &format!("{POOLS}/ads"), &[], "").await;
    assert_eq!(next().await, "DELETED ads");
    let late = api.get(&format!("{POOLS}?watch=true&resourceVersion=1")).await;
    late.failure(410, "Expired");
}
