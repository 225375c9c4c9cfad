//! Reads attempts' logs, while they grow and after.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::Order;
use crate::guard::durable;
use crate::guard::record::Record;
use crate::runtime::members;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);
/// The most bytes of one file in one piece.
const PIECE: usize = 64 * 1024;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No record and no logs of this attempt are here.
    #[error("no logs of this attempt are kept here: it never started on this cluster, or their time is over")]
    Unknown,
    /// The attempt has no such member.
    #[error("the attempt has no log of {member:?}; it has: {}", .known.join(", "))]
    NoMember {
        /// What was asked for.
        member: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The system refused.
    #[error("reading the attempt's logs: {0}")]
    Io(#[from] io::Error),
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Whose it is: a member, `driver`, `guard`, or an executor such as `executor-0`.
    pub member: String,
    /// The file.
    pub path: PathBuf,
    /// Whether it speaks for the user's program; the others are the runtime's own.
    pub primary: bool,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// Every log of an attempt, by name.
pub(super) fn files(record: &Record) -> Result<Vec<LogFile>, LogError> {
    let dir = record.path("logs");
    if !dir.is_dir() {
        return Err(LogError::Unknown);
    }
    let order: Option<Order> = durable::read_json(&record.path("order.json"))?;
    let batch = order.is_some_and(|order| order.launch.spec.batch.is_some());
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let Some(member) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".log")) else {
            continue;
        };
        let primary = if batch { member != "guard" } else { member == "driver" };
        found.push(LogFile {
            member: member.to_owned(),
            bytes: fs::metadata(&path)?.len(),
            primary,
            path: path.clone(),
        });
    }
    found.extend(executors(&dir.join("executors")));
    found.sort_by(|a, b| natural(&a.member).cmp(&natural(&b.member)));
    Ok(found)
}

/// The member that is this worker.
pub(super) fn worker(record: &Record, number: u32) -> Result<String, LogError> {
    let order: Option<Order> = durable::read_json(&record.path("order.json"))?;
    let launch = order.ok_or(LogError::Unknown)?.launch;
    if launch.spec.spark.is_some() {
        return Ok(format!("executor-{number}"));
    }
    let (group, index) = members::worker(&launch, number).ok_or(LogError::Unknown)?;
    Ok(format!("{group}-{index}"))
}

/// Spark's executors write under `APPLICATION/NUMBER/`.
fn executors(dir: &Path) -> Vec<LogFile> {
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>();
    let numbers = list(dir).iter().flat_map(|app| list(app)).collect::<Vec<_>>();
    numbers
        .into_iter()
        .filter_map(|number| {
            let member = format!("executor-{}", number.file_name()?.to_str()?);
            let path = number.join("stderr");
            Some(LogFile { member, bytes: fs::metadata(&path).ok()?.len(), primary: false, path })
        })
        .collect()
}

/// `workers-10` after `workers-9`.
fn natural(name: &str) -> (&str, u64) {
    match name.rsplit_once('-').and_then(|(group, index)| Some((group, index.parse().ok()?))) {
        Some((group, index)) => (group, index),
        None => (name, 0),
    }
}

/// A log being read, piece by piece. Of several members, whole lines come, each after its member's name.
pub struct LogStream {
    record: Record,
    member: Option<String>,
    follow: bool,
    open: Vec<Reading>,
    ready: VecDeque<Bytes>,
    /// Whether each line says whose it is.
    named: bool,
    /// Nothing is read any more; what is in `ready` is the rest.
    done: bool,
}

struct Reading {
    member: String,
    file: File,
    /// A line that has no end yet.
    partial: Vec<u8>,
}

impl LogStream {
    pub(super) fn open(record: Record, member: Option<&str>, follow: bool) -> Result<Self, LogError> {
        let known = files(&record)?;
        if let Some(member) = member
            && !follow
            && !known.iter().any(|file| file.member == member)
        {
            let known = known.into_iter().map(|file| file.member).collect();
            return Err(LogError::NoMember { member: member.to_owned(), known });
        }
        let order: Option<Order> = durable::read_json(&record.path("order.json"))?;
        let several = order.is_some_and(|order| {
            let shares = order.launch.placement.iter().flat_map(|group| &group.nodes);
            order.launch.spec.batch.is_some() && shares.map(|share| u64::from(share.members)).sum::<u64>() > 1
        });
        Ok(Self {
            record,
            named: member.is_none() && several,
            member: member.map(str::to_owned),
            follow,
            open: vec![],
            ready: VecDeque::new(),
            done: false,
        })
    }

    /// The next piece; `None` at the end. May be dropped and called again only between pieces.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            match self.round().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => {
                    self.done = true;
                    return Some(Err(e));
                }
            }
        }
    }

    /// Reads what is there; false at the end.
    async fn round(&mut self) -> io::Result<bool> {
        if self.done {
            return Ok(false);
        }
        // Looked at before the files: what is written before the end is read in this round or was before.
        let last = !self.follow || self.is_final()?;
        self.open_new().await?;
        for reading in &mut self.open {
            reading.read(self.named, &mut self.ready).await?;
        }
        if !self.ready.is_empty() {
            return Ok(true);
        }
        if last {
            self.done = true;
            for reading in &mut self.open {
                reading.end(&mut self.ready);
            }
            return Ok(!self.ready.is_empty());
        }
        tokio::time::sleep(POLL).await;
        Ok(true)
    }

    fn is_final(&self) -> io::Result<bool> {
        // A record that was removed is over too.
        Ok(!self.record.dir().exists() || self.record.outcome()?.is_some_and(|outcome| outcome.gone))
    }

    async fn open_new(&mut self) -> io::Result<()> {
        let files = match files(&self.record) {
            Ok(files) => files,
            Err(LogError::Io(e)) => return Err(e),
            Err(_) => return Ok(()),
        };
        for found in files {
            let wanted = self.member.as_ref().map_or(found.primary, |member| *member == found.member);
            if wanted && !self.open.iter().any(|reading| reading.member == found.member) {
                let file = File::open(&found.path).await?;
                self.open.push(Reading { member: found.member, file, partial: vec![] });
            }
        }
        Ok(())
    }
}

impl Reading {
    async fn read(&mut self, named: bool, ready: &mut VecDeque<Bytes>) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut self.file).take(PIECE as u64).read_to_end(&mut piece).await?;
        if piece.is_empty() {
            return Ok(());
        }
        if !named {
            ready.push_back(piece.into());
            return Ok(());
        }
        let mut out = Vec::with_capacity(piece.len() * 2);
        for part in piece.split_inclusive(|c| *c == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.flush(&mut out);
            }
        }
        if !out.is_empty() {
            ready.push_back(out.into());
        }
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{} | ", self.member).as_bytes());
        out.append(&mut self.partial);
    }

    /// A last line without an end.
    fn end(&mut self, ready: &mut VecDeque<Bytes>) {
        if !self.partial.is_empty() {
            let mut out = Vec::new();
            self.flush(&mut out);
            out.push(b'\n');
            ready.push_back(out.into());
        }
    }
}
