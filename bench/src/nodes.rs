//! Nodes in an API server that runs without controllers: ready, though nobody is behind them.

use anyhow::Result;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use testbed::FakeNodes;

/// Requests under way at once, while a cluster is filled.
pub const AT_ONCE: usize = 64;

/// Makes them, and tells of each that is made.
pub async fn make(client: &Client, fleet: &FakeNodes, made: impl Fn()) -> Result<()> {
    let (nodes, made) = (&Api::<Node>::all(client.clone()), &made);
    stream::iter(0..fleet.count)
        .map(|number| async move {
            let mut node = fleet.node(number);
            let ready = NodeCondition { type_: "Ready".into(), status: "True".into(), ..NodeCondition::default() };
            node.status.get_or_insert_default().conditions = Some(vec![ready]);
            let node = nodes.create(&PostParams::default(), &node).await?;
            // Every node begins with a taint that a controller takes away.
            let open = Patch::Merge(json!({"spec": {"taints": null}}));
            nodes.patch(&node.metadata.name.unwrap_or_default(), &PatchParams::default(), &open).await?;
            made();
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
