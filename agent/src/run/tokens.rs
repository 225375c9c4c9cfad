//! Asks coordinators for workload tokens, on streams beside the control streams of the links: any replica may answer, so those that are connected
//! are asked in turn until one gives one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::ids::ReplicaId;
use protocol::quic::{read_frame, write_frame};
use protocol::token::{TokenAnswer, TokenRequest};
use quinn::Connection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::runtime::tokens::{Issued, TokenAsk};

/// Questions under way at once; more wait.
const AT_ONCE: usize = 16;
/// How long one replica has for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The coordinators that can be asked now. Cheap to clone: all clones are one.
#[derive(Clone, Default)]
pub struct Issuers {
    links: Arc<Mutex<BTreeMap<ReplicaId, Connection>>>,
    next: Arc<AtomicUsize>,
}

/// A link that can be asked over, for as long as it lives.
pub struct Asked {
    issuers: Issuers,
    replica: ReplicaId,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.issuers.lock().remove(&self.replica);
    }
}

impl Issuers {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ReplicaId, Connection>> {
        self.links.lock().expect("no holder of this lock panics")
    }

    /// A link to a replica is up, until what is returned is dropped.
    pub fn add(&self, replica: ReplicaId, connection: Connection) -> Asked {
        self.lock().insert(replica, connection);
        Asked { issuers: self.clone(), replica }
    }

    /// Passes questions on, until cancelled.
    pub async fn serve(self, mut asked: mpsc::Receiver<TokenAsk>, stop: CancellationToken) {
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                ask = asked.recv(), if under_way.len() < AT_ONCE => {
                    let Some(TokenAsk { request, mut answer }) = ask else { return };
                    let issuers = self.clone();
                    under_way.spawn(async move {
                        tokio::select! {
                            issued = issuers.ask(&request) => drop(answer.send(issued)),
                            () = answer.closed() => {}
                        }
                    });
                }
                Some(_) = under_way.join_next() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The first token that any replica gives; else why the last one that answered gave none.
    async fn ask(&self, request: &TokenRequest) -> Result<Issued, String> {
        let links: Vec<Connection> = self.lock().values().cloned().collect();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut refused, mut silent) = (None, None);
        for place in 0..links.len() {
            let link = &links[(first + place) % links.len()];
            match tokio::time::timeout(PATIENCE, ask_over(link, request)).await {
                Ok(Ok(TokenAnswer::Issued { token, life_ms })) => {
                    return Ok(Issued { text: token, life: Duration::from_millis(life_ms) });
                }
                Ok(Ok(TokenAnswer::Refused { reason })) => refused = Some(reason),
                Ok(Err(error)) => silent = Some(error),
                Err(_) => silent = Some(format!("no answer within {} s", PATIENCE.as_secs())),
            }
        }
        let silent = silent.map(|why| format!("a coordinator does not answer: {why}"));
        Err(refused.or(silent).unwrap_or_else(|| "no coordinator is connected to this agent".to_owned()))
    }
}

async fn ask_over(link: &Connection, request: &TokenRequest) -> Result<TokenAnswer, String> {
    let (mut send, mut receive) = link.open_bi().await.map_err(|error| error.to_string())?;
    write_frame(&mut send, request).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    match read_frame::<TokenAnswer>(&mut receive).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err("it ended the stream".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
