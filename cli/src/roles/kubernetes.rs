//! How an agent reaches its Kubernetes cluster and runs attempts in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::kube::Access;
use agent::kube::leadership::{LeaseSettings, LeaseTimes};
use agent::kube::review::NodeTokens;
use agent::run::Kubernetes;
use agent::runtime::kubernetes::{GuardSettings, KubernetesSettings, Pin, PullPolicy};
use protocol::ids::ClusterName;
use protocol::quic::Address;
use protocol::resources::Span;

/// The cluster is a Kubernetes cluster.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesArgs {
    /// Take nodes, and what pods leave free of them, from the cluster's Kubernetes, and run workloads in it; nodes of the fleet file are
    /// not declared then
    #[arg(long)]
    pub kubernetes: bool,
    /// The kubeconfig for that; left out: the service account of the pod in which the agent runs
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    pub kubeconfig: Option<PathBuf>,
    /// The context in the kubeconfig; left out: its current one
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
    /// The agent's own namespace, where it keeps its records and its replicas' Lease; made where it is missing
    #[arg(long, value_name = "NAME", requires = "kubernetes", default_value = "tidewater")]
    pub own_namespace: String,
    /// Make no namespaces: a workload whose namespace the cluster does not have fails
    #[arg(long, requires = "kubernetes")]
    pub keep_namespaces: bool,
    /// How strictly pods go to the nodes that were chosen for them
    #[arg(long, requires = "kubernetes", value_name = "HOW", default_value = "preferred")]
    pub pin: PinTo,
    /// When nodes fetch images; left out: as Kubernetes does by itself
    #[arg(long, requires = "kubernetes", value_name = "WHEN")]
    pub image_pull_policy: Option<Pull>,
    /// Where the guards of workloads with onClusterLoss: failover ask this agent whether to go on, IP:PORT over TCP; left out: no such
    /// workload is placed here
    #[arg(long, requires_all = ["kubernetes", "guard_address", "guard_image"], value_name = "ADDRESS")]
    pub listen_guards: Option<SocketAddr>,
    /// Where pods reach that, HOST:PORT, such as that of a Service of this agent
    #[arg(long, requires = "listen_guards", value_name = "HOST:PORT")]
    pub guard_address: Option<Address>,
    /// The image from which the guard is copied into pods: Tidewater's own
    #[arg(long, requires = "listen_guards", value_name = "IMAGE")]
    pub guard_image: Option<String>,
    /// The service account of Spark's drivers: it must be there in each namespace that Spark runs in, and may make and delete pods there
    #[arg(long, requires = "kubernetes", value_name = "NAME", default_value = "spark")]
    pub spark_service_account: String,
    /// The priority class of all pods that are made, by which the cluster's own scheduler ranks them; left out: the cluster's default
    #[arg(long, requires = "kubernetes", value_name = "NAME")]
    pub priority_class: Option<String>,
    /// The priority class of the pods of workloads that may not be preempted; left out: as --priority-class says
    #[arg(long, requires = "kubernetes", value_name = "NAME")]
    pub firm_priority_class: Option<String>,
    /// An annotation of every pod that is made; once for each
    #[arg(long = "pod-annotation", requires = "kubernetes", value_name = "NAME=VALUE")]
    pub pod_annotations: Vec<Annotation>,
    /// The service account of the pods that may come in as nodes; left out: `node` in the agent's own namespace
    #[arg(long, requires = "kubernetes", value_name = "NAMESPACE/NAME")]
    pub node_account: Option<Account>,
    /// The audience that those pods' tokens must be made for
    #[arg(long, requires = "kubernetes", value_name = "TEXT", default_value = "tidewater-agent")]
    pub node_audience: String,
    /// How long other replicas of this agent wait before one takes over that no longer renews its Lease
    #[arg(long, requires = "kubernetes", value_name = "TIME", default_value = "15s")]
    pub lease_duration: Span,
    /// How long a replica acts after the last renewal of its Lease; shorter than --lease-duration
    #[arg(long, requires = "kubernetes", value_name = "TIME", default_value = "10s")]
    pub lease_renew_deadline: Span,
    /// How often it renews
    #[arg(long, requires = "kubernetes", value_name = "TIME", default_value = "2s")]
    pub lease_retry: Span,
}

/// A name and a value: `cluster-autoscaler.kubernetes.io/safe-to-evict=false`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

impl std::str::FromStr for Annotation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => Err(format!("{text:?}: write an annotation's name and value, such as example.org/team=vision")),
        }
    }
}

/// A service account: `tidewater-nodes/node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for Account {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |part: &str| !part.is_empty() && !part.contains(['/', ':']);
        match text.split_once('/') {
            Some((namespace, name)) if plain(namespace) && plain(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("{text:?}: write a service account's namespace and name, such as tidewater-nodes/node")),
        }
    }
}

/// How strictly pods go to the chosen nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PinTo {
    /// Where the scheduler can
    Preferred,
    /// Nowhere else
    Required,
}

/// When nodes fetch images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pull {
    /// At every start
    Always,
    /// Where the node has it not
    IfNotPresent,
    /// The nodes have them
    Never,
}

impl KubernetesArgs {
    /// What they mean for the agent of this cluster, which may keep logs in this folder; none where it is no Kubernetes cluster.
    pub fn of(&self, cluster: &ClusterName, data_dir: Option<&Path>) -> Option<Kubernetes> {
        let access = match &self.kubeconfig {
            _ if !self.kubernetes => return None,
            Some(file) => Access::Kubeconfig { file: file.clone(), context: self.context.clone() },
            None => Access::InCluster,
        };
        let settings = KubernetesSettings {
            own_namespace: self.own_namespace.clone(),
            make_namespaces: !self.keep_namespaces,
            pin: match self.pin {
                PinTo::Preferred => Pin::Preferred,
                PinTo::Required => Pin::Required,
            },
            pull_policy: self.image_pull_policy.map(|pull| match pull {
                Pull::Always => PullPolicy::Always,
                Pull::IfNotPresent => PullPolicy::IfNotPresent,
                Pull::Never => PullPolicy::Never,
            }),
            guards: self
                .guard_image
                .clone()
                .zip(self.guard_address.clone())
                .map(|(image, address)| GuardSettings { image, address }),
            spark_service_account: self.spark_service_account.clone(),
            priority_class: self.priority_class.clone(),
            firm_priority_class: self.firm_priority_class.clone(),
            pod_annotations: self.pod_annotations.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
            log_folder: data_dir.map(|folder| folder.join("logs")),
            ..KubernetesSettings::new(cluster.clone())
        };
        let time = |span: Span| Duration::from_millis(span.0);
        let lease = LeaseSettings {
            namespace: self.own_namespace.clone(),
            name: format!("agent-{cluster}"),
            make_namespace: !self.keep_namespaces,
            times: LeaseTimes {
                duration: time(self.lease_duration),
                renew_deadline: time(self.lease_renew_deadline),
                retry: time(self.lease_retry),
            },
        };
        let (namespace, name) = match &self.node_account {
            Some(Account { namespace, name }) => (&**namespace, &**name),
            None => (&*self.own_namespace, "node"),
        };
        let account = format!("system:serviceaccount:{namespace}:{name}");
        let nodes = NodeTokens { audience: self.node_audience.clone(), account };
        Some(Kubernetes { access, settings, lease, nodes, listen_guards: self.listen_guards })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        kubernetes: KubernetesArgs,
    }

    #[test]
    fn logs_are_kept_where_a_folder_is_named_and_nowhere_else() {
        let args = Alone::try_parse_from(["agent", "--kubernetes"]).unwrap().kubernetes;
        let folder = |data_dir| args.of(&"eu".parse().unwrap(), data_dir).unwrap().settings.log_folder;
        assert_eq!(folder(Some(Path::new("/data"))), Some(PathBuf::from("/data/logs")));
        assert_eq!(folder(None), None);
    }

    #[test]
    fn nodes_are_of_the_account_that_is_named_or_of_one_beside_the_agent() {
        let of = |more: &[&str]| {
            let args = Alone::try_parse_from([&["agent", "--kubernetes"], more].concat()).unwrap().kubernetes;
            args.of(&"eu".parse().unwrap(), None).unwrap().nodes.account
        };
        assert_eq!(of(&[]), "system:serviceaccount:tidewater:node");
        assert_eq!(of(&["--own-namespace", "a"]), "system:serviceaccount:a:node");
        assert_eq!(of(&["--node-account", "b/c"]), "system:serviceaccount:b:c");
        for wrong in ["", "c", "/c", "b/", "b/c/d", "b:c/d"] {
            assert!(wrong.parse::<Account>().is_err(), "{wrong}");
        }
    }
}
