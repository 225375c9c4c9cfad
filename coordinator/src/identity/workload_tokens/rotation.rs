//! With which key a replica signs: made, agreed upon in the log, replaced after thirty days, and deleted once it signs no more.

use std::sync::Arc;
use std::time::Duration;

use engine::commands::Command;
use engine::token_keys::{KEY_LIFE_MS, PublicKey, TokenKeys};
use protocol::ids::{ReplicaId, UnixMs};
use tokio_util::sync::CancellationToken;

use super::Issuer;
use super::jwt::thumbprint;
use crate::handle::{Consistency, Handle};

/// Between two looks at the age of a key.
const LOOK: Duration = Duration::from_secs(600);
/// Between two tries while there is no quorum.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be done about a replica's keys.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    /// It signs with a key that is young enough.
    Nothing,
    /// This one is to be agreed upon.
    Register(PublicKey),
    /// Another one is needed.
    Make,
}

/// What is due for a replica that holds the private halves of `own`.
fn due(agreed: &TokenKeys, replica: ReplicaId, own: &[PublicKey], now: UnixMs) -> Due {
    let is_young = |since: UnixMs| now.0 < since.0.saturating_add(KEY_LIFE_MS);
    match agreed.of(replica) {
        Some(current) if own.contains(&current.key) && is_young(current.since) => Due::Nothing,
        // Made before, and not agreed upon yet.
        _ => own.iter().find(|key| !agreed.knows(key)).map_or(Due::Make, |key| Due::Register(*key)),
    }
}

/// Which of these sign no more: they were agreed upon, and are not the one in use.
fn over(agreed: &TokenKeys, replica: ReplicaId, own: &[PublicKey]) -> Vec<PublicKey> {
    let current = agreed.of(replica).map(|current| current.key);
    own.iter().copied().filter(|key| agreed.knows(key) && current != Some(*key)).collect()
}

/// Keeps a key that the replica may sign with, until cancelled.
pub async fn keep(issuer: Arc<Issuer>, stop: CancellationToken) {
    loop {
        let pause = match issuer.see_to_keys().await {
            Ok(true) => LOOK,
            Ok(false) => continue,
            Err(why) => {
                tracing::debug!(replica = %issuer.replica, why, "the key of workload tokens is not seen to yet");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl Issuer {
    /// Does the next thing that is due; true where nothing was. The error is what keeps it from that for now.
    async fn see_to_keys(&self) -> Result<bool, String> {
        let seen =
            self.handle.read(Consistency::Linearizable, |v| (v.state.token_keys.clone(), v.now.max(v.state.now)));
        let (agreed, now) = seen.await.map_err(|error| error.to_string())?;
        let own = self.public_keys();
        match due(&agreed, self.replica, &own, now) {
            Due::Register(key) => {
                let command = Command::SetTokenKey { replica: self.replica, key: Some(key) };
                self.handle.propose(command).await.map_err(|error| error.to_string())?;
                let kid = thumbprint(&key);
                tracing::debug!(replica = %self.replica, kid, "workload tokens are signed with this key");
                Ok(false)
            }
            Due::Make => {
                let key = self.folder.make().map_err(told)?;
                self.keys.lock().expect("no holder of this lock panics").push(Arc::new(key));
                Ok(false)
            }
            Due::Nothing => {
                for old in over(&agreed, self.replica, &own) {
                    self.folder.remove(&thumbprint(&old)).map_err(told)?;
                    self.keys.lock().expect("no holder of this lock panics").retain(|key| key.public() != old);
                }
                Ok(true)
            }
        }
    }
}

/// A fault of the disk is an operator's to mend.
fn told(error: super::KeyError) -> String {
    tracing::error!(%error, "the key of workload tokens is not replaced");
    error.to_string()
}

/// Has it agreed upon that a replica signs nothing any more, where it did before it was started without an issuer.
pub async fn retire(replica: ReplicaId, handle: Handle, stop: CancellationToken) {
    let retiring = async {
        loop {
            match handle.read(Consistency::Linearizable, move |v| v.state.token_keys.of(replica).is_some()).await {
                Ok(false) => return,
                Ok(true) => {
                    let command = Command::SetTokenKey { replica, key: None };
                    if let Err(error) = handle.propose(command).await {
                        tracing::debug!(%replica, %error, "that no workload tokens are issued is not agreed upon yet");
                    }
                }
                Err(error) => {
                    tracing::debug!(%replica, %error, "it is not seen yet whether workload tokens were issued")
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = retiring => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use engine::State;
    use protocol::ids::LogIndex;

    use super::*;

    const ONE: ReplicaId = ReplicaId(1);

    fn key(n: u8) -> PublicKey {
        PublicKey { x: [n; 32], y: [n; 32] }
    }

    /// The keys after these were agreed upon, each at its time.
    fn agreed(commands: &[(u64, u64, Option<u8>)]) -> TokenKeys {
        let mut state = State::default();
        for (index, (at, replica, n)) in (1..).zip(commands) {
            let command = Command::SetTokenKey { replica: ReplicaId(*replica), key: n.map(key) };
            state.apply(LogIndex(index), &command, UnixMs(*at)).outcome.unwrap();
        }
        state.token_keys
    }

    #[test]
    fn a_key_is_agreed_upon_before_it_signs_and_replaced_when_it_is_old() {
        let due_at = |agreed: &TokenKeys, own: &[u8], at: u64| {
            due(agreed, ONE, &own.iter().map(|n| key(*n)).collect::<Vec<_>>(), UnixMs(at))
        };
        let none = agreed(&[]);
        assert_eq!(due_at(&none, &[], 0), Due::Make);
        assert_eq!(due_at(&none, &[7], 0), Due::Register(key(7)));
        let first = agreed(&[(5, 1, Some(7)), (5, 2, Some(9))]);
        assert_eq!(due_at(&first, &[7], 4 + KEY_LIFE_MS), Due::Nothing);
        assert_eq!(due_at(&first, &[7], 5 + KEY_LIFE_MS), Due::Make);
        assert_eq!(due_at(&first, &[7, 8], 5 + KEY_LIFE_MS), Due::Register(key(8)));
        // Its file is lost.
        assert_eq!(due_at(&first, &[], 6), Due::Make);
        // It was started without an issuer meanwhile.
        let retired = agreed(&[(5, 1, Some(7)), (6, 1, None)]);
        assert_eq!(due_at(&retired, &[7], 7), Due::Make);
    }

    #[test]
    fn a_replaced_key_is_deleted_and_no_other() {
        let own = [key(7), key(8), key(9)];
        let both = agreed(&[(5, 1, Some(7)), (6, 1, Some(8))]);
        assert_eq!(over(&both, ONE, &own), [key(7)], "9 may be the next one");
    }
}
