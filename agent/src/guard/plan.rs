//! What a guard runs: processes with their environment, folder and log, and which of them decide the outcome.
//!
//! The agent's runtime writes a plan; the guard reads it once. Nothing here knows Ray, Spark or batch.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use pod_guard::{MARK, MEMBER};
use serde::{Deserialize, Serialize};

/// Everything that one attempt runs, at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The attempt's id; each process carries it in [`MARK`].
    pub attempt: String,
    /// The processes, started in this order.
    pub processes: Vec<Process>,
    /// When the attempt counts as running.
    pub ready: Ready,
    /// Between the polite and the hard end of what is left once the outcome is decided, in ms.
    pub end_grace_ms: u64,
    /// A file (see [`Verdict`]) in which a deciding process may say why it failed; absent or unreadable is no error.
    #[serde(default)]
    pub verdict: Option<PathBuf>,
    /// Folders that only this attempt uses; removed once it is gone.
    #[serde(default)]
    pub scratch: Vec<PathBuf>,
    /// How long the attempt goes on without being let, in ms; left out: for ever.
    #[serde(default)]
    pub fence_ms: Option<u64>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The member's name, such as `workers-0`; names its log.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment: nothing is inherited from the guard.
    pub env: BTreeMap<String, String>,
    /// The folder that it starts in.
    pub cwd: PathBuf,
    /// The file that its output is appended to.
    pub log: PathBuf,
    /// What its end means.
    pub role: Role,
}

/// What the end of a process means for its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The attempt succeeds once all of these ended with 0, and fails with the first that did not.
    Decides,
    /// The attempt fails, by no fault of the user's program, if it ends before the outcome is decided.
    Supports,
    /// The attempt goes on without it.
    Extra,
}

/// More processes, and the end of some, while the attempt runs. In the attempt's folder; a later one replaces it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Processes that are to run beside the plan's. One that was started before, or is in `end`, is not started.
    pub start: Vec<Process>,
    /// Members that are to end, by name.
    pub end: Vec<String>,
    /// Between the polite and the hard end of those, in ms.
    pub grace_ms: u64,
}

/// When an attempt counts as running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// Once every process is started.
    Started,
    /// Once this file says `running`; until then its text is what the attempt waits for.
    File(PathBuf),
}

/// Why a deciding process failed, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whose failure.
    pub class: protocol::errors::FailureClass,
    /// What happened.
    pub message: String,
    /// The program's exit code, where it is known.
    #[serde(default)]
    pub exit_code: Option<i32>,
}
