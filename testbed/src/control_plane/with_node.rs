//! How a control plane starts its real node.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::{Component, ControlPlane, StartError};
use crate::images::{self, ImageError};
use crate::node::{self, NodeError, NodeFiles};

/// What runs in the node's namespaces, in the order in which it starts.
const IN_NODE: [Component; 4] = [Component::Node, Component::Containerd, Component::Kubelet, Component::KubeProxy];

impl ControlPlane {
    /// Before anything else: the API server listens on this link.
    pub(super) async fn open_link(&mut self) -> Result<(), StartError> {
        let Some(link) = self.link else { return Ok(()) };
        node::prepare(&self.settings.folder, link)?;
        self.launch(Component::NodeNetwork)?;
        let holder = self.process(Component::NodeNetwork).and_then(|process| process.pid()).unwrap_or_default();
        Ok(node::open_network(holder, link).await?)
    }

    /// Starts the node's programs and gives it its images; [`until_node_ready`](Self::until_node_ready) waits for the rest.
    pub(super) async fn start_node(&mut self) -> Result<(), StartError> {
        if self.link.is_none() {
            return Ok(());
        }
        for component in IN_NODE {
            self.launch(component)?;
            if component == Component::Node {
                // Nothing can enter namespaces before they are there.
                self.until_ready(component).await?;
            }
            self.stand_for_inner(component).await?;
            if component == Component::Containerd {
                self.until_ready(component).await?;
                self.import().await?;
            }
        }
        Ok(())
    }

    pub(super) async fn until_node_ready(&mut self) -> Result<(), StartError> {
        if self.link.is_none() {
            return Ok(());
        }
        self.until_ready(Component::KubeProxy).await?;
        self.until_ready(Component::Kubelet).await
    }

    /// Gives its real node an image that is in an archive, for pods with `imagePullPolicy: Never` or `IfNotPresent`.
    pub fn load_image(&self, archive: &Path) -> Result<(), ImageError> {
        images::load(archive, &NodeFiles::of(&self.settings.folder).socket())
    }

    /// A program of this machine, to be run on the real node: in its namespaces, where it finds the kubelet's sockets. None without one.
    pub fn command_in_node(&self, program: &Path) -> Option<Command> {
        let holder = self.process(Component::Node)?.inner()?.pid;
        let mut command = Command::new("nsenter");
        command.args(["--target", &holder.to_string(), "--net", "--mount", "--pid"]).arg(program);
        Some(command)
    }

    /// Starts the real node again after [`Component::Node`] was killed, with the images and pods that it had.
    pub async fn start_node_again(&mut self) -> Result<(), StartError> {
        self.kill(Component::Node);
        if let Some(link) = self.link {
            node::prepare(&self.settings.folder, link)?;
        }
        self.start_node().await?;
        self.until_node_ready().await
    }

    /// The process whose namespaces a component of the node starts in.
    pub(super) fn holder_of(&self, component: Component) -> i32 {
        let holder = match component {
            Component::NodeNetwork => None,
            Component::Node => self.process(Component::NodeNetwork).and_then(|network| network.pid()),
            _ => self.process(Component::Node).and_then(|node| Some(node.inner()?.pid)),
        };
        holder.unwrap_or_default()
    }

    /// Has signals to a component of the node reach the program itself, not what entered the namespaces for it.
    pub(super) async fn stand_for_inner(&mut self, component: Component) -> Result<(), StartError> {
        if !component.is_in_node() {
            return Ok(());
        }
        let Some(process) = self.processes.get_mut(&component) else { return Ok(()) };
        // One that has ended already has none; waiting for it to be ready tells why.
        let Some(inner) = node::child_of(process.pid().unwrap_or_default()).await else { return Ok(()) };
        if component == Component::Node {
            let place = NodeFiles::of(&self.settings.folder).init();
            inner.write(&place).map_err(|cause| NodeError::Folder { place, cause })?;
        }
        process.stands_for(inner);
        Ok(())
    }

    async fn import(&self) -> Result<(), StartError> {
        let Some(settings) = &self.settings.node else { return Ok(()) };
        let socket = NodeFiles::of(&self.settings.folder).socket();
        for image in settings.images.images() {
            let (images, image, socket, began) = (settings.images.clone(), *image, socket.clone(), Instant::now());
            if let Some(say) = settings.say {
                say(&format!("giving the node the image {}, {} MiB", image.reference(), images.mib(image)));
            }
            let done = tokio::task::spawn_blocking(move || images.import(image, &socket)).await;
            let failed = |cause: tokio::task::JoinError| std::io::Error::other(cause.to_string());
            done.map_err(|cause| StartError::Program { name: "ctr", cause: failed(cause) })?
                .map_err(NodeError::from)?;
            if let Some(say) = settings.say {
                say(&format!("the node has {} after {:.1} s", image.reference(), began.elapsed().as_secs_f64()));
            }
        }
        Ok(())
    }
}
