//! Logs of attempts whose pods are gone: copied into files of this machine as an attempt ends, and kept there for a while.
//!
//! The copy is opened before the pods are ordered to go, and goes on until they have ended, so that what a program says in its grace is in
//! it. It never keeps an attempt from ending: what can't be read in time is lost, and the log says so.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use protocol::ids::AttemptId;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::attempt::Task;
use super::logs::{KubernetesLog, LogError, Reading, Whose};

/// How long the end waits for the logs of pods that have ended.
const READ: Duration = Duration::from_secs(10);
/// How long it waits until the logs of those that still run are open.
const OPEN: Duration = Duration::from_secs(2);
/// The most that is kept of an attempt, in bytes: what a kubelet keeps of six containers by default.
const MOST_BYTES: u64 = 64 << 20;
const PIECE: usize = 64 * 1024;

/// The folder of the kept logs.
#[derive(Debug, Clone)]
pub(super) struct KeptLogs {
    /// None: nothing is kept.
    folder: Option<PathBuf>,
    retention: Duration,
}

impl KeptLogs {
    pub(super) fn new(folder: Option<PathBuf>, retention: Duration) -> Self {
        Self { folder, retention }
    }

    fn place(&self, attempt: AttemptId) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{attempt}.log")))
    }

    /// The kept log of an attempt: all of it, or what there is of it yet.
    pub(super) async fn read(&self, attempt: AttemptId) -> Result<KubernetesLog, LogError> {
        let place = self.place(attempt).ok_or(LogError::Unknown)?;
        for place in [place.clone(), unfinished(&place)] {
            match File::open(&place).await {
                Ok(file) => return Ok(stream(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::Kept { place: place.display().to_string(), cause: error }),
            }
        }
        Err(LogError::Unknown)
    }

    /// Whether all that will be kept of an attempt is there.
    pub(super) async fn is_whole(&self, attempt: AttemptId) -> bool {
        let Some(place) = self.place(attempt) else { return false };
        fs::try_exists(place).await.unwrap_or(false)
    }

    /// Deletes what is older than it is to be kept.
    pub(super) async fn tidy(&self) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut entries = match fs::read_dir(folder).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        while let Some(entry) = entries.next_entry().await? {
            let age = SystemTime::now().duration_since(entry.metadata().await?.modified()?);
            if age.is_ok_and(|age| age > self.retention) {
                fs::remove_file(entry.path()).await?;
            }
        }
        Ok(())
    }
}

fn unfinished(place: &std::path::Path) -> PathBuf {
    place.with_extension("log.part")
}

fn stream(mut file: File) -> KubernetesLog {
    let (pieces, log) = KubernetesLog::channel();
    tokio::spawn(async move {
        loop {
            let mut piece = bytes::BytesMut::with_capacity(PIECE);
            let read = match file.read_buf(&mut piece).await {
                Ok(0) => return,
                Ok(_) => Ok(piece.freeze()),
                Err(error) => Err(error),
            };
            let broken = read.is_err();
            if pieces.send(read).await.is_err() || broken {
                return;
            }
        }
    });
    log
}

/// Begins to copy the log of an attempt that is about to be deleted, which has ended by itself or not. Returns once its pods may go.
pub(super) async fn keep(task: &Task, namespace: Option<&str>, by_itself: bool) {
    let (inner, attempt) = (&task.inner, task.attempt);
    let Some(place) = inner.kept.place(attempt) else { return };
    if inner.kept.is_whole(attempt).await {
        return;
    }
    let mut log = match KubernetesLog::open(&inner.calls, namespace, attempt, Whose::Program, Reading::ToTheEnd).await {
        Ok(log) => log,
        Err(LogError::Unknown) => return,
        Err(error) => return tracing::warn!(%attempt, %error, "its log is not kept"),
    };
    // Whoever submits to Ray prints the last of the job's log after the job has ended, from Ray's head.
    let (opened, runs) = (log.opened(), log.members_run || (log.submitter_runs && !by_itself));
    let (end, copied) = (inner.end.clone(), {
        let place = place.clone();
        async move {
            if let Err(error) = copy(log, &place).await {
                tracing::warn!(%attempt, place = %place.display(), %error, "its log is not kept whole");
            }
        }
    });
    let copying = tokio::spawn(async move {
        tokio::select! {
            () = copied => {}
            () = end.cancelled() => {}
        }
    });
    // Where they run on, they end because they are deleted.
    let in_time = if runs {
        tokio::time::timeout(OPEN, opened).await.is_ok()
    } else {
        tokio::time::timeout(READ, copying).await.is_ok()
    };
    if !in_time {
        tracing::warn!(%attempt, "its log was not read in time, and may not be kept whole");
    }
}

async fn copy(mut log: KubernetesLog, place: &std::path::Path) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder).await?;
    }
    let part = unfinished(place);
    let mut file = File::create(&part).await?;
    let mut written = 0;
    while let Some(piece) = log.next().await {
        let bytes = match piece {
            Ok(bytes) => bytes,
            Err(error) => {
                // Of the others there may be more.
                file.write_all(format!("[the rest of a log could not be read: {error}]\n").as_bytes()).await?;
                continue;
            }
        };
        written += bytes.len() as u64;
        if written > MOST_BYTES {
            file.write_all(
                format!("[the log is longer than {} MiB: the rest is not kept]\n", MOST_BYTES >> 20).as_bytes(),
            )
            .await?;
            break;
        }
        file.write_all(&bytes).await?;
    }
    file.flush().await?;
    fs::rename(&part, place).await
}
