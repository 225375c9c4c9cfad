//! What a control plane is made of.

use std::path::PathBuf;
use std::time::Duration;

use crate::build::Tool;
use crate::process::Lifetime;

/// A process of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
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
}

impl Component {
    /// All that a control plane may have, in the order in which they start.
    pub const ALL: [Component; 5] =
        [Component::Etcd, Component::ApiServer, Component::ControllerManager, Component::Scheduler, Component::Kwok];

    /// The program that it is.
    pub fn tool(self) -> Tool {
        match self {
            Component::Etcd => Tool::Etcd,
            Component::ApiServer => Tool::ApiServer,
            Component::ControllerManager => Tool::ControllerManager,
            Component::Scheduler => Tool::Scheduler,
            Component::Kwok => Tool::Kwok,
        }
    }

    /// The name of its program, its log and its record.
    pub fn name(self) -> &'static str {
        self.tool().name()
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

    /// The programs that it needs.
    pub fn tools(&self) -> Vec<Tool> {
        Component::ALL.into_iter().filter(|component| self.has(*component)).map(Component::tool).collect()
    }

    /// Whether it has this component.
    pub fn has(&self, component: Component) -> bool {
        matches!(component, Component::Etcd | Component::ApiServer) || self.components.contains(&component)
    }
}
