//! A served API and the little HTTP that its tests need, over real sockets on loopback.

use std::collections::BTreeMap;

use axum::Router;
use coordinator::api::{self, Settings};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Core;

/// A served API.
pub struct Served {
    pub address: std::net::SocketAddr,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Checks that this is a `Status` with that code and reason, and gives its message.
    pub fn failure(&self, code: u16, reason: &str) -> String {
        assert_eq!(self.code, code, "{}", self.body);
        let status = self.json();
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["code"], code);
        assert_eq!(status["reason"], reason);
        status["message"].as_str().unwrap().to_owned()
    }
}

pub const YAML: (&str, &str) = ("content-type", "application/yaml");
pub const JSON: (&str, &str) = ("content-type", "application/json");
pub const WORKLOADS: &str = "/apis/tidewater.dev/v1/namespaces/default/workloads";

pub async fn serve(core: &Core, settings: Settings) -> Served {
    serve_through(core, settings, |router| router).await
}

/// As [`serve`], with something of the test's around the router.
pub async fn serve_through(core: &Core, mut settings: Settings, wrap: impl FnOnce(Router) -> Router) -> Served {
    let stop = CancellationToken::new();
    settings.stopping = stop.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = wrap(api::router(core.handle.clone(), settings));
    let task = tokio::spawn(api::serve(listener, router, stop.clone()));
    Served { address, stop, task }
}

/// A stream of an answer's body.
pub struct Streamed {
    pub code: u16,
    reader: BufReader<TcpStream>,
    text: String,
}

impl Served {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a body by its length may not read it.
        let _ = stream.write_all(body).await;
        BufReader::new(stream)
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut reader = self.send(method, path, headers, body.as_bytes()).await;
        let (code, headers) = head(&mut reader).await;
        let map: BTreeMap<_, _> = headers.iter().cloned().collect();
        let body = match map.get("content-length") {
            Some(length) => {
                let mut bytes = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut bytes).await.unwrap();
                String::from_utf8(bytes).unwrap()
            }
            None => {
                let mut streamed = Streamed { code, reader, text: String::new() };
                while streamed.chunk().await {}
                streamed.text
            }
        };
        Answer { code, headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    pub async fn post_yaml(&self, yaml: &str) -> Answer {
        self.ask("POST", WORKLOADS, &[YAML], yaml).await
    }

    pub async fn stream(&self, path: &str) -> Streamed {
        let mut reader = self.send("GET", path, &[], b"").await;
        let (code, _) = head(&mut reader).await;
        Streamed { code, reader, text: String::new() }
    }
}

async fn head(reader: &mut BufReader<TcpStream>) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).await.unwrap();
    let code = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status line: {line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => return (code, headers),
        }
    }
}

impl Streamed {
    /// Reads one chunk of the chunked body; false at its end.
    async fn chunk(&mut self) -> bool {
        let mut size = String::new();
        if self.reader.read_line(&mut size).await.unwrap_or(0) == 0 {
            return false;
        }
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut bytes = vec![0; size + 2];
        if self.reader.read_exact(&mut bytes).await.is_err() || size == 0 {
            return false;
        }
        self.text += std::str::from_utf8(&bytes[..size]).unwrap();
        true
    }

    /// The next line as JSON; none at the end.
    pub async fn event(&mut self) -> Option<Value> {
        self.line().await.map(|l| serde_json::from_str(&l).unwrap())
    }

    /// The next line; none at the end. Panics after 5 s of silence.
    pub async fn line(&mut self) -> Option<String> {
        let limit = std::time::Duration::from_secs(5);
        tokio::time::timeout(limit, async {
            loop {
                if let Some(end) = self.text.find('\n') {
                    let line = self.text.drain(..=end).collect::<String>();
                    return Some(line.trim_end().to_owned());
                }
                if !self.chunk().await {
                    return None;
                }
            }
        })
        .await
        .expect("the stream goes on or ends within 5 s")
    }
}
