//! Nodes at the agent's door: who comes in, by what, for how long, and what the others are told.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::Client;
use kube::client::Body;
use protocol::ids::{ClusterName, NodeName};
use protocol::node::{NodeClosed, NodeToken};
use protocol::quic::{
    Credentials, Identity, NODE_ALPN, Visitors, agent_server_name, client_config, client_config_without_certificate,
    write_frame,
};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Event;
use super::node::{NodeLink, Notice, Pass};
use super::nodes::{Door, NodeHandle, accept, listen, send_away};
use crate::cluster::{Input, NodeInput, NodeSession};
use crate::kube::review::Reviewer;
use crate::kube::review::tests::{claimed, genuine, token, tokens};
use crate::node::{NodeConfig, NodeSampler};

const SOON: Duration = Duration::from_secs(10);

fn cluster() -> ClusterName {
    "here".parse().unwrap()
}

/// An authority of this test's own.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, identity: &Identity) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = SanType::URI(identity.to_string().try_into().unwrap());
        params.subject_alt_names = vec![uri, SanType::DnsName(agent_server_name(&cluster()).try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Credentials { ca: self.certificate.clone(), certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }
}

/// An API server that answers each review with what is to be said next: a code and a status.
type Answers = Arc<Mutex<(u16, Value)>>;

fn api_server(answers: Answers) -> Client {
    let answer = move |_: http::Request<Body>| {
        let (code, status) = answers.lock().unwrap().clone();
        let body =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status});
        let answer = http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
        async move { answer }
    };
    Client::new(tower::service_fn(answer), "default")
}

/// An agent's door.
struct Scene {
    authority: Authority,
    address: SocketAddr,
    inbox: mpsc::Receiver<Event>,
    answers: Answers,
    stop: CancellationToken,
    endpoint: Endpoint,
    /// The ways to those that came in: as long as there is one, the agent keeps its session.
    handles: Vec<NodeHandle>,
}

impl Scene {
    fn new(visitors: Visitors) -> Self {
        let authority = Authority::new();
        let credentials = authority.issue(&Identity::Cluster(cluster()));
        let Ok(endpoint) = listen(UdpSocket::bind("127.0.0.1:0").unwrap(), &credentials, visitors) else {
            panic!("it does not listen")
        };
        let answers = Answers::new(Mutex::new((201, genuine("gpu-1"))));
        let reviewer =
            (visitors == Visitors::Anybody).then(|| Arc::new(Reviewer::new(api_server(answers.clone()), tokens())));
        let (told, inbox) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let door = Door { cluster: cluster(), reviewer, inbox: told };
        tokio::spawn(accept(endpoint.clone(), door, TaskTracker::new(), stop.clone()));
        let address = endpoint.local_addr().unwrap();
        Self { authority, address, inbox, answers, stop, endpoint, handles: vec![] }
    }

    fn says(&self, code: u16, status: Value) {
        *self.answers.lock().unwrap() = (code, status);
    }

    async fn connect(&self, tls: ClientConfig) -> Connection {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = agent_server_name(&cluster());
        let connecting = endpoint.connect_with(tls, self.address, &name).unwrap();
        connecting.await.unwrap()
    }

    /// A visitor without a certificate.
    async fn stranger(&self) -> Connection {
        self.connect(client_config_without_certificate(&self.authority.certificate, NODE_ALPN).unwrap()).await
    }

    /// The node that came in next.
    async fn came_in(&mut self) -> (NodeSession, NodeName) {
        loop {
            let event = tokio::time::timeout(SOON, self.inbox.recv()).await.expect("nobody came in");
            if let Some(Event::NodeUp(session, handle)) = event {
                let node = handle.node.clone();
                self.handles.push(handle);
                return (session, node);
            }
        }
    }

    /// That this session is over.
    async fn left(&mut self, session: NodeSession) {
        let left = async {
            while let Some(event) = self.inbox.recv().await {
                match event {
                    Event::Input(Input::Node { session: of, input: NodeInput::Closed }) if of == session => return,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(SOON, left).await.expect("it is still there");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        self.endpoint.close(0u32.into(), b"the test is over");
    }
}

async fn show(connection: &Connection, token: String) {
    let mut stream = connection.open_uni().await.unwrap();
    write_frame(&mut stream, &NodeToken { token }).await.unwrap();
    stream.finish().unwrap();
}

/// Seconds since 1970, so many from now.
fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds
}

/// Why the agent closed a connection, and its words.
async fn closed(connection: &Connection) -> (Option<NodeClosed>, String) {
    match tokio::time::timeout(SOON, connection.closed()).await.expect("it is still open") {
        ConnectionError::ApplicationClosed(closed) => {
            (NodeClosed::from_code(closed.error_code.into()), String::from_utf8_lossy(&closed.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_node_is_who_the_review_of_its_token_says() {
    let mut scene = Scene::new(Visitors::Anybody);
    let folder = tempfile::tempdir().unwrap();
    let (file, ca) = (folder.path().join("token"), folder.path().join("ca.pem"));
    let pem = pem(&scene.authority.certificate);
    std::fs::write(&ca, pem).unwrap();
    let node = NodeName::new("gpu-1").unwrap();
    let pass = Pass { cluster: cluster(), node: node.clone(), token: file.clone(), ca };
    let link = NodeLink::with_token(pass, scene.address.into()).unwrap();
    let (sampler, frames) =
        NodeSampler::start(NodeConfig::new(node.clone(), Some("/nowhere/libnvidia-ml.so".into()))).unwrap();
    let (told, mut notices) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let running = tokio::spawn(async move {
        link.run(&sampler, frames, ended, move |notice| drop(told.send(notice))).await;
    });
    let mut down = async |word: &str| {
        loop {
            match tokio::time::timeout(SOON, notices.recv()).await.expect(word).unwrap() {
                Notice::Down(why) if why.contains(word) => return why,
                _ => {}
            }
        }
    };
    // There is no token yet; then the API server is away; then all is well.
    down("no token of this pod in ").await;
    scene.says(503, json!({}));
    std::fs::write(&file, token(&claimed(in_seconds(600)))).unwrap();
    let why = down("can't be reviewed at the moment").await;
    assert!(why.contains("answers 503"), "{why}");
    scene.says(201, genuine("gpu-1"));
    let (session, came) = scene.came_in().await;
    assert_eq!(came, node);
    let frame = tokio::time::timeout(SOON, scene.inbox.recv()).await.unwrap();
    let Some(Event::Input(Input::Node { session: of, input: NodeInput::Frame(frame) })) = frame else {
        panic!("no frame")
    };
    assert_eq!((of, frame.node, frame.full), (session, node, true));
    stop.cancel();
    running.await.unwrap();
    scene.left(session).await;
}

#[tokio::test]
async fn whoever_shows_nothing_or_the_wrong_thing_is_told_and_is_never_heard() {
    let mut scene = Scene::new(Visitors::Anybody);
    // Nothing at all, for too long.
    let silent = scene.stranger().await;
    // Not even the stream for frames can be opened before.
    assert!(tokio::time::timeout(Duration::from_millis(500), silent.open_bi()).await.is_err());
    let wrong = scene.stranger().await;
    show(&wrong, "not a token".into()).await;
    let (why, words) = closed(&wrong).await;
    assert_eq!(why, Some(NodeClosed::NotWelcome));
    assert!(words.contains("no service account token"), "{words}");
    // One that the API server knows nothing of.
    scene.says(201, json!({"error": "the pod is gone"}));
    let dead = scene.stranger().await;
    show(&dead, token(&claimed(in_seconds(600)))).await;
    let (why, words) = closed(&dead).await;
    assert_eq!(why, Some(NodeClosed::NotWelcome));
    assert!(words.contains("the pod is gone"), "{words}");
    // More than a token has room for.
    let large = scene.stranger().await;
    let mut stream = large.open_uni().await.unwrap();
    let _ = stream.write_all(&[0, 0x10, 0, 0, protocol::codec::VERSION]).await;
    assert_eq!(closed(&large).await.0, Some(NodeClosed::BadFrame));
    let (why, words) = closed(&silent).await;
    assert_eq!((why, words.contains("no token within")), (Some(NodeClosed::BadFrame), true));
    assert!(scene.inbox.try_recv().is_err(), "one of them was heard");
}

#[tokio::test]
async fn a_connection_lasts_as_long_as_its_tokens() {
    let mut scene = Scene::new(Visitors::Anybody);
    let short = scene.stranger().await;
    let renewed = scene.stranger().await;
    let changed = scene.stranger().await;
    let mut streams = vec![];
    for connection in [&short, &renewed, &changed] {
        show(connection, token(&claimed(in_seconds(3)))).await;
        scene.came_in().await;
        streams.push(connection.open_bi().await.unwrap());
    }
    show(&renewed, token(&claimed(in_seconds(600)))).await;
    let (why, words) = closed(&short).await;
    assert_eq!((why, words.contains("has expired")), (Some(NodeClosed::Expired), true));
    // A token of another node does not make it that one.
    scene.says(201, genuine("gpu-2"));
    assert_eq!(closed(&changed).await.0, Some(NodeClosed::Expired));
    let changed = scene.stranger().await;
    scene.says(201, genuine("gpu-1"));
    show(&changed, token(&claimed(in_seconds(60)))).await;
    scene.came_in().await;
    scene.says(201, genuine("gpu-2"));
    show(&changed, token(&claimed(in_seconds(60)))).await;
    let (why, words) = closed(&changed).await;
    assert_eq!((why, words.contains("now shows a token of node gpu-2")), (Some(NodeClosed::NotWelcome), true));
    assert_eq!(renewed.close_reason(), None);
}

#[tokio::test]
async fn certificates_count_beside_tokens_and_alone_where_no_cluster_is_followed() {
    let identity = Identity::Node(cluster(), NodeName::new("gpu-7").unwrap());
    for visitors in [Visitors::Anybody, Visitors::Certified] {
        let mut scene = Scene::new(visitors);
        let own = client_config(&scene.authority.issue(&identity), NODE_ALPN).unwrap();
        let connection = scene.connect(own).await;
        assert_eq!(scene.came_in().await.1.as_str(), "gpu-7");
        connection.open_bi().await.unwrap();
        let other = Identity::Node("there".parse().unwrap(), NodeName::new("gpu-7").unwrap());
        let other = client_config(&scene.authority.issue(&other), NODE_ALPN).unwrap();
        assert_eq!(closed(&scene.connect(other).await).await.0, Some(NodeClosed::NotWelcome));
        if visitors == Visitors::Certified {
            let refused = scene.stranger().await.closed().await;
            assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_replica_that_waits_sends_nodes_away_at_once() {
    let authority = Authority::new();
    let credentials = authority.issue(&Identity::Cluster(cluster()));
    let Ok(endpoint) = listen(UdpSocket::bind("127.0.0.1:0").unwrap(), &credentials, Visitors::Anybody) else {
        panic!("it does not listen")
    };
    let stop = CancellationToken::new();
    let away = tokio::spawn(send_away(endpoint.clone(), stop.clone()));
    let began = std::time::Instant::now();
    let client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let tls = client_config_without_certificate(&authority.certificate, NODE_ALPN).unwrap();
    let name = agent_server_name(&cluster());
    let refused = client.connect_with(tls, endpoint.local_addr().unwrap(), &name).unwrap().await.unwrap_err();
    let ConnectionError::ConnectionClosed(closed) = refused else { panic!("{refused}") };
    assert_eq!(closed.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    assert!(began.elapsed() < Duration::from_secs(2));
    stop.cancel();
    away.await.unwrap();
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = serde_json::to_value(k8s_openapi::ByteString(certificate.to_vec())).unwrap();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64.as_str().unwrap())
}
