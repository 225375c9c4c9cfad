//! The test bed by hand: control planes that outlive the command that started them. A folder is all the state there is:
//! each cluster's folder below it holds the records of its processes, so that any later command can find and end exactly
//! these. Called by `xtask`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use rustix::process::Signal;

use crate::build::{Binaries, BuildError, Progress};
use crate::control_plane::{Component, ControlPlane, Settings, StartError};
use crate::fake::{self, FakeNodes};
use crate::folders::folder_of_user;
use crate::images::{Image, ImageError, Images};
use crate::node::{self, Link, NODE_NAME, NodeError, NodeLack, NodeSettings};
use crate::process::{Lifetime, Record};

/// How long processes have to end by themselves.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);
/// How long fake nodes may take to be ready: for each thousand, and at least.
const NODES_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Why the bed is not up, or not down.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// Its folder cannot be used.
    #[error("{place}: {cause}")]
    Folder {
        /// The file or folder.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another command is at it.
    #[error("another `up` or `down` is at work on {0}; wait for its end")]
    Busy(PathBuf),
    /// It is up already.
    #[error("{count} processes of an earlier `up` still run in {folder}; end them with `cargo xtask kubernetes down`")]
    AlreadyUp {
        /// How many.
        count: usize,
        /// Where their records are.
        folder: PathBuf,
    },
    /// Processes that do not end.
    #[error("{0} processes are still there; look at them with `cargo xtask kubernetes status`")]
    StillThere(usize),
    /// A program is missing.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// This machine can't run a real node.
    #[error(transparent)]
    Lack(#[from] NodeLack),
    /// An image is missing.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A real node that does not go.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A control plane did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Fake nodes were refused.
    #[error("the fake nodes of {cluster} were not made: {cause}")]
    Nodes {
        /// Where.
        cluster: String,
        /// What the API server said.
        cause: Box<kube::Error>,
    },
    /// Fake nodes that are not ready in time.
    #[error("{ready} of {wanted} fake nodes of {cluster} were ready in time; kwok's log is in its folder")]
    NotReady {
        /// Where.
        cluster: String,
        /// How many were.
        ready: usize,
        /// How many should be.
        wanted: usize,
    },
}

/// What `up` starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many control planes.
    pub clusters: u32,
    /// How many nodes of 8 fake GPUs each of them has.
    pub fake_nodes: u32,
    /// The real node of the first of them, if it has one.
    pub real_node: Option<RealNode>,
}

/// What a real node has beside its containers.
#[derive(Debug, Clone, Default)]
pub struct RealNode {
    /// What pods can run beside the batch image.
    pub images: Vec<Image>,
    /// The operators beside the control plane: [`Component::KubeRay`], [`Component::SparkOperator`].
    pub operators: Vec<Component>,
    /// Told what takes more than a moment while the node starts.
    pub say: Option<fn(&str)>,
}

/// A cluster of the bed.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// `cluster-1` and so on.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its processes as they were started, in the order of [`Component::ALL`].
    pub processes: Vec<(Component, Record)>,
}

impl Cluster {
    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The addresses between it and its real node, if it has one.
    pub fn link(&self) -> Option<Link> {
        Link::read(&self.folder)
    }
}

/// The bed in one folder.
#[derive(Debug, Clone)]
pub struct Bed {
    folder: PathBuf,
}

impl Bed {
    /// `$XDG_STATE_HOME/tidewater/kubernetes`, else `~/.local/state/tidewater/kubernetes`.
    pub fn default_folder() -> PathBuf {
        folder_of_user("XDG_STATE_HOME", ".local/state", "kubernetes")
    }

    /// The bed whose state is in this folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts control planes side by side, and returns once all are ready. They run on afterwards. If one fails or this is
    /// dropped before its end, none is left.
    pub async fn up(&self, plan: &Plan, progress: Progress<'_>) -> Result<Vec<Cluster>, BedError> {
        let _only_one = self.lock()?;
        let running = self.clusters()?.iter().flat_map(|c| &c.processes).filter(|(_, record)| record.lives()).count();
        if running > 0 {
            return Err(BedError::AlreadyUp { count: running, folder: self.folder.clone() });
        }
        self.clear()?;
        let node = match &plan.real_node {
            Some(real) => {
                node::check_with(&real.operators)?;
                let images = Images::provide(&real.images, progress)?;
                Some((real, NodeSettings { say: real.say, ..NodeSettings::new(images) }))
            }
            None => None,
        };
        let settings = |number: u32| {
            let folder = self.folder.join(format!("cluster-{number}"));
            let settings =
                if plan.fake_nodes > 0 { Settings::with_fake_nodes(folder) } else { Settings::whole(folder) };
            let settings = match &node {
                Some((real, node)) if number == 1 => settings.and_real_node(node.clone()).and(&real.operators),
                _ => settings,
            };
            Settings { lifetime: Lifetime::Detached, ..settings }
        };
        let binaries = Binaries::provide(&settings(1).tools(), progress)?;
        let starts = (1..=plan.clusters).map(|number| {
            let (settings, binaries) = (settings(number), &binaries);
            async move {
                let plane = ControlPlane::start(binaries, settings).await?;
                progress(&format!("cluster-{number} is ready after {:.1} s", plane.ready_in().as_secs_f64()));
                if let Some(node) = plane.node() {
                    let images: Vec<String> = node.images.images().iter().map(|image| image.reference()).collect();
                    progress(&format!("cluster-{number}'s node {NODE_NAME} runs containers of {}", images.join(", ")));
                }
                fill(&plane, &format!("cluster-{number}"), plan.fake_nodes, progress).await?;
                Ok::<_, BedError>(plane)
            }
        });
        let planes = try_join_all(starts).await?;
        planes.into_iter().for_each(ControlPlane::release);
        self.clusters()
    }

    /// Ends every process that `up` started and that still runs; returns how many. Folders go too, unless they are kept.
    pub fn down(&self, keep: bool) -> Result<usize, BedError> {
        if !self.folder.exists() {
            return Ok(0);
        }
        let _only_one = self.lock()?;
        let clusters = self.clusters()?;
        let mut ended = 0;
        // Those that use others first.
        for component in Component::ALL.into_iter().rev() {
            let of_kind = clusters.iter().flat_map(|c| &c.processes).filter(|(c, r)| *c == component && r.lives());
            ended += end(&of_kind.map(|(_, record)| record.clone()).collect::<Vec<_>>())?;
        }
        for cluster in &clusters {
            node::clear(&cluster.folder)?;
        }
        if !keep {
            self.clear()?;
        }
        Ok(ended)
    }

    /// The clusters that have a folder here, whether they run or not.
    pub fn clusters(&self) -> Result<Vec<Cluster>, BedError> {
        let mut found = vec![];
        for folder in self.cluster_folders()? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let record = |c: Component| Some((c, Record::read(&folder.join(format!("{}.pid", c.name())))?));
            let processes = Component::ALL.into_iter().filter_map(record).collect();
            found.push(Cluster { name, folder, processes });
        }
        Ok(found)
    }

    fn cluster_folders(&self) -> Result<Vec<PathBuf>, BedError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            Err(cause) => return Err(self.unusable(cause)),
        };
        let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("cluster-")?.parse::<u32>().ok();
        let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>();
        let paths = paths.map_err(|cause| self.unusable(cause))?;
        let mut folders: Vec<(u32, PathBuf)> = paths.into_iter().filter_map(|p| Some((number(&p)?, p))).collect();
        folders.sort();
        Ok(folders.into_iter().map(|(_, folder)| folder).collect())
    }

    fn clear(&self) -> Result<(), BedError> {
        for folder in self.cluster_folders()? {
            // Of one whose processes were killed by others.
            node::clear(&folder)?;
            fs::remove_dir_all(&folder).map_err(|cause| BedError::Folder { place: folder, cause })?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, BedError> {
        fs::create_dir_all(&self.folder).map_err(|cause| self.unusable(cause))?;
        let file = File::create(self.folder.join("lock")).map_err(|cause| self.unusable(cause))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(BedError::Busy(self.folder.clone())),
            Err(TryLockError::Error(cause)) => Err(self.unusable(cause)),
        }
    }

    fn unusable(&self, cause: io::Error) -> BedError {
        BedError::Folder { place: self.folder.clone(), cause }
    }
}

async fn fill(plane: &ControlPlane, cluster: &str, count: u32, progress: Progress<'_>) -> Result<(), BedError> {
    if count == 0 {
        return Ok(());
    }
    let began = Instant::now();
    let failed = |cause| BedError::Nodes { cluster: cluster.to_owned(), cause: Box::new(cause) };
    let client = plane.client();
    FakeNodes::h100("gpu", count).make(&client).await.map_err(failed)?;
    let (wanted, within) = (count as usize, NODES_PATIENCE * (1 + count / 1000));
    if let Err(ready) = fake::until_ready(&client, wanted, within).await.map_err(failed)? {
        return Err(BedError::NotReady { cluster: cluster.to_owned(), ready, wanted });
    }
    progress(&format!("{cluster} has {count} nodes of 8 fake GPUs after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// Ends these and waits until they are gone.
fn end(records: &[Record]) -> Result<usize, BedError> {
    let left = |within: Duration| {
        let began = Instant::now();
        loop {
            let left = records.iter().filter(|record| record.lives()).count();
            if left == 0 || began.elapsed() > within {
                return left;
            }
            thread::sleep(LOOK);
        }
    };
    for (signal, patience) in [(Signal::TERM, PATIENCE_AT_END), (Signal::KILL, PATIENCE_AT_END * 3)] {
        records.iter().for_each(|record| record.signal(signal));
        if left(patience) == 0 {
            return Ok(records.len());
        }
    }
    Err(BedError::StillThere(left(Duration::ZERO)))
}
