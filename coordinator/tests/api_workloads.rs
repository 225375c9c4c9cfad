//! Workloads over HTTP: what is accepted, what is refused and how, and that a request's own retries are safe.

#![allow(clippy::unwrap_used)]

mod api_core;

use std::time::Duration;

use api_core::http::{JSON, WORKLOADS, YAML, serve};
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use engine::commands::Command;
use protocol::control::AttemptState;
use protocol::ids::{CommandNumber, Incarnation};

fn quick() -> Settings {
    Settings { timeout: Duration::from_millis(700), ..Settings::default() }
}

#[tokio::test]
async fn a_submission_is_created_once_and_again_by_its_uid_is_the_same() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    let first = api.post_yaml(&batch("a", 1, 0)).await;
    assert_eq!(first.code, 201, "{}", first.body);
    let object = first.json();
    assert_eq!(object["status"]["phase"], "Queued");
    assert_eq!(object["metadata"]["namespace"], "default");
    let uid = object["metadata"]["uid"].as_str().unwrap();
    assert!(object["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));

    let again = batch("a", 1, 0).replace("  name: a\n", &format!("  name: a\n  uid: {uid}\n"));
    let second = api.post_yaml(&again).await;
    assert_eq!(second.code, 200, "{}", second.body);
    assert_eq!(second.json()["metadata"]["uid"], uid);

    let message = api.post_yaml(&batch("a", 1, 0)).await.failure(409, "AlreadyExists");
    assert!(message.contains("default/a"), "{message}");
}

#[tokio::test]
async fn json_is_taken_as_well_and_what_was_got_can_be_posted() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("a", 2, 0)).await;
    let got = api.get(&format!("{WORKLOADS}/a")).await.body;
    let posted = api.ask("POST", WORKLOADS, &[JSON], &got).await;
    assert_eq!(posted.code, 200, "{}", posted.body);
}

#[tokio::test]
async fn bad_bodies_are_refused_with_their_own_code() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    let bad = |from: &str, to: &str| {
        let text = batch("a", 1, 0);
        assert!(text.contains(from));
        text.replace(from, to)
    };
    let message = api.post_yaml(&bad("cpu: 1", "cpuu: 1")).await.failure(400, "BadRequest");
    assert!(message.contains("cpuu") && message.contains("line 9") && message.contains("groups[0]"), "{message}");
    let message = api.post_yaml(&bad("tidewater.dev/v1", "v1")).await.failure(400, "BadRequest");
    assert!(message.contains("write tidewater.dev/v1"), "{message}");
    api.post_yaml(&bad("kind: Workload", "kind: Job")).await.failure(400, "BadRequest");
    let message = api.post_yaml(&bad("  name: a\n", "  name: a\n  namespace: b\n")).await.failure(400, "BadRequest");
    assert!(message.contains("metadata.namespace is b"), "{message}");
    let message = api.post_yaml(&batch("a", 1, 1).replace("H100", "H10O")).await.failure(400, "BadRequest");
    assert!(message.contains("did you mean H100"), "{message}");

    let form = [("content-type", "application/x-www-form-urlencoded")];
    api.ask("POST", WORKLOADS, &form, "a=b").await.failure(415, "UnsupportedMediaType");
    let long = "#".repeat(1024 * 1024 + 1);
    api.ask("POST", WORKLOADS, &[YAML], &long).await.failure(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn an_invalid_spec_is_told_every_fault_with_its_field() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    let text = batch("a", 1, 0).replace("count: 1, cpu: 1", "count: 0, cpu: 0");
    let answer = api.post_yaml(&text).await;
    let message = answer.failure(422, "Invalid");
    assert!(message.contains("default/a"), "{message}");
    let causes = answer.json()["details"]["causes"].as_array().unwrap().clone();
    let fields: Vec<_> = causes.iter().map(|c| c["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["spec.batch.groups[0].cpu", "spec.batch.groups[0].count"]);
    assert!(fields.iter().all(|f| message.contains(f)), "{message}");
}

#[tokio::test]
async fn what_no_cluster_could_hold_is_accepted_with_a_warning() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, quick()).await;
    let answer = api.post_yaml(&batch("big", 4, 8)).await;
    assert_eq!(answer.code, 201);
    let warnings: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "warning").collect();
    assert_eq!(warnings.len(), 1, "{:?}", answer.headers);
    assert!(warnings[0].1.starts_with("299 - \""), "{warnings:?}");
    let fitting = api.post_yaml(&batch("small", 1, 8)).await;
    assert!(fitting.headers.iter().all(|(name, _)| name != "warning"), "{:?}", fitting.headers);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    let none = format!("{WORKLOADS}/none");
    let message = api.get(&none).await.failure(404, "NotFound");
    assert!(message.contains("default/none"), "{message}");
    api.ask("DELETE", &none, &[], "").await.failure(404, "NotFound");
    api.ask("POST", &format!("{none}/cancel"), &[], "").await.failure(404, "NotFound");
    api.get("/explain/default/none").await.failure(404, "NotFound");
    api.get("/logs/default/none").await.failure(404, "NotFound");
    api.get("/apis/tidewater.dev/v1/clusters/none").await.failure(404, "NotFound");
    api.get("/apis/tidewater.dev/v1/clusters/none/nodes").await.failure(404, "NotFound");
    api.get("/nothing").await.failure(404, "NotFound");
    api.ask("PUT", WORKLOADS, &[], "").await.failure(405, "MethodNotAllowed");
    let message = api.get(&format!("{WORKLOADS}/No_Name")).await.failure(400, "BadRequest");
    assert!(message.contains("No_Name"), "{message}");
}

#[tokio::test]
async fn lists_are_of_one_namespace_or_of_all() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("a", 1, 0)).await;
    let other = WORKLOADS.replace("default", "other");
    api.ask("POST", &other, &[YAML], &batch("b", 1, 0)).await;
    let names = |list: serde_json::Value| {
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(api.get(WORKLOADS).await.json()), ["a"]);
    assert_eq!(names(api.get(&other).await.json()), ["b"]);
    let all = api.get("/apis/tidewater.dev/v1/workloads").await.json();
    assert_eq!(all["metadata"]["resourceVersion"], "2");
    assert_eq!(names(all), ["a", "b"]);
    let one = api.get("/apis/tidewater.dev/v1/workloads?fieldSelector=metadata.name%3Db").await.json();
    assert_eq!(names(one), ["b"]);
    api.get(&format!("{WORKLOADS}?fieldSelector=spec.x%3Db")).await.failure(400, "BadRequest");
    api.get(&format!("{WORKLOADS}?consistency=maybe")).await.failure(400, "BadRequest");
}

#[tokio::test]
async fn a_workload_shows_attempt_timeline_and_end() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("a", 1, 8)).await;
    assert_eq!(core.place().await, 1);
    core.report("default/a", AttemptState::Accepted).await;
    core.report("default/a", AttemptState::Running).await;
    let status = api.get(&format!("{WORKLOADS}/a")).await.json()["status"].clone();
    assert_eq!(status["phase"], "Running");
    assert_eq!((&status["cluster"], &status["region"]), (&"eu-1".into(), &"eu-west".into()));
    assert_eq!(status["attempts"][0]["placement"][0], "workers: 1 x 8 H100 on n-1");
    core.report("default/a", AttemptState::Succeeded).await;
    let status = api.get(&format!("{WORKLOADS}/a")).await.json()["status"].clone();
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(status["attempts"][0]["exitCode"], 0);
    assert!(status["timeline"].as_array().unwrap().len() >= 4, "{status}");
}

#[tokio::test]
async fn a_queued_workload_says_its_place_and_why_on_leader_and_follower() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("first", 1, 8)).await;
    core.place().await;
    api.post_yaml(&batch("second", 1, 8)).await;
    for leaderless in [false, true] {
        core.set(|s| s.leaderless = leaderless);
        let status = api.get(&format!("{WORKLOADS}/second")).await.json()["status"].clone();
        assert_eq!(status["placeInQueue"], 1, "{status}");
        assert!(status["message"].as_str().unwrap().contains("eu-1"), "{status}");
    }
    let explained = api.get("/explain/default/second").await.json();
    assert_eq!(explained["phase"], "Queued");
    assert_eq!(explained["waiting"]["place"], 1);
    assert!(explained["text"].as_str().unwrap().contains("Place 1 of 1"), "{explained}");
}

#[tokio::test]
async fn the_time_to_come_is_told_and_nothing_is_changed() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, quick()).await;
    let lasts = |name: &str| batch(name, 1, 8) + "  expectedDuration: 1h\n";
    api.post_yaml(&lasts("first")).await;
    core.place().await;
    api.post_yaml(&lasts("second")).await;
    let told = api.get("/forecast/default/second").await.json();
    assert_eq!((&told["cluster"], &told["ends"], &told["endless"]), (&"eu-1".into(), &1.into(), &0.into()), "{told}");
    assert_eq!(told["after"][0]["basis"]["kind"], "declared", "{told}");
    api.get("/forecast/default/none").await.failure(404, "NotFound");

    let json = [("content-type", "application/json")];
    let ask = async |edits: &str| api.ask("POST", "/whatif", &json, &format!("{{\"edits\":[{edits}]}}")).await;
    let told = ask(r#"{"kind":"addNodes","cluster":"eu-1","count":1,"sku":"H100","gpus":8}"#).await.json();
    let change = &told["changes"][0];
    assert_eq!(
        (&told["changed"], &told["same"], &change["workload"]),
        (&1.into(), &1.into(), &"default/second".into())
    );
    assert_eq!((&change["after"]["kind"], &change["after"]["at"]), (&"starts".into(), &told["now"]), "{told}");
    let refused = ask(r#"{"kind":"drainNode","cluster":"eu-1","node":"n-9"}"#).await;
    assert!(refused.failure(400, "BadRequest").contains("edits[0]: cluster eu-1 has no node n-9"));
    ask("").await.failure(400, "BadRequest");
    assert_eq!(api.get(&format!("{WORKLOADS}/second")).await.json()["status"]["phase"], "Queued");
}

#[tokio::test]
async fn a_dependent_says_for_whom_it_waits_and_a_circle_is_refused_with_its_field() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, quick()).await;
    let after = |name: &str, other: &str| {
        batch(name, 1, 0).replace("spec:\n", &format!("spec:\n  dependsOn: [{{workload: {other}}}]\n"))
    };
    let created = api.post_yaml(&after("train", "prepare")).await;
    assert_eq!(created.code, 201, "{}", created.body);
    core.place().await;
    let status = api.get(&format!("{WORKLOADS}/train")).await.json()["status"].clone();
    assert!(status["message"].as_str().unwrap().contains("prepare is not on record"), "{status}");
    let explained = api.get("/explain/default/train").await.json();
    assert_eq!(explained["waiting"]["cause"]["kind"], "dependencies");
    assert_eq!(explained["waiting"]["cause"]["awaited"][0]["workload"], "prepare");
    let message = api.post_yaml(&after("prepare", "train")).await.failure(422, "Invalid");
    assert!(message.contains("spec.dependsOn: prepare needs train needs prepare"), "{message}");
    api.post_yaml(&batch("prepare", 1, 0)).await;
    core.place().await;
    core.report("default/prepare", AttemptState::Succeeded).await;
    assert_eq!(core.place().await, 1, "train is placed once prepare has succeeded");
}

#[tokio::test]
async fn cancel_ends_and_delete_removes() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("a", 1, 0)).await;
    let cancelled = api.ask("POST", &format!("{WORKLOADS}/a/cancel"), &[], "").await;
    assert_eq!(cancelled.code, 200);
    assert_eq!(cancelled.json()["status"]["phase"], "Cancelled");
    let deleted = api.ask("DELETE", &format!("{WORKLOADS}/a"), &[], "").await;
    assert_eq!(deleted.code, 200);
    assert_eq!(deleted.json()["status"], "Success", "{}", deleted.body);
    api.get(&format!("{WORKLOADS}/a")).await.failure(404, "NotFound");
}

#[tokio::test]
async fn a_name_that_is_becoming_free_is_said_to_be() {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n-1", Some("H100"), 8)]).await;
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("a", 1, 0)).await;
    assert_eq!(core.place().await, 1);
    let taken = api.post_yaml(&batch("a", 1, 0)).await.failure(409, "AlreadyExists");
    assert!(taken.contains("delete it first"), "{taken}");
    assert_eq!(api.ask("DELETE", &format!("{WORKLOADS}/a"), &[], "").await.code, 200);
    let taken = api.post_yaml(&batch("a", 1, 0)).await.failure(409, "AlreadyExists");
    assert!(taken.contains("default/a is being deleted"), "{taken}");
    core.report("default/a", AttemptState::Stopped).await;
    assert_eq!(api.post_yaml(&batch("a", 1, 0)).await.code, 201);
}

#[tokio::test]
async fn an_unconfirmed_submission_is_tried_again_and_makes_one_workload() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    core.set(|s| (s.unconfirmed, s.applied_all_the_same) = (2, true));
    let answer = api.post_yaml(&batch("a", 1, 0)).await;
    // It existed already when it was confirmed: from the first try.
    assert_eq!(answer.code, 200, "{}", answer.body);
    let all = api.get(WORKLOADS).await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deletion_that_an_unconfirmed_try_did_is_no_error() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    api.post_yaml(&batch("a", 1, 0)).await;
    core.set(|s| (s.unconfirmed, s.applied_all_the_same) = (1, true));
    let answer = api.ask("DELETE", &format!("{WORKLOADS}/a"), &[], "").await;
    assert_eq!(answer.code, 200, "{}", answer.body);
}

#[tokio::test]
async fn without_a_leader_or_quorum_it_says_so_in_time() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    core.set(|s| s.unconfirmed = u32::MAX);
    let answer = api.post_yaml(&batch("a", 1, 0)).await;
    let message = answer.failure(503, "ServiceUnavailable");
    assert!(message.contains("same uid is safe"), "{message}");
    assert!(answer.headers.iter().any(|(name, _)| name == "retry-after"));
    core.set(|s| (s.unconfirmed, s.no_quorum) = (0, true));
    api.get(WORKLOADS).await.failure(503, "ServiceUnavailable");
    assert_eq!(api.get(&format!("{WORKLOADS}?consistency=stale")).await.code, 200);
    core.set(|s| s.overloaded = true);
    api.post_yaml(&batch("a", 1, 0)).await.failure(429, "TooManyRequests");
    core.set(|s| s.silent = true);
    api.get(WORKLOADS).await.failure(503, "ServiceUnavailable");
    api.post_yaml(&batch("a", 1, 0)).await.failure(503, "ServiceUnavailable");
    assert_eq!(api.get("/healthz").await.code, 200);
    assert_eq!(api.get("/readyz").await.code, 503);
}

#[tokio::test]
async fn only_an_attempt_that_nobody_sees_can_be_forgotten_and_the_word_is_kept() {
    let core = Core::start();
    let api = serve(&core, quick()).await;
    let forget = |body: &'static str| {
        api.ask("POST", "/apis/tidewater.dev/v1/namespaces/default/workloads/a/forget", &[JSON], body)
    };
    const SAID: &str = r#"{"reason": "its node was taken away"}"#;
    forget(SAID).await.failure(404, "NotFound");
    api.post_yaml(&batch("a", 1, 0)).await;
    let message = forget(SAID).await.failure(409, "Conflict");
    assert!(message.contains("never placed"), "{message}");
    let message = forget(r#"{"reason": " "}"#).await.failure(400, "BadRequest");
    assert!(message.contains("how you know"), "{message}");
    forget("{}").await.failure(400, "BadRequest");
    forget(r#"{"reason": "x", "atempt": 1}"#).await.failure(400, "BadRequest");

    core.join(info("eu-1", "eu-west", &["H100"]), vec![node("n0", None, 0)]).await;
    assert_eq!(core.place().await, 1);
    let message = forget(SAID).await.failure(409, "Conflict");
    assert!(message.contains("the agent of eu-1 holds attempt 1"), "{message}");
    // The agent is back without its records.
    let wiped = Command::Join {
        info: info("eu-1", "eu-west", &["H100"]),
        incarnation: Incarnation(2),
        last_command: CommandNumber(0),
        attempts: vec![],
    };
    core.handle.propose(wiped).await.unwrap();
    forget(r#"{"reason": "x", "attempt": 2}"#).await.failure(409, "Conflict");
    // An answer that is lost: the next try of it finds it done, and does not end what came after.
    core.set(|s| (s.unconfirmed, s.applied_all_the_same) = (1, true));
    let answer = forget(SAID).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    let warned = answer.headers.iter().any(|(name, text)| name == "warning" && text.contains("on your word"));
    assert!(warned, "{:?}", answer.headers);
    let object = answer.json();
    assert_eq!(object["status"]["phase"], "Queued");
    let timeline = object["status"]["timeline"].to_string();
    assert!(timeline.contains("its node was taken away"), "{timeline}");
}
