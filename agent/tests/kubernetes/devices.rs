//! Shares of GPUs and MIG slices on real API servers and a real scheduler: counted as the device plugin offers them, and asked for under
//! the names that they have there.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use protocol::capacity::{Columns, DeviceState, Sharing};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::sku::Sku;
use testbed::{Binaries, FakeNodes, fake};

use super::rig::Rig;
use super::runtime_world::{PATIENCE, Running, nothing_left, order, plane, settings, until};

pub async fn shares_and_slices(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 1).await?;
    let client = plane.client();
    let shared = [("gpu.product", "NVIDIA-L4-SHARED"), ("gpu.replicas", "4"), ("gpu.sharing-strategy", "time-slicing")];
    make(&client, "shared", &shared, &[("gpu", 8)]).await?;
    let renamed = [("gpu.product", "Tesla-T4"), ("gpu.replicas", "2"), ("gpu.sharing-strategy", "mps")];
    make(&client, "renamed", &renamed, &[("gpu.shared", 4)]).await?;
    let mixed = [
        ("gpu.product", "NVIDIA-H100-80GB-HBM3"),
        ("gpu.replicas", "0"),
        ("mig-1g.10gb.product", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"),
        ("mig-1g.10gb.replicas", "1"),
    ];
    make(&client, "cut", &mixed, &[("mig-1g.10gb", 7)]).await?;
    let ready = fake::until_ready(&client, 4, PATIENCE).await?;
    ensure!(ready.is_ok(), "only {ready:?} of 4 nodes are ready");

    let rig = Rig::start(&plane.kubeconfig()).await?;
    let empty = [
        ("gpu-0", Of { model: "H100", devices: 8, sharing: Sharing::Whole, free: 8 }),
        ("shared-0", Of { model: "L4", devices: 2, sharing: Sharing::Parts(4), free: 8 }),
        ("renamed-0", Of { model: "T4", devices: 2, sharing: Sharing::Parts(2), free: 4 }),
        ("cut-0", Of { model: "H100-MIG-1g.10gb", devices: 7, sharing: Sharing::Whole, free: 7 }),
    ];
    let mut expected = BTreeMap::from(empty.map(|(name, of)| (name.to_owned(), of)));
    equals(&rig, "nothing runs", &expected).await?;

    // Each to the only node that gives out such devices, though another was preferred by nobody.
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "600s")]));
    running.runtime.recover_known().await?;
    let orders = [
        ("shared-0", asking(1, "L4", "shared-0", 3, 200)?),
        ("renamed-0", asking(2, "T4", "renamed-0", 2, 500)?),
        ("cut-0", asking(3, "H100-MIG-1g.10gb", "cut-0", 2, 2_000)?),
        ("gpu-0", asking(4, "H100", "gpu-0", 1, 2_000)?),
    ];
    for ((node, order), units) in orders.iter().zip([3, 2, 4, 2]) {
        running.start(order).await?;
        running.until(order.attempt, "the gang runs", |state| *state == AttemptState::Running).await?;
        let pods = Api::<Pod>::namespaced(client.clone(), order.key.namespace.as_str());
        let on: Vec<_> =
            pods.list(&ListParams::default()).await?.items.into_iter().map(|p| p.spec?.node_name).collect();
        ensure!(on.iter().all(|on| on.as_deref() == Some(*node)), "on {on:?} in place of {node}");
        expected.get_mut(*node).context("it is among them")?.free -= units;
    }
    // The rig's journal knows none of them: they are others' pods.
    equals(&rig, "four gangs run", &expected).await?;

    // What is whole is no share, whatever was decided: nothing is made, and the reason names the node.
    let refused = asking(5, "H100", "gpu-0", 1, 250)?;
    running.start(&refused).await?;
    let AttemptState::Failed { class: FailureClass::Infrastructure, message, .. } =
        running.end(refused.attempt).await?
    else {
        anyhow::bail!("a share of a whole GPU is no failure of the infrastructure");
    };
    ensure!(message.contains("node gpu-0 gives out nvidia.com/gpu now (shares: none)"), "{message}");

    // The next agent asks for the same, also where nodes have other names by then.
    drop(running);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover_known().await?;
    for (_, order) in &orders {
        agent::runtime::Runtime::stop(&running.runtime, order.attempt, 1_000).await?;
        ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
        nothing_left(&client, order.attempt).await?;
    }
    equals(&rig, "all are gone", &BTreeMap::from(empty.map(|(name, of)| (name.to_owned(), of)))).await?;
    plane.stop();
    Ok(())
}

/// A fake node with these labels and these units (both without `nvidia.com/`).
async fn make(client: &Client, prefix: &str, labels: &[(&str, &str)], units: &[(&str, u32)]) -> anyhow::Result<()> {
    let mut node = FakeNodes::h100(prefix, 1).node(0);
    let has = node.metadata.labels.as_mut().context("it has labels")?;
    has.retain(|label, _| !label.starts_with("nvidia.com/"));
    has.extend(labels.iter().map(|(label, value)| (format!("nvidia.com/{label}"), (*value).to_owned())));
    let status = node.status.as_mut().context("it has a status")?;
    for amounts in [&mut status.allocatable, &mut status.capacity].into_iter().flatten() {
        amounts.remove("nvidia.com/gpu");
        amounts.extend(units.iter().map(|(name, n)| (format!("nvidia.com/{name}"), Quantity(n.to_string()))));
    }
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
    Ok(())
}

/// A gang on one node, each member with so much of a device of this model.
fn asking(uid: u128, model: &str, node: &str, members: u32, gpu_milli: u64) -> anyhow::Result<LaunchOrder> {
    let mut order = order(uid, &format!("ns-{uid}"), members, 1)?;
    let placement = order.placement.first_mut().context("it has a group")?;
    placement.sku = Some(Sku::parse(model)?);
    placement.each.gpu_milli = gpu_milli;
    placement.nodes[0].node = node.parse()?;
    Ok(order)
}

/// What the table has of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Of {
    model: &'static str,
    devices: u16,
    sharing: Sharing,
    /// Units of devices that can be had.
    free: u32,
}

fn matches(columns: &Columns, expected: &BTreeMap<String, Of>) -> bool {
    let mut first = 0;
    columns.name.len() == expected.len()
        && columns.name.iter().enumerate().all(|(row, name)| {
            let devices = first..first + usize::from(columns.devices[row]);
            first = devices.end;
            let Some(of) = expected.get(name.as_str()) else { return false };
            let (parts, part) = match columns.sharing[row] {
                Sharing::Parts(parts) => (u32::from(parts), 1000 / u32::from(parts)),
                Sharing::Any | Sharing::Whole => (1, 1000),
            };
            let free = devices.clone().map(|at| match columns.device_state[at] {
                DeviceState::Free => parts,
                _ => u32::from(columns.left_milli[at]) / part,
            });
            let model = usize::from(columns.sku[row]).checked_sub(1).map_or("", |at| columns.skus[at].as_str());
            let seen = (model, columns.devices[row], columns.sharing[row], free.sum::<u32>());
            seen == (of.model, of.devices, of.sharing, of.free)
        })
}

async fn equals(rig: &Rig, what: &str, expected: &BTreeMap<String, Of>) -> anyhow::Result<()> {
    let looked = until(what, async || Ok(matches(&rig.columns(), expected).then_some(()))).await;
    looked.with_context(|| format!("the table has {:?}, expected {expected:?}", rig.columns()))
}
