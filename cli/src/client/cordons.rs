//! What a person does with a member cluster.

use protocol::api::{ClusterObject, CordonRequest, DrainRequest};
use protocol::ids::ClusterName;
use reqwest::Method;
use serde::Serialize;

use super::{Client, ClientError, ROOT};

const CLUSTERS: &str = "clusters";

impl Client {
    /// One member cluster.
    pub async fn cluster(&self, cluster: &ClusterName) -> Result<ClusterObject, ClientError> {
        self.read(&[ROOT, &[CLUSTERS, cluster.as_str()]].concat(), &[]).await
    }

    /// Nothing new is placed in a cluster.
    pub async fn cordon(&self, cluster: &ClusterName, request: &CordonRequest) -> Result<(), ClientError> {
        self.say_of(cluster, "cordon", Some(request)).await
    }

    /// Nothing new is placed in a cluster, and what runs there is ended and goes on elsewhere.
    pub async fn drain(&self, cluster: &ClusterName, request: &DrainRequest) -> Result<(), ClientError> {
        self.say_of(cluster, "drain", Some(request)).await
    }

    /// A cluster takes what fits again, or may join again.
    pub async fn uncordon(&self, cluster: &ClusterName) -> Result<(), ClientError> {
        self.say_of::<()>(cluster, "uncordon", None).await
    }

    /// A cluster is gone, and its agent is refused.
    pub async fn remove_cluster(
        &self,
        cluster: &ClusterName,
        reason: Option<&str>,
        lost_for_good: bool,
    ) -> Result<(), ClientError> {
        let mut query = vec![];
        query.extend(reason.map(|reason| ("reason", reason.to_owned())));
        query.extend(lost_for_good.then(|| ("lostForGood", "true".to_owned())));
        let path = [ROOT, &[CLUSTERS, cluster.as_str()]].concat();
        self.request(Method::DELETE, &path, &query, None).await.map(|_| ())
    }

    async fn say_of<T: Serialize>(
        &self,
        cluster: &ClusterName,
        verb: &str,
        request: Option<&T>,
    ) -> Result<(), ClientError> {
        let path = [ROOT, &[CLUSTERS, cluster.as_str(), verb]].concat();
        let body = request.map(|request| serde_json::to_vec(request).expect("a request has only text keys"));
        self.request(Method::POST, &path, &[], body.as_deref()).await.map(|_| ())
    }
}
