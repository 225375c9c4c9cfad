//! Connections to attempts' own pages over HTTP: who has one, the upgrade, and how they end.

#![allow(clippy::unwrap_used)]

mod api_core;

use std::time::Duration;

use api_core::http::{Served, serve};
use api_core::{Core, batch, info, node};
use coordinator::api::Settings;
use engine::commands::Command;
use protocol::control::AttemptState;
use protocol::ids::ClusterName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(10);
const UPGRADE: &str = "connection: upgrade\r\nupgrade: tidewater-bytes\r\n";

fn ray(name: &str) -> String {
    format!(
        "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata:\n  name: {name}\nspec:\n  ray:\n    entrypoint: python t.py\n    \
         head: {{cpu: 1, memory: 1Gi}}\n    workers:\n    - {{name: w, count: 1, cpu: 1, memory: 1Gi}}\n"
    )
}

fn spark(name: &str, conf: &str) -> String {
    format!(
        "apiVersion: tidewater.dev/v1\nkind: Workload\nmetadata:\n  name: {name}\nspec:\n  spark:\n    main: t.py\n    conf: {conf}\n    \
         driver: {{cpu: 1, memory: 1Gi}}\n    executors: {{name: e, count: 1, cpu: 1, memory: 1Gi}}\n"
    )
}

async fn scene() -> (Core, Served) {
    let core = Core::start();
    core.join(info("eu-1", "eu-west", &[]), vec![node("n-1", None, 0)]).await;
    let api = serve(&core, Settings::default()).await;
    (core, api)
}

/// A workload that runs.
async fn running(core: &Core, api: &Served, name: &str) {
    assert_eq!(api.post_yaml(&ray(name)).await.code, 201);
    assert_eq!(core.place().await, 1);
    core.report(&format!("default/{name}"), AttemptState::Running).await;
}

/// What comes of asking for a page: the code, the head, and the connection.
async fn ask(api: &Served, path: &str, headers: &str) -> (u16, String, TcpStream) {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let request = format!("POST {path} HTTP/1.1\r\nhost: t\r\n{headers}content-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    (head[9..12].parse().unwrap(), head, stream)
}

/// The refusal of a request for a page, in words.
async fn refused(api: &Served, path: &str, code: u16, reason: &str) -> String {
    let headers = [("connection", "upgrade"), ("upgrade", "tidewater-bytes")];
    api.ask("POST", path, &headers, "").await.failure(code, reason)
}

#[tokio::test]
async fn who_has_no_page_is_told_why() {
    let (core, api) = scene().await;
    refused(&api, "/dashboard/default/none", 404, "NotFound").await;
    api.post_yaml(&batch("b", 1, 0)).await;
    let why = refused(&api, "/dashboard/default/b", 409, "Conflict").await;
    assert!(why.contains("is of batch, which has no page of its own"), "{why}");
    api.post_yaml(&spark("dark", "{spark.ui.enabled: \"false\"}")).await;
    let why = refused(&api, "/dashboard/default/dark", 409, "Conflict").await;
    assert!(why.contains("spark.ui.enabled=false"), "{why}");
    api.post_yaml(&ray("w")).await;
    let why = refused(&api, "/dashboard/default/w", 409, "Conflict").await;
    assert!(why.contains("tidewater why w -n default"), "{why}");
    core.place().await;
    let why = refused(&api, "/dashboard/default/w", 409, "Conflict").await;
    assert!(why.contains("attempt 1 of workload default/w is on its way to cluster eu-1"), "{why}");
    core.report("default/w", AttemptState::Running).await;
    let why = refused(&api, "/dashboard/default/w", 409, "Conflict").await;
    assert!(why.ends_with("shows no page now: it is not up yet"), "{why}");
    core.handle.propose(Command::LoseCluster { cluster: ClusterName::new("eu-1").unwrap() }).await.unwrap();
    let why = refused(&api, "/dashboard/default/w", 503, "ServiceUnavailable").await;
    assert!(why.contains("cluster eu-1 is not heard from"), "{why}");
    let (core, api) = scene().await;
    running(&core, &api, "w").await;
    core.report("default/w", AttemptState::Succeeded).await;
    let why = refused(&api, "/dashboard/default/w", 409, "Conflict").await;
    assert!(why.contains("has ended (Succeeded)"), "{why}");
}

#[tokio::test]
async fn a_page_is_no_answer_to_a_question_of_another_kind() {
    let (core, api) = scene().await;
    running(&core, &api, "w").await;
    core.set(|s| s.page = Some(""));
    // Whoever may only read, and a browser's page, which can't send this header.
    api.get("/dashboard/default/w").await.failure(405, "MethodNotAllowed");
    for headers in ["", "connection: upgrade\r\nupgrade: websocket\r\n", "upgrade: tidewater-bytes\r\n"] {
        let (code, head, _) = ask(&api, "/dashboard/default/w", headers).await;
        assert_eq!(code, 400, "{headers:?}: {head}");
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_until_both_have_ended() {
    let (core, api) = scene().await;
    running(&core, &api, "w").await;
    core.set(|s| s.page = Some("hello "));
    let (code, head, mut stream) = ask(&api, "/dashboard/default/w", UPGRADE).await;
    assert_eq!(code, 101, "{head}");
    for line in
        ["upgrade: tidewater-bytes", "tidewater-attempt: 1", "tidewater-framework: ray", "tidewater-token: secret"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "no {line} in {head}");
    }
    let question = vec![b'x'; 200_000];
    let (mut from, mut to) = stream.split();
    let (asked, mut heard) = (question.clone(), vec![]);
    let asking = async {
        to.write_all(&asked).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let hearing = async { from.read_to_end(&mut heard).await.unwrap() };
    tokio::time::timeout(SOON, async { tokio::join!(asking, hearing) }).await.unwrap();
    assert_eq!(heard, [b"hello ".to_vec(), question].concat());
}

#[tokio::test]
async fn connections_are_bounded_given_back_and_end_with_the_server() {
    let (core, api) = scene().await;
    running(&core, &api, "w").await;
    core.set(|s| s.page = Some(""));
    let mut open = vec![];
    let most = loop {
        let (code, head, stream) = ask(&api, "/dashboard/default/w", UPGRADE).await;
        match code {
            101 => open.push(stream),
            429 => break open.len(),
            _ => panic!("{head}"),
        }
    };
    assert_eq!(most, 256);
    // One whose visitor goes makes room for another.
    open.pop();
    let another = async {
        while ask(&api, "/dashboard/default/w", UPGRADE).await.0 != 101 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, another).await.unwrap();
    api.stop.cancel();
    let ended = async {
        for stream in &mut open {
            // Ended or broken off: over.
            assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        }
    };
    tokio::time::timeout(SOON, ended).await.unwrap();
}
