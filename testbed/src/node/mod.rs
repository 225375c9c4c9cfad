//! The real node of a control plane: containerd, kubelet and kube-proxy that run containers on this machine.
//!
//! Everything of it is in namespaces of its own, so that ending it needs no list of what it did: its processes are in a
//! process namespace that dies with its first process, its mounts in a mount namespace, its links and iptables chains in a
//! network namespace that dies with the process that holds it. Beyond them there are only its folder (below the cluster's)
//! and its branch of the cgroups, which `clear` removes. The programs of the node find their fixed places (`/run`,
//! `/var/lib/kubelet`, …) in that mount namespace; the machine's own are never touched.
//!
//! Called by the control plane; touches processes, namespaces, cgroups and that folder.

mod cgroups;
mod configuration;
mod lack;
mod link;
mod namespaces;
mod programs;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::images::{ImageError, Images};
use crate::process::Record;
pub(crate) use lack::find;
pub use lack::{Machine, NodeLack, check, check_with};
pub use link::Link;
pub(crate) use namespaces::{child_of, open_network};
pub(crate) use programs::{PROXY_HEALTH, program};

/// The node's name in its cluster.
pub const NODE_NAME: &str = "real-0";
/// The label that it carries: pods find it, or stay away from it.
pub const REAL_LABEL: (&str, &str) = ("testbed.tidewater.dev/node", "real");

/// How long the kernel may take to end what was in the node's namespaces.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);
/// The longest path of a Unix socket, in bytes.
const SOCKET_PATH: usize = 107;

/// Why a real node is not up, or not gone.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This machine can't.
    #[error(transparent)]
    Lack(#[from] NodeLack),
    /// A file or folder cannot be used.
    #[error("{place}: {cause}")]
    Folder {
        /// Which.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A place that the node's programs would not see.
    #[error("{0}: a cluster with a real node can't have its folder below /run or /var, which its node has of its own")]
    Hidden(PathBuf),
    /// A place whose name is too long.
    #[error(
        "{0}: the path of a socket below it would be longer than {SOCKET_PATH} bytes; use a folder with a shorter path"
    )]
    TooDeep(PathBuf),
    /// No addresses.
    #[error(
        "no range of 512 addresses for the node: what was asked for begins no /23, or all of 10.64.0.0/11 has routes"
    )]
    NoRange,
    /// The network could not be made.
    #[error("the node's network was not made: {said}")]
    Network {
        /// What was answered.
        said: String,
    },
    /// An image could not be given to containerd.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// What was in its namespaces or cgroups does not go.
    #[error("the node in {place} is not gone: {what}")]
    StillThere {
        /// The cluster's folder.
        place: PathBuf,
        /// What is left.
        what: String,
    },
}

/// The real node of a control plane to be started.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// What pods can run. The batch image is among them: each pod's first container is made of it.
    pub images: Images,
    /// Where its 512 addresses begin; `None`: a free range is found below 10.64.0.0/11.
    pub range: Option<Ipv4Addr>,
    /// Told what takes more than a moment while the node starts.
    pub say: Option<fn(&str)>,
}

impl NodeSettings {
    /// A node with these images, and addresses that are found free.
    pub fn new(images: Images) -> Self {
        Self { images, range: None, say: None }
    }
}

/// Where a node's files lie: below `node/` in its cluster's folder.
#[derive(Debug, Clone)]
pub(crate) struct NodeFiles {
    cluster: PathBuf,
}

impl NodeFiles {
    pub(crate) fn of(cluster: &Path) -> Self {
        Self { cluster: cluster.to_owned() }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.cluster.join("node").join(name)
    }

    /// Where containerd answers. Reachable from outside of the namespaces too.
    pub(crate) fn socket(&self) -> PathBuf {
        self.at("containerd.sock")
    }

    /// There once the namespaces have their mounts.
    pub(crate) fn ready(&self) -> PathBuf {
        self.at("ready")
    }

    /// The record of the first process in the namespaces.
    pub(crate) fn init(&self) -> PathBuf {
        self.cluster.join("node-init.pid")
    }

    /// The node's branch of the cgroups, in the folder since nobody else knows its name.
    fn branch(&self) -> PathBuf {
        self.at("cgroup")
    }
}

/// Makes the node's folder with all that its programs read, and its branch of the cgroups.
pub(crate) fn prepare(cluster: &Path, link: Link) -> Result<(), NodeError> {
    let machine = check()?;
    if ["/run", "/var"].iter().any(|hidden| cluster.starts_with(hidden)) {
        return Err(NodeError::Hidden(cluster.to_owned()));
    }
    let files = NodeFiles::of(cluster);
    if files.socket().as_os_str().len() > SOCKET_PATH {
        return Err(NodeError::TooDeep(cluster.to_owned()));
    }
    clear(cluster)?;
    let failed = |place: &Path| {
        let place = place.to_owned();
        move |cause| NodeError::Folder { place, cause }
    };
    for folder in ["containerd", "kubelet", "log", "cni"] {
        fs::create_dir_all(files.at(folder)).map_err(failed(&files.at(folder)))?;
    }
    let name = format!("tidewater-{}", uuid::Uuid::new_v4().simple());
    fs::write(files.branch(), &name).map_err(failed(&files.branch()))?;
    cgroups::make(&name).map_err(failed(Path::new("/sys/fs/cgroup")))?;
    for (file, text) in configuration::all(&files, &machine, link, &name) {
        fs::write(&file, text).map_err(failed(&file))?;
    }
    Ok(())
}

/// Ends what is left in the namespaces of the node of this cluster, waits for it, and removes its branch of the cgroups.
/// Does nothing where there is none.
pub(crate) fn clear(cluster: &Path) -> Result<(), NodeError> {
    let files = NodeFiles::of(cluster);
    let left = |what: String| NodeError::StillThere { place: cluster.to_owned(), what };
    if let Some(init) = Record::read(&files.init()) {
        let began = Instant::now();
        init.signal(Signal::KILL);
        while init.lives() {
            if began.elapsed() > PATIENCE {
                return Err(left(format!("process {}, the first of its namespaces, does not end", init.pid)));
            }
            thread::sleep(LOOK);
        }
        let _ = fs::remove_file(files.init());
    }
    let Ok(branch) = fs::read_to_string(files.branch()) else { return Ok(()) };
    // A name of our own making: never a path that leads elsewhere.
    if branch.starts_with("tidewater-") && !branch.contains('/') {
        cgroups::remove(&branch).map_err(|cause| left(format!("its cgroup {cause}")))?;
    }
    let _ = fs::remove_file(files.branch());
    let _ = fs::remove_file(files.ready());
    Ok(())
}
