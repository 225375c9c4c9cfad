//! The agent's memory across restarts: which life this is, the highest command made durable, the highest epoch seen, and
//! a record of each attempt. redb over any storage backend. Owned by [`super::Agent`] alone. Where a runtime keeps all of that elsewhere, as in
//! Kubernetes, the journal is made anew from there at each start ([`Journal::rebuilt`]) and keeps nothing.
//!
//! Changes collect in a batch; `commit` makes the whole batch durable in one transaction (one fdatasync), or none of it.
//! A step commits before its outputs leave, so nothing that anyone hears can be forgotten.

use std::collections::BTreeMap;

use protocol::codec::{CodecError, decode_frame, encode_frame};
use protocol::control::{AttemptReport, AttemptState};
use protocol::ids::{AttemptId, AttemptNumber, CommandNumber, Epoch, Incarnation, Uid, UnixMs};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use super::attempt::{KnownAttempt, Launched, Progress, Record};

/// The layout that this build writes and reads.
const FORMAT: u128 = 12;
/// Memory for pages. The journal holds the live attempts of one cluster: small.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const META: TableDefinition<&str, u128> = TableDefinition::new("meta");
/// Keys are a workload's uid and an attempt's number: 20 bytes. Orders are apart from progress, so that a report does not
/// write a large order again.
const LAUNCHED: TableDefinition<&[u8; 20], &[u8]> = TableDefinition::new("launched");
const PROGRESS: TableDefinition<&[u8; 20], &[u8]> = TableDefinition::new("progress");

/// Why the journal could not be read or written. Each is fatal: the process ends and starts again from what is durable.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The storage refused.
    #[error(
        "agent journal: {doing}: {source}: free space on the disk of the data directory or replace it, then start the agent again"
    )]
    Storage {
        /// What was tried.
        doing: &'static str,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// Another process uses it.
    #[error("agent journal: another process has it open: stop that one, or give this agent another data directory")]
    Busy,
    /// What is stored makes no sense.
    #[error(
        "agent journal: {what} is damaged: {cause}; it is not safe to go on: move the data directory away, and the agent joins again as a new one"
    )]
    Damaged {
        /// Which part.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Another build wrote it.
    #[error("agent journal: format {found} is unknown here (this build speaks format {FORMAT}): start the newer build")]
    Format {
        /// The format found.
        found: u128,
    },
    /// A record is larger than it may be.
    #[error("agent journal: {0}")]
    TooLong(#[from] CodecError),
}

fn storage<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> JournalError {
    move |e| match e.into() {
        redb::Error::DatabaseAlreadyOpen => JournalError::Busy,
        redb::Error::Corrupted(cause) => JournalError::Damaged { what: "a page".into(), cause },
        redb::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            JournalError::Damaged { what: "its header".into(), cause: e.to_string() }
        }
        source => JournalError::Storage { doing, source: Box::new(source) },
    }
}

fn key(attempt: AttemptId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&attempt.workload.0.to_be_bytes());
    key[16..].copy_from_slice(&attempt.number.0.to_be_bytes());
    key
}

fn attempt(key: &[u8; 20]) -> AttemptId {
    let (uid, number) = key.split_at(16);
    AttemptId {
        workload: Uid(u128::from_be_bytes(uid.try_into().expect("split at 16"))),
        number: AttemptNumber(u32::from_be_bytes(number.try_into().expect("4 of 20 are left"))),
    }
}

/// Changes that wait for the next commit.
#[derive(Default)]
struct Batch {
    last_command: Option<CommandNumber>,
    epoch: Option<Epoch>,
    launched: BTreeMap<[u8; 20], Vec<u8>>,
    /// None takes the attempt's record away.
    progress: BTreeMap<[u8; 20], Option<Vec<u8>>>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.last_command.is_none() && self.epoch.is_none() && self.launched.is_empty() && self.progress.is_empty()
    }
}

/// What the journal held when it was opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    pub last_command: CommandNumber,
    pub epoch: Epoch,
    pub records: BTreeMap<AttemptId, Record>,
    /// The highest command whose effect is in the records; above `last_command` where earlier ones may come again.
    pub included: CommandNumber,
}

/// What a journal is made anew from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which life of what is kept elsewhere this is.
    pub incarnation: Incarnation,
    /// The highest epoch that was seen.
    pub epoch: Epoch,
    /// Above every revision that was told so far.
    pub revision: u64,
    /// Everything that the runtime has.
    pub attempts: Vec<KnownAttempt>,
}

/// The journal.
pub struct Journal {
    /// None keeps nothing.
    db: Option<Database>,
    incarnation: Incarnation,
    contents: Contents,
    batch: Batch,
    commits: u64,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("incarnation", &self.incarnation).field("commits", &self.commits).finish()
    }
}

impl Journal {
    /// Opens the journal, or makes a new one with `incarnation_if_new`, which must be random: it tells this life of the
    /// data directory from any other. For a file pass redb's `FileBackend`, which also keeps a second process out.
    pub fn open(backend: impl StorageBackend, incarnation_if_new: Incarnation) -> Result<Self, JournalError> {
        clear_if_never_made(&backend).map_err(|e| storage("look at its head")(redb::StorageError::from(e)))?;
        // All of it is checked: a flipped bit in an epoch or a command's number would look like any other number.
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(storage("open it"))?;
        let write = db.begin_write().map_err(storage("begin"))?;
        let incarnation;
        {
            let mut meta = write.open_table(META).map_err(storage("open its table meta"))?;
            let format = meta.get("format").map_err(storage("read the format"))?.map(|v| v.value());
            let stored = meta.get("incarnation").map_err(storage("read the incarnation"))?.map(|v| v.value());
            match (format, stored) {
                (None, None) => {
                    incarnation = incarnation_if_new;
                    meta.insert("format", FORMAT).map_err(storage("write the format"))?;
                    meta.insert("incarnation", incarnation.0).map_err(storage("write the incarnation"))?;
                }
                (Some(FORMAT), Some(stored)) => incarnation = Incarnation(stored),
                (Some(FORMAT), None) | (None, Some(_)) => {
                    return Err(JournalError::Damaged { what: "meta".into(), cause: "half of it is missing".into() });
                }
                (Some(found), _) => return Err(JournalError::Format { found }),
            }
            // Made here, so that a read never meets a table that is not there yet.
            write.open_table(LAUNCHED).map_err(storage("open its table launched"))?;
            write.open_table(PROGRESS).map_err(storage("open its table progress"))?;
        }
        write.commit().map_err(storage("commit the first write"))?;
        let contents = read(&db)?;
        Ok(Self { db: Some(db), incarnation, contents, batch: Batch::default(), commits: 0 })
    }

    /// A journal that keeps nothing, of what is kept elsewhere. Which commands were acted upon is not known: each may come again, and what
    /// an attempt's records tell of it counts.
    pub fn rebuilt(from: Elsewhere, unix: UnixMs) -> Self {
        let Elsewhere { incarnation, epoch, revision, attempts } = from;
        let mut contents = Contents { epoch, ..Contents::default() };
        for KnownAttempt { attempt, launch } in attempts {
            contents.included = contents.included.max(launch.as_ref().map_or(CommandNumber(0), |l| l.number));
            let launched = launch.map(|l| Launched { order: l.order, assignment: l.assignment, sized: None });
            let report = AttemptReport { attempt, revision, state: AttemptState::Accepted, resized: None, at: unix };
            let progress = Progress { report, acked: 0, stop: None };
            contents.records.insert(attempt, Record { launched, progress, unrecorded: false });
        }
        Self { db: None, incarnation, contents, batch: Batch::default(), commits: 0 }
    }

    /// Whether it is there after a restart.
    pub(crate) fn lasts(&self) -> bool {
        self.db.is_some()
    }

    /// Which life of the data directory this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How many commits there were since it was opened.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// What was in it when it was opened; given away once.
    pub(crate) fn take_contents(&mut self) -> Contents {
        std::mem::take(&mut self.contents)
    }

    pub(crate) fn set_last_command(&mut self, number: CommandNumber) {
        self.batch.last_command = Some(number);
    }

    pub(crate) fn set_epoch(&mut self, epoch: Epoch) {
        self.batch.epoch = Some(epoch);
    }

    pub(crate) fn put_launched(&mut self, attempt: AttemptId, launched: &Launched) -> Result<(), JournalError> {
        self.batch.launched.insert(key(attempt), encode_frame(launched)?);
        Ok(())
    }

    pub(crate) fn put_progress(&mut self, progress: &Progress) -> Result<(), JournalError> {
        self.batch.progress.insert(key(progress.report.attempt), Some(encode_frame(progress)?));
        Ok(())
    }

    pub(crate) fn remove(&mut self, attempt: AttemptId) {
        self.batch.launched.remove(&key(attempt));
        self.batch.progress.insert(key(attempt), None);
    }

    /// Makes everything since the last commit durable; nothing is written where nothing changed. After an error the
    /// journal must not be used again: what is durable is only known after it is opened anew.
    pub(crate) fn commit(&mut self) -> Result<(), JournalError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let Some(db) = &self.db else { return Ok(()) };
        let write = db.begin_write().map_err(storage("begin"))?;
        if batch.last_command.is_some() || batch.epoch.is_some() {
            let mut meta = write.open_table(META).map_err(storage("open its table meta"))?;
            if let Some(number) = batch.last_command {
                meta.insert("last_command", u128::from(number.0)).map_err(storage("write the last command"))?;
            }
            if let Some(epoch) = batch.epoch {
                meta.insert("epoch", u128::from(epoch.0)).map_err(storage("write the epoch"))?;
            }
        }
        if !batch.launched.is_empty() || !batch.progress.is_empty() {
            let mut launched = write.open_table(LAUNCHED).map_err(storage("open its table launched"))?;
            let mut progress = write.open_table(PROGRESS).map_err(storage("open its table progress"))?;
            for (key, bytes) in &batch.launched {
                launched.insert(key, bytes.as_slice()).map_err(storage("write an order"))?;
            }
            for (key, bytes) in &batch.progress {
                match bytes {
                    Some(bytes) => {
                        progress.insert(key, bytes.as_slice()).map_err(storage("write a report"))?;
                    }
                    None => {
                        progress.remove(key).map_err(storage("remove a report"))?;
                        launched.remove(key).map_err(storage("remove an order"))?;
                    }
                }
            }
        }
        write.commit().map_err(storage("commit"))?;
        self.commits += 1;
        Ok(())
    }
}

/// redb writes its magic number last, once an empty database is durable. A crash before that leaves a file that has
/// nothing in it and that redb takes for somebody else's. Only a file with no magic number and nothing but zeros after the
/// header is emptied: anything else was a journal once, or never one, and stays as it is.
fn clear_if_never_made(backend: &impl StorageBackend) -> Result<(), std::io::Error> {
    const MAGIC_BYTES: usize = 9;
    const HEADER_BYTES: u64 = 4096;
    const NEW_AT_MOST: u64 = 64 * 1024 * 1024;
    let length = backend.len()?;
    if length == 0 || length > NEW_AT_MOST {
        return Ok(());
    }
    let mut magic = [0; MAGIC_BYTES];
    let there = MAGIC_BYTES.min(usize::try_from(length).unwrap_or(MAGIC_BYTES));
    backend.read(0, &mut magic[..there])?;
    if magic != [0; MAGIC_BYTES] {
        return Ok(());
    }
    let mut page = [0; 4096];
    let mut at = HEADER_BYTES;
    while at < length {
        let size = usize::try_from(length - at).map_or(page.len(), |left| left.min(page.len()));
        backend.read(at, &mut page[..size])?;
        if page[..size].iter().any(|byte| *byte != 0) {
            return Ok(());
        }
        at += size as u64;
    }
    backend.set_len(0)?;
    backend.sync_data()
}

fn read(db: &Database) -> Result<Contents, JournalError> {
    let read = db.begin_read().map_err(storage("begin to read"))?;
    let meta = read.open_table(META).map_err(storage("open its table meta"))?;
    let number = |name: &'static str| -> Result<u64, JournalError> {
        let stored = meta.get(name).map_err(storage("read meta"))?.map_or(0, |v| v.value());
        u64::try_from(stored)
            .map_err(|_| JournalError::Damaged { what: name.into(), cause: "it is larger than 64 bits".into() })
    };
    let mut contents = Contents {
        last_command: CommandNumber(number("last_command")?),
        epoch: Epoch(number("epoch")?),
        records: BTreeMap::new(),
        included: CommandNumber(number("last_command")?),
    };
    let launched = read.open_table(LAUNCHED).map_err(storage("open its table launched"))?;
    let progress = read.open_table(PROGRESS).map_err(storage("open its table progress"))?;
    for entry in progress.iter().map_err(storage("read the reports"))? {
        let (key, bytes) = entry.map_err(storage("read a report"))?;
        let id = attempt(key.value());
        let damaged = |cause: String| JournalError::Damaged { what: format!("the record of attempt {id}"), cause };
        let progress: Progress = decode_frame(bytes.value()).map_err(|e| damaged(e.to_string()))?;
        if progress.report.attempt != id {
            return Err(damaged(format!("it speaks of attempt {}", progress.report.attempt)));
        }
        let launched = match launched.get(key.value()).map_err(storage("read an order"))? {
            Some(bytes) => Some(decode_frame::<Launched>(bytes.value()).map_err(|e| damaged(e.to_string()))?),
            None => None,
        };
        contents.records.insert(id, Record { launched, progress, unrecorded: false });
    }
    Ok(contents)
}
