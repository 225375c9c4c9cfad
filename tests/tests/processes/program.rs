//! One process of the product: started, read, signalled, waited for. Its output goes to files, so that a process that
//! writes much is never held up and a failure can show the end of what it said.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;

use super::world::{LOOK, PATIENCE, signal, wait_for};

static RUNS: AtomicU32 = AtomicU32::new(0);

/// Where cargo puts the program: one folder above this test.
pub fn tidewater() -> PathBuf {
    let own = std::env::current_exe().expect("this test's own file is known");
    let folder = own.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    folder.join("tidewater")
}

/// Builds the program where it is older than what it was built from: a test of an old one would prove nothing. Only there,
/// because cargo builds dependencies anew for another choice of packages than the one that built these tests.
pub fn build() -> anyhow::Result<()> {
    if is_new() {
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let folder = tidewater().parent().and_then(Path::parent).map(Path::to_owned).context("no target folder")?;
    command.arg("--target-dir").arg(folder);
    ensure!(command.status().context("cargo")?.success(), "the program could not be built");
    Ok(())
}

/// Builds the guard of attempts in pods, where that is needed; returns where it is.
pub fn pod_guard() -> anyhow::Result<PathBuf> {
    let program = tidewater();
    let target = program.ancestors().nth(2).context("no target folder")?;
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    Ok(testbed::images::built::guard(Path::new(env!("CARGO_MANIFEST_DIR")), Some(target), profile)?)
}

/// Whether the program is newer than each file that cargo notes beside it as its source.
fn is_new() -> bool {
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let Ok(note) = std::fs::read_to_string(tidewater().with_extension("d")) else { return false };
    let sources = note.split_once(": ").map_or("", |(_, sources)| sources).split_whitespace();
    let Some(built) = changed(&tidewater()) else { return false };
    sources.map(Path::new).all(|source| changed(source).is_some_and(|at| at < built))
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// It must have ended with this code.
    pub fn with_code(self, code: i32) -> anyhow::Result<Self> {
        ensure!(
            self.code == Some(code),
            "exit code {:?} instead of {code}\nstdout: {}\nstderr: {}",
            self.code,
            self.out,
            self.err
        );
        Ok(self)
    }

    /// It must say this on stderr.
    pub fn says(&self, text: &str) -> anyhow::Result<()> {
        ensure!(self.err.contains(text), "stderr should say {text:?}, but is: {}", self.err);
        Ok(())
    }

    /// It must print this on stdout.
    pub fn prints(&self, text: &str) -> anyhow::Result<()> {
        ensure!(self.out.contains(text), "stdout should have {text:?}, but is: {}\nstderr: {}", self.out, self.err);
        Ok(())
    }
}

/// A process that runs.
pub struct Program {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    began: Instant,
}

impl Program {
    /// Starts it.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> anyhow::Result<Self> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (dir.join(format!("{name}.{run}.out")), dir.join(format!("{name}.{run}.err")));
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, out, err, began: Instant::now() })
    }

    /// Runs it to its end.
    pub fn run(command: Command, dir: &Path) -> anyhow::Result<Ran> {
        let mut program = Self::start("command", command, dir)?;
        let status = program.until_ended(PATIENCE)?;
        Ok(Ran { code: status.code(), out: program.out(), err: program.err(), took: program.began.elapsed() })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it wrote to stdout so far.
    pub fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it wrote to stderr so far.
    pub fn err(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits for a line of stdout that begins so; returns the rest of it.
    pub fn line(&mut self, beginning: &str) -> anyhow::Result<String> {
        let what = format!("{}: a line {beginning:?}", self.name);
        wait_for(&what, PATIENCE, || {
            // Asked first: what an ended process wrote is all there.
            let ended = self.child.try_wait()?;
            let out = self.out();
            let whole = out.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(rest) = whole.lines().find_map(|line| line.strip_prefix(beginning)) {
                return Ok(Some(rest.to_owned()));
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}): {}{}", self.name, out, self.err());
            }
            Ok(None)
        })
    }

    /// Waits for words on stderr.
    pub fn says(&self, words: &str, within: Duration) -> anyhow::Result<()> {
        wait_for(&format!("{}: {words:?} on stderr", self.name), within, || {
            Ok(self.err().contains(words).then_some(()))
        })
        .with_context(|| self.err())
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    /// Ends it as a power cut would, and takes its exit status.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn until_ended(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if began.elapsed() > within {
                bail!("{} did not end within {} s\n{}{}", self.name, within.as_secs(), self.out(), self.err());
            }
            std::thread::sleep(LOOK / 5);
        }
    }

    /// Asks it to end, as an operator does; it must end with 0. Returns how long that took.
    pub fn terminate(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.until_ended(PATIENCE)?;
        ensure!(status.success(), "{} ended with {status}: {}", self.name, self.err());
        Ok(began.elapsed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
