//! Following a workload's output through lost connections and from attempt to attempt, each byte once.

use std::time::Duration;

use protocol::api::WorkloadObject;
use protocol::ids::WorkloadKey;

use crate::client::{Change, Changes, Client, ClientError, Scope};
use crate::exit::Failure;
use crate::render::workload::is_terminal;

/// The pause before a stream that ended early is opened again; doubled each time that it brings nothing new.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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

/// Hands a workload's output, or one worker's, to `write` as it comes, until the workload (or the one attempt) has ended.
pub async fn logs(
    client: &Client,
    key: &WorkloadKey,
    from: From,
    worker: Option<u32>,
    mut write: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // A name that does not exist is told now; a watch would wait for it for ever.
    let mut object = client.get(key).await?;
    let mut changes = client.changes(Scope::Workload(key.clone()));
    let mut attempt = match from {
        // The oldest may no longer be kept.
        From::First => numbers(&object).next().unwrap_or(1),
        From::Last => last(&object).max(1),
        From::Only(n) => n,
    };
    loop {
        // Before its members run, an attempt has no log, and its cluster would say so instead of waiting.
        while !has_begun(&object, attempt) {
            if is_terminal(&object) && last(&object) >= attempt {
                break;
            }
            if is_terminal(&object) {
                return match from {
                    From::Only(n) => Err(Failure::Workload(format!("{} has no attempt {n}", key.name)).into()),
                    _ => Ok(()),
                };
            }
            object = next(&mut changes, key).await?;
        }
        whole(client, key, (attempt, worker), &mut write).await?;
        if matches!(from, From::Only(_)) {
            return Ok(());
        }
        attempt += 1;
        object = client.get(key).await?;
    }
}

/// The number of the last attempt; 0 before the first.
fn last(object: &WorkloadObject) -> u32 {
    numbers(object).last().unwrap_or(0)
}

/// The numbers of the attempts that are kept, oldest first.
fn numbers(object: &WorkloadObject) -> impl Iterator<Item = u32> {
    object.status.iter().flat_map(|status| &status.attempts).map(|attempt| attempt.id.number.0)
}

/// Whether an attempt's members ran, or ended without; a later attempt says so of an earlier one too.
fn has_begun(object: &WorkloadObject, number: u32) -> bool {
    let attempt = object.status.iter().flat_map(|s| &s.attempts).find(|a| a.id.number.0 == number);
    last(object) > number || attempt.is_some_and(|a| a.running_at.is_some() || a.ended_at.is_some())
}

/// Whether nothing more comes out of an attempt.
fn has_ended(object: &WorkloadObject, number: u32) -> bool {
    let attempt = object.status.iter().flat_map(|s| &s.attempts).find(|a| a.id.number.0 == number);
    is_terminal(object) || attempt.is_none_or(|attempt| attempt.ended_at.is_some())
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

/// One attempt's output to its end. After a lost connection it is read again from the start, less what was had; so it is
/// after a stream that ended while the attempt goes on, as a server's does that is being stopped.
async fn whole(
    client: &Client,
    key: &WorkloadKey,
    (attempt, worker): (u32, Option<u32>),
    write: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (mut had, mut pause) = (0_u64, FIRST_PAUSE);
    loop {
        let mut stream = match client.logs(key, Some(attempt), worker, true).await {
            Ok(stream) => Some(stream),
            // A worker's log goes with its worker, a moment before its attempt has ended.
            Err(ClientError::Refused { .. }) if had > 0 && has_ended(&client.get(key).await?, attempt) => return Ok(()),
            Err(ClientError::Refused { .. }) if had > 0 => None,
            Err(error) => return Err(error.into()),
        };
        let mut skip = had;
        while let Some(stream) = &mut stream {
            match stream.next().await {
                Ok(Some(chunk)) => {
                    let skipped = skip.min(chunk.len() as u64);
                    skip -= skipped;
                    // It fits: it is at most the chunk's length.
                    let fresh = &chunk[skipped as usize..];
                    had += fresh.len() as u64;
                    if !fresh.is_empty() {
                        write(fresh)?;
                        pause = FIRST_PAUSE;
                    }
                }
                Ok(None) if has_ended(&client.get(key).await?, attempt) => return Ok(()),
                Ok(None) => break,
                Err(ClientError::Unreachable { .. }) => break,
                Err(e) => return Err(e.into()),
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
