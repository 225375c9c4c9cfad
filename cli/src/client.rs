//! The HTTP API as a typed client: one method for each thing that can be asked. It holds no state but the address that
//! answered last, tries again where no answer came (every request here may safely arrive twice), and tells errors apart
//! by type. Called by the commands; it prints nothing.

mod changes;
mod cordons;
mod data;
mod error;
mod page;
mod pools;
mod retry;
mod stream;

use std::time::Duration;

use engine::ahead::{Edit, Forecast};
use protocol::api::{CapacityAnswer, ClusterObject, ForgetRequest, List, NodeStatus, WorkloadObject};
use protocol::ids::{ClusterName, Namespace, WorkloadKey};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;

pub use changes::{Change, Changes};
pub use error::ClientError;
pub use page::PageConnection;
pub use stream::{ByteStream, Event, Watch};

use retry::Servers;

/// The path under which the API lies.
const ROOT: &[&str] = &["apis", "tidewater.dev", "v1"];

/// A client of one federation.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    servers: Servers,
    patience: Duration,
}

/// Whose workloads are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's.
    All,
    /// One namespace's.
    Namespace(Namespace),
    /// One alone.
    Workload(WorkloadKey),
}

/// What capacity is asked for. Empty: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapacityQuestion {
    /// Only this model.
    pub sku: Option<protocol::sku::Sku>,
    /// Only this region.
    pub region: Option<protocol::ids::Region>,
    /// How many gangs of this many nodes fit.
    pub gang: Option<u32>,
    /// GPUs on each node of that gang.
    pub gpus_per_node: Option<u32>,
}

/// Why a workload is where it is: the server's explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// As the server sent it.
    pub object: serde_json::Value,
    /// The server's own words.
    pub text: String,
    /// The explanation, where this version understands all of it.
    pub explanation: Option<engine::reasons::Explanation>,
}

/// The namespace of whatever names none.
pub fn default_namespace() -> Namespace {
    Namespace::new("default").expect("a constant name is valid")
}

impl Client {
    /// A client for a server's URL, or for several with commas between them, tried in turn.
    pub fn new(urls: &str) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("tidewater/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(3))
            .tcp_keepalive(Duration::from_secs(15))
            // The servers of this version are on loopback or on a private network; no proxy leads there.
            .no_proxy()
            .build()
            .map_err(|e| ClientError::BadServer { url: urls.into(), problem: e.to_string() })?;
        Ok(Self { http, servers: Servers::parse(urls)?, patience: Duration::from_secs(20) })
    }

    /// The same client, which tries again for `patience` where no answer comes.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Hands in a workload and returns it as it was accepted, with the server's warnings. Its `metadata.uid` makes it
    /// safe to send again: the same uid is the same submission.
    pub async fn submit(&self, workload: &WorkloadObject) -> Result<(WorkloadObject, Vec<String>), ClientError> {
        let namespace = workload.metadata.namespace.clone().unwrap_or_else(default_namespace);
        let path = [ROOT, &["namespaces", namespace.as_str(), "workloads"]].concat();
        let body = serde_json::to_vec(workload).expect("a workload has only text keys");
        let reply = match self.request(Method::POST, &path, &[], Some(&body)).await {
            Err(ClientError::Refused { status, again: true }) if status.code == 409 => {
                // An earlier try may have arrived though its answer did not: then the name is taken by us.
                let key = WorkloadKey { namespace, name: workload.metadata.name.clone() };
                let there = self.get(&key).await?;
                return match there.metadata.uid == workload.metadata.uid {
                    true => Ok((there, vec![])),
                    false => Err(ClientError::Refused { status, again: true }),
                };
            }
            other => other?,
        };
        Ok((reply.read()?, reply.warnings))
    }

    /// One workload.
    pub async fn get(&self, key: &WorkloadKey) -> Result<WorkloadObject, ClientError> {
        self.read(&workload_path(key), &[]).await
    }

    /// All workloads of a scope, with the version from which a watch misses nothing.
    pub async fn list(&self, scope: &Scope) -> Result<List<WorkloadObject>, ClientError> {
        self.read(&list_path(scope), &selector(scope)).await
    }

    /// What happens to a scope's workloads after a version, until the connection ends. See [`Client::changes`] for a
    /// watch that survives that.
    pub async fn watch(&self, scope: &Scope, after: &str) -> Result<Watch, ClientError> {
        let mut query = vec![("watch", "true".to_owned()), ("resourceVersion", after.to_owned())];
        query.extend(selector(scope));
        Ok(Watch::new(self.open(&list_path(scope), &query).await?))
    }

    /// A scope's workloads as they are now and every change from then on, across lost connections.
    pub fn changes(&self, scope: Scope) -> Changes {
        Changes::new(self.clone(), scope)
    }

    /// Why a workload waits, or is where it is.
    pub async fn why(&self, key: &WorkloadKey) -> Result<Why, ClientError> {
        let object: serde_json::Value = self.read(&["explain", key.namespace.as_str(), key.name.as_str()], &[]).await?;
        let text = object["text"].as_str().unwrap_or_default().to_owned();
        let explanation = serde_json::from_value(object.clone()).ok();
        Ok(Why { object, text, explanation })
    }

    /// When a workload starts, and on what that rests.
    pub async fn forecast(&self, key: &WorkloadKey) -> Result<Forecast, ClientError> {
        self.read(&["forecast", key.namespace.as_str(), key.name.as_str()], &[]).await
    }

    /// What would change with these edits.
    pub async fn whatif(&self, edits: &[Edit]) -> Result<engine::ahead::Changes, ClientError> {
        let body = serde_json::to_vec(&serde_json::json!({ "edits": edits })).expect("edits have only text keys");
        self.request(Method::POST, &["whatif"], &[], Some(&body)).await?.read()
    }

    /// The output of an attempt (none: the last one), with `follow` until the attempt ends.
    pub async fn logs(
        &self,
        key: &WorkloadKey,
        attempt: Option<u32>,
        worker: Option<u32>,
        follow: bool,
    ) -> Result<ByteStream, ClientError> {
        let mut query = vec![];
        if let Some(worker) = worker {
            query.push(("worker", worker.to_string()));
        }
        if follow {
            query.push(("follow", "true".to_owned()));
        }
        if let Some(attempt) = attempt {
            query.push(("attempt", attempt.to_string()));
        }
        self.open(&["logs", key.namespace.as_str(), key.name.as_str()], &query).await
    }

    /// Ends a workload and keeps its record.
    pub async fn cancel(&self, key: &WorkloadKey) -> Result<(), ClientError> {
        let path = [&workload_path(key)[..], &["cancel"]].concat();
        self.request(Method::POST, &path, &[], None).await.map(|_| ())
    }

    /// Ends a workload and removes its record.
    pub async fn delete(&self, key: &WorkloadKey) -> Result<(), ClientError> {
        match self.request(Method::DELETE, &workload_path(key), &[], None).await {
            // An earlier try did it, though its answer never came.
            Err(ClientError::Refused { status, again: true }) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Says that an attempt is gone; returns the server's warnings.
    pub async fn forget(&self, key: &WorkloadKey, request: &ForgetRequest) -> Result<Vec<String>, ClientError> {
        let path = [&workload_path(key)[..], &["forget"]].concat();
        let body = serde_json::to_vec(request).expect("a request has only text keys");
        match self.request(Method::POST, &path, &[], Some(&body)).await {
            Ok(reply) => Ok(reply.warnings),
            // An earlier try ended a workload that was to be deleted, though its answer never came.
            Err(ClientError::Refused { status, again: true }) if status.code == 404 => Ok(vec![]),
            Err(e) => Err(e),
        }
    }

    /// The member clusters.
    pub async fn clusters(&self) -> Result<List<ClusterObject>, ClientError> {
        self.read(&[ROOT, &["clusters"]].concat(), &[]).await
    }

    /// The nodes of a cluster.
    pub async fn nodes(&self, cluster: &ClusterName) -> Result<List<NodeStatus>, ClientError> {
        self.read(&[ROOT, &["clusters", cluster.as_str(), "nodes"]].concat(), &[]).await
    }

    /// What is free, and how many gangs fit.
    pub async fn capacity(&self, question: &CapacityQuestion) -> Result<CapacityAnswer, ClientError> {
        let query: Vec<(&str, String)> = [
            ("sku", question.sku.as_ref().map(ToString::to_string)),
            ("region", question.region.as_ref().map(ToString::to_string)),
            ("gang", question.gang.map(|n| n.to_string())),
            ("gpus-per-node", question.gpus_per_node.map(|n| n.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
        self.read(&["capacity"], &query).await
    }

    /// Whether the server takes requests; an error says why not.
    #[allow(dead_code, reason = "whoever starts a federation waits with it")]
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.request(Method::GET, &["readyz"], &[], None).await.map(|_| ())
    }

    async fn read<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, ClientError> {
        self.request(Method::GET, path, query, None).await?.read()
    }
}

fn list_path(scope: &Scope) -> Vec<&str> {
    match scope {
        Scope::All => [ROOT, &["workloads"]].concat(),
        Scope::Namespace(namespace) | Scope::Workload(WorkloadKey { namespace, .. }) => {
            [ROOT, &["namespaces", namespace.as_str(), "workloads"]].concat()
        }
    }
}

fn selector(scope: &Scope) -> Vec<(&'static str, String)> {
    match scope {
        Scope::Workload(key) => vec![("fieldSelector", format!("metadata.name={}", key.name))],
        Scope::All | Scope::Namespace(_) => vec![],
    }
}

fn workload_path(key: &WorkloadKey) -> Vec<&str> {
    [ROOT, &["namespaces", key.namespace.as_str(), "workloads", key.name.as_str()]].concat()
}

/// The URL of a path below a server's own.
fn url(server: &Url, path: &[&str]) -> Url {
    let mut url = server.clone();
    url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(path);
    url
}
