//! Connections to the pages that attempts serve themselves.

use coordinator::api::dashboard::{ATTEMPT, FRAMEWORK, PROTOCOL, TOKEN};
use protocol::ids::WorkloadKey;
use reqwest::{Response, Upgraded};

use super::{Client, ClientError};

/// A connection to the page of a workload's live attempt.
pub struct PageConnection {
    /// The attempt, from 1.
    pub attempt: u32,
    /// The framework whose page it is, such as `ray`.
    pub framework: String,
    /// What the page asks a visitor for, where it does.
    pub token: Option<String>,
    /// Its bytes both ways.
    pub bytes: Upgraded,
}

impl Client {
    /// Connects to the page of a workload's live attempt.
    pub async fn dashboard(&self, key: &WorkloadKey) -> Result<PageConnection, ClientError> {
        let path = ["dashboard", key.namespace.as_str(), key.name.as_str()];
        let answer = self.upgrade(&path, PROTOCOL).await?;
        let server = answer.url().to_string();
        let unintelligible = |problem: String| ClientError::Unintelligible { server: server.clone(), problem };
        let attempt = header(&answer, ATTEMPT).and_then(|number| number.parse().ok());
        let attempt = attempt.ok_or_else(|| unintelligible(format!("a page without {ATTEMPT}")))?;
        let (framework, token) = (header(&answer, FRAMEWORK).unwrap_or_default(), header(&answer, TOKEN));
        let bytes = answer.upgrade().await.map_err(|e| unintelligible(ClientError::root(&e)))?;
        Ok(PageConnection { attempt, framework, token, bytes })
    }
}

fn header(answer: &Response, name: &str) -> Option<String> {
    answer.headers().get(name)?.to_str().ok().map(str::to_owned)
}
