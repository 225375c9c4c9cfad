//! What becomes of a workload while its page is shown: told where the page comes and goes with it, until it has ended.

use std::time::Duration;

use protocol::api::WorkloadObject;
use protocol::ids::WorkloadKey;

use crate::client::{Change, Client, ClientError, Scope};
use crate::exit::Failure;
use crate::render::Out;
use crate::render::workload::{is_terminal, phase_of};

/// The pause before the server is asked again that was away for longer than the client's patience.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether there is a page.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Of this attempt.
    Shown(u32),
    /// Not before the next attempt.
    Between,
    /// Its cluster is not heard from.
    CutOff(String),
}

impl Standing {
    fn of(object: &WorkloadObject) -> Self {
        let status = object.status.as_ref();
        let attempt = status.and_then(|status| status.attempts.last());
        match phase_of(object) {
            "Queued" | "Bound" | "Launching" => Standing::Between,
            "Unknown" => {
                let cluster = status.and_then(|status| status.cluster.as_ref());
                Standing::CutOff(cluster.map(ToString::to_string).unwrap_or_default())
            }
            _ => Standing::Shown(attempt.map_or(0, |attempt| attempt.id.number.0)),
        }
    }

    /// What to say of it after `before`.
    fn told_after(&self, before: &Standing) -> Option<String> {
        match (self, before) {
            (now, before) if now == before => None,
            (Standing::Between, Standing::Shown(attempt)) => {
                Some(format!("attempt {attempt} has ended; the page of the next one is shown here once it is up"))
            }
            (Standing::Between, _) => Some("the page of the next attempt is shown here once it is up".to_owned()),
            (Standing::CutOff(cluster), _) => {
                Some(format!("cluster {cluster} is not heard from: its page can't be reached until it is"))
            }
            (Standing::Shown(attempt), _) => Some(format!("from here on it is the page of attempt {attempt}")),
        }
    }
}

/// Returns once the workload has ended: an error unless it has succeeded. `attempt` is the one whose page was shown first.
pub(super) async fn until_ended(client: &Client, key: &WorkloadKey, attempt: u32, out: &Out) -> anyhow::Result<()> {
    let mut changes = client.changes(Scope::Workload(key.clone()));
    let (mut standing, mut away) = (Standing::Shown(attempt), false);
    loop {
        let object = match changes.next().await {
            Ok(Change::Now(object)) if object.metadata.name == key.name => object,
            Ok(Change::Gone(object)) if object.metadata.name == key.name => {
                return Err(Failure::Workload(format!("{key} was deleted, and its page is gone with it")).into());
            }
            Ok(_) => continue,
            Err(error) if is_away(&error) => {
                if !std::mem::replace(&mut away, true) {
                    out.warn(&error.to_string());
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        away = false;
        if is_terminal(&object) {
            let phase = phase_of(&object);
            let told = format!("{key} has ended ({phase}), and its page is gone with it");
            if phase != "Succeeded" {
                return Err(Failure::Workload(told).into());
            }
            out.note(&told);
            return Ok(());
        }
        let now = Standing::of(&object);
        if let Some(told) = now.told_after(&standing) {
            out.note(&told);
        }
        standing = now;
    }
}

/// Whether the server may be back in a while.
fn is_away(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused { status, .. } => status.code == 503,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_for_the_page_is_told_once() {
        let steps = [
            (Standing::Shown(1), None),
            (Standing::CutOff("eu".into()), Some("cluster eu is not heard from")),
            (Standing::Shown(1), Some("the page of attempt 1")),
            (Standing::Between, Some("attempt 1 has ended")),
            (Standing::Between, None),
            (Standing::Shown(2), Some("the page of attempt 2")),
            (Standing::Shown(3), Some("the page of attempt 3")),
        ];
        let mut before = Standing::Shown(1);
        for (now, wanted) in steps {
            let told = now.told_after(&before);
            match wanted {
                Some(words) => assert!(told.is_some_and(|told| told.contains(words)), "{now:?} after {before:?}"),
                None => assert_eq!(told, None),
            }
            before = now;
        }
    }
}
