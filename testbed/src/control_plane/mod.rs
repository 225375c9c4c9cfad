//! One control plane: its folder, its processes, its end.
//!
//! The folder holds everything (data, certificates, kubeconfigs, logs, the audit log, each process's record), so that a
//! control plane that was ended can be started there again with what it had.

mod arguments;
mod audit;
mod credentials;
mod extensions;
mod ports;
mod ready;
mod settings;
mod with_node;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kube::Client;
use rustix::process::Signal;

use crate::build::{Binaries, BuildError};
use crate::client::{self, ClientError};
use crate::node::{self, Link, NodeError, NodeSettings};
use crate::process::{Process, Program, tail};
pub use audit::Audited;
pub use credentials::CredentialsError;
use credentials::Files;
use ports::Ports;
pub use ports::free_port;
pub use settings::{Audit, Component, Settings};

/// How often a start is tried with other ports when somebody took one meanwhile.
const PORT_TRIES: u32 = 3;
/// How long a component has to end by itself. It keeps nothing that a kill would lose: etcd's data is on disk.
const PATIENCE_AT_END: Duration = Duration::from_secs(2);

/// Why a control plane is not up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder cannot be used.
    #[error("{place}: {cause}")]
    Folder {
        /// The file or folder.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Its credentials cannot be made.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Its real node is not up.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// An operator's custom resources are not there.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An operator's custom resources were refused.
    #[error("the custom resources of {name} were not made: {cause}")]
    CustomResources {
        /// Whose.
        name: &'static str,
        /// What the API server said.
        cause: Box<kube::Error>,
    },
    /// Its kubeconfig is not taken.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A program was not asked for when the programs were provided.
    #[error("{0} is not among the programs that were provided; ask for Settings::tools()")]
    NotProvided(&'static str),
    /// A program cannot be started.
    #[error("{name} cannot be started: {cause}")]
    Program {
        /// Which.
        name: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A program ended instead of being ready.
    #[error("{name} ended ({status}) before it was ready; the end of {log}:\n{end}")]
    Ended {
        /// Which.
        name: &'static str,
        /// How.
        status: String,
        /// All that it said.
        log: PathBuf,
        /// The last lines.
        end: String,
    },
    /// A program runs and is not ready.
    #[error("{name} was not ready within {} s ({last}); the end of {log}:\n{end}", patience.as_secs())]
    NotReady {
        /// Which.
        name: &'static str,
        /// How long it had.
        patience: Duration,
        /// What it answered last.
        last: String,
        /// All that it said.
        log: PathBuf,
        /// The last lines.
        end: String,
    },
}

impl StartError {
    fn is_a_taken_port(&self) -> bool {
        matches!(self, StartError::Ended { end, .. } if end.contains("address already in use"))
    }
}

/// A control plane that runs. Dropping it ends its processes.
pub struct ControlPlane {
    settings: Settings,
    binaries: Binaries,
    files: Files,
    ports: Ports,
    link: Option<Link>,
    client: Client,
    processes: BTreeMap<Component, Process>,
    ready_in: Duration,
}

impl ControlPlane {
    /// Starts one and waits until it is ready: the API server says so, each other component says that it is healthy, and
    /// pods can be made in the namespace `default`.
    pub async fn start(binaries: &Binaries, settings: Settings) -> Result<Self, StartError> {
        let mut tries = 1;
        loop {
            match Self::try_start(binaries, settings.clone()).await {
                Err(error) if error.is_a_taken_port() && tries < PORT_TRIES => tries += 1,
                outcome => return outcome,
            }
        }
    }

    async fn try_start(binaries: &Binaries, mut settings: Settings) -> Result<Self, StartError> {
        let began = Instant::now();
        let unusable = |place: &Path| {
            let place = place.to_owned();
            move |cause| StartError::Folder { place, cause }
        };
        fs::create_dir_all(&settings.folder).map_err(unusable(&settings.folder))?;
        // Programs stand in the folder and are told of it: both need its whole path.
        settings.folder = fs::canonicalize(&settings.folder).map_err(unusable(&settings.folder))?;
        let files = Files::of(&settings.folder);
        let ports = Ports::free().map_err(unusable(&settings.folder))?;
        let link = settings.node.as_ref().map(|node| Link::choose(&settings.folder, node.range)).transpose()?;
        let api_server = SocketAddrV4::new(link.map_or(Ipv4Addr::LOCALHOST, Link::host), ports.api_server);
        credentials::provide(&files, api_server)?;
        write_configurations(&files, &settings, ports, link)?;
        let client = client::connect(&files.at("kubeconfig")).await?;
        let (binaries, processes) = (binaries.clone(), BTreeMap::new());
        let mut plane = Self { settings, binaries, files, ports, link, client, processes, ready_in: Duration::ZERO };
        plane.open_link().await?;
        // The API server waits for etcd by itself.
        plane.launch(Component::Etcd)?;
        plane.launch(Component::ApiServer)?;
        plane.until_ready(Component::ApiServer).await?;
        plane.start_node().await?;
        let of_its_own = |c: &Component| matches!(c, Component::Etcd | Component::ApiServer) || c.is_of_node();
        let others = Component::ALL.into_iter().filter(|c| !of_its_own(c) && plane.settings.has(*c));
        let others: Vec<Component> = others.collect();
        for component in &others {
            extensions::install(&plane.client, &plane.binaries, *component).await?;
            plane.launch(*component)?;
        }
        for component in others {
            plane.until_ready(component).await?;
        }
        plane.until_node_ready().await?;
        plane.ready_in = began.elapsed();
        Ok(plane)
    }

    /// How long the start took.
    pub fn ready_in(&self) -> Duration {
        self.ready_in
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.settings.folder
    }

    /// The kubeconfig of its administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.files.at("kubeconfig")
    }

    /// Its real node as it was asked for.
    pub fn node(&self) -> Option<&NodeSettings> {
        self.settings.node.as_ref()
    }

    /// The addresses between it and its real node, if it has one.
    pub fn link(&self) -> Option<Link> {
        self.link
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Makes these custom resources, and returns once the API server serves them.
    pub async fn serve(&self, definitions: &[serde_json::Value]) -> kube::Result<()> {
        extensions::serve(&self.client, definitions).await
    }

    /// What the API server has audited so far.
    pub fn audited(&self) -> io::Result<Vec<Audited>> {
        audit::read(&self.files.at("audit.log"))
    }

    /// A component's process, if it runs.
    pub fn process(&self, component: Component) -> Option<&Process> {
        self.processes.get(&component)
    }

    /// The ids of its processes.
    pub fn pids(&self) -> Vec<i32> {
        self.processes.values().filter_map(Process::pid).collect()
    }

    /// Kills a component, as a crash would.
    ///
    /// [`Component::Node`] takes all that runs in it along, as a power cut would; [`start_node_again`](Self::start_node_again)
    /// brings it back.
    pub fn kill(&mut self, component: Component) {
        if let Some(mut process) = self.processes.remove(&component) {
            process.end(Duration::ZERO);
        }
        if component == Component::Node {
            self.processes.retain(|component, _| !component.is_in_node());
        }
    }

    /// Stalls a component: it stays connected and answers nobody until it is [resumed](Self::resume).
    pub fn stall(&self, component: Component) {
        if let Some(process) = self.process(component) {
            process.stall();
        }
    }

    /// Lets a stalled component go on.
    pub fn resume(&self, component: Component) {
        if let Some(process) = self.process(component) {
            process.signal(Signal::CONT);
        }
    }

    /// Starts a component that was killed, at the same address with the same data, and waits until it is ready.
    pub async fn start_again(&mut self, component: Component) -> Result<(), StartError> {
        self.kill(component);
        self.launch(component)?;
        self.stand_for_inner(component).await?;
        self.until_ready(component).await
    }

    /// Ends its processes, those that use others first. The folder stays.
    pub fn stop(self) {
        // Cgroups that the kernel does not let go of are removed by the next start in the folder.
        let _ = self.end();
    }

    /// The same, and says whether anything of its real node is left.
    pub fn end(mut self) -> Result<(), NodeError> {
        while let Some((_, mut process)) = self.processes.pop_last() {
            process.end(PATIENCE_AT_END);
        }
        node::clear(&self.settings.folder)
    }

    /// Lets its processes run on; their records in the folder say who they are. Of use to those started as
    /// [`Detached`](crate::process::Lifetime::Detached).
    pub fn release(mut self) {
        std::mem::take(&mut self.processes).into_values().for_each(Process::release);
    }

    fn launch(&mut self, component: Component) -> Result<(), StartError> {
        let name = component.name();
        let binary = match component.tool() {
            Some(tool) => Some(self.binaries.path(tool).ok_or(StartError::NotProvided(name))?),
            None => None,
        };
        let (settings, files, ports, link) = (&self.settings, &self.files, self.ports, self.link);
        let (path, arguments) = match (binary, link) {
            (Some(binary), _) if !component.is_of_node() => {
                (binary.to_owned(), arguments::of(component, settings, files, ports, link))
            }
            (_, Some(link)) => node::program(component, &settings.folder, link, binary, self.holder_of(component)),
            (_, None) => return Err(StartError::NotProvided(name)),
        };
        let program = Program {
            name,
            path,
            arguments,
            environment: arguments::environment(component, settings, files, ports, link),
            folder: self.settings.folder.clone(),
            lifetime: self.settings.lifetime,
        };
        let process = program.start().map_err(|cause| StartError::Program { name, cause })?;
        self.processes.insert(component, process);
        Ok(())
    }

    /// Waits for a component, and sees at once when it or one that it needs ends.
    async fn until_ready(&mut self, component: Component) -> Result<(), StartError> {
        let began = Instant::now();
        let probe = ready::Probe::of(component, &self.files, self.ports, &self.client, self.link).await?;
        loop {
            let last = match probe.ask().await {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            for (component, process) in &mut self.processes {
                if let Some(status) = process.ended() {
                    let log = process.program().log();
                    let end = tail(&log);
                    return Err(StartError::Ended { name: component.name(), status: status.to_string(), log, end });
                }
            }
            let patience = self.settings.patience;
            if began.elapsed() > patience {
                let log = self.files.at(&format!("{}.log", component.name()));
                let end = tail(&log);
                return Err(StartError::NotReady { name: component.name(), patience, last, log, end });
            }
            tokio::time::sleep(ready::LOOK).await;
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Those that use others first, so that none complains of a lost server while it ends.
        let any = !self.processes.is_empty();
        while self.processes.pop_last().is_some() {}
        if any {
            // What it could not remove the next start in this folder removes.
            let _ = node::clear(&self.settings.folder);
        }
    }
}

fn write_configurations(
    files: &Files,
    settings: &Settings,
    ports: Ports,
    link: Option<Link>,
) -> Result<(), CredentialsError> {
    let write = |name: &str, text: &str| credentials::write_private(&files.at(name), text);
    write("audit-policy.yaml", &audit::policy(settings.audit))?;
    write("kwok.yaml", crate::fake::STAGES)?;
    write("Corefile", &arguments::corefile(files, ports, link))?;
    let scheduler = serde_json::json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": files.kubeconfig_of(Component::Scheduler), "qps": 500, "burst": 1000},
        "leaderElection": {"leaderElect": false},
    });
    write("scheduler.yaml", &format!("{scheduler:#}\n"))
}
