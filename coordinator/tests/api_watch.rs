//! Watches: nothing is missed, nothing is in the wrong order, and what can't be kept is said.

#![allow(clippy::unwrap_used)]

mod api_core;

use std::collections::BTreeSet;
use std::time::Duration;

use api_core::http::{Streamed, WORKLOADS, serve};
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use engine::commands::Command;
use protocol::control::AttemptState;
use protocol::ids::Uid;
use protocol::workload::WorkloadSpec;
use serde_json::Value;

fn spec() -> Box<WorkloadSpec> {
    let object: Value = serde_json::json!({
        "batch": {"command": ["true"], "groups": [{"cpu": 1, "memory": "1Gi"}]}
    });
    Box::new(serde_json::from_value(object).unwrap())
}

async fn submit(core: &Core, name: &str, uid: u128) {
    let command = Command::Submit { key: api_core::key(&format!("default/{name}")), uid: Uid(uid), spec: spec() };
    core.handle.propose(command).await.unwrap();
}

async fn delete(core: &Core, name: &str) {
    core.handle.propose(Command::Delete { key: api_core::key(&format!("default/{name}")) }).await.unwrap();
}

fn short(event: &Value) -> String {
    format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
}

async fn next(watch: &mut Streamed) -> String {
    short(&watch.event().await.unwrap())
}

#[tokio::test]
async fn a_watch_from_nothing_shows_all_then_a_bookmark_then_what_changes() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, Settings::default()).await;
    submit(&core, "a", 1).await;
    let mut watch = api.stream(&format!("{WORKLOADS}?watch=true")).await;
    assert_eq!(next(&mut watch).await, "ADDED a");
    let bookmark = watch.event().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], "2");
    submit(&core, "b", 2).await;
    assert_eq!(next(&mut watch).await, "ADDED b");
    core.place().await;
    let mut seen = BTreeSet::new();
    seen.insert(next(&mut watch).await);
    seen.insert(next(&mut watch).await);
    assert_eq!(seen, BTreeSet::from(["MODIFIED a".to_owned(), "MODIFIED b".to_owned()]));
    core.report("default/a", AttemptState::Succeeded).await;
    assert_eq!(watch.event().await.unwrap()["object"]["status"]["phase"], "Succeeded");
    delete(&core, "a").await;
    let gone = watch.event().await.unwrap();
    assert_eq!(short(&gone), "DELETED a");
    assert_eq!(gone["object"]["metadata"]["uid"], Uid(1).to_string());
    assert!(gone["object"]["spec"]["batch"].is_object());
}

#[tokio::test]
async fn a_watch_from_a_version_misses_nothing_wherever_it_breaks_off() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    submit(&core, "w-0", 1000).await;
    let list = api.get(WORKLOADS).await.json();
    let mut version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let writer = {
        let core = core.clone();
        tokio::spawn(async move {
            for i in 1..=300u128 {
                submit(&core, &format!("w-{i}"), 1000 + i).await;
                // Some go at once, some after they were shown; the last two stay, so that the end is seen.
                if i % 3 == 0 && i < 299 {
                    delete(&core, &format!("w-{}", if i % 2 == 0 { i - 1 } else { i / 2 })).await;
                }
                if i % 20 == 0 {
                    tokio::time::sleep(Duration::from_millis(7)).await;
                }
            }
        })
    };
    // As a client's cache does: what the list had, changed by what the watches say.
    let mut cache = present(&list);
    let mut broken_off = 0;
    while !cache.contains("w-300") {
        let mut watch = api.stream(&format!("{WORKLOADS}?watch=1&resourceVersion={version}")).await;
        assert_eq!(watch.code, 200);
        broken_off += 1;
        // A few events, then the connection is dropped and a new one goes on from the last version seen.
        for _ in 0..17 {
            if cache.contains("w-300") {
                break;
            }
            let event = watch.event().await.unwrap();
            let at = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            assert!(at.parse::<u64>().unwrap() >= version.parse::<u64>().unwrap(), "{event}");
            version = at;
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str().unwrap() {
                "ADDED" | "MODIFIED" => drop(cache.insert(name)),
                "DELETED" => drop(cache.remove(&name)),
                other => assert_eq!(other, "BOOKMARK"),
            }
        }
    }
    writer.await.unwrap();
    assert!(broken_off > 3, "{broken_off}");
    assert_eq!(cache, present(&api.get(WORKLOADS).await.json()));
}

fn present(list: &Value) -> BTreeSet<String> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_name_made_anew_is_deleted_and_added() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    submit(&core, "a", 1).await;
    let mut watch = api.stream(&format!("{WORKLOADS}?watch=true")).await;
    assert_eq!(next(&mut watch).await, "ADDED a");
    assert_eq!(next(&mut watch).await, "BOOKMARK -");
    delete(&core, "a").await;
    submit(&core, "a", 2).await;
    let (gone, come) = (watch.event().await.unwrap(), watch.event().await.unwrap());
    assert_eq!((short(&gone), short(&come)), ("DELETED a".into(), "ADDED a".into()));
    assert_eq!(gone["object"]["metadata"]["uid"], Uid(1).to_string());
    assert_eq!(come["object"]["metadata"]["uid"], Uid(2).to_string());
}

#[tokio::test]
async fn a_version_older_than_the_ring_is_expired() {
    let core = Core::start();
    let api = serve(&core, Settings { ring: 5, ..Settings::default() }).await;
    for i in 0..20u128 {
        submit(&core, &format!("w-{i}"), 1 + i).await;
    }
    let old = format!("{WORKLOADS}?watch=true&resourceVersion=2");
    let limit = std::time::Instant::now() + Duration::from_secs(5);
    // The ring takes changes in batches: wait until it has them.
    let message = loop {
        let probe = format!("{WORKLOADS}?watch=true&resourceVersion=19");
        let mut watch = api.stream(&probe).await;
        if watch.code == 200 && watch.event().await.unwrap()["object"]["metadata"]["resourceVersion"] == "20" {
            break api.get(&old).await.failure(410, "Expired");
        }
        assert!(std::time::Instant::now() < limit);
    };
    assert!(message.contains("version 2") && message.contains("15"), "{message}");
    api.get(&format!("{WORKLOADS}?watch=true&resourceVersion=x")).await.failure(400, "BadRequest");
}

#[tokio::test]
async fn an_idle_watch_beats_and_ends_when_asked_and_when_the_server_stops() {
    let core = Core::start();
    let api = serve(&core, Settings { heartbeat: Duration::from_millis(50), ..Settings::default() }).await;
    submit(&core, "a", 1).await;
    let path = format!("{WORKLOADS}?watch=true&resourceVersion=1");
    let mut watch = api.stream(&path).await;
    for _ in 0..3 {
        let beat = watch.event().await.unwrap();
        assert_eq!((&beat["type"], &beat["object"]["metadata"]["resourceVersion"]), (&"BOOKMARK".into(), &"1".into()));
    }
    let mut timed = api.stream(&format!("{path}&timeoutSeconds=1")).await;
    while timed.event().await.is_some() {}
    api.stop.cancel();
    while watch.event().await.is_some() {}
    tokio::time::timeout(Duration::from_secs(4), api.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_watch_shows_only_what_its_filter_takes() {
    let core = Core::start();
    let api = serve(&core, Settings::default()).await;
    let path = format!("{WORKLOADS}?watch=true&fieldSelector=metadata.name%3Db");
    let mut watch = api.stream(&path).await;
    assert_eq!(next(&mut watch).await, "BOOKMARK -");
    api.post_yaml(&batch("a", 1, 0)).await;
    api.post_yaml(&batch("b", 1, 0)).await;
    assert_eq!(next(&mut watch).await, "ADDED b");
}
