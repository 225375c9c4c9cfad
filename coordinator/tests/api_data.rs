//! Data locations over HTTP: as Kubernetes would have them, with who uses them.

#![allow(clippy::unwrap_used)]

mod api_core;

use api_core::http::{JSON, WORKLOADS, YAML, serve};
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use serde_json::{Value, json};

const DATA: &str = "/apis/tidewater.dev/v1/datalocations";

fn data(name: &str, spec: Value) -> String {
    json!({"apiVersion": "tidewater.dev/v1", "kind": "DataLocation", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn reads(workload: &str, data: &str) -> String {
    batch(workload, 1, 0).replace("spec:\n", &format!("spec:\n  placement: {{data: [{data}]}}\n"))
}

#[tokio::test]
async fn a_data_location_is_made_shown_replaced_and_deleted() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    let made = api.ask("POST", DATA, &[JSON], &data("imagenet", json!({"size": "2Ti", "clusters": ["eu-1"]}))).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(
        (made.json()["spec"]["size"].as_str(), made.json()["status"]["usedBy"].as_u64()),
        (Some("2Ti"), Some(0))
    );
    api.ask("POST", DATA, &[JSON], &data("imagenet", json!({"size": "1Ti", "clusters": ["eu-1"]})))
        .await
        .failure(409, "AlreadyExists");

    let version = made.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut moved: Value =
        serde_json::from_str(&data("imagenet", json!({"size": "2Ti", "regions": ["us-east"]}))).unwrap();
    moved["metadata"]["resourceVersion"] = json!(version);
    let path = format!("{DATA}/imagenet");
    assert_eq!(api.ask("PUT", &path, &[JSON], &moved.to_string()).await.code, 200);
    moved["spec"]["size"] = json!("3Ti");
    let message = api.ask("PUT", &path, &[JSON], &moved.to_string()).await.failure(409, "Conflict");
    assert!(message.contains("changed meanwhile"), "{message}");
    assert_eq!(api.get(&path).await.json()["spec"], json!({"size": "2Ti", "regions": ["us-east"]}));
    assert_eq!(api.get(DATA).await.json()["kind"], "DataLocationList");
    assert_eq!(api.ask("DELETE", &path, &[], "").await.code, 200);
    let message = api.get(&path).await.failure(404, "NotFound");
    assert!(message.contains("there is no data location imagenet"), "{message}");
    api.ask("DELETE", &path, &[], "").await.failure(404, "NotFound");
    assert_eq!(api.get(DATA).await.json()["items"], json!([]));
}

#[tokio::test]
async fn faults_name_the_field_and_the_cure() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    let post = async |spec: Value| api.ask("POST", DATA, &[JSON], &data("imagenet", spec)).await;
    let answer = post(json!({"size": "2Ti"})).await;
    let message = answer.failure(422, "Invalid");
    assert!(
        message.contains("DataLocation \"imagenet\"") && message.contains("name clusters, regions or both"),
        "{message}"
    );
    let message = post(json!({"size": "2TB", "clusters": ["eu-1"]})).await.failure(400, "BadRequest");
    assert!(message.contains("spec.size") && message.contains("800Gi or 2Ti"), "{message}");
    let message = post(json!({"size": "2Ti", "clusters": ["EU"]})).await.failure(400, "BadRequest");
    assert!(message.contains("spec.clusters"), "{message}");
    let twice = reads("a", "{name: imagenet}, {name: imagenet, require: true}");
    let message = api.ask("POST", WORKLOADS, &[YAML], &twice).await.failure(422, "Invalid");
    assert!(message.contains("spec.placement.data[1].name: imagenet is named twice"), "{message}");
    let message = api.ask("POST", WORKLOADS, &[YAML], &reads("a", "{name: Imagenet}")).await.failure(400, "BadRequest");
    assert!(message.contains("data location \"Imagenet\" is not a name"), "{message}");
}

#[tokio::test]
async fn who_reads_it_is_shown_and_what_is_unknown_is_warned_of_and_explained() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, Settings::default()).await;
    let answer = api.ask("POST", WORKLOADS, &[YAML], &reads("a", "{name: imagenet, require: true}")).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    let warned = answer.headers.iter().find(|(name, _)| name == "warning").map(|(_, text)| text.as_str());
    assert!(
        warned.is_some_and(|text| text.contains("no data location imagenet is known: it waits until one is")),
        "{warned:?}"
    );
    let why = api.get("/explain/default/a").await.json();
    assert_eq!(why["waiting"]["cause"], json!({"kind": "unknownData", "data": ["imagenet"]}), "{why}");
    api.ask("POST", DATA, &[JSON], &data("imagenet", json!({"size": "2Ti", "clusters": ["us-1"]}))).await;
    let shown = api.get(&format!("{DATA}/imagenet")).await.json();
    assert_eq!(shown["status"], json!({"usedBy": 1, "users": ["default/a"]}));
    let why = api.get("/explain/default/a").await.json();
    let text = why["text"].as_str().unwrap();
    assert!(text.contains("eu-1: has no copy of imagenet (2Ti); it is in us-1"), "{text}");
    let mut watch = api.stream(&format!("{DATA}?watch=true")).await;
    assert_eq!(watch.event().await.unwrap()["type"], "ADDED");
    assert_eq!(watch.event().await.unwrap()["type"], "BOOKMARK");
    api.ask("DELETE", &format!("{DATA}/imagenet"), &[], "").await;
    assert_eq!(watch.event().await.unwrap()["type"], "DELETED");
    let late = api.get(&format!("{DATA}?watch=true&resourceVersion=1")).await;
    late.failure(410, "Expired");
}
