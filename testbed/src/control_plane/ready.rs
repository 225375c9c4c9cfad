//! Whether a component is ready: asked over the link that its users take.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, Uri};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{Api, Client};

use super::credentials::Files;
use super::ports::Ports;
use super::settings::Component;
use crate::client::{self, ClientError};
use crate::fake::is_ready;
use crate::node::{Link, NODE_NAME, PROXY_HEALTH};

/// Between two questions.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// A question that is not answered within this is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// The question for one component.
pub(super) enum Probe {
    /// A page that says `ok`.
    Page(Client, &'static str),
    /// That, and what the controllers make first.
    Controllers { page: Client, api: Client },
    /// A page that answers at all.
    Answer(Client, &'static str),
    /// A file that is there.
    File(PathBuf),
    /// A socket that is listened on.
    Socket(PathBuf),
    /// The real node takes pods.
    Node(Client),
    /// Nothing is asked.
    Nothing,
}

impl Probe {
    pub(super) async fn of(
        component: Component,
        files: &Files,
        ports: Ports,
        api: &Client,
        link: Option<Link>,
    ) -> Result<Self, ClientError> {
        let page_at = async |scheme: &str, place: String| {
            let address = Uri::builder().scheme(scheme).authority(place).path_and_query("/");
            // An address of digits is one.
            let address = address.build().unwrap_or_default();
            client::beside(&files.at("kubeconfig"), address).await
        };
        let page = async |scheme: &str, port: u16| page_at(scheme, format!("127.0.0.1:{port}")).await;
        Ok(match component {
            Component::ApiServer => Probe::Page(api.clone(), "/readyz"),
            Component::Scheduler => Probe::Page(page("https", ports.scheduler).await?, "/healthz"),
            Component::ControllerManager => {
                Probe::Controllers { page: page("https", ports.controller_manager).await?, api: api.clone() }
            }
            Component::Kwok => Probe::Page(page("http", ports.kwok).await?, "/healthz"),
            Component::Etcd => Probe::Page(page("http", ports.etcd).await?, "/readyz"),
            Component::CoreDns => Probe::Page(page("http", ports.core_dns).await?, "/ready"),
            Component::KubeRay => Probe::Page(page("http", ports.kuberay).await?, "/readyz"),
            Component::SparkOperator => Probe::Page(page("http", ports.spark_operator).await?, "/readyz"),
            Component::NodeNetwork => Probe::Nothing,
            Component::Node => Probe::File(files.node().ready()),
            Component::Containerd => Probe::Socket(files.node().socket()),
            Component::Kubelet => Probe::Node(api.clone()),
            Component::KubeProxy => {
                let node = link.map_or(Ipv4Addr::LOCALHOST, Link::node);
                Probe::Answer(page_at("http", format!("{node}:{PROXY_HEALTH}")).await?, "/healthz")
            }
        })
    }

    /// Ready, or what was answered instead.
    pub(super) async fn ask(&self) -> Result<(), String> {
        let answer = tokio::time::timeout(ANSWER, async {
            match self {
                Probe::Page(client, path) => page_says_ok(client, path).await,
                Probe::Controllers { page, api } => {
                    page_says_ok(page, "/healthz").await?;
                    // Without it no pod is let in.
                    let accounts: Api<ServiceAccount> = Api::namespaced(api.clone(), "default");
                    accounts.get_metadata("default").await.map(drop).map_err(|e| e.to_string())
                }
                Probe::Answer(client, path) => page_text(client, path).await.map(drop),
                Probe::File(file) => file.metadata().map(drop).map_err(|e| format!("{}: {e}", file.display())),
                Probe::Socket(socket) => {
                    let connected = tokio::net::UnixStream::connect(socket).await;
                    connected.map(drop).map_err(|e| format!("{}: {e}", socket.display()))
                }
                Probe::Node(api) => {
                    let nodes: Api<Node> = Api::all(api.clone());
                    let node = nodes.get(NODE_NAME).await.map_err(|e| e.to_string())?;
                    if is_ready(&node) { Ok(()) } else { Err("the node is there and not ready".to_owned()) }
                }
                Probe::Nothing => Ok(()),
            }
        });
        answer.await.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())))
    }
}

async fn page_says_ok(client: &Client, path: &str) -> Result<(), String> {
    let text = page_text(client, path).await?;
    if text.trim().eq_ignore_ascii_case("ok") { Ok(()) } else { Err(failing(&text)) }
}

async fn page_text(client: &Client, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(vec![]).map_err(|e| e.to_string())?;
    client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) => failing(&status.message),
        error => error.to_string(),
    })
}

/// What is not in order, of a page that has a line for each check.
fn failing(page: &str) -> String {
    let failing: Vec<&str> = page.lines().filter(|line| line.starts_with("[-]")).collect();
    if failing.is_empty() { page.trim().to_owned() } else { failing.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fails_is_told() {
        let page =
            "[+]ping ok\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\n[+]log ok\nreadyz check failed";
        assert_eq!(failing(page), "[-]poststarthook/rbac/bootstrap-roles failed: reason withheld");
        assert_eq!(failing("not found\n"), "not found");
    }
}
