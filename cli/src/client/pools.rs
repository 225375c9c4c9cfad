//! Pools and ownership rules.

use protocol::api::List;
use protocol::ids::{Namespace, PoolName};
use protocol::pool::objects::{OwnershipObject, PoolObject};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, ClientError, ROOT};

const POOLS: &str = "resourcepools";
const RULES: &str = "ownershiprules";

impl Client {
    /// Every pool, with how it stands.
    pub async fn pools(&self) -> Result<List<PoolObject>, ClientError> {
        self.read(&[ROOT, &[POOLS]].concat(), &[]).await
    }

    /// Makes a pool or replaces it; with a resourceVersion, only that version.
    pub async fn set_pool(&self, pool: &PoolObject) -> Result<PoolObject, ClientError> {
        self.put(POOLS, pool.metadata.name.as_str(), pool).await
    }

    /// Removes a pool.
    pub async fn delete_pool(&self, name: &PoolName) -> Result<(), ClientError> {
        self.remove(POOLS, name.as_str()).await
    }

    /// Every ownership rule, with the pool to which it leads.
    pub async fn rules(&self) -> Result<List<OwnershipObject>, ClientError> {
        self.read(&[ROOT, &[RULES]].concat(), &[]).await
    }

    /// Makes an ownership rule or replaces it; with a resourceVersion, only that version.
    pub async fn set_rule(&self, rule: &OwnershipObject) -> Result<OwnershipObject, ClientError> {
        self.put(RULES, rule.metadata.name.as_str(), rule).await
    }

    /// Removes an ownership rule.
    pub async fn delete_rule(&self, owner: &Namespace) -> Result<(), ClientError> {
        self.remove(RULES, owner.as_str()).await
    }

    pub(super) async fn put<T: Serialize + DeserializeOwned>(
        &self,
        kind: &str,
        name: &str,
        object: &T,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(object).expect("an object of the API has only text keys");
        self.request(Method::PUT, &[ROOT, &[kind, name]].concat(), &[], Some(&body)).await?.read()
    }

    pub(super) async fn remove(&self, kind: &str, name: &str) -> Result<(), ClientError> {
        match self.request(Method::DELETE, &[ROOT, &[kind, name]].concat(), &[], None).await {
            // An earlier try did it, though its answer never came.
            Err(ClientError::Refused { status, again: true }) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }
}
