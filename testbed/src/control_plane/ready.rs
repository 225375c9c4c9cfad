//! Whether a component is ready: asked over the link that its users take.

use std::time::Duration;

use http::{Request, Uri};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use super::credentials::Files;
use super::ports::Ports;
use super::settings::Component;
use crate::client::{self, ClientError};

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
}

impl Probe {
    pub(super) async fn of(
        component: Component,
        files: &Files,
        ports: Ports,
        api: &Client,
    ) -> Result<Self, ClientError> {
        let page = async |scheme: &str, port: u16| {
            let address = Uri::builder().scheme(scheme).authority(format!("127.0.0.1:{port}")).path_and_query("/");
            // An address of digits is one.
            let address = address.build().unwrap_or_default();
            client::beside(&files.at("kubeconfig"), address).await
        };
        Ok(match component {
            Component::ApiServer => Probe::Page(api.clone(), "/readyz"),
            Component::Scheduler => Probe::Page(page("https", ports.scheduler).await?, "/healthz"),
            Component::ControllerManager => {
                Probe::Controllers { page: page("https", ports.controller_manager).await?, api: api.clone() }
            }
            Component::Kwok => Probe::Page(page("http", ports.kwok).await?, "/healthz"),
            Component::Etcd => Probe::Page(page("http", ports.etcd).await?, "/readyz"),
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
            }
        });
        answer.await.unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER.as_secs())))
    }
}

async fn page_says_ok(client: &Client, path: &str) -> Result<(), String> {
    let request = Request::get(path).body(vec![]).map_err(|e| e.to_string())?;
    match client.request_text(request).await {
        Ok(text) if text.trim() == "ok" => Ok(()),
        Ok(text) => Err(failing(&text)),
        Err(kube::Error::Api(status)) => Err(failing(&status.message)),
        Err(error) => Err(error.to_string()),
    }
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
