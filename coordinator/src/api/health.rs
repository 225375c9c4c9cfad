//! `/healthz`: the process is alive. `/readyz`: it knows a leader and has applied the log; says which condition fails.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::handle::{Consistency, ReplicaStatus};

/// How long the core may take to answer a look at itself.
const CORE: Duration = Duration::from_secs(1);
/// How many committed entries a ready replica may have yet to apply.
const BEHIND: u64 = 1000;

/// `GET /healthz`
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: a line for each condition, `[+]` or `[-]`; 503 where one fails.
pub async fn readyz(State(api): State<Api>) -> Response {
    let look = api.handle().read(Consistency::Stale, |view| view.status.clone());
    let status = match tokio::time::timeout(CORE, look).await {
        Ok(Ok(status)) => Some(status),
        _ => None,
    };
    let conditions = conditions(status.as_ref());
    let ready = conditions.iter().all(|(holds, _)| *holds);
    let lines = conditions.iter().map(|(holds, text)| format!("[{}] {text}\n", if *holds { '+' } else { '-' }));
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let last = if ready { "ready\n" } else { "not ready\n" };
    (code, lines.collect::<String>() + last).into_response()
}

fn conditions(status: Option<&ReplicaStatus>) -> Vec<(bool, String)> {
    let Some(status) = status else {
        return vec![(false, "core: no answer within 1 s".into())];
    };
    let behind = status.committed.0.saturating_sub(status.applied.0);
    vec![
        (true, format!("core: replica {} answers", status.id)),
        match status.leader {
            Some(leader) => (true, format!("leader: replica {leader} in term {}", status.term)),
            None => (false, format!("leader: none known in term {}; a quorum of voters must be up", status.term)),
        },
        (
            status.applied.0 > 0 && behind <= BEHIND,
            format!("log: applied up to {} of {} committed", status.applied, status.committed),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use protocol::ids::{Epoch, LogIndex, ReplicaId};

    use super::*;

    fn failing(leader: Option<u64>, applied: u64, committed: u64) -> Vec<String> {
        let status = ReplicaStatus {
            id: ReplicaId(1),
            leader: leader.map(ReplicaId),
            term: Epoch(3),
            applied: LogIndex(applied),
            committed: LogIndex(committed),
            voters: vec![ReplicaId(1)],
        };
        conditions(Some(&status)).into_iter().filter(|(holds, _)| !holds).map(|(_, text)| text).collect()
    }

    #[test]
    fn readiness_names_the_condition_that_fails() {
        assert!(failing(Some(1), 7, 7).is_empty());
        assert!(failing(None, 7, 7)[0].starts_with("leader: none"));
        assert!(failing(Some(2), 0, 0)[0].starts_with("log: applied up to 0"));
        assert!(failing(Some(2), 7, 5000)[0].starts_with("log:"));
        assert!(conditions(None)[0].1.starts_with("core: no answer"));
    }
}
