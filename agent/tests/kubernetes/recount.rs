//! The table that there should be, counted from the API server's objects as Kubernetes' own types have them. Shares no code
//! with what it checks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, Client};
use protocol::capacity::{Columns, DeviceState, NodeState, Source};

/// One row. Amounts are thousandths of a core and MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub sku: Option<String>,
    pub source: Source,
    pub state: NodeState,
    pub cpu: (i64, i64),
    pub memory: (i64, i64),
    pub devices: usize,
    pub held: usize,
    pub foreign: usize,
    pub free: usize,
}

/// What an attempt of the agent's own journal holds: its label, its node, and cpu, memory and GPUs.
#[derive(Debug, Clone)]
pub struct Own {
    pub label: String,
    pub node: String,
    pub takes: [i64; 3],
}

/// An amount in units of 1/1000, rounded up.
fn milli(quantity: &Quantity) -> anyhow::Result<i64> {
    let text = &quantity.0;
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: i64 = text[..at].parse().with_context(|| text.clone())?;
    Ok(match &text[at..] {
        "" => number * 1000,
        "m" => number,
        "k" => number * 1_000_000,
        "Ki" => (number * 1000) << 10,
        "Mi" => (number * 1000) << 20,
        "Gi" => (number * 1000) << 30,
        "Ti" => (number * 1000) << 40,
        other => bail!("{other} is not used in this test"),
    })
}

/// cpu in thousandths, memory in MiB (requests up, what there is down), GPUs.
fn amounts(list: Option<&BTreeMap<String, Quantity>>, up: bool) -> anyhow::Result<[i64; 3]> {
    let of = |name: &str| list.and_then(|l| l.get(name)).map_or(Ok(0), milli);
    let memory = of("memory")?;
    let mib = 1000 << 20;
    let memory = if up { (memory + mib - 1) / mib } else { memory / mib };
    Ok([of("cpu")?, memory, of("nvidia.com/gpu")? / 1000])
}

/// One container after the other, and the largest moment.
fn of_pod(pod: &Pod) -> anyhow::Result<[i64; 3]> {
    let spec = pod.spec.as_ref().context("a spec")?;
    let requests = |c: &k8s_openapi::api::core::v1::Container| {
        amounts(c.resources.as_ref().and_then(|r| r.requests.as_ref()), true)
    };
    let mut beside = [0; 3];
    let mut most = [0; 3];
    for container in spec.init_containers.iter().flatten() {
        let own = requests(container)?;
        for i in 0..3 {
            most[i] = most[i].max(beside[i] + own[i]);
            if container.restart_policy.is_some() {
                beside[i] += own[i];
            }
        }
    }
    for container in &spec.containers {
        let own = requests(container)?;
        (0..3).for_each(|i| beside[i] += own[i]);
    }
    Ok([0, 1, 2].map(|i| most[i].max(beside[i])))
}

fn live(pod: &Pod) -> Option<&str> {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    let ended = matches!(phase, Some("Succeeded" | "Failed"));
    pod.spec.as_ref()?.node_name.as_deref().filter(|_| !ended)
}

/// Counts everything anew.
pub async fn recount(client: &Client, own: &[Own]) -> anyhow::Result<BTreeMap<String, Row>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?.items;
    let mut rows = BTreeMap::new();
    let labels: BTreeSet<&str> = own.iter().map(|own| &*own.label).collect();
    for node in nodes {
        let name = node.metadata.name.clone().context("a name")?;
        let status = node.status.as_ref().context("a status")?;
        let [cpu, memory, gpus] = amounts(status.allocatable.as_ref(), false)?;
        let mut others = [0; 3];
        for pod in pods.iter().filter(|pod| live(pod) == Some(&name)) {
            let label = pod.metadata.labels.as_ref().and_then(|l| l.get("tidewater.dev/attempt"));
            if label.is_none_or(|label| !labels.contains(&**label)) {
                let takes = of_pod(pod)?;
                (0..3).for_each(|i| others[i] += takes[i]);
            }
        }
        let mut held = [0; 3];
        for own in own.iter().filter(|own| own.node == name) {
            (0..3).for_each(|i| held[i] += own.takes[i]);
        }
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let spec = node.spec.as_ref();
        let tainted = spec.and_then(|s| s.taints.as_ref()).is_some_and(|taints| {
            taints.iter().any(|taint| taint.effect != "PreferNoSchedule" && taint.key != "nvidia.com/gpu")
        });
        let cordoned = spec.and_then(|s| s.unschedulable) == Some(true) || tainted || !ready;
        let product = node.metadata.labels.as_ref().and_then(|l| l.get("nvidia.com/gpu.product"));
        let row = Row {
            sku: product.map(|product| if product == "NVIDIA-H100-80GB-HBM3" { "H100" } else { &**product }.to_owned()),
            source: Source::Label,
            state: if cordoned { NodeState::Cordoned } else { NodeState::Ready },
            cpu: (cpu, cpu - others[0] - held[0]),
            memory: (memory, memory - others[1] - held[1]),
            devices: usize::try_from(gpus)?,
            held: usize::try_from(held[2])?,
            foreign: usize::try_from(others[2])?,
            free: usize::try_from(gpus - others[2] - held[2])?,
        };
        rows.insert(name, row);
    }
    Ok(rows)
}

/// The table in the same words.
pub fn rows(c: &Columns) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut first = 0;
    for (at, name) in c.name.iter().enumerate() {
        let devices = &c.device_state[first..first + usize::from(c.devices[at])];
        first += devices.len();
        let count = |state| devices.iter().filter(|s| **s == state).count();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let row = Row {
            sku: usize::from(c.sku[at]).checked_sub(1).map(|sku| c.skus[sku].to_string()),
            source: c.source[at],
            state: c.state[at],
            cpu: (signed(c.cpu_milli[at]), signed(c.free_cpu_milli[at])),
            memory: (signed(c.memory_mib[at]), signed(c.free_memory_mib[at])),
            devices: devices.len(),
            held: count(DeviceState::Held),
            foreign: count(DeviceState::Foreign),
            free: count(DeviceState::Free),
        };
        rows.insert(name.to_string(), row);
    }
    rows
}
