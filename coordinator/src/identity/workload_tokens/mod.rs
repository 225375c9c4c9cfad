//! The coordinators as an OIDC issuer for workloads: whoever trusts their keys (an object store, a vault) can tell by a token whose attempt it
//! deals with, and gives it what it may have without any secret of Tidewater's.
//!
//! Each replica signs with a key of its own (`key.rs`, in its data folder: `folder.rs`), once its public half is agreed upon in the log
//! (`rotation.rs`, `engine::token_keys`). Any replica issues tokens: it asks the state, by a read that a quorum confirmed, whether the attempt
//! lives in the cluster of the connection and its specification names the audience (`grant.rs`). `jwt.rs` writes them down.
//! Nothing about a token is stored: neither the log nor any record grows by it.

mod folder;
mod grant;
mod jwt;
mod key;
mod rotation;
#[cfg(test)]
mod tests;
mod url;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::token_keys::PublicKey;
use protocol::ids::{ClusterName, ReplicaId};
use protocol::token::{TokenAnswer, TokenRequest, TokenText};

pub use folder::KeyError;
pub use grant::Denial;
pub use jwt::key_set;
pub use rotation::{keep, retire};
pub use url::{BadIssuer, IssuerUrl};

use crate::handle::{Consistency, Handle, View};
use folder::KeyFolder;
use key::SigningKey;

/// What a replica says that issues no tokens.
pub const NOT_ISSUED: &str =
    "this coordinator issues no workload tokens: start the coordinators with --workload-issuer URL";

/// How long the state may take to say whether a token may be issued.
const PATIENCE: Duration = Duration::from_secs(5);

/// One replica's part in issuing tokens.
pub struct Issuer {
    url: IssuerUrl,
    replica: ReplicaId,
    handle: Handle,
    folder: KeyFolder,
    /// The private keys that lie in the folder.
    keys: Mutex<Vec<Arc<SigningKey>>>,
}

impl Issuer {
    /// The issuer of a replica, whose keys lie in its data folder. One that has none makes one; it signs nothing before [`keep`] has had that
    /// agreed upon.
    ///
    /// # Errors
    /// A key could not be read or made.
    pub fn open(url: IssuerUrl, replica: ReplicaId, data_dir: &Path, handle: Handle) -> Result<Arc<Self>, KeyError> {
        let folder = KeyFolder::open(data_dir)?;
        let mut keys = folder.read()?;
        if keys.is_empty() {
            keys.push(folder.make()?);
        }
        let keys = Mutex::new(keys.into_iter().map(Arc::new).collect());
        Ok(Arc::new(Self { url, replica, handle, folder, keys }))
    }

    /// A token for an attempt that runs in this cluster, or why there is none. What was issued is told in one line, without its text.
    pub async fn issue(&self, cluster: &ClusterName, request: TokenRequest) -> TokenAnswer {
        match self.try_issue(cluster, &request).await {
            Ok(issued) => issued,
            Err(denial) => {
                let TokenRequest { attempt, .. } = request;
                tracing::info!(%cluster, %attempt, reason = %denial, "no workload token was issued");
                TokenAnswer::Refused { reason: denial.to_string() }
            }
        }
    }

    async fn try_issue(&self, cluster: &ClusterName, request: &TokenRequest) -> Result<TokenAnswer, Denial> {
        let (asked, by, replica, keys) = (request.clone(), cluster.clone(), self.replica, self.keys());
        let judged = self.handle.read(Consistency::Linearizable, move |view: &View<'_>| -> Result<_, Denial> {
            let grant = grant::judge(view.state, &by, &asked)?;
            let now = view.now.max(view.state.now);
            let agreed = view.state.token_keys.of(replica).filter(|key| key.signs(now)).map(|key| key.key);
            let key = agreed.and_then(|agreed| keys.into_iter().find(|key| key.public() == agreed));
            Ok((grant, key.ok_or(Denial::NoKey)?, view.now))
        });
        let judged = tokio::time::timeout(PATIENCE, judged).await.map_err(|_| Denial::NoQuorum)?;
        let (grant, key, now) = judged.map_err(|_| Denial::NoQuorum)??;
        let id = uuid::Uuid::new_v4();
        let claims = grant.claims(&self.url, now, id);
        let token = jwt::signed(&key, &claims).ok_or(Denial::NotSigned)?;
        let (attempt, audience) = (request.attempt, &request.audience);
        let (workload, expires) = (&grant.workload, claims.expires());
        tracing::info!(
            %cluster, %workload, %attempt, audience, kid = key.kid(), jti = %id, exp = expires,
            "issued a workload token"
        );
        Ok(TokenAnswer::Issued { token: TokenText::new(token), life_ms: grant.life.0 })
    }

    fn keys(&self) -> Vec<Arc<SigningKey>> {
        self.keys.lock().expect("no holder of this lock panics").clone()
    }

    fn public_keys(&self) -> Vec<PublicKey> {
        self.keys().iter().map(|key| key.public()).collect()
    }
}
