//! Following a workload's output through lost connections and from attempt to attempt, each byte once.

use protocol::api::WorkloadObject;
use protocol::ids::WorkloadKey;

use crate::client::{Change, Changes, Client, ClientError, Scope};
use crate::exit::Failure;
use crate::render::workload::is_terminal;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// At the first attempt, through all that come.
    First,
    /// At the last attempt that there is, through all that come.
    Last,
    /// With one attempt alone.
    Only(u32),
}

/// Hands a workload's output to `write` as it comes, until the workload (or the one attempt) has ended.
pub async fn logs(
    client: &Client,
    key: &WorkloadKey,
    from: From,
    mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A name that does not exist is told now; a watch would wait for it for ever.
    let mut object = client.get(key).await?;
    let mut changes = client.changes(Scope::Namespace(key.namespace.clone()));
    let mut attempt = match from {
        From::First => 1,
        From::Last => last(&object).max(1),
        From::Only(n) => n,
    };
    loop {
        while last(&object) < attempt {
            if is_terminal(&object) {
                return match from {
                    From::Only(n) => Err(Failure::Workload(format!("{} has no attempt {n}", key.name)).into()),
                    _ => Ok(()),
                };
            }
            object = next(&mut changes, key).await?;
        }
        whole(client, key, attempt, &mut write).await?;
        if matches!(from, From::Only(_)) {
            return Ok(());
        }
        attempt += 1;
        object = client.get(key).await?;
    }
}

/// The number of the last attempt; 0 before the first.
fn last(object: &WorkloadObject) -> u32 {
    object.status.as_ref().and_then(|status| status.attempts.last()).map_or(0, |attempt| attempt.id.number.0)
}

/// The next state of one workload.
async fn next(changes: &mut Changes, key: &WorkloadKey) -> anyhow::Result<WorkloadObject> {
    loop {
        match changes.next().await? {
            Change::Now(object) if object.metadata.name == key.name => return Ok(*object),
            Change::Gone(object) if object.metadata.name == key.name => {
                return Err(Failure::Workload(format!("{} was deleted", key.name)).into());
            }
            _ => {}
        }
    }
}

/// One attempt's output to its end. After a lost connection it is read again from the start, less what was had.
async fn whole(
    client: &Client,
    key: &WorkloadKey,
    attempt: u32,
    write: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut had: u64 = 0;
    loop {
        let mut stream = client.logs(key, Some(attempt), true).await?;
        let mut skip = had;
        loop {
            match stream.next().await {
                Ok(Some(chunk)) => {
                    let skipped = skip.min(chunk.len() as u64);
                    skip -= skipped;
                    // It fits: it is at most the chunk's length.
                    let fresh = &chunk[skipped as usize..];
                    had += fresh.len() as u64;
                    if !fresh.is_empty() {
                        write(fresh)?;
                    }
                }
                Ok(None) => return Ok(()),
                Err(ClientError::Unreachable { .. }) => break,
                Err(e) => return Err(e.into()),
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
