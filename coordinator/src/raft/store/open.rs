//! Makes a store, opens one, and checks all of it before anything is served from it.
//!
//! A transaction that a crash cut short is rolled back by redb: that is the torn tail, and the only damage that is mended.
//! Everything else that does not add up (a checksum, a hole in the log, a commit index beyond it) refuses to open and says
//! which record it is. One damage can't be told from a torn tail: a flip inside the very last transaction of a process
//! that did not close its store, because with one sync a transaction nothing later vouches for it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use protocol::ids::ReplicaId;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError};

use super::runs::{self, Runs};
use super::{FORMAT, Identity, LOG, Position, STATE, Store, name};
use crate::raft::record::{self, RecordError};
use crate::raft::wire::{ConfState, Entry, HardState, Snapshot};

/// The store's name in a replica's data directory.
const FILE: &str = "raft.redb";
/// It is made under this name and gets its own only once it is whole.
const UNFINISHED: &str = "raft.redb.unfinished";
/// Pages that redb may keep in memory. Small: reads come from the store's own memory.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Why a store could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// There is something already.
    #[error("log store: there are already {bytes} bytes: a new store is only made on an empty disk")]
    NotEmpty {
        /// How much.
        bytes: u64,
    },
    /// The disk said no.
    #[error("log store: can't be made ({cause}): check that its directory is writable and has space")]
    Write {
        /// What redb said.
        cause: redb::Error,
    },
    /// A directory or file could not be made.
    #[error("log store {}: can't be made ({cause}): check that its directory is writable and has space", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It could not be made first.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A file could not be opened.
    #[error("log store {}: can't be opened ({cause}): check its owner and mode", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process uses it.
    #[error("log store: another process has it open: stop that one, or give this one another data directory")]
    Busy,
    /// It is empty.
    #[error("log store: it is empty: format it first")]
    Empty,
    /// Another build wrote it.
    #[error(
        "log store: its format is version {found}, this build reads version {FORMAT}: start the version that wrote it"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// It is another replica's.
    #[error("log store: it belongs to replica {found}, this is replica {wanted}: correct --id or the data directory")]
    OtherReplica {
        /// Whose it is.
        found: ReplicaId,
        /// Who opened it.
        wanted: ReplicaId,
    },
    /// What it holds is not what was written.
    #[error(
        "log store: {what} is damaged: {cause}. Nothing is served from it. Check the disk; then remove this replica from its \
         coordinators, delete its data directory and let it join under a new id (its old id must never vote again). \
         A coordinator without peers is restored from a backup"
    )]
    Damaged {
        /// Which part.
        what: String,
        /// How that was seen.
        cause: String,
    },
    /// The disk failed.
    #[error("log store: can't be read ({cause}): check the disk")]
    Read {
        /// What redb said.
        cause: redb::Error,
    },
}

fn damaged(what: impl Into<String>, cause: impl ToString) -> OpenError {
    OpenError::Damaged { what: what.into(), cause: cause.to_string() }
}

fn storage(cause: StorageError) -> OpenError {
    match cause {
        StorageError::Corrupted(cause) => damaged("a page", cause),
        cause => OpenError::Read { cause: cause.into() },
    }
}

fn database(cause: DatabaseError) -> OpenError {
    match cause {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Busy,
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() == io::ErrorKind::InvalidData => {
            damaged("its header", cause)
        }
        DatabaseError::Storage(cause) => storage(cause),
        cause => OpenError::Read { cause: cause.into() },
    }
}

impl Store {
    /// Opens the store in a data directory, and makes it first where there is none.
    pub fn open_dir(dir: &Path, replica: ReplicaId) -> Result<Store, OpenError> {
        let path = dir.join(FILE);
        if !path.exists() {
            format_dir(dir, replica)?;
        }
        let file = open_file(&path).map_err(|cause| OpenError::File { path: path.clone(), cause })?;
        let backend = FileBackend::new(file).map_err(database)?;
        Store::open(backend, replica)
    }

    /// Makes an empty store. A crash before this returns leaves something that neither opens nor can be made again, so on a
    /// real disk it is made under another name ([`Store::open_dir`]).
    pub fn format(backend: impl StorageBackend, replica: ReplicaId) -> Result<(), FormatError> {
        let failed = |cause: redb::Error| FormatError::Write { cause };
        let bytes = backend.len().map_err(|cause| failed(cause.into()))?;
        if bytes > 0 {
            return Err(FormatError::NotEmpty { bytes });
        }
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|cause| failed(cause.into()))?;
        write_identity(&db, replica).map_err(failed)?;
        db.close().map_err(|cause| failed(cause.into()))
    }

    /// Opens a store that was made before, and checks everything in it.
    pub fn open(backend: impl StorageBackend, replica: ReplicaId) -> Result<Store, OpenError> {
        if backend.len().map_err(|cause| storage(StorageError::Io(cause)))? == 0 {
            return Err(OpenError::Empty);
        }
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(database)?;
        let records = Records::read(&db)?;
        if records.identity.replica != replica {
            return Err(OpenError::OtherReplica { found: records.identity.replica, wanted: replica });
        }
        let (runs, entries) = read_log(&db, records.truncated)?;
        records.check(&entries)?;
        let entries: VecDeque<_> = entries.into_iter().map(Into::into).collect();
        Ok(Store {
            db,
            identity: records.identity,
            hard_state: records.hard_state,
            conf_state: records.conf_state,
            truncated: records.truncated,
            entry_bytes: entries.iter().map(super::size).sum(),
            entries,
            runs,
            snapshot: records.snapshot.map(Into::into),
        })
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Makes the store under another name and renames it, so that under its own name it is always whole.
fn format_dir(dir: &Path, replica: ReplicaId) -> Result<(), FormatError> {
    let unfinished = dir.join(UNFINISHED);
    let failed = |cause| FormatError::File { path: unfinished.clone(), cause };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = open_file(&unfinished).map_err(failed)?;
    // What an earlier try left.
    file.set_len(0).map_err(failed)?;
    let backend = FileBackend::new(file).map_err(|cause| FormatError::Write { cause: cause.into() })?;
    Store::format(backend, replica)?;
    std::fs::rename(&unfinished, dir.join(FILE)).map_err(failed)?;
    // Without this the name may be gone after a crash, and with it every vote that was cast since.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn write_identity(db: &Database, replica: ReplicaId) -> Result<(), redb::Error> {
    let transaction = db.begin_write()?;
    {
        transaction.open_table(LOG)?;
        let mut state = transaction.open_table(STATE)?;
        let format = record::seal(name::FORMAT.as_bytes(), &FORMAT.to_be_bytes());
        state.insert(name::FORMAT, format.as_slice())?;
        let identity = record::write(name::IDENTITY.as_bytes(), &Identity { replica, life: 0 })
            .expect("an identity is within its limit");
        state.insert(name::IDENTITY, identity.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// The records of the table `state`.
struct Records {
    identity: Identity,
    hard_state: HardState,
    conf_state: ConfState,
    truncated: Position,
    snapshot: Option<Snapshot>,
}

impl Records {
    fn read(db: &Database) -> Result<Records, OpenError> {
        let transaction = db.begin_read().map_err(|cause| OpenError::Read { cause: cause.into() })?;
        let state = transaction.open_table(STATE).map_err(|cause| damaged("the table of states", cause))?;
        let raw = |key: &'static str| state.get(key).map_err(storage);
        let Some(format) = raw(name::FORMAT)? else {
            return Err(damaged("the format record", "it is missing"));
        };
        let format = record::unseal(name::FORMAT.as_bytes(), format.value())
            .map_err(|cause| damaged("the format record", cause))?;
        let found = <[u8; 4]>::try_from(format).map(u32::from_be_bytes);
        let found = found.map_err(|cause| damaged("the format record", cause))?;
        if found != FORMAT {
            return Err(OpenError::Version { found });
        }
        fn decoded<T: bincode::Decode<()> + protocol::codec::Limited>(
            key: &'static str,
            value: Option<redb::AccessGuard<'_, &'static [u8]>>,
        ) -> Result<Option<T>, OpenError> {
            let read = |value: redb::AccessGuard<'_, &'static [u8]>| record::read(key.as_bytes(), value.value());
            value.map(read).transpose().map_err(|cause: RecordError| damaged(format!("the record `{key}`"), cause))
        }
        let identity = decoded(name::IDENTITY, raw(name::IDENTITY)?)?;
        Ok(Records {
            identity: identity.ok_or_else(|| damaged("the record `identity`", "it is missing"))?,
            hard_state: decoded(name::HARD_STATE, raw(name::HARD_STATE)?)?.unwrap_or_default(),
            conf_state: decoded(name::CONF_STATE, raw(name::CONF_STATE)?)?.unwrap_or_default(),
            truncated: decoded(name::TRUNCATED, raw(name::TRUNCATED)?)?.unwrap_or_default(),
            snapshot: decoded(name::SNAPSHOT, raw(name::SNAPSHOT)?)?,
        })
    }

    /// What each record says must fit the others.
    fn check(&self, entries: &[Entry]) -> Result<(), OpenError> {
        let last = entries.last().map_or(self.truncated.index, |entry| entry.index);
        let last_term = entries.last().map_or(self.truncated.term, |entry| entry.term);
        let HardState { term, commit, .. } = self.hard_state;
        if commit > last || commit < self.truncated.index {
            let cause = format!("{commit} is committed, and the log holds {}..={last}", self.truncated.index + 1);
            return Err(damaged("the log", cause));
        }
        if last_term > term {
            return Err(damaged("the hard state", format!("its term is {term}, the log's is {last_term}")));
        }
        let snapshot = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        if snapshot < self.truncated.index || snapshot > commit {
            let cause = format!("it ends at {snapshot}, the log starts after {}", self.truncated.index);
            return Err(damaged("the snapshot", cause));
        }
        Ok(())
    }
}

fn read_log(db: &Database, truncated: Position) -> Result<(Runs, Vec<Entry>), OpenError> {
    let transaction = db.begin_read().map_err(|cause| OpenError::Read { cause: cause.into() })?;
    let log = transaction.open_table(LOG).map_err(|cause| damaged("the table of entries", cause))?;
    Runs::read(&log, truncated).map_err(|error| match error {
        runs::ReadError::Storage(cause) => storage(cause),
        runs::ReadError::Damaged { what, cause } => damaged(what, cause),
    })
}
