//! Container images that are made here, from this machine's busybox, Debian's packages and PyPI: no registry is asked and
//! none is needed. An image is one or two layers; a layer is made once into the user's cache, in a folder named for its
//! recipe, so that another recipe is another folder. Touches that cache, and starts `debootstrap`, `pip` and `tar`.

pub mod built;
mod layers;
mod oci;
pub mod program;
mod tape;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use serde_json::{Value, json};

use crate::build::Progress;
use crate::folders::folder_of_user;
use layers::Layer;

/// Version of Ray in its image.
pub const RAY_VERSION: &str = "2.52.1";
/// A program for Ray, to be given to `python3 -c` in double quotes: it waits until two workers have joined, and sums what all of them compute.
/// Spark's image has its like in it, `/opt/tidewater/squares.py`.
pub const RAY_SQUARES: &str = include_str!("ray_squares.py");
/// What it then prints.
pub const RAY_ANSWER: &str = "SUM 2470 NODES 3";
/// Version of Spark in its image.
pub const SPARK_VERSION: &str = "4.0.1";

/// An image that pods of the real node can name, with `imagePullPolicy: Never` or `IfNotPresent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// Busybox: a shell and small tools. Pods' sandboxes are made of it too.
    Batch,
    /// Python and Ray.
    Ray,
    /// Python, Java and Spark, with an entrypoint for drivers and executors.
    Spark,
}

impl Image {
    /// All of them.
    pub const ALL: [Image; 3] = [Image::Batch, Image::Ray, Image::Spark];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Image::Batch => "batch",
            Image::Ray => "ray",
            Image::Spark => "spark",
        }
    }

    /// What a pod's container says in `image`.
    pub fn reference(self) -> String {
        match self {
            Image::Batch => "localhost/tidewater-batch:1".to_owned(),
            Image::Ray => format!("localhost/tidewater-ray:{RAY_VERSION}"),
            Image::Spark => format!("localhost/tidewater-spark:{SPARK_VERSION}"),
        }
    }

    fn layers(self) -> &'static [Layer] {
        match self {
            Image::Batch => &[Layer::Busybox],
            Image::Ray => &[Layer::Base, Layer::Ray],
            Image::Spark => &[Layer::Base, Layer::Spark],
        }
    }

    /// The image configuration's `config`.
    fn settings(self) -> Value {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        match self {
            // A sandbox names no command: it waits for its end.
            Image::Batch => json!({"Cmd": ["/bin/sleep", "2147483647"], "Env": [path]}),
            Image::Ray => json!({"Cmd": ["/bin/bash"], "Env": [path, "HOME=/root"]}),
            Image::Spark => json!({"Entrypoint": ["/opt/entrypoint.sh"], "Env": [path, "HOME=/root"]}),
        }
    }
}

/// Why an image is not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program that makes it is missing.
    #[error("the {layer} layer is made with {program}; install Debian's package {package}, or what has it elsewhere")]
    Program {
        /// What was to be made.
        layer: &'static str,
        /// Which.
        program: &'static str,
        /// What has it.
        package: &'static str,
    },
    /// A system is made whose files belong to root.
    #[error("the {0} layer is made by root, whose files are in it; run it with sudo")]
    Root(&'static str),
    /// What it is made of could not be fetched.
    #[error(
        "the {layer} layer: Debian's mirror or PyPI cannot be reached; all of it is in {log}, and its end is:\n{end}"
    )]
    Network {
        /// What was to be made.
        layer: &'static str,
        /// All that was said.
        log: PathBuf,
        /// The last lines.
        end: String,
    },
    /// A program failed.
    #[error("the {layer} layer was not made; the end of {log}:\n{end}")]
    Failed {
        /// What was to be made.
        layer: &'static str,
        /// All that was said.
        log: PathBuf,
        /// The last lines.
        end: String,
    },
    /// The cache cannot be used.
    #[error("the cache {place} cannot be used: {cause}; free some room, or set XDG_CACHE_HOME to a folder that has it")]
    Cache {
        /// The file or folder.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// containerd did not take it.
    #[error("containerd did not take the image {image}: {said}")]
    Import {
        /// Which.
        image: String,
        /// What was answered.
        said: String,
    },
    /// It was not asked for when the images were provided.
    #[error("{0} is not among the images that were provided")]
    NotProvided(String),
}

impl ImageError {
    /// Whether this machine lacks something that a test may not ask for: then tests are skipped, and say so.
    pub fn is_lack(&self) -> bool {
        matches!(self, ImageError::Program { .. } | ImageError::Root(_) | ImageError::Network { .. })
    }
}

/// Images that are there.
#[derive(Debug, Clone)]
pub struct Images {
    layers: BTreeMap<Layer, layers::Made>,
    images: Vec<Image>,
}

impl Images {
    /// Finds these images' layers in the user's cache (`$XDG_CACHE_HOME`, else `~/.cache`), and makes what is missing. The
    /// batch image is always among them.
    pub fn provide(images: &[Image], progress: Progress<'_>) -> Result<Self, ImageError> {
        Self::provide_in(&default_cache(), images, progress)
    }

    /// The same in another cache.
    pub fn provide_in(cache: &Path, images: &[Image], progress: Progress<'_>) -> Result<Self, ImageError> {
        let mut images: Vec<Image> = images.iter().copied().chain([Image::Batch]).collect();
        images.sort_unstable();
        images.dedup();
        let mut made = BTreeMap::new();
        for layer in images.iter().flat_map(|image| image.layers()) {
            if !made.contains_key(layer) {
                made.insert(*layer, provide(cache, *layer, progress)?);
            }
        }
        Ok(Self { layers: made, images })
    }

    /// Which they are, the smallest first.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The size of an image's layers.
    pub fn mib(&self, image: Image) -> u64 {
        image.layers().iter().filter_map(|layer| self.layers.get(layer)).map(|made| made.bytes >> 20).sum()
    }

    /// Where Spark lies on this machine, for what submits to it (`SPARK_HOME`); `None` without its image.
    pub fn spark_home(&self) -> Option<PathBuf> {
        Some(self.layers.get(&Layer::Spark)?.root.join("usr/lib/python3/dist-packages/pyspark"))
    }

    /// Gives an image to the containerd that answers at this socket.
    pub fn import(&self, image: Image, socket: &Path) -> Result<(), ImageError> {
        let layers = image.layers().iter().map(|layer| self.layers.get(layer)).collect::<Option<Vec<_>>>();
        let layers = layers.ok_or_else(|| ImageError::NotProvided(image.reference()))?;
        give(&image.reference(), socket, |mut out| {
            oci::write(&mut out, &image.reference(), &image.settings(), &layers).map(drop)
        })
    }
}

/// Gives an image that is in an archive to the containerd that answers at this socket.
pub(crate) fn load(archive: &Path, socket: &Path) -> Result<(), ImageError> {
    let mut file = File::open(archive).map_err(unusable(archive))?;
    give(&archive.display().to_string(), socket, |mut out| io::copy(&mut file, &mut out).map(drop))
}

/// Gives what is written to the containerd that answers at this socket.
fn give(image: &str, socket: &Path, write: impl FnOnce(ChildStdin) -> io::Result<()>) -> Result<(), ImageError> {
    let failed = |said: String| ImageError::Import { image: image.to_owned(), said };
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).args(["--namespace", "k8s.io", "images", "import", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ctr = command.spawn().map_err(|cause| failed(cause.to_string()))?;
    let written = ctr.stdin.take().map_or(Ok(()), write);
    let output = ctr.wait_with_output().map_err(|cause| failed(cause.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    written.map_err(|cause| failed(cause.to_string()))
}

/// `$XDG_CACHE_HOME/tidewater/images`, else `~/.cache/tidewater/images`.
pub fn default_cache() -> PathBuf {
    folder_of_user("XDG_CACHE_HOME", ".cache", "images")
}

fn unusable(place: &Path) -> impl Fn(io::Error) -> ImageError {
    move |cause| ImageError::Cache { place: place.to_owned(), cause }
}

/// Finds a layer, or makes it under another name and renames it: what is in the cache is whole.
fn provide(cache: &Path, layer: Layer, progress: Progress<'_>) -> Result<layers::Made, ImageError> {
    let folder = cache.join(layer.key()?);
    if let Some(made) = layers::Made::read(&folder) {
        return Ok(made);
    }
    fs::create_dir_all(cache).map_err(unusable(cache))?;
    let place = cache.join(format!("{}.lock", layer.name()));
    let lock = File::create(&place).map_err(unusable(&place))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress(&format!("waiting for another process that makes the {} layer", layer.name()));
            lock.lock().map_err(unusable(&place))?;
        }
        Err(TryLockError::Error(cause)) => return Err(ImageError::Cache { place, cause }),
    }
    // Another process may have made it while this one waited.
    if layers::Made::read(&folder).is_none() {
        let half = folder.with_extension("half");
        if half.exists() {
            fs::remove_dir_all(&half).map_err(unusable(&half))?;
        }
        fs::create_dir_all(&half).map_err(unusable(&half))?;
        layer.make(&half, progress)?;
        fs::rename(&half, &folder).map_err(unusable(&folder))?;
    }
    layers::Made::read(&folder).ok_or_else(|| {
        let cause = io::Error::other(format!("it has no whole {} layer; delete it", layer.name()));
        ImageError::Cache { place: folder, cause }
    })
}
