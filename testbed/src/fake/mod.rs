//! Fleets of nodes that are not there: objects in the API server whose kubelets kwok plays. As many as the API server
//! takes, with any devices and labels.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};

/// How kwok plays kubelets.
pub(crate) const STAGES: &str = include_str!("stages.yaml");

/// The label by which kwok knows its nodes.
pub const FAKE_LABEL: (&str, &str) = ("testbed.tidewater.dev/node", "fake");

/// How many requests are on their way at once: an API server takes most creates a second from there on.
const AT_ONCE: usize = 64;
/// Between two looks at a fleet that is becoming ready, at least; and in looks' own lengths, so that looking at thousands
/// of nodes does not slow down what it waits for.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS_APART: u32 = 10;

/// Nodes that are alike.
#[derive(Debug, Clone)]
pub struct FakeNodes {
    /// Their names are this, a dash and a number from 0.
    pub prefix: String,
    /// How many.
    pub count: u32,
    /// Devices of each (`nvidia.com/gpu`); none: a node without GPUs.
    pub gpus: u32,
    /// The model, as NVIDIA's feature discovery labels it (`nvidia.com/gpu.product`).
    pub product: String,
    /// The memory of each device, in MiB.
    pub gpu_memory_mib: u64,
    /// Cores, in thousandths.
    pub cpu_milli: u64,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// More labels.
    pub labels: BTreeMap<String, String>,
}

impl FakeNodes {
    /// Nodes of 8 H100, 192 cores and 2 TiB.
    pub fn h100(prefix: &str, count: u32) -> Self {
        Self {
            prefix: prefix.to_owned(),
            count,
            gpus: 8,
            product: "NVIDIA-H100-80GB-HBM3".to_owned(),
            gpu_memory_mib: 81_559,
            cpu_milli: 192_000,
            memory_mib: 2_097_152,
            labels: BTreeMap::new(),
        }
    }

    /// Makes them, many at once. Returns once the API server has all of them; they are ready when kwok has seen them.
    pub async fn make(&self, client: &Client) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = &nodes;
        stream::iter(0..self.count)
            .map(|number| async move { nodes.create(&PostParams::default(), &self.node(number)).await.map(drop) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// One of them, as its kubelet would register it.
    pub fn node(&self, number: u32) -> Node {
        let name = format!("{}-{number}", self.prefix);
        let mut amounts = BTreeMap::from([
            ("cpu".to_owned(), Quantity(format!("{}m", self.cpu_milli))),
            ("memory".to_owned(), Quantity(format!("{}Mi", self.memory_mib))),
            ("ephemeral-storage".to_owned(), Quantity("1Ti".to_owned())),
            ("pods".to_owned(), Quantity("110".to_owned())),
        ]);
        let mut labels = self.labels.clone();
        labels.insert(FAKE_LABEL.0.to_owned(), FAKE_LABEL.1.to_owned());
        labels.insert("kubernetes.io/hostname".to_owned(), name.clone());
        // Kubelets set the old names too; without them the node controller would, by a write for each node.
        for prefix in ["", "beta."] {
            labels.insert(format!("{prefix}kubernetes.io/os"), "linux".to_owned());
            labels.insert(format!("{prefix}kubernetes.io/arch"), "amd64".to_owned());
        }
        if self.gpus > 0 {
            amounts.insert("nvidia.com/gpu".to_owned(), Quantity(self.gpus.to_string()));
            labels.insert("nvidia.com/gpu.product".to_owned(), self.product.clone());
            labels.insert("nvidia.com/gpu.count".to_owned(), self.gpus.to_string());
            labels.insert("nvidia.com/gpu.memory".to_owned(), self.gpu_memory_mib.to_string());
            labels.insert("nvidia.com/gpu.present".to_owned(), "true".to_owned());
        }
        Node {
            metadata: ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() },
            spec: None,
            status: Some(NodeStatus {
                allocatable: Some(amounts.clone()),
                capacity: Some(amounts),
                node_info: Some(NodeSystemInfo {
                    architecture: "amd64".to_owned(),
                    operating_system: "linux".to_owned(),
                    kubelet_version: "v1.34.3-kwok".to_owned(),
                    container_runtime_version: "kwok://0.8.0".to_owned(),
                    ..NodeSystemInfo::default()
                }),
                ..NodeStatus::default()
            }),
        }
    }
}

/// Waits until this many fake nodes are ready; how many were when the time was over is the error.
pub async fn until_ready(client: &Client, wanted: usize, within: Duration) -> kube::Result<Result<(), usize>> {
    let nodes: Api<Node> = Api::all(client.clone());
    // From the API server's memory: a look costs etcd nothing.
    let fake = ListParams::default().labels(&format!("{}={}", FAKE_LABEL.0, FAKE_LABEL.1)).match_any();
    let began = Instant::now();
    loop {
        let look = Instant::now();
        let ready = nodes.list(&fake).await?.items.iter().filter(|node| is_ready(node)).count();
        if ready >= wanted {
            return Ok(Ok(()));
        }
        if began.elapsed() > within {
            return Ok(Err(ready));
        }
        tokio::time::sleep(LOOK.max(look.elapsed() * LOOKS_APART)).await;
    }
}

/// Whether a node takes pods: its kubelet says that it is ready, and no taint of the first moment is left.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let says = |c: &NodeCondition| c.type_ == "Ready" && c.status == "True";
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let barred = taints.is_some_and(|taints| taints.iter().any(|t| t.key == "node.kubernetes.io/not-ready"));
    conditions.is_some_and(|conditions| conditions.iter().any(says)) && !barred
}
