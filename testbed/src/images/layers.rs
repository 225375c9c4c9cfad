//! The layers of images and how each is made: one archive, its checksum, and the tree that it was made of.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};

use super::oci::hex;
use super::tape::Tape;
use super::{ImageError, RAY_VERSION, SPARK_VERSION, unusable};
use crate::build::Progress;
use crate::node::find;
use crate::process::{self, Lifetime, tail};

/// Debian's release and the packages beside its smallest system. Ray's probes ask by wget, Spark's scripts by ps.
const RELEASE: &str = "bookworm";
const PACKAGES: &str = "python3,openjdk-17-jre-headless,procps,wget";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The Python of that release.
const PYTHON: &str = "3.11";
/// What nobody reads in a container.
const USELESS: [&str; 6] =
    ["var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log"];
/// Where its Python looks for packages.
const SITE: &str = "usr/lib/python3/dist-packages";
const BUSYBOX: &str = "/bin/busybox";
const ENTRYPOINT: &str = include_str!("spark-entrypoint.sh");
const SQUARES: &str = include_str!("squares.py");
/// pip's own scripts name the Python that installed them.
const RAY: &str = "#!/usr/bin/python3\nfrom ray.scripts.scripts import main\n\nmain()\n";

/// Between two lines about the same step.
const SAY_EVERY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// What the tools write where something cannot be fetched.
const UNREACHABLE: [&str; 7] = [
    "Could not resolve",
    "Temporary failure in name resolution",
    "Name or service not known",
    "NewConnectionError",
    "Failed getting release file",
    "Couldn't download",
    "No matching distribution found",
];

/// A layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// This machine's static busybox under each of its names.
    Busybox,
    /// Debian's smallest system with Python and Java.
    Base,
    /// Ray, above the base.
    Ray,
    /// Spark, above the base.
    Spark,
}

/// A layer that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub archive: PathBuf,
    /// Of the archive, as hexadecimal digits.
    pub sha256: String,
    pub bytes: u64,
    /// The tree that it was made of, where it is kept.
    pub root: PathBuf,
}

impl Made {
    /// The layer in this folder; `None` if it is not there.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join("layer")).ok()?;
        let (sha256, bytes) = text.trim().split_once(' ')?;
        let (archive, root) = (folder.join("layer.tar"), folder.join("root"));
        Some(Self { archive, sha256: sha256.to_owned(), bytes: bytes.parse().ok()?, root })
    }
}

impl Layer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Layer::Busybox => "busybox",
            Layer::Base => "base",
            Layer::Ray => "ray",
            Layer::Spark => "spark",
        }
    }

    /// What the cache calls it: its name and a hash of what it is made of.
    pub(super) fn key(self) -> Result<String, ImageError> {
        let mut hash = Context::new(&SHA256);
        let mut add = |part: &[u8]| {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(std::env::consts::ARCH.as_bytes());
        match self {
            Layer::Busybox => add(&busybox()?),
            Layer::Base => [RELEASE, PACKAGES, &USELESS.concat()].iter().for_each(|part| add(part.as_bytes())),
            Layer::Ray => [PYTHON, RAY_VERSION, RAY].iter().for_each(|part| add(part.as_bytes())),
            Layer::Spark => [SPARK_VERSION, ENTRYPOINT, SQUARES].iter().for_each(|part| add(part.as_bytes())),
        }
        Ok(format!("{}-{}", self.name(), &hex(hash.finish().as_ref())[..16]))
    }

    /// Makes it in this folder, which is empty.
    pub(super) fn make(self, folder: &Path, progress: Progress<'_>) -> Result<(), ImageError> {
        let began = Instant::now();
        let root = folder.join("root");
        fs::create_dir_all(&root).map_err(unusable(&root))?;
        let maker = Maker { layer: self, folder, root: &root, progress };
        match self {
            Layer::Busybox => maker.busybox()?,
            Layer::Base => maker.base()?,
            Layer::Ray => maker.ray()?,
            Layer::Spark => maker.spark()?,
        }
        if self != Layer::Busybox {
            maker.pack()?;
        }
        let archive = folder.join("layer.tar");
        let (sha256, bytes) = checksum(&archive).map_err(unusable(&archive))?;
        // Only Spark's is of use later: this machine submits with it.
        if self != Layer::Spark {
            fs::remove_dir_all(&root).map_err(unusable(&root))?;
        }
        let place = folder.join("layer");
        // Last: its presence says that the folder is whole.
        fs::write(&place, format!("{sha256} {bytes}\n")).map_err(unusable(&place))?;
        let (mib, seconds) = (bytes >> 20, began.elapsed().as_secs_f64());
        progress(&format!("made the {} layer, {mib} MiB, in {seconds:.0} s", self.name()));
        Ok(())
    }
}

/// One that is being made.
struct Maker<'a> {
    layer: Layer,
    folder: &'a Path,
    root: &'a Path,
    progress: Progress<'a>,
}

impl Maker<'_> {
    fn busybox(&self) -> Result<(), ImageError> {
        let binary = busybox()?;
        let listed = Command::new(BUSYBOX).arg("--list").output().map_err(unusable(Path::new(BUSYBOX)))?;
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let archive = self.folder.join("layer.tar");
        let write = || -> io::Result<()> {
            let mut tape = Tape::new(BufWriter::new(File::create(&archive)?));
            for (folder, mode) in [("bin/", 0o755), ("etc/", 0o755), ("root/", 0o700), ("tmp/", 0o1777)] {
                tape.folder(folder, mode)?;
            }
            let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n";
            tape.file("etc/passwd", 0o644, users.len() as u64, users.as_bytes())?;
            tape.file("bin/busybox", 0o755, binary.len() as u64, &binary[..])?;
            for name in names.lines().filter(|name| *name != "busybox") {
                tape.link(&format!("bin/{name}"), "busybox")?;
            }
            tape.finish()
        };
        write().map_err(unusable(&archive))
    }

    fn base(&self) -> Result<(), ImageError> {
        let layer = self.layer.name();
        if !rustix::process::geteuid().is_root() {
            return Err(ImageError::Root(layer));
        }
        self.needs("debootstrap", "debootstrap")?;
        // Its mounts go with its namespace, however it ends.
        let mut command = Command::new("unshare");
        command.args(["--mount", "debootstrap", "--variant=minbase"]).arg(format!("--include={PACKAGES}"));
        command.arg(RELEASE).arg(self.root).arg(MIRROR).env("DEBIAN_FRONTEND", "noninteractive");
        self.run("Debian's packages", command)?;
        for useless in USELESS {
            let place = self.root.join(useless);
            if place.exists() {
                fs::remove_dir_all(&place).and_then(|()| fs::create_dir(&place)).map_err(unusable(&place))?;
            }
        }
        Ok(())
    }

    fn ray(&self) -> Result<(), ImageError> {
        let arch = std::env::consts::ARCH;
        let mut pip = self.pip()?;
        // Wheels for the image's Python, whatever this machine's is.
        pip.args(["--only-binary=:all:", "--implementation=cp", "--python-version", PYTHON]);
        for platform in ["manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_31"] {
            pip.arg(format!("--platform={platform}_{arch}"));
        }
        pip.arg(format!("ray[default]=={RAY_VERSION}"));
        self.run("Ray's packages", pip)?;
        self.executable("usr/local/bin/ray", RAY)
    }

    fn spark(&self) -> Result<(), ImageError> {
        let mut pip = self.pip()?;
        pip.arg(format!("pyspark=={SPARK_VERSION}"));
        self.run("Spark's packages", pip)?;
        self.executable("opt/tidewater/squares.py", SQUARES)?;
        self.executable("opt/entrypoint.sh", ENTRYPOINT)
    }

    /// `pip install` into the tree, by a pip of its own.
    fn pip(&self) -> Result<Command, ImageError> {
        self.needs("python3", "python3-venv")?;
        let venv = self.folder.join("venv");
        let mut command = Command::new("python3");
        command.args(["-m", "venv"]).arg(&venv);
        self.run("a Python environment", command)?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--no-compile", "--progress-bar=off", "--target"]).arg(self.root.join(SITE));
        Ok(pip)
    }

    fn pack(&self) -> Result<(), ImageError> {
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--owner=0", "--group=0", "--sort=name"]);
        if self.layer == Layer::Base {
            // The system's own owners.
            tar = Command::new("tar");
            tar.args(["--numeric-owner", "--sort=name"]);
        }
        tar.arg("-C").arg(self.root).arg("-cf").arg(self.folder.join("layer.tar")).arg(".");
        self.run("its archive", tar)?;
        let venv = self.folder.join("venv");
        if venv.exists() {
            fs::remove_dir_all(&venv).map_err(unusable(&venv))?;
        }
        Ok(())
    }

    fn executable(&self, name: &str, text: &str) -> Result<(), ImageError> {
        let place = self.root.join(name);
        let folder = place.parent().unwrap_or(self.root);
        fs::create_dir_all(folder).map_err(unusable(folder))?;
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o755).open(&place);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(unusable(&place))
    }

    fn needs(&self, program: &'static str, package: &'static str) -> Result<(), ImageError> {
        find(program).map(drop).ok_or(ImageError::Program { layer: self.layer.name(), program, package })
    }

    /// Runs a step to its end, and says how long it takes.
    fn run(&self, what: &str, mut command: Command) -> Result<(), ImageError> {
        let (layer, began) = (self.layer.name(), Instant::now());
        (self.progress)(&format!("making the {layer} layer of container images, once: {what}"));
        let log = self.folder.with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).map_err(unusable(&log))?;
        let output = file.try_clone().map_err(unusable(&log))?;
        command.stdin(Stdio::null()).stdout(output).stderr(file);
        let mut running = process::spawn(command, Lifetime::Ours).map_err(unusable(self.folder))?;
        let mut said = Instant::now();
        let status = loop {
            if let Some(status) = running.try_wait().map_err(unusable(self.folder))? {
                break status;
            }
            if said.elapsed() >= SAY_EVERY {
                (self.progress)(&format!("still at {what}: {} s", began.elapsed().as_secs()));
                said = Instant::now();
            }
            std::thread::sleep(LOOK);
        };
        if status.success() {
            (self.progress)(&format!("{what}: {:.0} s", began.elapsed().as_secs_f64()));
            return Ok(());
        }
        let end = tail(&log);
        if UNREACHABLE.iter().any(|sign| end.contains(sign)) {
            return Err(ImageError::Network { layer, log, end });
        }
        Err(ImageError::Failed { layer, log, end })
    }
}

/// This machine's busybox, which must need no library.
fn busybox() -> Result<Vec<u8>, ImageError> {
    let missing = || ImageError::Program { layer: "busybox", program: "a static busybox", package: "busybox-static" };
    let binary = fs::read(BUSYBOX).map_err(|_| missing())?;
    let loader = |sign: &[u8]| binary.windows(sign.len()).any(|window| window == sign);
    if loader(b"/ld-linux") || loader(b"/ld-musl") { Err(missing()) } else { Ok(binary) }
}

/// SHA-256 and length of a file.
pub(super) fn checksum(file: &Path) -> io::Result<(String, u64)> {
    let (mut file, mut hash, mut length) = (File::open(file)?, Context::new(&SHA256), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(hash.finish().as_ref()), length));
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_is_not_whole_is_not_there() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(Made::read(dir.path()).is_none());
        fs::write(dir.path().join("layer"), "abc 12\n").expect("written");
        let made = Made::read(dir.path()).expect("there");
        assert_eq!((made.sha256.as_str(), made.bytes), ("abc", 12));
    }

    #[test]
    fn a_checksum_is_that_of_the_whole_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("x");
        fs::write(&file, "abc").expect("written");
        // FIPS 180-2, appendix B.1.
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(checksum(&file).expect("read"), (known.to_owned(), 3));
    }

    #[test]
    fn what_cannot_be_fetched_is_a_lack_and_shows_its_log() {
        let dir = tempfile::tempdir().expect("a folder");
        let (folder, root) = (dir.path().join("ray.half"), dir.path().join("ray.half/root"));
        fs::create_dir_all(&root).expect("made");
        let maker = Maker { layer: Layer::Ray, folder: &folder, root: &root, progress: &|_| {} };
        let say = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("echo '{text}'; exit 1")]);
            maker.run("a step", command).expect_err("it fails")
        };
        let error = say("something else");
        assert!(!error.is_lack() && error.to_string().contains("something else"), "{error}");
        assert!(say("NewConnectionError: no route").is_lack());
    }
}
