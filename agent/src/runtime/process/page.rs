//! Connections to the pages of attempts on this machine: where Ray and Spark were told to serve theirs, on loopback.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use protocol::control::AttemptState;
use protocol::ids::AttemptId;
use protocol::workload::Framework;
use tokio::net::TcpStream;

use super::{Inner, Order, blocking, ray, spark};
use crate::guard::durable;
use crate::guard::record::Record;
use crate::runtime::page::{Page, PageError, REACH, name_of};

/// A page hears its visitor's end, and answers what it was asked before. What takes longer than this without a byte is no page.
const LINGER: Duration = Duration::from_secs(30);

/// Where a page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// On loopback.
    pub port: u16,
    /// What it asks a visitor for.
    pub token: Option<String>,
}

pub(super) async fn open(inner: &Inner, attempt: AttemptId) -> Result<Page, PageError> {
    let handle = inner.handle(attempt).ok_or(PageError::NoAttempt)?;
    let state = handle.state.borrow().clone();
    if state.is_final() {
        return Err(PageError::NoAttempt);
    }
    let record = inner.record(attempt);
    let found = blocking(move || find(&record)).await.map_err(|error| PageError::Record(error.to_string()))?;
    let (framework, place) = found.ok_or(PageError::NoAttempt)?;
    let whose = name_of(framework)?;
    let not_yet = |missing: String| PageError::NotYet { whose, missing };
    let waits_for = match state {
        AttemptState::Starting { waiting_for } => Some(format!("the attempt waits for {waiting_for}")),
        _ => None,
    };
    let Some(place) = place else {
        return Err(not_yet(waits_for.unwrap_or_else(|| "the attempt is being laid out".to_owned())));
    };
    let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, place.port));
    let connected =
        tokio::time::timeout(REACH, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match (connected, waits_for) {
        (Ok(stream), _) => {
            // Bytes are passed on as they come.
            let _ = stream.set_nodelay(true);
            Ok(Page::new(stream, place.token, LINGER))
        }
        (Err(_), Some(waits_for)) => Err(not_yet(waits_for)),
        (Err(cause), None) => Err(PageError::Unreachable { whose, cause: format!("its port {}: {cause}", place.port) }),
    }
}

/// What an attempt is, and where its page is; none where it is not laid out yet. Blocks.
fn find(record: &Record) -> io::Result<Option<(Framework, Option<Place>)>> {
    let order: Option<Order> = durable::read_json(&record.path("order.json"))?;
    let Some(framework) = order.and_then(|order| order.launch.spec.framework().ok()) else { return Ok(None) };
    let place = match framework {
        Framework::Ray => ray::page(record)?,
        Framework::Spark => spark::page(record)?,
        Framework::Batch => None,
    };
    Ok(Some((framework, place)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::runtime::process::{ProcessConfig, ProcessRuntime};

    fn attempt() -> AttemptId {
        "00000000-0000-0000-0000-00000000000a-1".parse().unwrap()
    }

    /// A runtime that has an attempt of this specification.
    struct Scene {
        runtime: ProcessRuntime,
        folder: tempfile::TempDir,
    }

    impl Scene {
        fn new(spec: Value) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().to_owned();
            let config = ProcessConfig {
                data_dir: place.clone(),
                cache_dir: place.clone(),
                runtime_dir: place,
                guard: vec![],
                cluster: "c".parse().unwrap(),
                log_retention: Duration::ZERO,
            };
            let runtime = ProcessRuntime::new(config, mpsc::channel(1).0).unwrap();
            let scene = Self { runtime, folder };
            let launch = json!({
                "attempt": {"workload": "00000000-0000-0000-0000-00000000000a", "number": 1},
                "key": {"namespace": "a", "name": "b"}, "spec": spec, "placement": [],
            });
            scene.write("order.json", &json!({"launch": launch, "devices": {"by_group": {}}}));
            scene.is(AttemptState::Running);
            scene
        }

        fn write(&self, name: &str, value: &Value) {
            let record = self.folder.path().join("attempts").join(attempt().to_string());
            std::fs::create_dir_all(&record).unwrap();
            std::fs::write(record.join(name), value.to_string()).unwrap();
        }

        fn is(&self, state: AttemptState) {
            self.runtime.reserve(attempt()).0.state.send_replace(state);
        }

        async fn refusal(&self) -> String {
            self.runtime.page(attempt()).await.err().unwrap().to_string()
        }
    }

    fn ray() -> Value {
        let each = json!({"cpu": 1, "memory": "1Gi"});
        json!({"ray": {"entrypoint": "true", "head": each, "workers": [{"name": "w", "count": 1, "cpu": 1, "memory": "1Gi"}]}})
    }

    #[tokio::test]
    async fn a_page_is_where_the_record_says_with_the_secret_of_its_attempt() {
        let scene = Scene::new(ray());
        scene.is(AttemptState::Starting { waiting_for: "Python".into() });
        assert_eq!(scene.refusal().await, "Ray's dashboard is not up yet: the attempt waits for Python");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cluster = json!({
            "python": "p", "node_program": "n", "gcs": 1, "dashboard": port, "temp": "t", "scratch": "s",
            "env": {"RAY_AUTH_TOKEN": "secret"},
        });
        scene.write("ray.json", &cluster);
        scene.is(AttemptState::Running);
        let mut page = scene.runtime.page(attempt()).await.unwrap();
        assert_eq!(page.token.as_deref(), Some("secret"));
        let (mut served, _) = listener.accept().await.unwrap();
        page.write_all(b"question").await.unwrap();
        page.shutdown().await.unwrap();
        let mut heard = String::new();
        served.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        drop((served, listener));
        let refusal = scene.refusal().await;
        assert!(refusal.starts_with(&format!("Ray's dashboard can't be reached: its port {port}: ")), "{refusal}");
    }

    #[tokio::test]
    async fn what_has_no_page_says_so_and_what_has_ended_has_none() {
        let group = json!({"name": "w", "count": 1, "cpu": 1, "memory": "1Gi"});
        let scene = Scene::new(json!({"batch": {"command": ["true"], "groups": [group]}}));
        assert_eq!(scene.refusal().await, "batch has no page of its own; Ray and Spark have");
        let ended = scene.runtime.ended(attempt());
        scene.is(AttemptState::Stopped);
        ended.await;
        assert!(scene.refusal().await.starts_with("the attempt does not run there"));
        scene.runtime.release(attempt());
        assert!(scene.refusal().await.starts_with("the attempt does not run there"));
        scene.runtime.ended(attempt()).await;
    }
}
