//! What a control plane is made of.

use std::path::PathBuf;
use std::time::Duration;

use crate::build::Tool;
use crate::node::NodeSettings;
use crate::process::Lifetime;

/// A process of a control plane or of its real node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// Holds the network namespace of the real node: while it lives, the link to the node has addresses.
    NodeNetwork,
    /// The store.
    Etcd,
    /// The API.
    ApiServer,
    /// Jobs' pods, service accounts, node health, garbage.
    ControllerManager,
    /// Binds pods to nodes.
    Scheduler,
    /// Plays the kubelets of nodes that carry [`crate::fake::FAKE_LABEL`].
    Kwok,
    /// The cluster's name server.
    CoreDns,
    /// The operator that runs RayJobs.
    KubeRay,
    /// The operator that runs SparkApplications.
    SparkOperator,
    /// Holds the namespaces of the real node's processes and mounts: they end with it.
    Node,
    /// The real node's containers.
    Containerd,
    /// The real node's kubelet.
    Kubelet,
    /// The real node's way to services.
    KubeProxy,
}

impl Component {
    /// All that a control plane may have, in the order in which they start.
    pub const ALL: [Component; 13] = [
        Component::NodeNetwork,
        Component::Etcd,
        Component::ApiServer,
        Component::ControllerManager,
        Component::Scheduler,
        Component::Kwok,
        Component::CoreDns,
        Component::KubeRay,
        Component::SparkOperator,
        Component::Node,
        Component::Containerd,
        Component::Kubelet,
        Component::KubeProxy,
    ];

    /// The program that it is; `None` for what comes with the machine.
    pub fn tool(self) -> Option<Tool> {
        Some(match self {
            Component::Etcd => Tool::Etcd,
            Component::ApiServer => Tool::ApiServer,
            Component::ControllerManager => Tool::ControllerManager,
            Component::Scheduler => Tool::Scheduler,
            Component::Kwok => Tool::Kwok,
            Component::CoreDns => Tool::CoreDns,
            Component::KubeRay => Tool::KubeRay,
            Component::SparkOperator => Tool::SparkOperator,
            Component::Kubelet => Tool::Kubelet,
            Component::KubeProxy => Tool::KubeProxy,
            Component::NodeNetwork | Component::Node | Component::Containerd => return None,
        })
    }

    /// The name of its program, its log and its record.
    pub fn name(self) -> &'static str {
        match (self, self.tool()) {
            (_, Some(tool)) => tool.name(),
            (Component::NodeNetwork, None) => "node-network",
            (Component::Containerd, None) => "containerd",
            (_, None) => "node",
        }
    }

    /// Whether it belongs to the real node.
    pub(crate) fn is_of_node(self) -> bool {
        self == Component::NodeNetwork || self.is_in_node()
    }

    /// Whether it runs in the real node's namespaces, or holds them.
    pub(crate) fn is_in_node(self) -> bool {
        self >= Component::Node
    }
}

/// Which requests the API server writes into its audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// What changes objects, without events, leases and what kwok writes into status: by it tests count creates and deletes.
    Changes,
    /// Every request: by it tests know which rights somebody used. It costs a line for each.
    Everything,
}

/// A control plane to be started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// An empty folder, or one of an earlier control plane, whose data then is there again.
    pub folder: PathBuf,
    /// What runs beside etcd and the API server, which always run.
    pub components: Vec<Component>,
    /// The real node, if there is one.
    pub node: Option<NodeSettings>,
    /// What is audited.
    pub audit: Audit,
    /// How long the processes live.
    pub lifetime: Lifetime,
    /// How long the start of each part may take before it counts as failed.
    pub patience: Duration,
}

impl Settings {
    /// etcd and the API server alone: no controller, no scheduler, pods without service accounts. The fastest to start.
    pub fn api_only(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            components: vec![],
            node: None,
            audit: Audit::Changes,
            lifetime: Lifetime::Ours,
            patience: Duration::from_secs(240),
        }
    }

    /// A whole control plane.
    pub fn whole(folder: impl Into<PathBuf>) -> Self {
        let components = vec![Component::ControllerManager, Component::Scheduler];
        Self { components, ..Self::api_only(folder) }
    }

    /// A whole control plane that also plays the kubelets of fake nodes.
    pub fn with_fake_nodes(folder: impl Into<PathBuf>) -> Self {
        let components = vec![Component::ControllerManager, Component::Scheduler, Component::Kwok];
        Self { components, ..Self::api_only(folder) }
    }

    /// A whole control plane with a name server and one node that really runs containers.
    pub fn with_real_node(folder: impl Into<PathBuf>, node: NodeSettings) -> Self {
        Self::whole(folder).and_real_node(node)
    }

    /// The same with a real node and the name server that its pods ask.
    #[must_use]
    pub fn and_real_node(self, node: NodeSettings) -> Self {
        Self { node: Some(node), ..self.and(&[Component::CoreDns]) }
    }

    /// The same with these too.
    #[must_use]
    pub fn and(mut self, components: &[Component]) -> Self {
        self.components.extend_from_slice(components);
        self
    }

    /// The programs that it needs.
    pub fn tools(&self) -> Vec<Tool> {
        Component::ALL.into_iter().filter(|component| self.has(*component)).filter_map(Component::tool).collect()
    }

    /// Whether it has this component.
    pub fn has(&self, component: Component) -> bool {
        match component {
            Component::Etcd | Component::ApiServer => true,
            _ if component.is_of_node() => self.node.is_some(),
            _ => self.components.contains(&component),
        }
    }
}
