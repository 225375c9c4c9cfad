//! The folder of one attempt: which files it has, who writes each, and what they say after a crash.
//!
//! | file | written by | says |
//! |---|---|---|
//! | `plan.json` | agent | what to run |
//! | `guard.lock` | guard holds a lock on it while it lives | whether a guard lives |
//! | `resize.json` | agent | which members are to come and go while it runs |
//! | `started.json` | guard | the plan was begun, and is never begun again |
//! | `revoked` | agent, holding the lock | a late guard must not start |
//! | `stop.json` | agent | the attempt is to be stopped |
//! | `outcome.json` | guard, or the agent holding the lock | how it ended, and whether nothing of it is left |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use protocol::errors::FailureClass;
use serde::{Deserialize, Serialize};

use super::durable;
use super::plan::Resize;

/// One attempt's folder.
#[derive(Debug, Clone)]
pub struct Record {
    dir: PathBuf,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Ending {
    /// Every deciding process ended with 0.
    Succeeded,
    /// It failed.
    Failed {
        /// Whose failure.
        class: FailureClass,
        /// What happened.
        message: String,
        /// The exit code that decided, where there was one.
        exit_code: Option<i32>,
    },
    /// It was stopped by order.
    Stopped,
}

/// The decided ending, and whether it is complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Whether no process of the attempt is left.
    pub gone: bool,
}

/// An order to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Between the polite and the hard end, in ms.
    pub grace_ms: u64,
    /// Who wants it.
    pub why: StopWhy,
}

/// Who wants an attempt to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopWhy {
    /// The coordinator ordered it: the attempt counts as stopped.
    Order,
    /// The agent's machine or process is being shut down: the attempt counts as failed by the infrastructure.
    Shutdown,
    /// Nobody let it go on: the attempt counts as failed by the infrastructure.
    Fence,
}

impl StopWhy {
    /// The ending of an attempt that ended for this reason.
    pub fn ending(self) -> Ending {
        match self {
            StopWhy::Order => Ending::Stopped,
            StopWhy::Shutdown => Ending::Failed {
                class: FailureClass::Infrastructure,
                message: "ended because its agent was shut down".into(),
                exit_code: None,
            },
            StopWhy::Fence => Ending::Failed {
                class: FailureClass::Infrastructure,
                message: "it ended itself: nobody let it go on (spec.failoverAfter)".into(),
                exit_code: None,
            },
        }
    }
}

/// Written by a guard before the first process starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The guard's process id.
    pub guard_pid: u32,
}

impl Record {
    /// The record in this folder, which need not exist yet.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes the guard's lock; `None` where a guard (or another agent) holds it.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.path("guard.lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Forbids every later guard to start; the caller holds the lock.
    pub fn revoke(&self) -> io::Result<()> {
        durable::write(&self.path("revoked"), b"")
    }

    /// Whether a guard is forbidden to start.
    pub fn is_revoked(&self) -> bool {
        self.path("revoked").exists()
    }

    /// Whether a guard has begun the plan.
    pub fn started(&self) -> io::Result<Option<Started>> {
        durable::read_json(&self.path("started.json"))
    }

    /// The order to stop, where there is one.
    pub fn stop(&self) -> io::Result<Option<Stop>> {
        durable::read_json(&self.path("stop.json"))
    }

    /// Makes an order to stop durable. The first cause stays: an attempt that was stopped by order is `Stopped` even
    /// where the agent is shut down before it is gone.
    pub fn order_stop(&self, stop: Stop) -> io::Result<Stop> {
        let why = match self.stop()? {
            Some(Stop { why: StopWhy::Order, .. }) => StopWhy::Order,
            _ => stop.why,
        };
        let stop = Stop { why, ..stop };
        durable::write_json(&self.path("stop.json"), &stop)?;
        Ok(stop)
    }

    /// Which members are to come and go, where that was ordered.
    pub fn resize(&self) -> io::Result<Option<Resize>> {
        durable::read_json(&self.path("resize.json"))
    }

    /// Makes an order of which members are to come and go durable.
    pub fn order_resize(&self, resize: &Resize) -> io::Result<()> {
        durable::write_json(&self.path("resize.json"), resize)
    }

    /// How it ended, where that is decided.
    pub fn outcome(&self) -> io::Result<Option<Outcome>> {
        durable::read_json(&self.path("outcome.json"))
    }

    /// Makes the outcome durable.
    pub fn decide(&self, outcome: &Outcome) -> io::Result<()> {
        durable::write_json(&self.path("outcome.json"), outcome)
    }

    /// Removes folders that only this attempt used.
    pub fn remove_scratch(scratch: &[PathBuf]) {
        for dir in scratch {
            // What cannot be removed is only room on a disk; the attempt's ending does not hang on it.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_exclusive_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(dir.path());
        let held = record.try_lock().unwrap().unwrap();
        assert!(record.try_lock().unwrap().is_none());
        drop(held);
        assert!(record.try_lock().unwrap().is_some());
    }

    #[test]
    fn a_stop_by_order_stays_one_when_the_agent_is_shut_down_later() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(dir.path());
        record.order_stop(Stop { grace_ms: 9, why: StopWhy::Order }).unwrap();
        let now = record.order_stop(Stop { grace_ms: 1, why: StopWhy::Shutdown }).unwrap();
        assert_eq!(now, Stop { grace_ms: 1, why: StopWhy::Order });
        assert_eq!(record.stop().unwrap(), Some(now));
    }
}
