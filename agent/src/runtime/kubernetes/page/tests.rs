//! A pod's port through an API server that this test plays: the upgrade to a WebSocket, and the channels in it.
#![allow(clippy::unwrap_used)]

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::kube::{Access, connect};

/// The channels of the first port: its bytes, and its one error.
const BYTES: u8 = 0;
const ERROR: u8 = 1;
const PORT: u16 = 8265;

/// The next request's connection and head.
async fn asked(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

/// The API server's end of a WebSocket.
struct Socket(TcpStream);

impl Socket {
    /// Takes the request for one, which must be this, and opens both channels.
    async fn accept(listener: &TcpListener, asks_for: &str) -> Self {
        let (mut stream, head) = asked(listener).await;
        assert!(head.starts_with(asks_for), "{head}");
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.to_owned())
        });
        // RFC 6455, 4.2.2.
        let said = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.unwrap());
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, said.as_bytes());
        let Value::String(accept) = json!(ByteString(digest.as_ref().to_vec())) else { panic!("no text") };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut socket = Self(stream);
        socket.say(BYTES, &PORT.to_le_bytes()).await;
        socket.say(ERROR, &PORT.to_le_bytes()).await;
        socket
    }

    /// One short binary message.
    async fn say(&mut self, channel: u8, bytes: &[u8]) {
        let mut frame = vec![0x82, bytes.len() as u8 + 1, channel];
        frame.extend_from_slice(bytes);
        self.0.write_all(&frame).await.unwrap();
    }

    /// The next short message's kind and bytes; none once the connection is gone.
    async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let kind = self.0.read_u8().await.ok()? & 0x0f;
        let length = self.0.read_u8().await.ok()? & 0x7f;
        let mut mask = [0; 4];
        self.0.read_exact(&mut mask).await.ok()?;
        let mut bytes = vec![0; usize::from(length)];
        self.0.read_exact(&mut bytes).await.ok()?;
        bytes.iter_mut().enumerate().for_each(|(place, byte)| *byte ^= mask[place % 4]);
        Some((kind, bytes))
    }
}

/// A client of an API server at this address.
async fn calls(listener: &TcpListener) -> Calls {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
    });
    std::fs::write(file.path(), config.to_string()).unwrap();
    let client = connect(&Access::Kubeconfig { file: file.path().to_owned(), context: None }).await.unwrap();
    Calls::new(client, Duration::from_secs(5))
}

/// A port of a pod, and the API server's end of it.
async fn opened() -> (PodPort, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let calls = calls(&listener).await;
    let asks = format!("GET /api/v1/namespaces/vision/pods/train-head/portforward?&ports={PORT} ");
    let (port, socket) =
        tokio::join!(PodPort::open(&calls, "vision", "train-head", PORT), Socket::accept(&listener, &asks));
    (port.unwrap(), socket)
}

#[tokio::test]
async fn bytes_pass_both_ways_and_the_end_of_one_way_is_not_told() {
    let (mut port, mut socket) = opened().await;
    port.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(socket.hear().await.unwrap(), (2, b"\0GET / HTTP/1.1\r\n\r\n".to_vec()));
    port.shutdown().await.unwrap();
    socket.say(BYTES, b"hello").await;
    let mut heard = [0; 5];
    port.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    drop(port);
    assert_eq!(socket.hear().await, None, "the connection goes with its port");
}

#[tokio::test]
async fn what_the_kubelet_says_went_wrong_is_an_error_and_no_end() {
    let (mut port, mut socket) = opened().await;
    socket.say(ERROR, b"connection refused").await;
    // As the kubelet does then: a message that says that it closes.
    socket.0.write_all(&[0x88, 0]).await.unwrap();
    let error = port.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_api_servers_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let calls = calls(&listener).await;
    let refuse = async {
        let (mut stream, _) = asked(&listener).await;
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
            "reason": "Forbidden", "message": "it may not"});
        let body = status.to_string();
        let answer = format!(
            "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    };
    let (port, _stream) = tokio::join!(PodPort::open(&calls, "vision", "train-head", PORT), refuse);
    assert_eq!(port.err().unwrap().to_string(), "the API server said 403: it may not");
}

#[test]
fn each_framework_has_its_page_and_batch_none() {
    let spec = |spec: Value| serde_json::from_value::<WorkloadSpec>(spec).unwrap();
    let each = json!({"cpu": 1, "memory": "1Gi"});
    let group = json!({"name": "w", "count": 1, "cpu": 1, "memory": "1Gi"});
    let ray = spec(json!({"ray": {"entrypoint": "true", "head": each, "workers": [group]}}));
    assert_eq!(place(&ray).unwrap(), ("Ray's dashboard", "head", 8265));
    let spark =
        |conf: Value| spec(json!({"spark": {"main": "a.py", "conf": conf, "driver": each, "executors": group}}));
    assert_eq!(place(&spark(json!({}))).unwrap(), ("Spark's UI", "driver", 4040));
    assert_eq!(place(&spark(json!({"spark.ui.port": "4321"}))).unwrap().2, 4321);
    assert_eq!(place(&spark(json!({"spark.ui.port": "0"}))).unwrap().2, 4040);
    let batch = spec(json!({"batch": {"command": ["true"], "groups": [group]}}));
    assert!(matches!(place(&batch), Err(PageError::NoPage(Framework::Batch))));
}

#[test]
fn a_page_is_served_by_the_pod_of_its_group_that_runs() {
    let pod = |group: &str, phase: &str, deleted: bool| -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "labels": {GROUP: group}}, "status": {"phase": phase}});
        if deleted {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        serde_json::from_value(pod).unwrap()
    };
    assert!(serves(&pod("head", "Running", false), "head"));
    assert!(!serves(&pod("head", "Pending", false), "head"));
    assert!(!serves(&pod("head", "Running", true), "head"));
    assert!(!serves(&pod("workers", "Running", false), "head"));
}
