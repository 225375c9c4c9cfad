//! One program that runs: its log, its record, its end. Whoever holds a [`Process`] owns what it started; dropping it
//! ends it.

mod record;
mod spawn;
mod sys;

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

pub use record::Record;
pub use spawn::{Lifetime, spawn};

/// How much of a log an error shows.
const TAIL_BYTES: usize = 2_000;
/// Between two looks at a process that ends.
const LOOK: Duration = Duration::from_millis(20);

/// What is started, and where it writes.
#[derive(Debug, Clone)]
pub struct Program {
    /// For people and file names.
    pub name: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What it finds in its environment beside what this process has.
    pub environment: Vec<(&'static str, OsString)>,
    /// Where it stands: `NAME.log` and `NAME.pid` lie there.
    pub folder: PathBuf,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// A program that was started.
#[derive(Debug)]
pub struct Process {
    program: Program,
    child: Option<Child>,
    /// As it was when it started: its id may be another's once it was waited for.
    record: Option<Record>,
    /// What it runs, where it is only the door to another process.
    inner: Option<Record>,
}

impl Program {
    /// Starts it. Its output is added to its log.
    pub fn start(self) -> io::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).current_dir(&self.folder);
        // Nothing of the person who starts it: neither their cluster nor their proxy.
        for name in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"]
        {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn(command, self.lifetime)?;
        let record = Record::of(child.id() as i32);
        // From here on an error drops the process, which ends it.
        let process = Process { program: self, child: Some(child), record, inner: None };
        if let Some(record) = &process.record {
            record.write(&process.program.record())?;
        }
        Ok(process)
    }

    /// Where it writes.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    fn record(&self) -> PathBuf {
        self.folder.join(format!("{}.pid", self.name))
    }
}

impl Process {
    /// What was started.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its id; `None` once it was ended.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// It, for whoever comes later; `None` where it ended as soon as it was started.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Signals go to this process from here on: it is what was meant, and the one that was started waits for it.
    pub fn stands_for(&mut self, inner: Record) {
        self.inner = Some(inner);
    }

    /// The process that signals go to, where that is another one than was started.
    pub fn inner(&self) -> Option<&Record> {
        self.inner.as_ref()
    }

    /// How it ended, if it did by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok()?
    }

    /// What of it is in memory, in MiB.
    pub fn resident_mib(&self) -> Option<u64> {
        let pid = self.inner.as_ref().map_or(self.pid()?, |inner| inner.pid);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(kib.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
    }

    /// Signals it: `CONT` lets it go on after a stall, `KILL` is its crash.
    pub fn signal(&self, signal: Signal) {
        if let Some(record) = self.inner.as_ref().or(self.record.as_ref()) {
            record.signal(signal);
        }
    }

    /// Stalls it, and returns once it runs no more.
    pub fn stall(&self) {
        self.signal(Signal::STOP);
        let Some(record) = self.inner.as_ref().or(self.record.as_ref()) else { return };
        while record.lives() && !record.is_stopped() {
            thread::sleep(LOOK / 10);
        }
    }

    /// Asks it to end, and ends it if it does not within this time. It is gone afterwards.
    pub fn end(&mut self, patience: Duration) {
        let Some(mut child) = self.child.take() else { return };
        if !patience.is_zero() {
            self.signal(Signal::TERM);
            let asked = Instant::now();
            while asked.elapsed() < patience && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(LOOK);
            }
        }
        if let Some(inner) = &self.inner {
            inner.signal(Signal::KILL);
        }
        // Both fail only for a child that was waited for already.
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(self.program.record());
    }

    /// Lets it run on; its record says who it is.
    pub fn release(mut self) {
        self.child = None;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// The end of a log: what an error shows of it.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(TAIL_BYTES);
    let end = String::from_utf8_lossy(&text[from..]).trim().to_owned();
    // The first line is a whole one.
    match end.split_once('\n') {
        Some((_, rest)) if from > 0 => rest.to_owned(),
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Program {
        Program {
            name: "shell",
            path: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("GREETING", "hello".into())],
            folder: folder.to_owned(),
            lifetime: Lifetime::Ours,
        }
    }

    #[test]
    fn a_process_that_is_dropped_is_gone_and_its_log_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let process = shell(dir.path(), "echo $GREETING; exec sleep 60").start().expect("started");
        let record = Record::read(&dir.path().join("shell.pid")).expect("a record");
        assert!(record.lives());
        let began = Instant::now();
        while !tail(&dir.path().join("shell.log")).contains("hello") && began.elapsed() < Duration::from_secs(30) {
            thread::sleep(LOOK);
        }
        drop(process);
        assert!(!record.lives());
        assert_eq!(tail(&dir.path().join("shell.log")), "hello");
        assert!(!dir.path().join("shell.pid").exists());
    }

    #[test]
    fn one_that_does_not_end_when_asked_is_ended() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut process = shell(dir.path(), "trap '' TERM; while :; do sleep 0.1; done").start().expect("started");
        let record = process.record().expect("alive").clone();
        process.end(Duration::from_millis(300));
        assert!(!record.lives());
        assert_eq!(process.pid(), None);
    }

    #[test]
    fn a_tail_starts_with_a_whole_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = dir.path().join("x.log");
        let lines: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        fs::write(&log, lines).expect("written");
        let end = tail(&log);
        assert!(end.starts_with("line ") && end.ends_with("line 999") && end.len() <= TAIL_BYTES);
    }
}
