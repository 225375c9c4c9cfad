//! Against a server that answers as it is told: pages, watches, and everything that goes wrong with them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use protocol::ids::NodeName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::client::{Access, connect, connect_with};
use super::super::feed;
use crate::cluster::{ClusterNode, KubernetesInput, NodePods};

/// How long a silent server is waited for here.
const PATIENCE: Duration = Duration::from_millis(400);

/// What the server does with one request.
enum Answer {
    /// A status line, headers and a body.
    Whole(&'static str, Vec<String>, String),
    /// Lines of a watch, which then ends.
    Watch(Vec<Value>),
    /// Lines of a watch, then silence.
    Silence(Vec<Value>),
    /// Half a line of a watch.
    Torn,
}

fn list(version: u64, more: Option<&str>, items: Vec<Value>) -> Answer {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more.unwrap_or_default()});
    Answer::Whole("200 OK", vec![], json!({"metadata": metadata, "items": items}).to_string())
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn expired() -> Value {
    event(
        "ERROR",
        json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}),
    )
}

fn node(name: &str, version: u64, cpu: u64) -> Value {
    json!({
        "metadata": {"name": name, "resourceVersion": version.to_string()},
        "status": {"allocatable": {"cpu": cpu.to_string()}, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn pod(uid: &str, version: u64, node: &str, cpu: u64) -> Value {
    json!({
        "metadata": {"name": uid, "namespace": "d", "uid": uid, "resourceVersion": version.to_string()},
        "spec": {"nodeName": node, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}},
        ]},
        "status": {"phase": "Running"},
    })
}

/// A server with answers for `/api/v1/nodes` and `/api/v1/pods`, in order; once they are used up it says nothing to watches
/// and lists nothing.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<BTreeMap<&'static str, VecDeque<Answer>>>>,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Server {
    fn answer(&self, path: &'static str, answers: Vec<Answer>) {
        self.answers.lock().unwrap().entry(path).or_default().extend(answers);
    }

    /// What was asked of a path, without it.
    fn asked(&self, path: &str) -> Vec<(Instant, String)> {
        let asked = self.asked.lock().unwrap();
        let of_path = asked.iter().filter_map(|(at, asked)| Some((*at, asked.strip_prefix(path)?.to_owned())));
        of_path.collect()
    }

    async fn start(&self) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        address
    }

    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let mut first = String::new();
        stream.read_line(&mut first).await.unwrap();
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|n| n > 2) {
            if let Some(token) = line.strip_prefix("authorization: ") {
                self.asked.lock().unwrap().push((Instant::now(), format!("token {}", token.trim())));
            }
            line.clear();
        }
        let Some(target) = first.split(' ').nth(1) else { return };
        self.asked.lock().unwrap().push((Instant::now(), target.to_owned()));
        let path = target.split('?').next().unwrap();
        let answer = self.answers.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front);
        let answer = answer.unwrap_or(if target.contains("watch=true") {
            Answer::Silence(vec![])
        } else {
            list(1, None, vec![])
        });
        let head = |status: &str| format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
        let (text, silent) = match answer {
            Answer::Whole(status, headers, body) => {
                let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
                (format!("{}{headers}content-length: {}\r\n\r\n{body}", head(status), body.len()), false)
            }
            Answer::Watch(lines) => (format!("{}\r\n{}", head("200 OK"), text(&lines)), false),
            Answer::Silence(lines) => (format!("{}\r\n{}", head("200 OK"), text(&lines)), true),
            Answer::Torn => (format!("{}\r\n{{\"type\":\"ADDED\",\"obj", head("200 OK")), false),
        };
        let mut stream = stream.into_inner();
        // In pieces, as a network would cut it.
        for piece in text.as_bytes().chunks(100) {
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        if silent {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let _ = stream.shutdown().await;
    }
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const GROUP: &str = "/apis/resource.k8s.io/v1";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/resourceclaims";

fn kubeconfig(dir: &std::path::Path, server: &str, user: Value) -> Access {
    let file = dir.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    Access::Kubeconfig { file, context: None }
}

/// A feed of this server, and what it told.
struct Fed {
    told: mpsc::Receiver<KubernetesInput>,
    table: BTreeMap<NodeName, (ClusterNode, NodePods)>,
    ages: Vec<u64>,
    stop: CancellationToken,
}

impl Fed {
    async fn of(server: &Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let access = kubeconfig(dir.path(), &format!("http://{}", server.start().await), json!({}));
        let client = connect_with(&access, PATIENCE, None).await.unwrap();
        let (send, told) = mpsc::channel(4);
        let stop = CancellationToken::new();
        tokio::spawn(feed::run(client, send, watch::channel(true).1, stop.clone()));
        Self { told, table: BTreeMap::new(), ages: vec![], stop }
    }

    /// Waits until the table is this: by node its cpu, and what pods take of it.
    async fn until(&mut self, expected: &[(&str, u64, u64)]) {
        let expected: Vec<(String, u64, u64)> =
            expected.iter().map(|(name, cpu, taken)| ((*name).to_owned(), cpu * 1000, taken * 1000)).collect();
        let row =
            |(node, pods): &(ClusterNode, NodePods)| (node.name.to_string(), node.cpu_milli, pods.others.cpu_milli);
        self.until_rows(row, expected).await;
    }

    async fn until_rows<R: PartialEq + std::fmt::Debug>(
        &mut self,
        row: impl Fn(&(ClusterNode, NodePods)) -> R,
        expected: Vec<R>,
    ) {
        let began = Instant::now();
        loop {
            let now: Vec<_> = self.table.values().map(&row).collect();
            if now == expected {
                return;
            }
            let left = Duration::from_secs(20).saturating_sub(began.elapsed());
            match tokio::time::timeout(left, self.told.recv()).await {
                Ok(Some(KubernetesInput::Changed { nodes, gone })) => {
                    gone.iter().for_each(|name| drop(self.table.remove(name)));
                    self.table.extend(nodes.into_iter().map(|(node, pods)| (node.name.clone(), (node, pods))));
                }
                Ok(Some(KubernetesInput::Current { age_ms })) => self.ages.push(age_ms),
                Ok(None) => panic!("it ended"),
                Err(_) => panic!("{now:?} is not {expected:?}"),
            }
        }
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn pages_are_joined_and_a_watch_goes_on_from_the_last_version_seen() {
    let server = Server::default();
    server.answer(
        NODES,
        vec![
            list(10, Some("next"), vec![node("a", 3, 1)]),
            list(10, None, vec![node("b", 4, 2)]),
            Answer::Watch(vec![
                event("MODIFIED", node("a", 11, 5)),
                event("DELETED", node("b", 12, 2)),
                event("BOOKMARK", json!({"metadata": {"resourceVersion": "20"}})),
            ]),
            Answer::Watch(vec![event("ADDED", node("c", 21, 7))]),
        ],
    );
    server.answer(
        PODS,
        vec![
            list(10, None, vec![pod("p", 5, "a", 1), pod("q", 6, "c", 2)]),
            // It ended: by the field selector it is none of those any more.
            Answer::Watch(vec![event("DELETED", pod("p", 13, "a", 1))]),
        ],
    );
    let mut fed = Fed::of(&server).await;
    fed.until(&[("a", 5, 0), ("c", 7, 2)]).await;
    let asked: Vec<String> = server.asked(NODES).into_iter().map(|(_, asked)| asked).collect();
    assert!(asked[0].contains("limit=500") && !asked[0].contains("continue"), "{asked:?}");
    assert!(asked[1].contains("continue=next"), "{asked:?}");
    assert!(asked[2].contains("watch=true") && asked[2].contains("resourceVersion=10"), "{asked:?}");
    assert!(asked[2].contains("allowWatchBookmarks=true") && asked[2].contains("timeoutSeconds=15"), "{asked:?}");
    assert!(asked[3].contains("resourceVersion=20"), "{asked:?}");
    let pods = &server.asked(PODS)[0].1;
    assert!(pods.contains("fieldSelector=spec.nodeName%21%3D%2Cstatus.phase%21%3DSucceeded"), "{pods}");
    // It has no slices of devices and no claims, and is not asked for any.
    let of_group: Vec<String> = server.asked(GROUP).into_iter().map(|(_, asked)| asked).collect();
    assert_eq!(of_group, [""]);
}

fn slice(name: &str, devices: &[&str]) -> Value {
    let attributes = json!({"type": {"string": "gpu"}, "productName": {"string": "NVIDIA L4"}});
    let devices: Vec<Value> = devices.iter().map(|name| json!({"name": name, "attributes": attributes})).collect();
    let pool = json!({"name": "a", "generation": 1, "resourceSliceCount": 2});
    json!({
        "metadata": {"name": name, "resourceVersion": "3"},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": "a", "pool": pool, "devices": devices},
    })
}

#[tokio::test]
async fn slices_and_claims_are_followed_for_as_long_as_the_server_has_them() {
    let server = Server::default();
    server.answer(NODES, vec![list(10, None, vec![node("a", 3, 1)])]);
    let known = json!({"resources": [{"name": "resourceclaims"}, {"name": "resourceslices"}]}).to_string();
    let refused = || Answer::Whole("503 Service Unavailable", vec![], String::new());
    server.answer(GROUP, vec![refused(), Answer::Whole("200 OK", vec![], known)]);
    let held = json!({
        "metadata": {"uid": "c", "namespace": "d", "resourceVersion": "12"},
        "status": {"allocation": {"devices": {"results": [{"driver": "gpu.nvidia.com", "pool": "a", "device": "one"}]}}},
    });
    server.answer(
        CLAIMS,
        vec![refused(), list(10, None, vec![]), Answer::Silence(vec![expired()]), list(20, None, vec![held])],
    );
    server.answer(
        SLICES,
        vec![list(10, Some("next"), vec![slice("s1", &["one", "two"])]), list(10, None, vec![slice("s2", &["three"])])],
    );
    let mut fed = Fed::of(&server).await;
    let row = |(node, pods): &(ClusterNode, NodePods)| (node.offer.units, pods.others.gpus());
    fed.until_rows(row, vec![(3, 1)]).await;
    assert!(server.asked(SLICES)[0].1.contains("fieldSelector=spec.driver%3Dgpu.nvidia.com"));
    assert!(server.asked(SLICES).iter().any(|(_, asked)| asked.contains("watch=true")));
    // Somebody switches them off.
    let gone = || Answer::Whole("404 Not Found", vec![], json!({"code": 404}).to_string());
    server.answer(SLICES, vec![gone()]);
    fed.until_rows(row, vec![(0, 0)]).await;
}

#[tokio::test]
async fn what_vanished_while_the_version_was_lost_is_gone_after_the_next_list() {
    let server = Server::default();
    server.answer(
        NODES,
        vec![
            list(10, None, vec![node("a", 3, 1), node("b", 4, 2)]),
            Answer::Watch(vec![event("ADDED", node("c", 11, 3)), expired()]),
            list(30, None, vec![node("b", 25, 9)]),
            // The other way to say it.
            Answer::Whole("410 Gone", vec![], json!({"code": 410, "message": "too old"}).to_string()),
            list(40, None, vec![node("b", 25, 9), node("d", 35, 1)]),
        ],
    );
    server.answer(
        PODS,
        vec![
            list(10, None, vec![pod("p", 5, "a", 1), pod("q", 6, "b", 2)]),
            Answer::Watch(vec![expired()]),
            list(31, None, vec![pod("r", 5, "b", 4)]),
        ],
    );
    let mut fed = Fed::of(&server).await;
    fed.until(&[("b", 9, 4), ("d", 1, 0)]).await;
}

#[tokio::test]
async fn refusals_torn_events_and_silence_are_got_over_and_retry_after_is_kept() {
    let server = Server::default();
    server.answer(
        NODES,
        vec![
            // Its own overload: plain text, and the wait in a header.
            Answer::Whole("429 Too Many Requests", vec!["retry-after: 1".into()], "Too many requests".into()),
            Answer::Whole("500 Internal Server Error", vec![], json!({"code": 500, "message": "etcd"}).to_string()),
            Answer::Whole("200 OK", vec![], "no list".into()),
            list(10, None, vec![node("a", 3, 1)]),
            Answer::Torn,
            Answer::Silence(vec![event("MODIFIED", node("a", 11, 2))]),
            Answer::Watch(vec![event("MODIFIED", node("a", 12, 3))]),
        ],
    );
    let mut fed = Fed::of(&server).await;
    fed.until(&[("a", 3, 0)]).await;
    let asked = server.asked(NODES);
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1), "it was asked to wait a second");
    assert!(asked[2].0 - asked[1].0 < Duration::from_secs(1));
    assert!(asked[6].0 - asked[5].0 >= PATIENCE, "the silent one was waited for");
    assert!(asked[5].1.contains("resourceVersion=10") && asked[6].1.contains("resourceVersion=11"), "{asked:?}");
}

#[tokio::test]
async fn age_grows_while_the_server_fails_and_falls_when_it_is_back() {
    let server = Server::default();
    let refused = || Answer::Whole("503 Service Unavailable", vec![], String::new());
    server.answer(NODES, vec![list(10, None, vec![node("a", 3, 1)])]);
    server.answer(NODES, (0..5).map(|_| refused()).collect());
    server.answer(NODES, vec![Answer::Watch(vec![event("MODIFIED", node("a", 11, 2))])]);
    // Pods are heard of all the time: the older of both counts.
    server.answer(PODS, vec![list(10, None, vec![])]);
    server.answer(PODS, (0..9).map(|_| Answer::Watch(vec![])).collect());
    let mut fed = Fed::of(&server).await;
    fed.until(&[("a", 2, 0)]).await;
    assert!(fed.ages.iter().max().unwrap() >= &1_000, "{:?}", fed.ages);
    fed.ages.clear();
    while fed.ages.is_empty() {
        if let Some(KubernetesInput::Current { age_ms }) = fed.told.recv().await {
            fed.ages.push(age_ms);
        }
    }
    assert!(fed.ages[0] < 1_500, "{:?}", fed.ages);
}

#[tokio::test]
async fn a_token_file_is_sent_and_what_a_kubeconfig_lacks_is_told_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "secret-1").unwrap();
    let server = Server::default();
    let address = format!("http://{}", server.start().await);
    let access = kubeconfig(dir.path(), &address, json!({"tokenFile": token}));
    let client = connect(&access).await.unwrap();
    client.request_text(http::Request::get("/version").body(vec![]).unwrap()).await.unwrap();
    assert_eq!(server.asked("token ")[0].1, "Bearer secret-1");

    let wrong = async |access: Access| connect(&access).await.err().unwrap().to_string();
    let Access::Kubeconfig { file, .. } = access.clone() else { unreachable!() };
    let error = wrong(Access::Kubeconfig { file: file.clone(), context: Some("there".into()) }).await;
    assert_eq!(error, format!("kubeconfig {}: it has no context \"there\" (it has here)", file.display()));
    let error = wrong(kubeconfig(dir.path(), "https://127.0.0.1:1", json!({}))).await;
    assert!(error.ends_with("it has no certificate-authority"), "{error}");
    let error = wrong(Access::Kubeconfig { file: dir.path().join("none"), context: None }).await;
    assert!(error.contains("none") && error.contains("No such file"), "{error}");
    let error = wrong(kubeconfig(dir.path(), &address, json!({"client-key": "/nowhere"}))).await;
    assert!(error.contains("its client-key /nowhere"), "{error}");
    let error = wrong(Access::InCluster).await;
    assert!(error.contains("outside of a cluster give a kubeconfig"), "{error}");
}
