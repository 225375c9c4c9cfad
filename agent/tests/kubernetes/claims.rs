//! Devices that claims give out, on a real API server with the real scheduler and claim controller: counted as their driver describes them,
//! claimed by gangs, and free again once all is gone. The test writes what NVIDIA's driver would: a class of devices and slices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent::runtime::Runtime;
use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use protocol::capacity::{Columns, DeviceState};
use protocol::control::{AttemptState, LaunchOrder};
use protocol::ids::AttemptId;
use protocol::sku::Sku;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::{Binaries, FakeNodes, fake};

use super::rig::Rig;
use super::runtime_world::{PATIENCE, Running, made, nothing_left, order, plane, settings, until};

const CLASS: &str = "gpu.nvidia.com";

pub async fn of_devices(binaries: Arc<Binaries>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let plane = plane(&binaries, dir.path(), 1).await?;
    let client = plane.client();
    // Before anything is given out by claims here.
    let mut rig = Rig::start(&plane.kubeconfig()).await?;
    let mut running = Running::new(client.clone(), settings(&[("runs-for", "600s")]));
    running.runtime.recover_known().await?;
    equals(&rig, "only the device plugin offers GPUs", &client, None).await?;

    FakeNodes { gpus: 0, ..FakeNodes::h100("dra", 2) }.make(&client).await?;
    let ready = fake::until_ready(&client, 3, PATIENCE).await?;
    ensure!(ready.is_ok(), "only {ready:?} of 3 nodes are ready");
    let expression = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'";
    let class = json!({"metadata": {"name": CLASS}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
    Api::<DeviceClass>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    // The first has four and an L4, the second two. One has a taint, which an API server drops that has no DRADeviceTaints, as by default in 1.34.
    let taint = json!([{"key": "gpu.nvidia.com/unhealthy", "effect": "NoSchedule"}]);
    let mut tainted = device(2, "NVIDIA H100 80GB HBM3");
    tainted["taints"] = taint;
    slices(&client, "dra-0", &[device(0, "NVIDIA H100 80GB HBM3"), device(1, "NVIDIA H100 80GB HBM3")], 2, 1).await?;
    slices(&client, "dra-0", &[tainted, device(3, "NVIDIA L4"), device(4, "NVIDIA H100 80GB HBM3")], 2, 2).await?;
    slices(&client, "dra-1", &[device(0, "NVIDIA L4"), device(1, "NVIDIA L4")], 1, 1).await?;
    equals(&rig, "claims give devices out", &client, None).await?;

    // Somebody else's claim, which two pods share.
    let theirs = json!({
        "metadata": {"name": "theirs", "namespace": "default"},
        "spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": CLASS, "selectors": [
            {"cel": {"expression": "device.attributes['gpu.nvidia.com'].productName != 'NVIDIA L4'"}},
        ]}}]}},
    });
    Api::<ResourceClaim>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &serde_json::from_value(theirs)?)
        .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    for name in ["first", "second"] {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "resourceClaims": [{"name": "g", "resourceClaimName": "theirs"}],
                "containers": [{"name": "c", "image": "none", "resources": {"claims": [{"name": "g"}]}}],
            },
        });
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    }
    held(&client, "default", 1).await?;
    equals(&rig, "somebody else has one", &client, None).await?;

    // A gang of two, which the rig's journal knows, and one of one, which it does not.
    let ours = asking(1, "H100", "dra-0", 2)?;
    rig.launch(ours.clone())?;
    running.start(&ours).await?;
    running.until(ours.attempt, "the gang runs", |state| *state == AttemptState::Running).await?;
    ensure!(held(&client, "ns-1", 2).await? == BTreeSet::from(["dra-0".to_owned()]), "not on the node that was chosen");
    equals(&rig, "a gang runs", &client, Some(ours.attempt)).await?;
    let other = asking(2, "L4", "dra-1", 1)?;
    running.start(&other).await?;
    running.until(other.attempt, "it runs", |state| *state == AttemptState::Running).await?;
    ensure!(held(&client, "ns-2", 1).await? == BTreeSet::from(["dra-1".to_owned()]));
    equals(&rig, "two gangs run", &client, Some(ours.attempt)).await?;
    // What the device plugin offers is asked for as before.
    let plain = asking(3, "H100", "gpu-0", 2)?;
    running.start(&plain).await?;
    running.until(plain.attempt, "it runs", |state| *state == AttemptState::Running).await?;
    ensure!(made(&plane, "resourceclaimtemplates", "ns-3")?.is_empty(), "it needs no claims");
    ensure!(made(&plane, "resourceclaimtemplates", "ns-1")?.len() == 1, "one template for both of its members");

    // A share of what claims give out is refused, with the reason.
    let mut share = asking(4, "L4", "dra-1", 1)?;
    share.placement[0].each.gpu_milli = 250;
    running.start(&share).await?;
    let AttemptState::Failed { message, .. } = running.end(share.attempt).await? else {
        bail!("a share of a device that claims give out does not fail");
    };
    ensure!(message.contains("node dra-1 gives out gpu.nvidia.com now (shares: none)"), "{message}");

    // The next agent finds and ends them, and tells it once their claims are gone.
    drop(running);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover_known().await?;
    for order in [&ours, &other, &plain] {
        running.runtime.stop(order.attempt, 1_000).await?;
        ensure!(running.end(order.attempt).await? == AttemptState::Stopped);
        nothing_left(&client, order.attempt).await?;
        let (claims, templates) = of_attempt(&client, order.attempt).await?;
        ensure!((claims, templates) == (0, 0), "{claims} claims and {templates} templates are left");
    }
    rig.ended(ours.attempt)?;
    equals(&rig, "the gangs are gone", &client, None).await?;
    // Their claim is allocated until its last pod is gone.
    pods.delete("first", &DeleteParams::default().grace_period(1)).await?;
    until("the first pod is gone", async || Ok(pods.get_opt("first").await?.is_none().then_some(()))).await?;
    equals(&rig, "one of two pods has it", &client, None).await?;
    pods.delete("second", &DeleteParams::default().grace_period(1)).await?;
    held(&client, "default", 0).await?;
    equals(&rig, "nobody has any", &client, None).await?;

    // A template that nobody owns any more, as a record that was lost leaves it, goes with the next agent.
    let orphan = asking(7, "L4", "dra-1", 1)?;
    let labels = json!({
        "app.kubernetes.io/managed-by": "tidewater", "tidewater.dev/cluster": "eu-1",
        "tidewater.dev/attempt": orphan.attempt.to_string(),
    });
    let template = json!({
        "metadata": {"name": "orphan", "namespace": "default", "labels": labels},
        "spec": {"spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": CLASS}}]}}},
    });
    Api::<ResourceClaimTemplate>::namespaced(client.clone(), "default")
        .create(&PostParams::default(), &serde_json::from_value(template)?)
        .await?;
    drop(running);
    let mut running = Running::new(client.clone(), settings(&[]));
    running.runtime.recover_known().await?;
    ensure!(running.last(orphan.attempt).await? == AttemptState::Stopped);
    ensure!(of_attempt(&client, orphan.attempt).await? == (0, 0));
    plane.stop();
    Ok(())
}

/// A GPU as NVIDIA's driver describes it.
fn device(number: u32, product: &str) -> Value {
    let attributes = json!({
        "type": {"string": "gpu"}, "productName": {"string": product}, "uuid": {"string": format!("GPU-{number}")},
    });
    json!({"name": format!("gpu-{number}"), "attributes": attributes, "capacity": {"memory": {"value": "80Gi"}}})
}

/// The slice `number` of so many of a node's pool.
async fn slices(client: &Client, node: &str, devices: &[Value], slices: u32, number: u32) -> anyhow::Result<()> {
    let slice = json!({
        "metadata": {"name": format!("{node}-{number}")},
        "spec": {
            "driver": "gpu.nvidia.com", "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": slices},
        },
    });
    Api::<ResourceSlice>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    Ok(())
}

/// A gang on one node, each member with a device of this model.
fn asking(uid: u128, model: &str, node: &str, members: u32) -> anyhow::Result<LaunchOrder> {
    let mut order = order(uid, &format!("ns-{uid}"), members, 1)?;
    let placement = order.placement.first_mut().context("it has a group")?;
    placement.sku = Some(Sku::parse(model)?);
    placement.nodes[0].node = node.parse()?;
    Ok(order)
}

async fn all<K>(client: &Client, labels: &str) -> anyhow::Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    Ok(Api::<K>::all(client.clone()).list(&ListParams::default().labels(labels)).await?.items)
}

/// How many claims and templates of an attempt there are.
async fn of_attempt(client: &Client, attempt: AttemptId) -> anyhow::Result<(usize, usize)> {
    let labels = format!("tidewater.dev/attempt={attempt}");
    let claims = all::<ResourceClaim>(client, &labels).await?.len();
    Ok((claims, all::<ResourceClaimTemplate>(client, &labels).await?.len()))
}

/// The devices of a claim, by pool and name.
fn allocated(claim: &ResourceClaim) -> Vec<(String, String)> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results = allocation.and_then(|a| a.devices.as_ref()).and_then(|devices| devices.results.as_ref());
    results.into_iter().flatten().map(|given| (given.pool.clone(), given.device.clone())).collect()
}

/// Waits until the claims of a namespace hold so many devices, and says on which nodes.
async fn held(client: &Client, namespace: &str, devices: usize) -> anyhow::Result<BTreeSet<String>> {
    let claims: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
    until(&format!("{devices} devices are held in {namespace}"), async || {
        let all: Vec<_> = claims.list(&ListParams::default()).await?.items.iter().flat_map(allocated).collect();
        Ok((all.len() == devices).then(|| all.into_iter().map(|(pool, _)| pool).collect()))
    })
    .await
}

/// A node's model, devices, and those of them that are free, held, others' and out.
type Row = (String, [usize; 5]);

/// The table as it should be, by the API server's own objects; `ours` is the attempt that the rig's journal knows.
async fn recount(client: &Client, ours: Option<AttemptId>) -> anyhow::Result<BTreeMap<String, Row>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    let slices = Api::<ResourceSlice>::all(client.clone()).list(&ListParams::default()).await?.items;
    let claims: Vec<ResourceClaim> = all(client, "").await?;
    let pods: Vec<Pod> = all(client, "").await?;
    let mut rows = BTreeMap::new();
    for name in nodes.into_iter().filter_map(|node| node.metadata.name) {
        let on = |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&name);
        if name == "gpu-0" {
            let asked = |pod: &Pod| {
                let limits = pod.spec.as_ref()?.containers[0].resources.as_ref()?.limits.clone()?;
                limits.get("nvidia.com/gpu")?.0.parse::<usize>().ok()
            };
            let foreign: usize = pods.iter().filter(on).filter_map(asked).sum();
            rows.insert(name, ("H100".to_owned(), [8, 8 - foreign, 0, foreign, 0]));
            continue;
        }
        let model = if name == "dra-0" { "H100" } else { "L4" };
        let (mut row, mut any) = ([0; 5], false);
        for slice in slices.iter().filter(|slice| slice.spec.node_name.as_deref() == Some(&name)) {
            for device in slice.spec.devices.iter().flatten() {
                let text = serde_json::to_value(&device.attributes)?["productName"]["string"].clone();
                if !text.as_str().is_some_and(|product| product.contains(model)) {
                    continue;
                }
                any = true;
                let this = (name.clone(), device.name.clone());
                let holder = claims.iter().find(|claim| allocated(claim).contains(&this));
                let label = holder.and_then(|claim| claim.metadata.labels.as_ref()?.get("tidewater.dev/attempt"));
                let state = match holder {
                    _ if device.taints.is_some() => 4,
                    None => 1,
                    Some(_) if ours.is_some() && label == ours.map(|ours| ours.to_string()).as_ref() => 2,
                    Some(_) => 3,
                };
                row[0] += 1;
                row[state] += 1;
            }
        }
        rows.insert(name, (if any { model } else { "" }.to_owned(), row));
    }
    Ok(rows)
}

fn rows(columns: &Columns) -> BTreeMap<String, Row> {
    let mut first = 0;
    let mut rows = BTreeMap::new();
    for (at, name) in columns.name.iter().enumerate() {
        let devices = &columns.device_state[first..first + usize::from(columns.devices[at])];
        first += devices.len();
        let count = |state| devices.iter().filter(|s| **s == state).count();
        let model = usize::from(columns.sku[at]).checked_sub(1).map_or("", |sku| columns.skus[sku].as_str());
        let [free, held, foreign, sick] =
            [DeviceState::Free, DeviceState::Held, DeviceState::Foreign, DeviceState::Sick].map(count);
        rows.insert(name.to_string(), (model.to_owned(), [devices.len(), free, held, foreign, sick]));
    }
    rows
}

async fn equals(rig: &Rig, what: &str, client: &Client, ours: Option<AttemptId>) -> anyhow::Result<()> {
    let mut expected = BTreeMap::new();
    let looked = until(what, async || {
        expected = recount(client, ours).await?;
        Ok((rows(&rig.columns()) == expected).then_some(()))
    })
    .await;
    eprintln!("    {what}: {expected:?}");
    looked.with_context(|| format!("the table has {:?}, counted are {expected:?}", rows(&rig.columns())))
}
