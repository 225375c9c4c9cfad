//! What agents ask on streams that they open beside their control stream: tokens for workloads that run there.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::ClusterName;
use protocol::quic::{read_frame, write_frame};
use protocol::token::{TokenAnswer, TokenRequest};
use quinn::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;

use crate::identity::workload_tokens::{Issuer, NOT_ISSUED};

/// Questions of one agent that are answered at once; more wait on their streams.
const AT_ONCE: usize = 16;
/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers until the connection is over, and says why it is.
pub(super) async fn serve(connection: Connection, cluster: ClusterName, issuer: Option<Arc<Issuer>>) -> String {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi(), if under_way.len() < AT_ONCE => match stream {
                Ok((send, receive)) => {
                    let answered = answer(send, receive, cluster.clone(), issuer.clone());
                    under_way.spawn(tokio::time::timeout(PATIENCE, answered));
                }
                Err(error) => return error.to_string(),
            },
            Some(_) = under_way.join_next() => {}
        }
    }
}

/// One question. What is no question is not answered: dropped, both ways of its stream end.
async fn answer(mut send: SendStream, mut receive: RecvStream, cluster: ClusterName, issuer: Option<Arc<Issuer>>) {
    let request = match read_frame::<TokenRequest>(&mut receive).await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => return tracing::debug!(%cluster, %error, "a question of an agent can't be read"),
    };
    let answer = match issuer {
        Some(issuer) => issuer.issue(&cluster, request).await,
        None => TokenAnswer::Refused { reason: NOT_ISSUED.to_owned() },
    };
    if write_frame(&mut send, &answer).await.is_ok() && send.finish().is_ok() {
        let _ = send.stopped().await;
    }
}
