//! How the Kubernetes runtime is set up for one cluster.

use std::path::PathBuf;
use std::time::Duration;

use protocol::ids::ClusterName;
use protocol::quic::Address;

use crate::runtime::LOG_RETENTION;

/// When a node fetches a container's image (Kubernetes' `imagePullPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// Where the node has it not.
    IfNotPresent,
    /// The node has it already.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// How strictly pods go to the nodes that the decision chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// The scheduler takes them where it can.
    Preferred,
    /// It takes no others.
    Required,
}

/// How what ends itself when it is cut off is guarded in its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    /// An image that has `/usr/bin/tidewater-pod-guard`.
    pub image: String,
    /// Where the guards find the agent, as the agent itself looks it up. Guards get the number, for they ask no name service.
    pub address: Address,
}

/// Settings of one cluster's runtime.
#[derive(Debug, Clone)]
pub struct KubernetesSettings {
    /// The cluster, as its objects' labels name it.
    pub cluster: ClusterName,
    /// The agent's own namespace, in which the records of attempts and the replicas' Lease are kept.
    pub own_namespace: String,
    /// Whether a workload's namespace is made where it is missing.
    pub make_namespaces: bool,
    /// How pods go to the chosen nodes.
    pub pin: Pin,
    /// When images are fetched; none leaves it to Kubernetes.
    pub pull_policy: Option<PullPolicy>,
    /// How attempts are guarded that end themselves when they are cut off; none: no such attempt runs here.
    pub guards: Option<GuardSettings>,
    /// The service account of Spark's drivers, which may make and delete pods, services and config maps in its namespace.
    pub spark_service_account: String,
    /// The priority class of workloads' pods, for the cluster's own scheduler; none: the cluster's default.
    pub priority_class: Option<String>,
    /// That of workloads that may not be preempted; none: that of the others.
    pub firm_priority_class: Option<String>,
    /// Annotations of every pod.
    pub pod_annotations: Vec<(String, String)>,
    /// Where the logs of attempts are kept whose pods are gone; none: they go with the pods.
    pub log_folder: Option<PathBuf>,
    /// For how long.
    pub log_retention: Duration,
    /// How long a pod may be unschedulable, without its image or without what its container needs before the attempt has failed.
    pub start_patience: Duration,
    /// How long a request may go unanswered.
    pub request_timeout: Duration,
    /// How long after the API server's next answer a create that it did not answer may still be carried out: its own
    /// `--request-timeout` (60 s by default) and a margin.
    pub late_create: Duration,
    /// Between two looks at what is not watched.
    pub look_every: Duration,
    /// Between two searches for what no attempt owns.
    pub sweep_every: Duration,
}

impl KubernetesSettings {
    /// The usual settings of this cluster.
    pub fn new(cluster: ClusterName) -> Self {
        Self {
            cluster,
            own_namespace: "tidewater".to_owned(),
            make_namespaces: true,
            pin: Pin::Preferred,
            pull_policy: None,
            guards: None,
            spark_service_account: "spark".to_owned(),
            priority_class: None,
            firm_priority_class: None,
            pod_annotations: vec![],
            log_folder: None,
            log_retention: LOG_RETENTION,
            start_patience: Duration::from_secs(300),
            request_timeout: Duration::from_secs(30),
            late_create: Duration::from_secs(70),
            look_every: Duration::from_secs(5),
            sweep_every: Duration::from_secs(60),
        }
    }
}
