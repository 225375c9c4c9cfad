//! Whether the cluster has claims and slices at all, and single looks at slices.

use std::time::Duration;

use kube::Client;
use kube::core::Request;
use kube::core::params::ListParams;
use protocol::ids::NodeName;
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::objects::{ClaimObject, SliceObject};
use super::seen::{SeenClaim, SeenSlice};
use crate::kube::backoff::Backoff;
use crate::kube::follow::{Kind, News, follow};
use crate::kube::http::{Failure, json, send};
use crate::kube::objects::Page;

const GROUP: &str = "/apis/resource.k8s.io/v1";
/// Between two looks whether the cluster has them by now.
const LOOK: Duration = Duration::from_secs(30);

/// What the API server says of a version of a group.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GroupVersion {
    resources: Option<Vec<Resource>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    name: String,
}

/// Follows slices and claims for as long as the cluster has them, until nobody listens. One that has none is asked for the group now and then,
/// and for nothing else.
pub(in crate::kube) async fn follow_where_served(
    client: Client,
    slices: Sender<News<SeenSlice>>,
    claims: Sender<News<SeenClaim>>,
) {
    let mut backoff = Backoff::new();
    loop {
        match served(&client).await {
            Ok(true) => {
                // Each ends where the API server does not know it any more.
                tokio::select! {
                    () = follow::<SliceObject>(client.clone(), slices.clone()) => {}
                    () = follow::<ClaimObject>(client.clone(), claims.clone()) => {}
                }
            }
            Ok(false) => {}
            Err(failure) => {
                if slices.send(News::Trouble(format!("{GROUP}: {failure}"))).await.is_err() {
                    return;
                }
                sleep(backoff.next(failure.retry_after())).await;
                continue;
            }
        }
        backoff.reset();
        if slices.send(News::NotServed).await.is_err() || claims.send(News::NotServed).await.is_err() {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn served(client: &Client) -> Result<bool, Failure> {
    let request = http::Request::get(GROUP).body(vec![]).map_err(|e| Failure::Broken(e.to_string()))?;
    match send(client, request).await {
        Ok(answer) => {
            let GroupVersion { resources } = json(answer).await?;
            let has = |name: &str| resources.iter().flatten().any(|resource| resource.name == name);
            Ok(has(SliceObject::NAME) && has(ClaimObject::NAME))
        }
        Err(Failure::Refused { code: 404, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Slices of one node, or some of all.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct NodeSlices(Option<Page<SliceObject>>);

impl NodeSlices {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().and_then(|page| page.items.as_ref()).is_none_or(Vec::is_empty)
    }

    pub(super) fn seen(&self) -> Vec<SeenSlice> {
        let page = self.0.as_ref();
        page.and_then(|page| page.items.as_ref()).into_iter().flatten().filter_map(Kind::seen).collect()
    }
}

/// The request for the slices of a node; a text is the error of one that cannot be made.
pub(crate) fn slices_of(node: &NodeName) -> Result<http::Request<Vec<u8>>, String> {
    let ours = SliceObject::FIELDS.unwrap_or_default();
    list(&ListParams::default().fields(&format!("{ours},spec.nodeName={node}")))
}

/// The request for any slice at all.
pub(crate) fn any_slice() -> Result<http::Request<Vec<u8>>, String> {
    list(&ListParams::default().fields(SliceObject::FIELDS.unwrap_or_default()).limit(1))
}

fn list(of: &ListParams) -> Result<http::Request<Vec<u8>>, String> {
    Request::new(SliceObject::PATH).list(of).map_err(|error| error.to_string())
}
